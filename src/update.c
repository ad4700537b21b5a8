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
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* How many job ids an error names */
#define NAMED_JOBS 10

/* A call over a set of jobs, or one */
typedef struct UpdateCall
{
	Oid jobs;
	const OmChanges *changes;
	const OmJobIds *ids; /* distinct, in order */
	OmJobIds found;		 /* those of them that there are, in order */
	OmJobIds scheduled;	 /* those that were scheduled and are due now */
	OmJobResult *result;
	OmSignals signals;
} UpdateCall;

static bool
names_column(const OmChanges *changes, OmChangeKey column)
{
	return (changes->columns & OM_COLUMN_BIT(column)) != 0;
}

/*
 * The first of some ids, for an error message.
 */
static char *
list_ids(const int64 *ids, int count)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < Min(count, NAMED_JOBS); i++)
		appendStringInfo(&list, "%s" INT64_FORMAT, i > 0 ? ", " : "", ids[i]);
	if (count > NAMED_JOBS)
		appendStringInfo(&list, " and %d more", count - NAMED_JOBS);
	return list.data;
}

static void
update_error_callback(void *arg)
{
	const UpdateCall *call = arg;
	const OmJobIds *ids = call->ids;

	errcontext("update of %s %s", ids->count == 1 ? "job" : "jobs",
			   list_ids(om_job_ids_data(ids), ids->count));
}

/*
 * Raise an error that names those of the ids that were not found.
 */
static void
raise_missing(const UpdateCall *call)
{
	OmJobIds missing;
	const int64 *ids = om_job_ids_data(call->ids);

	om_job_ids_init(&missing, call->ids->count - call->found.count);
	for (int i = 0; i < call->ids->count; i++)
	{
		if (!om_job_ids_contain(&call->found, ids[i]))
			om_job_ids_add(&missing, ids[i]);
	}

	ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND),
					errmsg_plural("job %s does not exist in schema \"%s\"",
								  "jobs %s do not exist in schema \"%s\"", missing.count,
								  list_ids(om_job_ids_data(&missing), missing.count),
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

	om_job_ids_add(&call->found, id);
	if (om_changes_make_due(call->changes) &&
		DatumGetBool(slot_getattr(row, OM_LOCK_SCHEDULED, &isnull)))
		om_job_ids_add(&call->scheduled, id);
}

/*
 * Take an updated job into the result, and wake its queue if the update made
 * it available.
 */
static void
put_updated(TupleTableSlot *row, void *state)
{
	UpdateCall *call = state;
	bool isnull;

	om_job_result_put(call->result, row);
	if (call->scheduled.count > 0 &&
		om_job_ids_contain(&call->scheduled, DatumGetInt64(slot_getattr(row, OM_JOB_ID, &isnull))))
		om_signal_wake(&call->signals, DatumGetTextPP(slot_getattr(row, OM_JOB_QUEUE, &isnull)));
}

static void
put_unchanged(TupleTableSlot *row, void *state)
{
	UpdateCall *call = state;
	bool isnull;

	om_job_result_put(call->result, row);
	om_job_ids_add(&call->found, DatumGetInt64(slot_getattr(row, OM_JOB_ID, &isnull)));
}

/*
 * Run a statement over some of the jobs of the call.
 */
static uint64
run_step(UpdateCall *call, OmStep step, const OmJobIds *ids, OmRowCallback callback)
{
	OmQuery query = {.step = step, .verb = OM_UPDATE};
	Datum params[OM_MAX_PARAMS];
	int nparams = 0;

	if (step == OM_WRITE_ONE || step == OM_GET_ONE)
		params[nparams++] = Int64GetDatum(om_job_ids_data(ids)[0]);
	else
		params[nparams++] = om_job_ids_array(unconstify(OmJobIds *, ids));

	if (step == OM_WRITE_ONE || step == OM_WRITE)
	{
		query.columns = call->changes->columns;
		for (int column = 0; column < OM_N_UPDATE_COLUMNS; column++)
		{
			if (names_column(call->changes, column))
				params[nparams++] = call->changes->values[column];
		}
	}
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

	om_job_ids_init(&call->found, call->ids->count);
	om_job_ids_init(&call->scheduled, 0);

	if (writes)
		run_step(call, OM_LOCK, call->ids, note_locked);
	else
		run_step(call, OM_GET, call->ids, put_unchanged);

	if (call->found.count < call->ids->count)
		raise_missing(call);
	if (writes && call->found.count > 0)
		run_step(call, OM_WRITE, &call->found, put_updated);
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
		run_step(call, OM_WRITE_ONE, call->ids, put_updated) > 0)
		return;
	update_jobs(call);
}

/*
 * What the SQL entry points have in common: check the changes, update the jobs,
 * return them.
 */
static Datum
update_and_return(FunctionCallInfo fcinfo, Oid jobs, const OmJobIds *ids, int changes_argno,
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
