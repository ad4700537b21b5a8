/*
 * run.c
 *		Any verb over the jobs of a filter, for callers that do not mind which.
 */
#include "verbs/verbs.h"

/*
 * Run a verb over the jobs of the call's filter.  Returns how many it changed;
 * an update with empty changes, how many it found.  The caller has connected to
 * SPI.
 */
uint64
om_call_run(OmCall *call)
{
	return call->verb == OM_UPDATE ? om_update_found(call) : om_transition_found(call);
}
