/*
 * cancel_retry_delete.c
 *		The verbs that change a job's state or remove it.
 *
 * They differ in their statements, which queries.c has, and in whom they tell:
 * cancel the worker of a job that was executing, retry the workers of its
 * queue, delete nobody.
 */
#include "oban_manage.h"

#include "executor/spi.h"

/* A call of one verb over a set of jobs */
typedef struct VerbCall
{
	OmVerb verb;
	OmJobIds locked;	/* the jobs that OM_LOCK has locked, in id order */
	OmJobIds executing; /* those of them that were executing; cancel only */
	OmSignals signals;
} VerbCall;

static void
note_locked(TupleTableSlot *row, void *state)
{
	VerbCall *call = state;
	bool isnull;
	int64 id = DatumGetInt64(slot_getattr(row, OM_LOCK_ID, &isnull));

	om_job_ids_add(&call->locked, id);
	if (call->verb == OM_CANCEL && DatumGetBool(slot_getattr(row, OM_LOCK_EXECUTING, &isnull)))
		om_job_ids_add(&call->executing, id);
}

static void
tell_of_cancelled(TupleTableSlot *row, void *state)
{
	VerbCall *call = state;
	bool isnull;
	int64 id = DatumGetInt64(slot_getattr(row, OM_CANCEL_ID, &isnull));

	if (om_job_ids_find(&call->executing, id) >= 0)
		om_signal_kill(&call->signals, id);
}

static void
tell_of_retried(TupleTableSlot *row, void *state)
{
	VerbCall *call = state;

	om_signal_wake(&call->signals, row, OM_RETRY_QUEUE);
}

/* Called for each job that a verb has changed */
static const OmRowCallback tell[OM_N_VERBS] = {
	[OM_CANCEL] = tell_of_cancelled,
	[OM_RETRY] = tell_of_retried,
};

/*
 * Change those of the jobs that the verb applies to: lock them in id order,
 * then write what was locked.  Returns how many were changed.  The caller has
 * connected to SPI.
 */
uint64
om_change_jobs(OmVerb verb, Oid jobs, ArrayType *ids)
{
	VerbCall call = {.verb = verb};
	Datum param = PointerGetDatum(ids);
	int nids = ArrayGetNItems(ARR_NDIM(ids), ARR_DIMS(ids));
	uint64 changed = 0;

	if (nids == 0)
		return 0;
	om_job_ids_init(&call.locked, nids);
	om_job_ids_init(&call.executing, 0);
	om_signals_init(&call.signals, jobs);

	om_query_run(jobs, (OmQuery){.step = OM_LOCK, .verb = verb}, &param, note_locked, &call);
	if (call.locked.count > 0)
	{
		param = om_job_ids_array(&call.locked);
		changed = om_query_run(jobs, (OmQuery){.step = OM_WRITE, .verb = verb}, &param, tell[verb],
							   &call);
	}
	return changed;
}

/*
 * Change one job, by one statement where that is enough: cancel must know
 * whether the job was executing, so its statement passes over one that is, and
 * only when it changed nothing is the job locked and looked at.  The caller has
 * connected to SPI.
 */
bool
om_change_job(OmVerb verb, Oid jobs, int64 id)
{
	VerbCall call = {.verb = verb};
	Datum param = Int64GetDatum(id);
	OmRowCallback callback = verb == OM_CANCEL ? NULL : tell[verb];
	OmJobIds ids;

	om_signals_init(&call.signals, jobs);
	if (om_query_run(jobs, (OmQuery){.step = OM_WRITE_ONE, .verb = verb}, &param, callback, &call) >
		0)
		return true;
	if (verb != OM_CANCEL)
		return false;

	om_job_ids_init(&ids, 1);
	om_job_ids_add(&ids, id);
	return om_change_jobs(verb, jobs, DatumGetArrayTypeP(om_job_ids_array(&ids))) > 0;
}

/*
 * The three forms of each verb.  A NULL job or array is nothing to do.
 */

