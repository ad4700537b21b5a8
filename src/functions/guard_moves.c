/*
 * guard_moves.c
 *		For the guard: is a DELETE the second half of a row's move to another partition?
 *
 * PostgreSQL moves a row by an UPDATE and then a DELETE and an INSERT. The UPDATE and
 * the DELETE fire the guard, which cannot see that they belong together. So guard.c
 * notes each UPDATE of a row in a partition here. Calls run_query.c for the depth of
 * triggers.
 */
#include "functions/guard.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* An UPDATE that fired the guard, by which we recognize the DELETE of the same move */
typedef struct GuardedUpdate
{
	TransactionId xid;
	Oid relid;
	ItemPointerData tid; /* not reused for another row in that transaction */
} GuardedUpdate;

/* One for each depth of triggers, so that a statement of a nested trigger does not overwrite it */
static GuardedUpdate *guarded_updates = NULL;
static int n_guarded_updates = 0;

static GuardedUpdate
this_row(const GuardedRow *row)
{
	return (GuardedUpdate){
		.xid = GetTopTransactionIdIfAny(),
		.relid = RelationGetRelid(row->data->tg_relation),
		.tid = row->data->tg_trigtuple->t_self,
	};
}

/*
 * Note an UPDATE of a row in a partition, which may become a move.
 */
void
om_guarded_note_update(const GuardedRow *row)
{
	int depth = om_trigger_depth();

	if (depth >= n_guarded_updates)
	{
		int count = Max(2 * depth, 8);
		Size size = count * sizeof(GuardedUpdate);

		guarded_updates = guarded_updates == NULL ? MemoryContextAlloc(TopMemoryContext, size)
												  : repalloc(guarded_updates, size);
		memset(&guarded_updates[n_guarded_updates], 0,
			   (count - n_guarded_updates) * sizeof(GuardedUpdate));
		n_guarded_updates = count;
	}
	guarded_updates[depth] = this_row(row);
}

/*
 * Does the DELETE belong to an UPDATE that moves the row to another partition? Such an
 * UPDATE fires the guard for the same row twice. If the guard stopped the DELETE, the
 * UPDATE, which may be a worker's answer, would be lost.
 */
bool
om_guarded_is_moved(const GuardedRow *row)
{
	GuardedUpdate now = this_row(row);
	int depth = om_trigger_depth();
	GuardedUpdate *update;

	if (depth >= n_guarded_updates)
		return false;
	update = &guarded_updates[depth];
	return update->xid == now.xid && update->relid == now.relid &&
		   ItemPointerEquals(&update->tid, &now.tid);
}
