/*
 * selection.c
 *		Finds the jobs of a call by its conditions.  Locks them in id order, or only
 *		looks at them.
 *
 * Calls statements/conditions.c for the parameters and statements/run_query.c; the verbs,
 * manage_jobs.c and batches.c call this file.
 */
#include "verbs/verbs.h"

/*
 * Find the jobs of the call's filter, and lock them if "lock" is true.  Each job is
 * handed to the callback.  If the verb acts on the job, the callback calls
 * om_call_add.  With an observer, jobs in any state are found.  Returns how many were
 * found.
 */
uint64
om_call_find(OmCall *call, bool lock, OmRowCallback callback, void *state)
{
	OmStep locking = call->skip_locked ? OM_FIND_AND_LOCK_FREE : OM_FIND_AND_LOCK;
	OmQuery query = {
		.step = lock ? locking : OM_FIND_ONLY,
		.verb = call->verb,
		/* Only a query without a lock returns the new state.  It depends on the schedule. */
		.columns = lock ? 0 : call->changes.columns & OM_COLUMN_BIT(OM_SCHEDULED_AT),
		.returns = call->observer != NULL ? OM_RETURN_STATES : OM_RETURN_NOTHING,
		.conditions = call->filter.conditions,
	};
	Datum params[OM_MAX_PARAMS];
	int nparams = om_filter_params(&call->filter, params);
	uint64 count;

	if (query.columns != 0)
		params[nparams] = call->changes.values[OM_SCHEDULED_AT];
	om_job_ids_init(&call->found, 0);
	om_call_begin_statement(call);
	count = om_query_run(call->jobs, query, params, callback, state);
	/* A job's id may have changed while we waited for its lock; a child table may repeat ids. */
	om_job_ids_sort(&call->found);
	return count;
}

/*
 * Add a job that om_call_find has found, because the verb acts on it.
 */
void
om_call_add(OmCall *call, int64 id)
{
	om_job_ids_add(&call->found, id);
	om_call_pass(call, id);
}

static void
note_id(TupleTableSlot *slot, void *state)
{
	OmFoundRow row;

	om_found_row_read(slot, &row);
	om_job_ids_add(state, row.id);
}

/*
 * Look, without a lock, for the jobs of the call's filter.  Their ids are added to the
 * list, which is distinct and sorted then.  With an observer, jobs in any state are
 * found, but the observer is not called.  Returns how many rows were found.
 */
uint64
om_call_look(OmCall *call, OmJobIds *ids)
{
	uint64 count = om_call_find(call, false, note_id, ids);

	om_job_ids_sort(ids);
	return count;
}

/*
 * A statement of the call begins.
 */
void
om_call_begin_statement(OmCall *call)
{
	call->npassed = 0;
	call->in_order = true;
}

/*
 * The running statement has handed over a job, and the job was dealt with.
 */
void
om_call_pass(OmCall *call, int64 id)
{
	if (call->npassed > 0 && id <= call->passed)
		call->in_order = false;
	call->passed = id;
	call->npassed++;
}
