/*
 * run.c
 *		Runs any verb over the jobs of a filter, by transitions.c, update.c or
 *		update_with.c; and runs it again when it loses to another transaction.
 *
 * by_filter.c, batches.c and manage_jobs.c call this file, because their code is the
 * same for all verbs; parts.c calls it for parts of the jobs.
 */
#include "verbs/verbs.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

/* How often a call is tried that loses to other transactions */
#define MAX_TRIES 32

/* Seconds from a deadlock to the next try */
#define WAIT 0.1

/*
 * Run a verb over the jobs of the call's filter.  Returns how many jobs it changed,
 * or, for an update with empty changes, how many it found.  The caller has connected
 * to SPI.
 */
uint64
om_call_run(OmCall *call)
{
	if (call->callable != NULL)
		return om_update_found_with(call);
	return call->verb == OM_UPDATE ? om_update_found(call) : om_transition_found(call);
}

typedef struct Try
{
	OmCall *call;
	uint64 count;
} Try;

static void
run_call(void *state)
{
	Try *try = state;

	try->count = om_call_run(try->call);
}

static ErrorData *
try_call(Try *try)
{
	const OmObserver *observer = try->call->observer;
	ErrorData *error = om_try(run_call, try);

	if (error != NULL && observer != NULL)
		observer->undone(try->call->over, observer->state);
	return error;
}

/*
 * May the call succeed when it is tried again?  A fixed snapshot stays older than what
 * the call has lost to.  Callables are called only once for each job.
 */
static bool
may_try_again(const OmCall *call, const ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE && IsolationUsesXactSnapshot())
		return false;
	return om_error_is_conflict(error) && !call->called;
}

/*
 * Wait before the next try.  After a deadlock, the other transaction is about to take
 * the lock that we gave up.  A call that begins again at once would often take it
 * first, and meet the other one in the next deadlock.
 */
static void
wait_for_other(const ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED)
		(void) DirectFunctionCall1(pg_sleep, Float8GetDatum(WAIT));
}

/*
 * The same in a subtransaction.  A call that loses to a deadlock, or to a row that
 * moves to another partition, gives up its locks and begins again.  Returns NULL, or
 * the error with which the call failed; then it is undone.
 */
ErrorData *
om_call_try(OmCall *call, uint64 *count)
{
	Try try = {.call = call};
	ErrorData *error = try_call(&try);

	for (int tries = 1; error != NULL && tries < MAX_TRIES && may_try_again(call, error); tries++)
	{
		wait_for_other(error);
		FreeErrorData(error);
		error = try_call(&try);
	}
	*count = try.count;
	return error;
}

/*
 * The same for a call that raises its error.
 */
uint64
om_call_run_again(OmCall *call)
{
	uint64 count;
	ErrorData *error = om_call_try(call, &count);

	if (error != NULL)
		ReThrowError(error);
	return count;
}
