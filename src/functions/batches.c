/*
 * batches.c
 *		The SQL procedures that work through the jobs of a filter in batches, and commit
 *		each batch.
 *
 * A procedure goes through the jobs once, in id order: from the lowest id that matches
 * at the start to the highest id in the table at that time.  So no job is visited
 * twice, and new jobs cannot make the walk endless.  Each batch is locked, written and
 * committed in its own transaction (batch_transactions.c), by verbs/run.c.  Other
 * sessions wait for one batch at most, and stopping the procedure undoes only the
 * current batch.
 *
 * Nothing that we know of a table outlives its transaction.  Each batch looks up the
 * table, and reads the filter and the changes again.
 */
#include "functions/batch_progress.h"
#include "functions/batch_transactions.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

/* A walk over the jobs of a filter */
typedef struct Walk
{
	FunctionCallInfo fcinfo;
	int callable_argno; /* 0: no callable */
	const Jsonb *filter;
	const Jsonb *changes;  /* update */
	NullableDatum context; /* for the callable */
	const text *prefix;	   /* NULL: oban_manage.prefix */
	int32 batch_size;
	double pause;	/* seconds */
	int64 max_jobs; /* end the walk after so many changed jobs */
	bool skip_refused;
	bool skip_locked;
	OmSpread spread; /* over the jobs that matched at the start; rank is that of the next batch */

	OmSurveyRow survey; /* the jobs at the start */
	int64 next;			/* all jobs below this id are done */
	OmProgress progress;
	OmRefusals refusals;

	/* Of the current batch */
	OmCall call;
	uint64 looked_at; /* jobs that matched */
	uint64 found;	  /* of these, jobs that still matched when they were locked, or refused */
	uint64 changed;
	int64 reached; /* the batch covers all jobs up to this id */
} Walk;

/*
 * Begin the call of a batch: find the jobs table, and read the filter, the changes and
 * the callable for it.
 */
static OmCall *
begin_call(Walk *walk)
{
	OmCall *call = &walk->call;

	*call = (OmCall){
		.verb = walk->progress.verb,
		.spread = walk->spread.length > 0 ? &walk->spread : NULL,
		.skip_locked = walk->skip_locked,
		.refusals = walk->skip_refused ? &walk->refusals : NULL,
		.context = walk->context,
		.jobs = om_jobs_table_by_prefix(walk->prefix, RowExclusiveLock),
	};
	om_filter_read(&call->filter, walk->filter, call->jobs);
	if (walk->callable_argno > 0)
		call->callable = om_callable_argument(walk->fcinfo, walk->callable_argno, call->jobs);
	else if (call->verb == OM_UPDATE)
		om_changes_check(&call->changes, walk->changes, call->jobs);
	return call;
}

static void
note_survey(TupleTableSlot *slot, void *state)
{
	Walk *walk = state;

	om_survey_row_read(slot, &walk->survey);
	walk->spread.total = walk->progress.total = walk->survey.count;
	walk->next = walk->survey.lowest;
}

/*
 * Find out how many jobs there are to change, and where the walk begins and ends.
 */
static void
survey(void *state)
{
	Walk *walk = state;
	OmCall *call = begin_call(walk);
	OmQuery query = {
		.step = OM_SURVEY,
		.verb = call->verb,
		.conditions = call->filter.conditions,
	};
	Datum params[OM_N_CONDITIONS];

	(void) om_filter_params(&call->filter, params);
	om_query_run(call->jobs, query, params, note_survey, walk);
}

/*
 * With skip_refused, a deferred constraint must refuse a job while the batch can still
 * be divided, not when it is committed.
 */
static void
check_deferred_now(void)
{
	ConstraintsSetStmt *all = makeNode(ConstraintsSetStmt);

	AfterTriggerSetState(all);
}

/*
 * Change the next batch.  Its jobs are first looked for without a lock, because to find
 * them may take long when few jobs match; then they are locked and changed by their ids.
 * Jobs above the highest id that matched at the start get batches of their own.
 */
static void
change_batch(void *state)
{
	Walk *walk = state;
	int64 end = walk->next <= walk->survey.highest ? walk->survey.highest : walk->survey.last;
	uint64 most = Min(walk->batch_size, walk->max_jobs - walk->progress.done);
	OmCall *call = begin_call(walk);
	OmJobIds ids;

	om_progress_begin_batch(&walk->progress);
	om_filter_add(&call->filter, OM_ID_FROM, walk->next);
	om_filter_add(&call->filter, OM_ID_UP_TO, end);
	om_filter_add(&call->filter, OM_LIMIT, most);
	om_job_ids_init(&ids, 0);
	walk->looked_at = om_call_look(call, &ids);
	walk->reached = walk->looked_at < most ? end : om_job_ids_data(&ids)[ids.count - 1];
	walk->changed = walk->found = 0;
	if (ids.count == 0)
		return;
	if (walk->skip_refused)
		check_deferred_now();
	walk->changed = om_call_run_over(call, &ids, false);
	walk->found = call->found_before + (call->refusals == NULL ? call->found.count : 0);
}

static void
batch_error_callback(void *arg)
{
	const Walk *walk = arg;

	if (om_is_error())
		errcontext("batch of jobs from id " INT64_FORMAT " on, after " INT64_FORMAT
				   " jobs that were %s and committed",
				   walk->next, walk->progress.done, om_verbs[walk->progress.verb].participle);
}

