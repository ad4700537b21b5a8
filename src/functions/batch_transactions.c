/*
 * batch_transactions.c
 *		Runs the steps of a procedure, each in a transaction of its own.  A step is
 *		committed, or tried again after a deadlock or a serialization failure.
 *		batches.c calls this file and hands it the steps; this file calls verbs/try.c.
 */
#include "functions/batch_transactions.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/guc.h"

/* How often a step is tried that fails by a deadlock or a conflict, and the first wait */
#define MAX_TRIES  8
#define FIRST_WAIT 0.1 /* seconds; each further wait is twice as long */

/*
 * Settings that must be the same for all steps: who acts, on which table, and which
 * signals are sent.  We restore them in each step, because the first commit ends what
 * SET LOCAL has set.  The order matters, because setting session_authorization resets
 * the role.
 */
static const char *const kept_settings[] = {"session_authorization", "role", "oban_manage.prefix",
											"oban_manage.notify"};

StaticAssertDecl(lengthof(kept_settings) == OM_N_KEPT_SETTINGS, "OmTransactions has their values");

/*
 * Raise an error where a commit is not allowed: in a transaction block, in a function,
 * and wherever else the caller's transaction must go on.
 */
void
om_transactions_check(FunctionCallInfo fcinfo)
{
	bool may_commit = fcinfo->context != NULL && IsA(fcinfo->context, CallContext) &&
					  !castNode(CallContext, fcinfo->context)->atomic && !IsSubTransaction();

	if (!may_commit)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("batches cannot be committed inside a transaction block"),
				 errdetail("The procedure commits each batch of jobs by itself."),
				 errhint("CALL it on its own, with autocommit: not after BEGIN, not in a function, "
						 "and not in a procedure with EXCEPTION, SET or SECURITY DEFINER.")));
}

/*
 * The value of a setting.  NULL for the session_authorization of a process that no
 * role has logged in to.
 */
static const char *
setting(int i)
{
	return GetConfigOption(kept_settings[i], false, false);
}

/*
 * Store the settings in the current memory context, which must outlive the
 * transactions.
 */
void
om_transactions_init(OmTransactions *transactions)
{
	for (int i = 0; i < OM_N_KEPT_SETTINGS; i++)
		transactions->settings[i] = setting(i) == NULL ? NULL : pstrdup(setting(i));
}

/*
 * SET LOCAL each setting that has changed.
 */
static void
restore_settings(const OmTransactions *transactions)
{
	for (int i = 0; i < OM_N_KEPT_SETTINGS; i++)
	{
		const char *was = transactions->settings[i];

		if (was != NULL && strcmp(was, setting(i)) != 0)
			(void) set_config_option(kept_settings[i], was, PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_LOCAL, true, 0, false);
	}
}

typedef struct Running
{
	const OmTransactions *transactions;
	OmTryStep step;
	void *state;
} Running;

static void
run_step(void *state)
{
	const Running *running = state;

	restore_settings(running->transactions);
	running->step(running->state);
}

/*
 * Commit.  Returns NULL, or the error with which that failed; then SPI_commit has
 * already started a new transaction.
 */
static ErrorData *
commit(void)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData *volatile error = NULL;

	PG_TRY();
	{
		SPI_commit();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	return error;
}

/*
 * Run a step in a transaction and commit it.  Returns false if the step lost to another
 * transaction and was rolled back.  On the last try, such an error is raised.  Other
 * errors are always raised.
 */
static bool
try_step(const OmTransactions *transactions, OmTryStep step, void *state, bool last_try)
{
	Running running = {.transactions = transactions, .step = step, .state = state};
	ErrorData *error = om_try(run_step, &running);
	bool ran = (error == NULL);

	if (ran)
		error = commit();
	if (error == NULL)
		return true;
	if (last_try || !om_error_is_conflict(error))
		ReThrowError(error);
	ereport(DEBUG1, (errmsg_internal("trying again: %s", error->message)));
	FreeErrorData(error);
	/* The next try needs a new transaction, so that it gets a new snapshot. */
	if (!ran)
		SPI_rollback();
	return false;
}

/*
 * Run a step in the caller's transaction and commit it.  It is not tried again,
 * because that transaction also holds the caller's own work.
 */
void
om_transactions_run_once(const OmTransactions *transactions, OmTryStep step, void *state)
{
	(void) try_step(transactions, step, state, true);
}

/*
 * Run a step in a transaction of its own and commit it.  Try again as needed.
 */
void
om_transactions_run(const OmTransactions *transactions, OmTryStep step, void *state)
{
	double wait = FIRST_WAIT;

	for (int tries = 1; !try_step(transactions, step, state, tries == MAX_TRIES); tries++)
	{
		om_transactions_sleep(wait);
		wait *= 2;
	}
}

/*
 * Sleep between two transactions.  The last commit has already started the next
 * transaction, so commit that after the sleep.  The next now() is then after the sleep.
 */
void
om_transactions_sleep(double seconds)
{
	if (seconds > 0)
	{
		(void) DirectFunctionCall1(pg_sleep, Float8GetDatum(seconds));
		SPI_commit();
	}
}
