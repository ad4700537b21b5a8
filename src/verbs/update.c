/*
 * update.c
 *		Makes the same checked changes to each of a set of jobs.
 *
 * All of the jobs named are updated, or none.  If one UPDATE goes through the jobs in
 * id order, it writes them without locking them first; the jobs that it skipped are
 * then settled without a lock.  Otherwise the jobs are locked in id order, looked at,
 * and written by one UPDATE.  run.c, update_jobs.c, triggers.c and update_with.c call
 * this file; this file calls update_steps.c.
 */
#include "verbs/verbs.h"

#include "executor/spi.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

static void
look_at_locked(TupleTableSlot *slot, void *state)
{
	OmUpdate *update = state;
	OmFoundRow row;

	om_found_row_read(slot, &row);
	om_update_look_at(update, update->changes, &row);
	om_update_mark_done(update, row.id);
}

/*
 * The query that writes the update's changes, and its values.
 */
static OmQuery
same_query(const OmUpdate *update, OmStep step, Datum *values)
{
	const OmChanges *changes = update->changes;
	int nvalues = 0;

	for (int column = 0; column < OM_N_UPDATE_COLUMNS; column++)
	{
		if (changes->columns & OM_COLUMN_BIT(column))
			values[nvalues++] = changes->values[column];
	}
	if (step == OM_WRITE_AND_WATCH)
		values[nvalues] = values[nvalues + 1] = changes->values[OM_SCHEDULED_AT];
	return (OmQuery){
		.step = step,
		.columns = changes->columns,
		.returns = om_update_returns(update),
	};
}

/*
 * Write the changes to the jobs of the update.  The jobs must be locked, unless there
 * is only one.  Returns how many were written.
 */
static uint64
write_same(OmUpdate *update, OmStep step)
{
	Datum values[OM_MAX_PARAMS];
	OmQuery query = same_query(update, step, values);

	return om_update_step(update, query, values, om_update_put_job, update);
}

static void
mark_existing(TupleTableSlot *slot, void *state)
{
	OmStateRow row;

	om_state_row_read(slot, &row);
	om_update_mark_done(state, row.id);
}

/*
 * Keep in the list the jobs that a snapshot shows.  If jobs are missing that must
 * exist, raise an error.
 */
static void
find_existing(OmUpdate *update, Snapshot snapshot)
{
	PushActiveSnapshot(snapshot);
	om_update_find(update, (OmQuery){.step = OM_STATE}, mark_existing, update);
	PopActiveSnapshot();
}

/*
 * Settle the jobs that the one statement has not written.  Do not lock these jobs,
 * because the statement may already have locked jobs with higher ids.
 *
 * A job that existed before the statement, and still exists, was kept from the
 * update by a trigger of the table.  It is skipped.  All other jobs are missing.  A
 * job that was created since then is missing too, because it did not exist when the
 * call began.
 */
static void
settle_rest(OmUpdate *update, Snapshot before)
{
	om_update_keep_jobs(update, false);
	if (update->ids->count <= update->renamed)
		return;
	find_existing(update, before);
	if (update->ids->count > 0)
		find_existing(update, GetTransactionSnapshot());
}

/*
 * Write the changes to jobs that are not locked, if one statement can do so in id
 * order.  Returns whether it did; then all of the jobs are settled.
 *
 * Whether a job was scheduled before matters only if the changes can make it
 * available, because its queue must then be woken.  The jobs are locked first if the
 * statement would not show why it skipped one: the job may have made too many
 * attempts, or a policy may hide it.
 */
static bool
write_unlocked(OmUpdate *update)
{
	bool due = om_changes_make_due(update->changes);
	Datum values[OM_MAX_PARAMS];
	Datum params[OM_MAX_PARAMS];
	OmQuery query;
	Snapshot before;
	bool written;
	uint64 count;

	if (update->ids->count == 1 && !due)
		return write_same(update, OM_WRITE_ONE) > 0;
	if ((update->changes->columns & OM_COLUMN_BIT(OM_MAX_ATTEMPTS)) ||
		check_enable_rls(update->jobs, InvalidOid, true) == RLS_ENABLED)
		return false;

	query = same_query(update, due ? OM_WRITE_AND_WATCH : OM_WRITE, values);
	query = om_update_begin_step(update, query, values, params);
	before = RegisterSnapshot(GetTransactionSnapshot());
	written = om_query_run_in_order(update->jobs, query, params, &update->was_scheduled,
									om_update_put_job, update, &count);
	update->was_scheduled = false;
	if (written)
		settle_rest(update, before);
	UnregisterSnapshot(before);
	return written;
}

/*
 * Make the changes to the jobs of the update, or raise an error.  Empty changes write
 * and lock nothing.
 */
void
om_update_same(OmUpdate *update)
{
	if (update->changes->columns == 0)
	{
		om_update_step(update, (OmQuery){.step = OM_GET_NEWEST}, NULL, om_update_put_job, update);
		om_update_drop_missing(update);
		return;
	}

	if (!write_unlocked(update))
	{
		update->due.count = 0;
		om_update_find(update, (OmQuery){.step = OM_FIND_AND_LOCK}, look_at_locked, update);
		if (update->ids->count > 0)
			write_same(update, OM_WRITE);
	}
}

/*
 * Update the jobs and put them into the result, which may be NULL.  The ids are
 * distinct and sorted.  NULL "json" means SQL NULL.  The changes are checked even if
 * there is no job.
 */
void
om_update_jobs(Oid jobs, OmJobIds *ids, const Jsonb *json, bool missing_ok, OmJobResult *result)
{
	OmChanges changes;
	OmUpdate update;
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = om_update_error_callback,
		.arg = &update,
	};

	om_changes_check(&changes, json, jobs);
	if (ids->count == 0)
		return;

	SPI_connect();
	om_update_init(&update, jobs, ids->count, missing_ok, result);
	update.ids = ids;
	update.changes = &changes;
	error_context_stack = &callback;
	om_update_same(&update);
	error_context_stack = callback.previous;
	SPI_finish();
}

static void
look_at_found(TupleTableSlot *slot, void *state)
{
	OmUpdate *update = state;
	const OmObserver *observer = update->call->observer;
	OmFoundRow row;

	om_found_row_read(slot, &row);
	if (observer != NULL)
		(void) observer->found(&row, observer->state);
	om_update_look_at(update, update->changes, &row);
	om_call_add(update->call, row.id);
}

/*
 * Update the jobs of the call's filter.  Returns how many were updated.  Empty changes
 * write and lock nothing; then it returns how many jobs were found.  The caller has
 * connected to SPI.
 */
uint64
om_update_found(OmCall *call)
{
	bool dry_run = (call->observer != NULL && call->observer->dry_run);
	bool writes = (call->changes.columns != 0 && !dry_run);
	OmUpdate update;
	OmJobIds none;
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = om_update_error_callback,
		.arg = &update,
	};
	uint64 count;

	om_job_ids_init(&none, 0);
	om_update_init(&update, call->jobs, 0, true, NULL);
	update.may_name_jobs = true; /* the caller may see what a filter finds */
	update.call = call;
	update.changes = &call->changes;
	update.ids = &none;
	error_context_stack = &callback;

	count = om_call_find(call, writes, look_at_found, &update);
	om_job_ids_sort(&update.due);
	if (writes && count > 0)
	{
		update.done = palloc(count);
		update.ids = &call->found;
		count = write_same(&update, OM_WRITE);
	}
	error_context_stack = callback.previous;
	return count;
}
