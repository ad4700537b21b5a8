/*
 * batches.c
 *		Procedures that work through the jobs of a filter in batches and commit each.
 *
 * The jobs are walked once in id order, from the lowest that matches at the
 * start up to the highest id that the table has then, so that nothing is visited
 * twice and new jobs cannot make the walk endless.  Each batch is a transaction
 * of its own: it is locked, written and committed, so that nobody waits for more
 * than a batch, and whoever stops the procedure undoes no more than the batch
 * that is under way.
 *
 * A transaction that fails is rolled back within a subtransaction first, since
 * only the abort of a subtransaction cleans up after whatever the error has
 * left (SPI levels of triggers, say).  Nothing of a table outlives its
 * transaction here: the table is looked up, and the filter and the changes are
 * read, for each batch.
 */
#include "verbs/verbs.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/* How often a batch that loses to a deadlock or a conflict is tried, and the first wait between */
#define MAX_TRIES  8
#define FIRST_WAIT 0.1 /* seconds; each further one is twice as long */

/*
 * What holds for the whole walk as it was at its start, for what SET LOCAL has
 * set ends with the first commit: who acts, on which table, and who is told.  In
 * this order, since a session authorization resets the role.
 */
static const char *const kept_settings[] = {"session_authorization", "role", "oban_manage.prefix",
											"oban_manage.notify"};

/* A walk over the jobs of a filter */
typedef struct Walk
{
	OmVerb verb;
	const Jsonb *filter;
	const Jsonb *changes; /* update */
	const text *prefix;	  /* NULL: oban_manage.prefix */
	const char *settings[lengthof(kept_settings)];
	int32 batch_size;
	double pause;	 /* seconds */
	OmSpread spread; /* over the jobs that matched at the start; its rank is of the next batch */

	TimestampTz start;
	OmSurveyRow survey; /* the jobs at the start */

	int64 next;			   /* all jobs below this id are done, */
	int64 done;			   /* and so many were changed */
	MemoryContext context; /* reset after each try of a transaction */

	/* Of the batch that is being tried */
	int found; /* rows that were locked, */
	int njobs; /* and how many jobs these are */
	uint64 changed;
	int64 reached; /* all jobs up to this id */
} Walk;

typedef void (*WalkStep)(Walk *walk);

/*
 * Commits are refused in a transaction block and wherever else the caller's
 * transaction must go on: in functions, for one.
 */
static void
check_may_commit(FunctionCallInfo fcinfo)
{
	bool may_commit = fcinfo->context != NULL && IsA(fcinfo->context, CallContext) &&
					  !castNode(CallContext, fcinfo->context)->atomic && !IsSubTransaction();

	if (!may_commit)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("batches cannot be committed inside a transaction block"),
				 errdetail("The procedure commits each batch of jobs by itself."),
				 errhint("CALL it on its own, with autocommit: not after BEGIN, not in a function, "
						 "and not in a procedure with EXCEPTION, SET or SECURITY DEFINER.")));
}

/*
 * An interval in microseconds, with months of 30 days.
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
 * A setting's value; NULL for the session_authorization of a process that no
 * role has logged in to.
 */
static const char *
setting(int i)
{
	return GetConfigOption(kept_settings[i], false, false);
}

static void
keep_settings(Walk *walk)
{
	for (int i = 0; i < (int) lengthof(kept_settings); i++)
		walk->settings[i] = setting(i) == NULL ? NULL : pstrdup(setting(i));
}

/*
 * SET LOCAL what is no longer as it was.
 */
static void
restore_settings(const Walk *walk)
{
	for (int i = 0; i < (int) lengthof(kept_settings); i++)
	{
		const char *was = walk->settings[i];

		if (was != NULL && strcmp(was, setting(i)) != 0)
			(void) set_config_option(kept_settings[i], was, PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_LOCAL, true, 0, false);
	}
}

/*
 * Find the jobs table, and read the filter and the changes for it.
 */
