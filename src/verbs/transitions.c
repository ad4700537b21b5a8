/*
 * transitions.c
 *		The cores of the verbs that change a job's state or remove it: cancel, retry,
 *		delete.
 *
 * They differ in their statements (statements/verb_table.c), and in whom they tell:
 * cancel the worker of a job that was executing, retry the workers of its
 * queue, delete nobody.
 */
#include "verbs/verbs.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"

/* A call whose jobs are being changed */
typedef struct Transition
{
	OmCall *call;
	OmJobIds executing; /* those of the jobs found that were executing; cancel only */
	bool was_executing; /* was the job that was just written? cancel without finding */
	uint64 done;		/* jobs whose row, as it was written, says so */
	OmSignals signals;
} Transition;

/*
 * Take a job that was found, if the verb acts on it.
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
 * When the i-th of the call's jobs is to run.  There may be more jobs than at the
 * start: those above its number run at the end.
 */
static Timestamp
time_in_spread(const OmSpread *spread, int i)
{
	int64 last = Max(spread->total - 1, 1);
	int64 rank = Min(spread->rank + i, last);

	return spread->start + (int64) (spread->length * rank / last);
}

/*
 * Has the time come when a retried job is to run?
 */
static bool
has_come(Timestamp time)
{
	return time <= GetCurrentTransactionStartTimestamp();
}

/*
 * Called for each job that was written.  A trigger of the table may have given it
 * another state than the verb did: then it does not count, and nobody is told.
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

	if (!row.done)
		return;
	transition->done++;
	if (call->verb == OM_CANCEL &&
		(transition->was_executing || om_job_ids_find(&transition->executing, row.id) >= 0))
		om_signal_kill(&transition->signals, row.id);
	om_signal_wake(&transition->signals, row.queue);
}

/*
 * What the writing statement returns.  Where nobody is told of the jobs, and nobody
 * asks, it need not return them.
 */
static OmReturns
written_returns(const OmCall *call)
{
	if (call->observer != NULL)
		return OM_RETURN_STATES;
	return om_verbs[call->verb].tells ? OM_RETURN_WRITTEN : OM_RETURN_NOTHING;
}

/*
 * The query that writes jobs.  Its times are parameters where any of the jobs is to
 * run later than now.
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
 * How many of the jobs that were written are done.
 */
static uint64
count_done(const Transition *transition, OmQuery query, uint64 written)
{
	return query.returns == OM_RETURN_NOTHING ? written : transition->done;
}

/*
 * Write the jobs that were found and locked; returns how many are done.
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
			times[i] = TimestampGetDatum(time_in_spread(call->spread, i));
		params[1] = PointerGetDatum(construct_array(times, count, TIMESTAMPOID, sizeof(Timestamp),
													FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	}
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
 * Transition those of the jobs of the call's filter that the verb applies to: lock
 * them in id order, then write what was locked.  Returns how many were changed.
 * The caller has connected to SPI.
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
 * The same for the jobs of an array of ids, by one statement where that locks
 * them in order.
 */
uint64
om_transition_jobs(OmCall *call, ArrayType *ids)
{
	OmQuery query =
		write_query(call, call->verb == OM_CANCEL ? OM_WRITE_NOTE : OM_WRITE, OM_BY_IDS);
	/* When retried jobs are to run, or both times of OM_WRITE_NOTE; Oban's timestamps hold UTC. */
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
 * Transition one job, by one statement where that is enough: cancel must know
 * whether the job was executing, so its statement passes over one that is, and
 * only when it changed nothing is the job locked and looked at.  The caller has
 * connected to SPI.
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
