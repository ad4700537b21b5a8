/*
 * update.c
 *		Updating jobs: the same checked changes to each of them.
 *
 * All of the jobs named are updated, or none.  One job takes one UPDATE where
 * that is enough; otherwise the jobs are locked in id order, looked at, and
 * written by one UPDATE.
 */
#include "oban_manage.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/lsyscache.h"

/* How many job ids an error names */
#define NAMED_JOBS 10

/* A call over a set of jobs, or one */
typedef struct UpdateCall
{
	Oid jobs;
	const OmChanges *changes;
	OmJobIds *ids;		/* distinct, in order */
	bool *done;			/* for each of them: has the running step done it? */
	OmJobIds scheduled; /* those that were scheduled and are due now */
	OmJobResult *result;
	OmSignals signals;
} UpdateCall;

static bool
names_column(const OmChanges *changes, OmChangeKey column)
{
	return (changes->columns & OM_COLUMN_BIT(column)) != 0;
}

/*
 * A trigger may have given the row another id, which is none of ours.
 */
static void
mark_done(UpdateCall *call, int64 id)
{
	int i = om_job_ids_find(call->ids, id);

	if (i >= 0)
		call->done[i] = true;
}

/*
 * List the jobs of the call that are done, or those that are not, the first of
 * them in full, for a message.  Returns how many there are.
 */
static int
list_jobs(const UpdateCall *call, bool done, StringInfo list)
{
	int count = 0;

	for (int i = 0; i < call->ids->count; i++)
	{
		if (call->done[i] != done)
			continue;
		if (count < NAMED_JOBS)
			appendStringInfo(list, "%s" INT64_FORMAT, count > 0 ? ", " : "",
							 om_job_ids_data(call->ids)[i]);
		count++;
	}
	if (count > NAMED_JOBS)
		appendStringInfo(list, " and %d more", count - NAMED_JOBS);
	return count;
}

/*
 * What went wrong did so at one of the jobs that are not done.  Where they are
 * worked on in id order, as an index scan of a plain table does, it is the
 * first.  Triggers that fire after the statement may fail at any of them.
 *
 * This is called for notices and log messages too, where walking the jobs for
 * each of many would not do.
 */
static void
update_error_callback(void *arg)
{
	const UpdateCall *call = arg;
	StringInfoData list;
	int count;

	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_SUCCESSFUL_COMPLETION ||
		ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_WARNING)
		return;

	initStringInfo(&list);
	count = list_jobs(call, false, &list);
	if (count == 0)
		count = list_jobs(call, true, &list);
	errcontext("update of %s %s", count == 1 ? "job" : "jobs", list.data);
}

/*
 * Raise an error that names the jobs that do not exist, if there are any.
 */
static void
check_all_exist(const UpdateCall *call)
{
	StringInfoData list;
	int count;

	initStringInfo(&list);
	count = list_jobs(call, false, &list);
	if (count > 0)
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND),
						errmsg_plural("job %s does not exist in schema \"%s\"",
									  "jobs %s do not exist in schema \"%s\"", count, list.data,
									  get_namespace_name_or_temp(get_rel_namespace(call->jobs))),
						errdetail("None of the jobs was updated.")));
}

static void
note_locked(TupleTableSlot *row, void *state)
{
	UpdateCall *call = state;
	bool isnull;
	int64 id = DatumGetInt64(slot_getattr(row, OM_LOCK_ID, &isnull));

	if (names_column(call->changes, OM_MAX_ATTEMPTS))
	{
		int32 attempt = DatumGetInt32(slot_getattr(row, OM_LOCK_ATTEMPT, &isnull));
		int32 max_attempts = DatumGetInt32(call->changes->values[OM_MAX_ATTEMPTS]);

		if (attempt > max_attempts)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for \"%s\": %d", om_change_keys[OM_MAX_ATTEMPTS].name,
							max_attempts),
					 errdetail("Job " INT64_FORMAT " has already made %d attempts.", id, attempt),
					 errhint("Give at least as many.")));
	}

	mark_done(call, id);
	if (om_changes_make_due(call->changes) &&
		DatumGetBool(slot_getattr(row, OM_LOCK_SCHEDULED, &isnull)))
		om_job_ids_add(&call->scheduled, id);
}

/*
 * Take a job into the result, and wake its queue if the update made it
 * available.
 */
static void
put_job(TupleTableSlot *row, void *state)
{
	UpdateCall *call = state;
	bool isnull;
	int64 id = DatumGetInt64(slot_getattr(row, OM_JOB_ID, &isnull));

	mark_done(call, id);
	om_job_result_put(call->result, row);
	if (om_job_ids_find(&call->scheduled, id) >= 0)
		om_signal_wake(&call->signals, row, OM_JOB_QUEUE);
}

/*
 * Run a statement over the jobs of the call.
 */
