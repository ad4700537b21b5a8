/*
 * run.c
 *		Runs any verb over the jobs of a filter, by transitions.c or update.c.
 *		by_filter.c, batches.c and manage_jobs.c call this file, because their code is
 *		the same for all verbs.
 */
#include "verbs/verbs.h"

/*
 * Run a verb over the jobs of the call's filter.  Returns how many jobs it changed,
 * or, for an update with empty changes, how many it found.  The caller has connected
 * to SPI.
 */
uint64
om_call_run(OmCall *call)
{
	return call->verb == OM_UPDATE ? om_update_found(call) : om_transition_found(call);
}
