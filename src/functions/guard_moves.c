/*
 * guard_moves.c
 *		For the guard: is a DELETE the second half of a row's move to another partition?
 *
 * PostgreSQL moves a row by an UPDATE and then a DELETE and an INSERT. It fires the
 * guard for the first two, and does not say that they belong together. So the guard
 * (guard.c) notes each UPDATE of a row in a partition here. Calls run_query.c for the
 * depth of triggers.
 */
#include "functions/guard.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* An UPDATE that fired the guard, to tell the DELETE of a move to another partition */
typedef struct GuardedUpdate
{
	TransactionId xid;
	Oid relid;
	ItemPointerData tid; /* no other row comes there in that transaction */
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
 * Does the DELETE belong to an UPDATE that moves the row to another partition? It
 * fires the guard for the same row twice. To keep the row then would lose the
 * UPDATE, which may be a worker's answer.
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
