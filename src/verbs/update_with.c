/*
 * update_with.c
 *		Updates jobs by a callable, which gets each job and returns its changes.
 *
 * The callable gets each row as it is under our lock, so that no other session's
 * write is lost.  Many jobs are locked and read together (read_ahead.c), and their
 * changes are written together (pending_changes.c).  Memory is bounded, however many
 * jobs there are.
 *
 * The callable may itself write to jobs.  The command counter shows that the callable,
 * or a trigger of our writes, has written something.  Then the jobs are read again,
 * without another lock.  After a callable has written, each job is written immediately.
 *
 * update_jobs_with.c and triggers.c call this file.
 */
#include "verbs/verbs.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* How many jobs are locked and read ahead, or written, by one statement */
#define BATCH_SIZE 1000

/* Write the collected changes when they take more bytes than this */
#define CHANGES_MEMORY (8 * 1024 * 1024)

typedef struct CallableUpdate
{
	OmUpdate update; /* its ids are the jobs of the running step */
	OmCallable *callable;
	bool calling;	  /* does the callable run? */
	int64 called_for; /* if so, the job that it runs for */

	/* The jobs of the batch, and the contexts for the callable */
	int64 *ids;
	NullableDatum *contexts;
	int nids;

	OmReadAhead reading;

	OmPendingChanges pending; /* changes to write */
	OmPendingChanges taken;	  /* changes that the running statement writes */
	OmJobIds unchanged;		  /* jobs to return without a change */
} CallableUpdate;

/*
 * An error of the callable is about one job, an error of a statement about the jobs of
 * the step.
 */
static void
callable_error_callback(void *arg)
{
	CallableUpdate *run = arg;

	if (run->calling)
		errcontext("callable %s for job " INT64_FORMAT, run->callable->name, run->called_for);
	else
		om_update_error_callback(&run->update);
}

/*
 * Are the columns that the changes name as they were when the callable was called?
 */
static bool
is_untouched(const OmChanges *changes, const OmColumnHashes *before, const OmColumnHashes *now)
{
	for (int column = 0; column < OM_N_UPDATE_COLUMNS; column++)
	{
		if ((changes->columns & OM_COLUMN_BIT(column)) && before->of[column] != now->of[column])
			return false;
	}
	return true;
}

static void
mark_untouched(TupleTableSlot *slot, void *state)
{
	CallableUpdate *run = state;
	OmFoundRow row;
	OmColumnHashes now;
	int i;

	om_found_row_read(slot, &row);
	i = om_job_ids_find(&run->pending.ids, row.id);
	if (i < 0)
		return;
	om_hash_columns(&row, &now);
	if (!is_untouched(&run->pending.each[i], &run->pending.hashes[i], &now))
		return;
	om_update_mark_done(&run->update, row.id);
	om_update_look_at(&run->update, &run->pending.each[i], &row);
}

/*
 * Raise an error if a callable or a trigger has written to columns of a job whose
 * changes of these columns are still collected, because they would overwrite that
 * write.  The states of jobs may have changed too, so the jobs are looked at again.
 */
static void
check_untouched(CallableUpdate *run)
{
	if (run->pending.ids.count == 0)
		return;
	run->update.ids = &run->pending.ids;
	run->update.due.count = 0;
	om_update_step(&run->update,
				   (OmQuery){.step = OM_FIND_ONLY, .argument_type = run->callable->argument_type},
				   NULL, mark_untouched, run);
	for (int i = 0; i < run->pending.ids.count; i++)
	{
		if (!run->update.done[i])
			ereport(ERROR,
					(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
					 errmsg("job " INT64_FORMAT " was changed before its own changes were written",
							om_job_ids_data(&run->pending.ids)[i]),
					 errdetail("The changes of many jobs are written together, after the "
							   "callable was called for each of them."),
					 errhint("Let the callable return what is to change, or update one job at a "
							 "time.")));
	}
}

/*
 * Write the collected changes, by one statement for each set of columns.  A trigger of
 * one statement may write to jobs of the next.
 */