static void
begin_call(Walk *walk, OmCall *call)
{
	restore_settings(walk);
	memset(call, 0, sizeof(*call));
	call->verb = walk->verb;
	call->jobs = om_jobs_table_by_prefix(walk->prefix, RowExclusiveLock);
	om_filter_read(&call->filter, walk->filter, call->jobs);
	if (walk->verb == OM_UPDATE)
		om_changes_check(&call->changes, walk->changes, call->jobs);
	if (walk->spread.length > 0)
		call->spread = &walk->spread;
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
 * See how many jobs there are to change, and how far the walk goes.
 */
static void
survey(Walk *walk)
{
	OmCall call;
	Datum params[OM_N_CONDITIONS];

	begin_call(walk, &call);
	(void) om_filter_params(&call.filter, params);
	om_query_run(
		call.jobs,
		(OmQuery){.step = OM_SURVEY, .verb = call.verb, .conditions = call.filter.conditions},
		params, note_survey, walk);
}

/*
 * Change the next batch.  The jobs above the highest that matched at the start
 * are batches of their own, for going through many that do not match takes time
 * in which the last jobs that do would stay locked.
 */
static void
change_batch(Walk *walk)
{
	int64 end = walk->next <= walk->survey.highest ? walk->survey.highest : walk->survey.last;
	OmCall call;

	begin_call(walk, &call);
	om_filter_add(&call.filter, OM_ID_FROM, walk->next);
	om_filter_add(&call.filter, OM_ID_UP_TO, end);
	om_filter_add(&call.filter, OM_LIMIT, walk->batch_size);

	walk->changed = om_call_run(&call);
	walk->found = call.nrows;
	walk->njobs = call.found.count;
	/*
	 * Should the last job have got a lower id while we waited for it, some are
	 * looked at again; a higher one cannot be told from its own.
	 */
	walk->reached = walk->found < walk->batch_size ? end : Max(call.last, walk->next);
}

static void
batch_error_callback(void *arg)
{
	const Walk *walk = arg;

	if (om_is_error())
		errcontext("batch of jobs from id " INT64_FORMAT " on, after " INT64_FORMAT
				   " jobs that were %s and committed",
				   walk->next, walk->done, om_verbs[walk->verb].participle);
}

/*
 * Run a step in a transaction and commit it.  Returns false when it lost to a
 * deadlock or a serialization failure and was rolled back, unless this was the
 * last try; other errors are raised.
 */
static bool
try_step(Walk *walk, WalkStep step, bool last_try)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool committed = false;

	PG_TRY();
	{
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(walk->context);
		step(walk);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		SPI_commit();
		committed = true;
	}
	PG_CATCH();
	{
		ErrorData *error;
		bool lost;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		lost = error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
			   error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE;

		/*
		 * Nobody else would end our subtransaction, whatever the error.  There
		 * is none when the commit failed, which has begun a new transaction; for
		 * its new snapshot, so must we.
		 */
		if (IsSubTransaction())
		{
			RollbackAndReleaseCurrentSubTransaction();
			MemoryContextSwitchTo(caller);
			CurrentResourceOwner = owner;
			if (lost && !last_try)
				SPI_rollback();
		}
		if (!lost || last_try)
			ReThrowError(error);
		ereport(DEBUG1, (errmsg_internal("trying again: %s", error->message)));
		FreeErrorData(error);
	}
	PG_END_TRY();

	MemoryContextReset(walk->context);
	return committed;
}

/*
 * Sleep between two transactions, so that the now() of the next one comes after
 * it: the end of the last one has begun it already.
 */
static void
sleep_for(double seconds)
{
	if (seconds > 0)
	{
		(void) DirectFunctionCall1(pg_sleep, Float8GetDatum(seconds));
		SPI_commit();
	}
}

static void
run_step(Walk *walk, WalkStep step)
{
	double wait = FIRST_WAIT;

	for (int tries = 1; !try_step(walk, step, tries == MAX_TRIES); tries++)
	{
		sleep_for(wait);
		wait *= 2;
	}
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
					om_verbs[walk->verb].participle, walk->done, total, rate, left)));
}

static void
run_walk(Walk *walk)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = batch_error_callback,
		.arg = walk,
	};

	/* The first transaction is the caller's, whose own work is in it: that is not tried again. */
	(void) try_step(walk, survey, true);
	error_context_stack = &callback;
	while (walk->survey.count > 0)
	{
		run_step(walk, change_batch);
		walk->done += walk->changed;
		walk->spread.rank += walk->njobs;
		if (walk->found > 0)
			report_progress(walk);

		if (walk->reached >= walk->survey.last)
			break;
		walk->next = walk->reached + 1;
		if (walk->found > 0)
			sleep_for(walk->pause);
	}
	error_context_stack = callback.previous;
}

/*
 * What the procedures have in common: after the filter, and the changes of an
 * update, come batch_size, pause, the spread of a retry, prefix and affected.
 */
static Datum
run_in_batches(FunctionCallInfo fcinfo, OmVerb verb)
{
	int argno = 0;
	Walk walk = {.verb = verb};
	TupleDesc desc;
	Datum affected;
	bool isnull = false;

	check_may_commit(fcinfo);
	PreventCommandIfReadOnly(get_func_name(fcinfo->flinfo->fn_oid));
	keep_settings(&walk);
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
	}
	walk.prefix = PG_ARGISNULL(argno) ? NULL : PG_GETARG_TEXT_PP(argno);

	/* Now, for the extension may be dropped while the walk lasts. */
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);

	walk.context =
		AllocSetContextCreate(CurrentMemoryContext, "oban_manage batch", ALLOCSET_DEFAULT_SIZES);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	run_walk(&walk);
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
 *		Do to the jobs that match the filter what the verb does, batch_size of
 *		them in each transaction, with a pause after each, and a NOTICE of how
 *		far it is; "affected" gives how many jobs were changed.  Retried jobs run
 *		over the time of the spread from now on: each by its rank in id order
 *		among the jobs that were found at the start.
 *
 * Errors: not on its own (25001); NULL batch_size, pause or spread (22004);
 * batch_size below 1, negative pause or spread (22023); a spread beyond the
 * range of times (22008); those of om_jobs_table_by_prefix, om_filter_read and
 * om_changes_check; and what changing the jobs raises.  A deadlock or a
 * serialization failure (40P01, 40001) is raised when the batch was tried
 * MAX_TRIES times, or at once when it is met before the first batch.
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
