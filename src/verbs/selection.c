/*
 * selection.c
 *		Finds the jobs of a call by its conditions.  Locks them in id order, or only
 *		looks at them.  transitions.c and update.c call this file.
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
	OmQuery query = {
		.step = lock ? OM_FIND_AND_LOCK : OM_FIND_ONLY,
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
	call->nrows++;
	call->last = id;
}