static void
write_by_columns(CallableUpdate *run)
{
	while (run->pending.ids.count > 0)
	{
		Datum values[OM_N_UPDATE_COLUMNS];
		CommandId command;
		OmQuery query = {.step = OM_WRITE_EACH, .returns = om_update_returns(&run->update)};

		query.columns = om_pending_take(&run->pending, &run->taken);
		om_pending_values(&run->taken, values);
		run->update.ids = &run->taken.ids;
		run->update.later = &run->pending.ids;
		CommandCounterIncrement();
		command = GetCurrentCommandId(false);
		om_update_step(&run->update, query, values, om_update_put_job, &run->update);
		run->update.later = NULL;
		/* The statement itself was one command. */
		if (GetCurrentCommandId(false) > command + 1)
			check_untouched(run);
		om_pending_clear(&run->taken);
	}
	om_pending_clear(&run->pending);
}

static void
write_changes(CallableUpdate *run)
{
	write_by_columns(run);
	if (run->unchanged.count > 0)
	{
		run->update.ids = &run->unchanged;
		om_update_step(&run->update, (OmQuery){.step = OM_GET_NEWEST}, NULL, om_update_put_job,
					   &run->update);
		om_update_drop_missing(&run->update);
	}
	run->unchanged.count = 0;
	run->update.due.count = 0;
}

/*
 * Write the changes of a job immediately.  The callable may itself have changed or
 * deleted the job.
 */
static void
write_immediately(CallableUpdate *run, int64 id, const OmChanges *changes)
{
	OmJobIds ids;

	om_job_ids_init(&ids, 1);
	om_job_ids_add(&ids, id);
	run->update.ids = &ids;
	run->update.changes = changes;
	om_update_same(&run->update);
	run->update.ids = &run->reading.read;
	run->update.changes = NULL;
}

/*
 * Call the callable for a job, and check the changes that it returns.  NULL means no
 * changes.
 */
static void
call_callable(CallableUpdate *run, const OmFoundRow *row, NullableDatum context, OmChanges *changes)
{
	const Jsonb *json = om_callable_call(run->callable, row->argument, context);

	/* A function in SQL does not increment the counter after its last statement. */
	CommandCounterIncrement();
	if (json != NULL)
		om_changes_check(changes, json, run->update.jobs);
}

/*
 * The callable has written something.  Write the collected changes, and from now on
 * work job by job, without reading ahead.
 */
static void
begin_job_by_job(CallableUpdate *run)
{
	check_untouched(run);
	run->calling = false;
	write_changes(run);
	run->calling = true;
	run->reading.one_at_a_time = true;
}

/*
 * Collect the changes of a job, to write them together with those of other jobs.
 */
static void
collect_changes(CallableUpdate *run, const OmFoundRow *row, const OmColumnHashes *hashes,
				const OmChanges *changes)
{
	if (changes->columns == 0)
	{
		om_job_ids_add(&run->unchanged, row->id);
		return;
	}
	om_update_look_at(&run->update, changes, row);
	om_pending_add(&run->pending, row->id, changes, hashes);
}

/*
 * Update a job, whose columns have these hashes.
 */
static void
update_job(CallableUpdate *run, const OmFoundRow *row, const OmColumnHashes *hashes,
		   NullableDatum context)
{
	OmChanges changes = {0};

	run->called_for = row->id;
	run->calling = true;
	call_callable(run, row, context, &changes);
	if (run->update.call != NULL)
		om_call_pass(run->update.call, row->id);

	if (om_read_ahead_is_overtaken(&run->reading) && !run->reading.one_at_a_time)
		begin_job_by_job(run);
	if (changes.columns == 0 && run->update.result == NULL)
		; /* nothing to write, and nothing to return */
	else if (run->reading.one_at_a_time)
		write_immediately(run, row->id, &changes);
	else
		collect_changes(run, row, hashes, &changes);
	run->calling = false;
}

/*
 * Take the next jobs, at most BATCH_SIZE; false if there are none.
 */
