/*
 * errors.c
 *		Kinds of errors: which messages are errors at all, which errors are worth
 *		another try, and which are about single jobs.
 *
 * Calls only PostgreSQL.  Error context callbacks use it, which add to an error which
 * jobs it is about, and so does what runs a step again (verbs/run.c, verbs/parts.c,
 * functions/batch_transactions.c).
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

/*
 * Did a transaction lose to another one?  Then the same step may succeed when it is
 * tried again.
 */
bool
om_error_is_conflict(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		   error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

/*
 * Has the table refused a job?  So do its types and constraints (classes 22, 23), its
 * triggers (27, P0), the check option of a view (44), and the check of a policy.  Only
 * the function that raised the error tells that check from a missing privilege, which
 * concerns the whole call: both have the code 42501.
 */
bool
om_error_is_refusal(const ErrorData *error)
{
	static const int classes[] = {
		ERRCODE_DATA_EXCEPTION,
		ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION,
		ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
		ERRCODE_WITH_CHECK_OPTION_VIOLATION,
		ERRCODE_PLPGSQL_ERROR,
	};

	for (size_t i = 0; i < lengthof(classes); i++)
	{
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TO_CATEGORY(classes[i]))
			return true;
	}
	return error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE && error->funcname != NULL &&
		   strcmp(error->funcname, "ExecWithCheckOptions") == 0;
}