static Datum
change_by_id(FunctionCallInfo fcinfo, OmVerb verb)
{
	Oid jobs;
	bool changed;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	jobs = om_jobs_table_argument(fcinfo, 1, RowExclusiveLock);

	SPI_connect();
	changed = om_change_job(verb, jobs, PG_GETARG_INT64(0));
	SPI_finish();
	PG_RETURN_BOOL(changed);
}

static Datum
change_by_record(FunctionCallInfo fcinfo, OmVerb verb)
{
	Oid jobs;
	int64 id;
	bool changed;

	if (!om_job_argument(fcinfo, 0, RowExclusiveLock, &jobs, &id))
		PG_RETURN_BOOL(false);

	SPI_connect();
	changed = om_change_job(verb, jobs, id);
	SPI_finish();
	PG_RETURN_BOOL(changed);
}

static Datum
change_by_ids(FunctionCallInfo fcinfo, OmVerb verb)
{
	Oid jobs;
	ArrayType *ids;
	uint64 changed;

	if (PG_ARGISNULL(0))
		PG_RETURN_INT32(0);
	ids = PG_GETARG_ARRAYTYPE_P(0);
	jobs = om_jobs_table_argument(fcinfo, 1, RowExclusiveLock);

	SPI_connect();
	changed = om_change_jobs(verb, jobs, ids);
	SPI_finish();
	PG_RETURN_INT32((int32) changed);
}

/*
 * oban_cancel_job(job_id bigint, prefix text) -> boolean
 * oban_cancel_job(job record) -> boolean
 * oban_cancel_job(job_ids bigint[], prefix text),
 * oban_cancel_many_jobs(job_ids bigint[], prefix text) -> integer
 *		Cancel the jobs that are not completed, discarded or cancelled; returns
 *		whether, or how many.  A worker that executes one is told to stop.
 *
 * Errors: those of om_jobs_table_by_prefix and om_job_argument, and what the
 * table itself raises.
 */
PG_FUNCTION_INFO_V1(oban_cancel_job_by_id);
PG_FUNCTION_INFO_V1(oban_cancel_job_by_record);
PG_FUNCTION_INFO_V1(oban_cancel_jobs);

Datum
oban_cancel_job_by_id(PG_FUNCTION_ARGS)
{
	return change_by_id(fcinfo, OM_CANCEL);
}

Datum
oban_cancel_job_by_record(PG_FUNCTION_ARGS)
{
	return change_by_record(fcinfo, OM_CANCEL);
}

Datum
oban_cancel_jobs(PG_FUNCTION_ARGS)
{
	return change_by_ids(fcinfo, OM_CANCEL);
}

/*
 * oban_retry_job, oban_retry_many_jobs: as for cancel.
 *		Make the jobs that are not available or executing available now, with
 *		at least one attempt left; their queues are woken.
 */
PG_FUNCTION_INFO_V1(oban_retry_job_by_id);
PG_FUNCTION_INFO_V1(oban_retry_job_by_record);
PG_FUNCTION_INFO_V1(oban_retry_jobs);

Datum
oban_retry_job_by_id(PG_FUNCTION_ARGS)
{
	return change_by_id(fcinfo, OM_RETRY);
}

Datum
oban_retry_job_by_record(PG_FUNCTION_ARGS)
{
	return change_by_record(fcinfo, OM_RETRY);
}

Datum
oban_retry_jobs(PG_FUNCTION_ARGS)
{
	return change_by_ids(fcinfo, OM_RETRY);
}

/*
 * oban_delete_job, oban_delete_many_jobs: as for cancel.
 *		Delete the jobs that are not executing.
 */
PG_FUNCTION_INFO_V1(oban_delete_job_by_id);
PG_FUNCTION_INFO_V1(oban_delete_job_by_record);
PG_FUNCTION_INFO_V1(oban_delete_jobs);

Datum
oban_delete_job_by_id(PG_FUNCTION_ARGS)
{
	return change_by_id(fcinfo, OM_DELETE);
}

Datum
oban_delete_job_by_record(PG_FUNCTION_ARGS)
{
	return change_by_record(fcinfo, OM_DELETE);
}

Datum
oban_delete_jobs(PG_FUNCTION_ARGS)
{
	return change_by_ids(fcinfo, OM_DELETE);
}
