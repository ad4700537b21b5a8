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
#include "functions/batch_transactions.h"
#include "verbs/verbs.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

/* A walk over the jobs of a filter */
typedef struct Walk
{
	const Jsonb *filter;
	const Jsonb *changes; /* update */
	const text *prefix;	  /* NULL: oban_manage.prefix */
	int32 batch_size;
	double pause;	 /* seconds */
	OmSpread spread; /* over the jobs that matched at the start; rank is that of the next batch */

	TimestampTz start;
	OmSurveyRow survey; /* the jobs at the start */

	int64 next; /* all jobs below this id are done */
	int64 done; /* how many jobs were changed */

	OmCall call;	/* of the current batch; verb and spread are the same for all */
	uint64 changed; /* jobs changed in the current batch */
	int64 reached;	/* the batch covers all jobs up to this id */
} Walk;

/*
 * An interval argument in microseconds, with months of 30 days.
 */
static double
interval_argument(FunctionCallInfo fcinfo, int argno, const char *name)
{
	const Interval *interval;
	double microseconds;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name)));
	interval = PG_GETARG_INTERVAL_P(argno);
	microseconds = (double) interval->time +
				   ((double) interval->month * DAYS_PER_MONTH + interval->day) * USECS_PER_DAY;
	if (microseconds < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s must not be negative", name)));
	return microseconds;
}

static int32
batch_size_argument(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("batch_size must not be null")));
	if (PG_GETARG_INT32(argno) < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("batch_size must be at least 1")));
	return PG_GETARG_INT32(argno);
}

/*
 * Begin the call of a batch: find the jobs table, and read the filter and the changes
 * for it.
 */
static OmCall *
begin_call(Walk *walk)
{
	OmCall *call = &walk->call;

	*call = (OmCall){
		.verb = call->verb,
		.spread = call->spread,
		.jobs = om_jobs_table_by_prefix(walk->prefix, RowExclusiveLock),
	};
	om_filter_read(&call->filter, walk->filter, call->jobs);
	if (call->verb == OM_UPDATE)
		om_changes_check(&call->changes, walk->changes, call->jobs);
	return call;
}

static void
note_survey(TupleTableSlot *slot, void *state)
{
	Walk *walk = state;

	om_survey_row_read(slot, &walk->survey);
	walk->spread.total = walk->survey.count;
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
 * Change the next batch.  The jobs above the highest id that matched at the start get
 * batches of their own.  To go through many jobs that do not match takes time, and the
 * last matching jobs would stay locked for that time.
 */
static void
change_batch(void *state)
{
	Walk *walk = state;
	int64 end = walk->next <= walk->survey.highest ? walk->survey.highest : walk->survey.last;
	OmCall *call = begin_call(walk);

	om_filter_add(&call->filter, OM_ID_FROM, walk->next);
	om_filter_add(&call->filter, OM_ID_UP_TO, end);
	om_filter_add(&call->filter, OM_LIMIT, walk->batch_size);
	walk->changed = om_call_run(call);

	/*
	 * The id of the last job may have changed while we waited for its lock.  If it
	 * is lower now, some jobs are looked at again.  If it is higher, we cannot notice.
	 */
	walk->reached = call->nrows < walk->batch_size ? end : Max(call->last, walk->next);
}

static void
batch_error_callback(void *arg)
{
	const Walk *walk = arg;

	if (om_is_error())
		errcontext("batch of jobs from id " INT64_FORMAT " on, after " INT64_FORMAT
				   " jobs that were %s and committed",
				   walk->next, walk->done, om_verbs[walk->call.verb].participle);
}

static void
report_progress(const Walk *walk)
{
	double elapsed = Max(GetCurrentTimestamp() - walk->start, 1) / (double) USECS_PER_SEC;
	double rate = walk->done / elapsed;
	int64 total = Max(walk->survey.count, walk->done);
	char left[32] = "unknown time";

	if (rate > 0)
		snprintf(left, sizeof(left), "%.0f s", (total - walk->done) / rate);
	ereport(NOTICE,
			(errmsg("%s " INT64_FORMAT " of about " INT64_FORMAT " jobs, %.0f per second, %s left",
					om_verbs[walk->call.verb].participle, walk->done, total, rate, left)));
}

static void
run_walk(Walk *walk, OmTransactions *transactions)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = batch_error_callback,
		.arg = walk,
	};

	om_transactions_run_once(transactions, survey, walk);
	error_context_stack = &callback;
	while (walk->survey.count > 0)
	{
		om_transactions_run(transactions, change_batch, walk);
		walk->done += walk->changed;
		walk->spread.rank += walk->call.found.count;
		if (walk->call.nrows > 0)
			report_progress(walk);

		if (walk->reached >= walk->survey.last)
			break;
		walk->next = walk->reached + 1;
		if (walk->call.nrows > 0)
			om_transactions_sleep(walk->pause);
	}
	error_context_stack = callback.previous;
}

