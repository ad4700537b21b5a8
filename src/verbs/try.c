/*
 * try.c
 *		Runs a step in a subtransaction, and undoes it when it fails.
 *
 * Only the end of a subtransaction cleans up what an error has left: locks, writes,
 * signals, SPI levels of triggers.  Calls only PostgreSQL; run.c and
 * functions/batch_transactions.c call it.
 */
#include "verbs/verbs.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/*
 * Run a step.  Returns NULL, or the error with which the step failed; then the step is
 * undone.  What the step allocates in the current memory context is freed.  The caller
 * has connected to SPI.
 */
ErrorData *
om_try(OmTryStep step, void *state)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext context =
		AllocSetContextCreate(caller, "oban_manage try", ALLOCSET_DEFAULT_SIZES);
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		MemoryContextSwitchTo(context);
		step(state);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	MemoryContextDelete(context);
	return error;
}
