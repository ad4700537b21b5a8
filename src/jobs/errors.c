/*
 * errors.c
 *		What error context callbacks must know.
 */
#include "jobs/jobs.h"

/*
 * For error context callbacks, which are called for notices, warnings and log
 * messages too: is it an error?
 */
bool
om_is_error(void)
{
	int category = ERRCODE_TO_CATEGORY(geterrcode());

	return category != ERRCODE_SUCCESSFUL_COMPLETION && category != ERRCODE_WARNING;
}
