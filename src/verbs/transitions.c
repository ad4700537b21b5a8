/*
 * transitions.c
 *		The verbs that change a job's state or remove the job: cancel, retry, delete.
 *
 * They differ in their statements (statements/verb_table.c) and in their signals.
 * Cancel signals the worker of a job that was executing, retry signals the workers
 * of the job's queue, delete sends no signal.  run.c, change_jobs.c and triggers.c
 * call this file.
 */
#include "verbs/verbs.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"

/* A running call */
typedef struct Transition
{
	OmCall *call;
	OmJobIds executing; /* cancel: found jobs that were executing */
	bool was_executing; /* cancel without finding: was the job just written executing? */
	uint64 done;		/* jobs whose written row has the verb's new state */
	OmSignals signals;
} Transition;

/*
 * Add a job that was found, if the verb acts on it.
 */
static void
take_found(TupleTableSlot *slot, void *state)
{
	Transition *transition = state;
	OmCall *call = transition->call;
	OmFoundRow row;

	om_found_row_read(slot, &row);
	if (call->observer != NULL && !call->observer->found(&row, call->observer->state))
		return;
	om_call_add(call, row.id);
	if (row.was_in_state)
		om_job_ids_add(&transition->executing, row.id);
}

/*
 * When the i-th job of the call is to run.  More jobs may match now than at the start
 * of the spread; the extra ones run at its end.
 */
static Timestamp
time_in_spread(const OmSpread *spread, int i)
{
	int64 last = Max(spread->total - 1, 1);
	int64 rank = Min(spread->rank + i, last);

	return spread->start + (int64) (spread->length * rank / last);
}

/*
 * Is a retried job with this time to run now?
 */
static bool
has_come(Timestamp time)
{
	return time <= GetCurrentTransactionStartTimestamp();
}

/*
 * Called for each job that was written.  If a trigger of the table gave the job a
 * state other than the verb's, the job does not count and nobody is signalled.
 */
static void
count_and_signal(TupleTableSlot *slot, void *state)
{
	Transition *transition = state;
	OmCall *call = transition->call;
	OmWrittenRow row;

	om_written_row_read(slot, &row);
	if (call->observer != NULL)
		call->observer->written(&row, call->observer->state);

	if (row.done)
	{
		transition->done++;
		if (call->verb == OM_CANCEL &&
			(transition->was_executing || om_job_ids_find(&transition->executing, row.id) >= 0))
			om_signal_kill(&transition->signals, row.id);
		om_signal_wake(&transition->signals, row.queue);
	}
	om_call_pass(call, row.id);
}

/*
 * What the writing statement returns: nothing if the verb sends no signals and nobody
 * else needs to know of the jobs.
 */
static OmReturns
written_returns(const OmCall *call)
{
	if (call->observer != NULL)
		return OM_RETURN_STATES;
	return om_verbs[call->verb].tells || call->refusals != NULL ? OM_RETURN_WRITTEN
																: OM_RETURN_NOTHING;
}

/*
 * The query that writes jobs.  It has the times as parameters if a job may run later
 * than now.
 */
static OmQuery
write_query(const OmCall *call, OmStep step, OmConditionSet conditions)
{
	bool later = call->spread != NULL || !has_come(call->retry_at);

	return (OmQuery){
		.step = step,
		.verb = call->verb,
		.columns = later ? OM_COLUMN_BIT(OM_SCHEDULED_AT) : 0,
		.returns = written_returns(call),
		.conditions = conditions,
	};
}

/*
 * The number of jobs done, of those written.
 */
static uint64
count_done(const Transition *transition, OmQuery query, uint64 written)
{
	return query.returns == OM_RETURN_NOTHING ? written : transition->done;
}

/*
 * Write the jobs that were found and locked.  Returns the number of jobs done.
 */
static uint64
write_found(Transition *transition)
{
	OmCall *call = transition->call;
	OmQuery query = write_query(call, call->spread != NULL ? OM_WRITE_EACH : OM_WRITE, OM_BY_IDS);
	Datum params[2] = {om_job_ids_array(&call->found), TimestampGetDatum(call->retry_at)};
	uint64 written;

	if (call->spread != NULL)
	{
		int count = call->found.count;
		Datum *times = palloc(count * sizeof(Datum));

		for (int i = 0; i < count; i++)
			times[i] = TimestampGetDatum(time_in_spread(call->spread, call->found_before + i));
		params[1] = PointerGetDatum(construct_array(times, count, TIMESTAMPOID, sizeof(Timestamp),
													FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	}
	om_call_begin_statement(call);
	written = om_query_run(call->jobs, query, params, count_and_signal, transition);
	return count_done(transition, query, written);
}

static void
begin_transition(Transition *transition, OmCall *call)
{
	transition->call = call;
	transition->was_executing = false;
	transition->done = 0;
	om_job_ids_init(&transition->executing, 0);
	om_signals_init(&transition->signals, call->jobs);
}

/*
 * Change the jobs of the call's filter that the verb applies to: lock them in id
 * order, then write the locked ones.  Returns how many were changed.  The caller has
 * connected to SPI.
 */
uint64
om_transition_found(OmCall *call)
{
	Transition transition;
	bool dry_run = (call->observer != NULL && call->observer->dry_run);

	begin_transition(&transition, call);
	(void) om_call_find(call, !dry_run, take_found, &transition);
	om_job_ids_sort(&transition.executing);
	return call->found.count > 0 && !dry_run ? write_found(&transition) : 0;
}

/*
 * The same for an array of ids.  One statement does it if that statement locks the
 * jobs in id order.
 */
uint64
om_transition_jobs(OmCall *call, ArrayType *ids)
{
	OmQuery query =
		write_query(call, call->verb == OM_CANCEL ? OM_WRITE_AND_WATCH : OM_WRITE, OM_BY_IDS);
	/* Retry: when to run.  Cancel: both times of OM_WRITE_AND_WATCH.  Oban's timestamps hold UTC. */
	Datum time = TimestampGetDatum(call->verb == OM_RETRY ? call->retry_at
														  : GetCurrentTransactionStartTimestamp());
	Datum params[] = {PointerGetDatum(ids), time, time};
	Transition transition;
	uint64 written;

	if (ArrayGetNItems(ARR_NDIM(ids), ARR_DIMS(ids)) == 0)
		return 0;
	begin_transition(&transition, call);
	if (om_query_run_in_order(call->jobs, query, params, &transition.was_executing,
							  count_and_signal, &transition, &written))
		return count_done(&transition, query, written);
	om_filter_by_ids(&call->filter, PointerGetDatum(ids));
	return om_transition_found(call);
}

/*
 * Change one job, by one statement if possible.  Cancel must know whether the job was
 * executing, so its statement skips executing jobs.  If it changed nothing, the job is
 * locked and looked at.  Returns whether the job was changed.  The caller has connected
 * to SPI.
 */
bool
om_transition_job(OmCall *call, int64 id)
{
	Transition transition;
	OmQuery query = write_query(call, OM_WRITE_ONE, OM_BY_ID);
	Datum params[2] = {Int64GetDatum(id), TimestampGetDatum(call->retry_at)};
	OmJobIds ids;
	uint64 written;

	begin_transition(&transition, call);
	written = om_query_run(call->jobs, query, params, count_and_signal, &transition);
	if (written > 0 || call->verb != OM_CANCEL)
		return count_done(&transition, query, written) > 0;

	om_job_ids_init(&ids, 1);
	om_job_ids_add(&ids, id);
	return om_transition_jobs(call, DatumGetArrayTypeP(om_job_ids_array(&ids))) > 0;
}
