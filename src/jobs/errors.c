/*
 * errors.c
 *		What error context callbacks must know.
 *
 * Calls only PostgreSQL. The callbacks of the verbs and of the batches use it. They add
 * to an error which jobs it is about.
 */
#include "jobs/jobs.h"

/*
 * Is the message an error?  PostgreSQL calls error context callbacks for notices,
 * warnings and log messages too.
 */
bool
om_is_error(void)
{
	int category = ERRCODE_TO_CATEGORY(geterrcode());

	return category != ERRCODE_SUCCESSFUL_COMPLETION && category != ERRCODE_WARNING;
}
