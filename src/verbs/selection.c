/*
 * selection.c
 *		The jobs that a verb is about: found by the conditions of a call, and locked
 *		in the order of their ids or only looked at.
 */
#include "verbs/verbs.h"

/*
 * Find the jobs of the call's filter, and lock them or only look at them; each is
 * handed to the callback, which takes it by om_call_add when the verb acts on it.
 * With an observer, jobs in any state are found.  Returns how many were found.
 */
uint64
om_call_find(OmCall *call, bool lock, OmRowCallback callback, void *state)
{
	OmQuery query = {
		.step = lock ? OM_FIND_AND_LOCK : OM_FIND_ONLY,
		.verb = call->verb,
		/* Only the schedule bears on the new state, which is told without a lock. */
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
	/* A job may have got another id while we waited for it; a child table may repeat ids. */
	om_job_ids_sort(&call->found);
	return count;
}

/*
 * Note a job that om_call_find has found.
 */
void
om_call_add(OmCall *call, int64 id)
{
	om_job_ids_add(&call->found, id);
	call->nrows++;
	call->last = id;
}