/*
 * The common part of the procedures.  Arguments: the filter, the changes (update),
 * batch_size, pause, spread (retry), prefix, affected.
 */
static Datum
run_in_batches(FunctionCallInfo fcinfo, OmVerb verb)
{
	int argno = 0;
	Walk walk = {.call.verb = verb};
	OmTransactions transactions;
	TupleDesc desc;
	Datum affected;
	bool isnull = false;

	om_transactions_check(fcinfo);
	PreventCommandIfReadOnly(get_func_name(fcinfo->flinfo->fn_oid));
	om_transactions_init(&transactions);
	walk.filter = om_jsonb_argument(fcinfo, argno++);
	if (verb == OM_UPDATE)
		walk.changes = om_jsonb_argument(fcinfo, argno++);
	walk.batch_size = batch_size_argument(fcinfo, argno++);
	walk.pause = interval_argument(fcinfo, argno++, "pause") / USECS_PER_SEC;
	walk.start = GetCurrentTimestamp();
	if (verb == OM_RETRY)
	{
		walk.spread.start = walk.start;
		walk.spread.length = interval_argument(fcinfo, argno++, "spread");
		if (!(walk.start + walk.spread.length < (double) OM_END_TIME))
			ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
							errmsg("spread is out of range")));
		if (walk.spread.length > 0)
			walk.call.spread = &walk.spread;
	}
	walk.prefix = PG_ARGISNULL(argno) ? NULL : PG_GETARG_TEXT_PP(argno);

	/* Look this up now, because the extension may be dropped during the walk. */
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	run_walk(&walk, &transactions);
	SPI_finish();

	affected = Int64GetDatum(walk.done);
	return HeapTupleGetDatum(heap_form_tuple(desc, &affected, &isnull));
}

/*
 * oban_cancel_in_batches(filter jsonb, batch_size integer, pause interval, prefix text,
 * INOUT affected bigint)
 * oban_retry_in_batches(filter jsonb, batch_size integer, pause interval, spread interval,
 * prefix text, INOUT affected bigint)
 * oban_delete_in_batches(filter jsonb, batch_size integer, pause interval, prefix text,
 * INOUT affected bigint)
 * oban_update_in_batches(filter jsonb, changes jsonb, batch_size integer, pause interval,
 * prefix text, INOUT affected bigint)
 *		Cancel, retry, delete or update the jobs that match the filter, batch_size of
 *		them in each transaction.  After each transaction come a NOTICE of the
 *		progress and a pause.  "affected" is the number of jobs changed.  Retried
 *		jobs start over the time of the spread, from now on: each by its rank in id
 *		order among the jobs that were found at the start.
 *
 * Errors: called where it cannot commit (25001); NULL batch_size, pause or spread (22004);
 * batch_size below 1, negative pause or spread (22023); a spread beyond the
 * range of times (22008); those of om_jobs_table_by_prefix, om_filter_read and
 * om_changes_check; and what changing the jobs raises.  A deadlock or a
 * serialization failure (40P01, 40001) is raised after a batch was tried MAX_TRIES
 * times, or immediately if it occurs before the first batch.
 */
PG_FUNCTION_INFO_V1(oban_cancel_in_batches);
PG_FUNCTION_INFO_V1(oban_retry_in_batches);
PG_FUNCTION_INFO_V1(oban_delete_in_batches);
PG_FUNCTION_INFO_V1(oban_update_in_batches);

Datum
oban_cancel_in_batches(PG_FUNCTION_ARGS)
{
	return run_in_batches(fcinfo, OM_CANCEL);
}

Datum
oban_retry_in_batches(PG_FUNCTION_ARGS)
{
	return run_in_batches(fcinfo, OM_RETRY);
}

Datum
oban_delete_in_batches(PG_FUNCTION_ARGS)
{
	return run_in_batches(fcinfo, OM_DELETE);
}

Datum
oban_update_in_batches(PG_FUNCTION_ARGS)
{
	return run_in_batches(fcinfo, OM_UPDATE);
}