static bool
next_batch(CallableUpdate *run, OmNextJob next, void *state)
{
	run->nids = 0;
	while (run->nids < BATCH_SIZE &&
		   next(state, run->nids == 0, &run->ids[run->nids], &run->contexts[run->nids]))
		run->nids++;
	om_read_ahead_begin_batch(&run->reading, run->ids, run->nids);
	return run->nids > 0;
}

static void
update_batch(CallableUpdate *run, MemoryContext job_context)
{
	for (int i = 0; i < run->nids; i++)
	{
		OmFoundRow row;
		OmColumnHashes hashes;

		CHECK_FOR_INTERRUPTS();

		/* Two rows of a statement trigger may name the same job. */
		if ((i > 0 && run->ids[i] == run->ids[i - 1]) ||
			MemoryContextMemAllocated(run->pending.context, false) > CHANGES_MEMORY)
			write_changes(run);

		if (om_read_ahead_get(&run->reading, i, &row, &hashes))
		{
			MemoryContext caller = MemoryContextSwitchTo(job_context);

			update_job(run, &row, &hashes, run->contexts[i]);
			MemoryContextSwitchTo(caller);
			MemoryContextReset(job_context);
		}
	}
	write_changes(run);
}

/*
 * Update jobs by a callable, batch by batch.  "run" has the callable and an update that
 * was begun.
 */
static void
update_batches(CallableUpdate *run, OmNextJob next, void *state)
{
	MemoryContext job_context =
		AllocSetContextCreate(CurrentMemoryContext, "oban_manage job", ALLOCSET_DEFAULT_SIZES);
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = callable_error_callback,
		.arg = run,
	};

	run->ids = palloc(BATCH_SIZE * sizeof(int64));
	run->contexts = palloc(BATCH_SIZE * sizeof(NullableDatum));
	om_read_ahead_init(&run->reading, &run->update, run->callable->argument_type, BATCH_SIZE);
	om_pending_init(&run->pending, BATCH_SIZE);
	om_pending_init(&run->taken, BATCH_SIZE);
	om_job_ids_init(&run->unchanged, 0);

	error_context_stack = &callback;
	while (next_batch(run, next, state))
		update_batch(run, job_context);
	error_context_stack = callback.previous;

	om_read_ahead_end(&run->reading);
}

/*
 * Update jobs by a callable, and put them into the result, which may be NULL.  Only
 * without a result may a job come several times.
 */
void
om_update_with(Oid jobs, OmCallable *callable, OmNextJob next, void *state, bool missing_ok,
			   OmJobResult *result)
{
	CallableUpdate run = {.callable = callable};

	SPI_connect();
	om_update_init(&run.update, jobs, BATCH_SIZE, missing_ok, result);
	update_batches(&run, next, state);
	SPI_finish();
}

static void
take_found(TupleTableSlot *slot, void *state)
{
	OmFoundRow row;

	om_found_row_read(slot, &row);
	om_call_add(state, row.id);
}

/*
 * Update the jobs of the call's filter by its callable.  Returns how many were written.
 * All of the jobs are locked before the first call, so that a call that loses to a
 * deadlock can begin again.  The caller has connected to SPI.
 */
uint64
om_update_found_with(OmCall *call)
{
	CallableUpdate run = {.callable = call->callable};
	OmJobList list = {.ids = &call->found, .context = call->context};

	call->called = false; /* not yet, for this part of the call */
	(void) om_call_find(call, true, take_found, call);
	call->called = (call->found.count > 0);
	om_update_init(&run.update, call->jobs, BATCH_SIZE, true, NULL);
	run.update.may_name_jobs = true; /* the caller may see what a filter finds */
	run.update.call = call;
	update_batches(&run, om_next_of_list, &list);
	return run.update.written;
}

/*
 * An OmNextJob that gives the jobs of an OmJobList.
 */
bool
om_next_of_list(void *state, bool anew, int64 *id, NullableDatum *context)
{
	OmJobList *list = state;

	if (list->next == list->ids->count)
		return false;
	*id = om_job_ids_data(list->ids)[list->next++];
	*context = list->context;
	return true;
}