static void
run_walk(Walk *walk, const OmTransactions *transactions)
{
	OmProgress *progress = &walk->progress;
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = batch_error_callback,
		.arg = walk,
	};

	om_transactions_run_once(transactions, survey, walk);
	progress->start = GetCurrentTimestamp();
	error_context_stack = &callback;
	while (walk->survey.count > 0)
	{
		om_transactions_run(transactions, change_batch, walk);
		progress->done += walk->changed;
		progress->passed += walk->skip_locked ? walk->looked_at - walk->found : 0;
		walk->spread.rank += walk->found;
		om_progress_end_batch(progress, walk->looked_at > 0);

		if (walk->reached >= walk->survey.last || progress->done >= walk->max_jobs)
			break;
		walk->next = walk->reached + 1;
		if (walk->looked_at > 0)
			om_transactions_sleep(walk->pause);
	}
	error_context_stack = callback.previous;
	om_progress_end(progress);
}

/*
 * Read the spread of a retry.
 */
static void
read_spread(Walk *walk, int argno)
{
	walk->spread.start = GetCurrentTimestamp();
	walk->spread.length = om_interval_argument(walk->fcinfo, argno, "spread");
	if (!(walk->spread.start + walk->spread.length < (double) OM_END_TIME))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("spread is out of range")));
}

/*
 * The common part of the procedures.  Arguments: the filter; the changes, or the
 * callable and its context (update); batch_size, pause, spread (retry), max_jobs,
 * skip_refused, skip_locked, prefix, affected.
 */
static Datum
run_in_batches(FunctionCallInfo fcinfo, OmVerb verb, bool callable)
{
	int argno = 0;
	Walk walk = {.fcinfo = fcinfo};
	OmTransactions transactions;
	TupleDesc desc;
	Datum affected;
	bool isnull = false;

	om_transactions_check(fcinfo);
	PreventCommandIfReadOnly(get_func_name(fcinfo->flinfo->fn_oid));
	om_transactions_init(&transactions);
	om_progress_init(&walk.progress, verb);
	walk.filter = om_jsonb_argument(fcinfo, argno++);
	if (callable)
	{
		walk.callable_argno = argno++;
		walk.context = om_context_argument(fcinfo, argno++);
	}
	else if (verb == OM_UPDATE)
		walk.changes = om_jsonb_argument(fcinfo, argno++);
	walk.batch_size = om_batch_size_argument(fcinfo, argno++);
	walk.pause = om_interval_argument(fcinfo, argno++, "pause") / USECS_PER_SEC;
	if (verb == OM_RETRY)
		read_spread(&walk, argno++);
	walk.max_jobs = om_max_jobs_argument(fcinfo, argno++);
	walk.skip_refused = om_boolean_argument(fcinfo, argno++, "skip_refused");
	walk.skip_locked = om_boolean_argument(fcinfo, argno++, "skip_locked");
	walk.refusals = (OmRefusals){.refused = om_progress_refused, .state = &walk.progress};
	walk.prefix = PG_ARGISNULL(argno) ? NULL : PG_GETARG_TEXT_PP(argno);

	/* Look this up now, because the extension may be dropped during the walk. */
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	run_walk(&walk, &transactions);
	SPI_finish();

	affected = Int64GetDatum(walk.progress.done);
	return HeapTupleGetDatum(heap_form_tuple(desc, &affected, &isnull));
}

/*
 * oban_cancel_in_batches(filter jsonb, batch_size integer, pause interval, max_jobs bigint,
 * skip_refused boolean, skip_locked boolean, prefix text, INOUT affected bigint)
 * oban_retry_in_batches(the same, with spread interval after pause)
 * oban_delete_in_batches(the same as oban_cancel_in_batches)
 * oban_update_in_batches(the same, with changes jsonb after filter)
 * oban_update_in_batches_with(the same, with callable regproc, context jsonb after filter)
 *		Cancel, retry, delete or update the jobs that match the filter, batch_size of
 *		them in each transaction.  After each transaction come a NOTICE of the
 *		progress, which is also shown in pg_stat_activity, and a pause.  "affected" is
 *		the number of jobs changed; after max_jobs of them the procedure ends.  Retried
 *		jobs start over the time of the spread, from now on: each by its rank in id
 *		order among the jobs that were found at the start.  skip_refused passes over
 *		jobs that the table refuses, each with a WARNING (OM_NAMED_REFUSED at most);
 *		skip_locked passes over jobs that another transaction holds.
 *
 * Errors: called where it cannot commit (25001); NULL batch_size, pause, spread,
 * skip_refused or skip_locked (22004); batch_size or max_jobs below 1, negative pause or
 * spread (22023); a spread beyond the range of times (22008); those of
 * om_jobs_table_by_prefix, om_filter_read, om_changes_check and om_callable_argument; and
 * what changing the jobs raises.  A deadlock or a serialization failure (40P01, 40001) is
 * raised after a batch was tried MAX_TRIES times (batch_transactions.c), or immediately
 * if it occurs before the first batch.
 */
PG_FUNCTION_INFO_V1(oban_cancel_in_batches);
PG_FUNCTION_INFO_V1(oban_retry_in_batches);
PG_FUNCTION_INFO_V1(oban_delete_in_batches);
PG_FUNCTION_INFO_V1(oban_update_in_batches);
PG_FUNCTION_INFO_V1(oban_update_in_batches_with);

Datum
oban_cancel_in_batches(PG_FUNCTION_ARGS)
{
	return run_in_batches(fcinfo, OM_CANCEL, false);
}

Datum
oban_retry_in_batches(PG_FUNCTION_ARGS)
{
	return run_in_batches(fcinfo, OM_RETRY, false);
}

Datum
oban_delete_in_batches(PG_FUNCTION_ARGS)
{
	return run_in_batches(fcinfo, OM_DELETE, false);
}

Datum
oban_update_in_batches(PG_FUNCTION_ARGS)
{
	return run_in_batches(fcinfo, OM_UPDATE, false);
}

Datum
oban_update_in_batches_with(PG_FUNCTION_ARGS)
{
	return run_in_batches(fcinfo, OM_UPDATE, true);
}
