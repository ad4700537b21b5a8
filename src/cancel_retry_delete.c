/*
 * cancel_retry_delete.c
 *		The verbs that change a job's state or remove it.
 *
 * They differ in their statements, which queries.c has, and in whom they tell:
 * cancel the worker of a job that was executing, retry the workers of its
 * queue, delete nobody.
 */
#include "verbs.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"

/* A call whose jobs are being changed */
typedef struct Change
{
	OmCall *call;
	OmJobIds executing; /* those of the jobs found that were executing; cancel only */
	bool was_executing; /* was the job that was just written? cancel without finding */
	OmSignals signals;
} Change;

static void
note_found(TupleTableSlot *row, void *state)
{
	Change *change = state;
	OmCall *call = change->call;
	bool isnull;
	int64 id = DatumGetInt64(slot_getattr(row, OM_LOCK_ID, &isnull));

	if (call->outcomes != NULL && !om_outcomes_found(call->outcomes, row))
		return;
	om_call_add(call, id);
	if (DatumGetBool(slot_getattr(row, OM_LOCK_EXECUTING, &isnull)))
		om_job_ids_add(&change->executing, id);
}

/*
 * When a retried job is to run.  A job that came to match after the walk had
 * begun may lie outside its range.
 */
static Timestamp
time_in_spread(const OmSpread *spread, int64 id)
{
	double range = (double) spread->highest - (double) spread->lowest;
	double place = range > 0 ? ((double) id - (double) spread->lowest) / range : 0;

	return spread->start + (int64) (spread->length * Min(Max(place, 0.0), 1.0));
}

/*
 * Called for each job that was written.
 */
static void
note_written(TupleTableSlot *row, void *state)
{
	Change *change = state;
	OmCall *call = change->call;
	bool isnull;
	int64 id = DatumGetInt64(slot_getattr(row, OM_WRITTEN_ID, &isnull));

	if (call->outcomes != NULL)
		om_outcomes_written(call->outcomes, row);

	if (call->verb == OM_CANCEL &&
		(change->was_executing || om_job_ids_find(&change->executing, id) >= 0))
		om_signal_kill(&change->signals, id);
	else if (call->verb == OM_RETRY &&
			 (call->spread == NULL ||
			  time_in_spread(call->spread, id) <= GetCurrentTransactionStartTimestamp()))
		om_signal_wake(&change->signals, row, OM_WRITTEN_QUEUE);
}

/* What those who are told of a job that the verb has written take to know of it */
static const OmReturns needed[OM_N_VERBS] = {
	[OM_CANCEL] = OM_RETURN_IDS,
	[OM_RETRY] = OM_RETURN_QUEUES,
	[OM_DELETE] = OM_RETURN_NOTHING,
};

/*
 * Write the jobs that were found and locked; returns how many.
 */
static uint64
write_found(Change *change)
{
	OmCall *call = change->call;
	OmQuery query = {
		.step = OM_WRITE,
		.verb = call->verb,
		.returns = call->outcomes != NULL ? OM_RETURN_STATES : needed[call->verb],
		.conditions = OM_BY_IDS,
	};
	Datum params[2] = {om_job_ids_array(&call->found)};

	if (call->spread != NULL)
	{
		int count = call->found.count;
		Datum *times = palloc(count * sizeof(Datum));

		for (int i = 0; i < count; i++)
			times[i] =
				TimestampGetDatum(time_in_spread(call->spread, om_job_ids_data(&call->found)[i]));
		params[1] = PointerGetDatum(construct_array(times, count, TIMESTAMPOID, sizeof(Timestamp),
													FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
		query.step = OM_WRITE_EACH;
		query.columns = OM_COLUMN_BIT(OM_SCHEDULED_AT);
	}
	return om_query_run(call->jobs, query, params, note_written, change);
}

static void
begin_change(Change *change, OmCall *call)
{
	change->call = call;
	change->was_executing = false;
	om_job_ids_init(&change->executing, 0);
	om_signals_init(&change->signals, call->jobs);
}

/*
 * Change those of the jobs of the call's filter that the verb applies to: lock
 * them in id order, then write what was locked.  Returns how many were changed.
 * The caller has connected to SPI.
 */
uint64
om_change_found(OmCall *call)
{
	Change change;
	bool dry_run = (call->outcomes != NULL && call->outcomes->dry_run);

	begin_change(&change, call);
	(void) om_call_find(call, !dry_run, note_found, &change);
	om_job_ids_sort(&change.executing);
	return call->found.count > 0 && !dry_run ? write_found(&change) : 0;
}

/*
 * The same for the jobs of an array of ids, by one statement where that locks
 * them in order.
 */
uint64
om_change_jobs(OmVerb verb, Oid jobs, ArrayType *ids)
{
	OmCall call = {.verb = verb, .jobs = jobs};
	OmQuery query = {
		.step = verb == OM_CANCEL ? OM_WRITE_NOTE : OM_WRITE,
		.verb = verb,
		.returns = needed[verb],
		.conditions = OM_BY_IDS,
	};
	/* Oban's timestamps hold UTC. */
	Datum now = TimestampGetDatum(GetCurrentTransactionStartTimestamp());
	Datum params[1 + OM_N_NOTE_PARAMS] = {PointerGetDatum(ids), now, now};
	Change change;
	uint64 changed;

	if (ArrayGetNItems(ARR_NDIM(ids), ARR_DIMS(ids)) == 0)
		return 0;
	begin_change(&change, &call);
	if (om_query_run_in_order(jobs, query, params, &change.was_executing, note_written, &change,
							  &changed))
		return changed;
	om_filter_by_ids(&call.filter, PointerGetDatum(ids));
	return om_change_found(&call);
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
	OmCall call = {.verb = verb, .jobs = jobs};
	Change change;
	OmQuery query = {
		.step = OM_WRITE_ONE,
		.verb = verb,
		.returns = verb == OM_RETRY ? OM_RETURN_QUEUES : OM_RETURN_NOTHING,
		.conditions = OM_BY_ID,
	};
	Datum param = Int64GetDatum(id);
	OmJobIds ids;

	begin_change(&change, &call);
	if (om_query_run(jobs, query, &param, note_written, &change) > 0)
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