static uint64
run_step(UpdateCall *call, OmStep step, OmRowCallback callback)
{
	OmQuery query = {.step = step, .verb = OM_UPDATE};
	Datum params[OM_MAX_PARAMS];
	int nparams = 0;

	if (step == OM_WRITE_ONE)
		params[nparams++] = Int64GetDatum(om_job_ids_data(call->ids)[0]);
	else
		params[nparams++] = om_job_ids_array(call->ids);

	if (step == OM_WRITE_ONE || step == OM_WRITE)
	{
		query.columns = call->changes->columns;
		for (int column = 0; column < OM_N_UPDATE_COLUMNS; column++)
		{
			if (names_column(call->changes, column))
				params[nparams++] = call->changes->values[column];
		}
	}

	memset(call->done, false, call->ids->count);
	return om_query_run(call->jobs, query, params, callback, call);
}

/*
 * Update all of the jobs of the call, or raise an error.  Empty changes write
 * nothing, so they lock nothing either.
 */
static void
update_jobs(UpdateCall *call)
{
	bool writes = (call->changes->columns != 0);

	if (writes)
		run_step(call, OM_LOCK, note_locked);
	else
		run_step(call, OM_GET, put_job);
	check_all_exist(call);
	if (writes)
		run_step(call, OM_WRITE, put_job);
}

/*
 * Update the only job of the call.  Its state before matters only where it may
 * become available and its queue be woken; and when nothing was updated, why
 * must be found out.
 */
static void
update_job(UpdateCall *call)
{
	if (call->changes->columns != 0 && !om_changes_make_due(call->changes) &&
		run_step(call, OM_WRITE_ONE, put_job) > 0)
		return;
	update_jobs(call);
}

/*
 * What the SQL entry points have in common: check the changes, update the jobs,
 * return them.
 */
static Datum
update_and_return(FunctionCallInfo fcinfo, Oid jobs, OmJobIds *ids, int changes_argno,
				  void (*update)(UpdateCall *call))
{
	OmChanges changes;
	OmJobResult result;
	UpdateCall call = {.jobs = jobs, .changes = &changes, .ids = ids, .result = &result};
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = update_error_callback,
		.arg = &call,
	};

	om_changes_check(&changes,
					 PG_ARGISNULL(changes_argno) ? NULL : PG_GETARG_JSONB_P(changes_argno), jobs);
	om_job_result_init(&result, fcinfo);
	if (ids->count == 0)
		return om_job_result_return(&result, fcinfo);

	call.done = palloc0(ids->count);
	om_job_ids_init(&call.scheduled, 0);

	error_context_stack = &callback;
	SPI_connect();
	om_signals_init(&call.signals, jobs);
	update(&call);
	SPI_finish();
	error_context_stack = callback.previous;

	return om_job_result_return(&result, fcinfo);
}

/*
 * oban_update_job(job_id bigint, changes jsonb, prefix text) -> oban_job
 * oban_update_job(job record, changes jsonb) -> oban_job
 * oban_update_job(job_ids bigint[], changes jsonb, prefix text),
 * oban_update_many_jobs(job_ids bigint[], changes jsonb, prefix text) -> setof oban_job
 *		Update the jobs; returns them, in id order.  A NULL job or array is
 *		nothing to do, and NULL ids are passed over.
 *
 * Errors: those of om_jobs_table_by_prefix, om_job_argument and
 * om_changes_check; a job does not exist (P0002); fewer max_attempts than the
 * attempts already made (22023); and what the table itself raises.
 */
PG_FUNCTION_INFO_V1(oban_update_job_by_id);
PG_FUNCTION_INFO_V1(oban_update_job_by_record);
PG_FUNCTION_INFO_V1(oban_update_jobs);

Datum
oban_update_job_by_id(PG_FUNCTION_ARGS)
{
	Oid jobs = om_jobs_table_argument(fcinfo, 2, RowExclusiveLock);
	OmJobIds ids;

	om_job_ids_init(&ids, 1);
	if (!PG_ARGISNULL(0))
		om_job_ids_add(&ids, PG_GETARG_INT64(0));
	return update_and_return(fcinfo, jobs, &ids, 1, update_job);
}

Datum
oban_update_job_by_record(PG_FUNCTION_ARGS)
{
	OmJobIds ids;
	Oid jobs;
	int64 id;

	om_job_ids_init(&ids, 1);
	if (om_job_argument(fcinfo, 0, RowExclusiveLock, &jobs, &id))
		om_job_ids_add(&ids, id);
	return update_and_return(fcinfo, jobs, &ids, 1, update_job);
}

Datum
oban_update_jobs(PG_FUNCTION_ARGS)
{
	Oid jobs = om_jobs_table_argument(fcinfo, 2, RowExclusiveLock);
	OmJobIds ids;

	if (PG_ARGISNULL(0))
		om_job_ids_init(&ids, 0);
	else
		om_job_ids_distinct(&ids, PG_GETARG_ARRAYTYPE_P(0));
	return update_and_return(fcinfo, jobs, &ids, 1, update_jobs);
}
