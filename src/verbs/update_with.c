/*
 * update_with.c
 *		Updating jobs by a callable, which gets each job and returns its changes.
 *
 * The callable runs on the row as it is under our lock, so nothing that anyone
 * else writes is lost.  Jobs are locked and read, and what the callable made of
 * them is written, many at a time; what is held at any time is bounded, whatever
 * the number of jobs.
 *
 * A callable is code like any other: it may write to the jobs itself.  The
 * command counter tells when it, or a trigger of what we wrote, has written
 * anything; then what was read ahead is read again, without another lock, and once
 * a callable has, each job is written at once.
 */
#include "verbs/verbs.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* How many jobs are locked and read ahead, or written, by one statement */
#define BATCH_SIZE 1000

/* What changes may take before they are written, in bytes */
#define CHANGES_MEMORY (8 * 1024 * 1024)

/* What is kept of a job that is locked and read */
#define KEPT_ID			 1 /* bigint */
#define KEPT_WAS_WATCHED 2 /* boolean */
#define KEPT_ATTEMPT	 3 /* integer */
#define KEPT_MAY_RUN	 4 /* boolean */
#define KEPT_HASH		 5 /* bigint; of what may be updated */
#define KEPT_ARGUMENT	 6 /* as the callable takes it */
#define KEPT_N_COLUMNS	 6

typedef struct WithUpdate
{
	OmUpdate update; /* its ids are those of the running step */
	OmCallable *callable;
	int64 called_for; /* the job that the callable runs for */
	bool calling;

	/* The jobs to come */
	int64 *ids;
	NullableDatum *contexts;
	int nids;

	/* Those of them that are locked, which were looked for up to the batch's index locked_to */
	int locked_to;
	OmJobIds locked;

	/* The locked jobs that are read now, up to the index read_to */
	int read_to;
	int read_ahead;	 /* how many to read at a time */
	bool job_by_job; /* the callable writes: read nothing ahead, write at once */
	OmJobIds read;
	Tuplestorestate *rows; /* what is kept of them */
	TupleTableSlot *row;
	CommandId read_at;

	OmJobChanges changes; /* to write, */
	OmJobChanges taken;	  /* and those of them that the running statement writes */
	OmJobIds unchanged;	  /* jobs that are asked for as they are */
} WithUpdate;

/*
 * What the statements fail with is about jobs of the step, what the callable
 * does about one.
 */
static void
with_error_callback(void *arg)
{
	WithUpdate *with = arg;

	if (with->calling)
		errcontext("callable %s for job " INT64_FORMAT, with->callable->name, with->called_for);
	else
		om_update_error_callback(&with->update);
}

/*
 * A hash, by the bytes, of what of the job may be updated.
 */
static uint64
hash_of_updatable(const OmFoundRow *row)
{
	return DatumGetUInt64(hash_any_extended((unsigned char *) VARDATA_ANY(row->updatable),
											VARSIZE_ANY_EXHDR(row->updatable), 0));
}

static void
keep_row(TupleTableSlot *slot, void *state)
{
	WithUpdate *with = state;
	OmFoundRow row;
	Datum values[KEPT_N_COLUMNS];
	bool nulls[KEPT_N_COLUMNS] = {false};

	om_found_row_read(slot, &row);
	values[KEPT_ID - 1] = Int64GetDatum(row.id);
	values[KEPT_WAS_WATCHED - 1] = BoolGetDatum(row.was_watched);
	values[KEPT_ATTEMPT - 1] = Int32GetDatum(row.attempt);
	values[KEPT_MAY_RUN - 1] = BoolGetDatum(row.may_run);
	values[KEPT_HASH - 1] = UInt64GetDatum(hash_of_updatable(&row));
	values[KEPT_ARGUMENT - 1] = row.argument;
	tuplestore_putvalues(with->rows, with->row->tts_tupleDescriptor, values, nulls);
	om_update_mark_done(&with->update, row.id);
}

/*
 * Read the row that we are at, which keep_row has kept.
 */
static void
read_kept(const WithUpdate *with, OmFoundRow *row, uint64 *hash)
{
	bool isnull;

	*row = (OmFoundRow){
		.id = DatumGetInt64(slot_getattr(with->row, KEPT_ID, &isnull)),
		.was_watched = DatumGetBool(slot_getattr(with->row, KEPT_WAS_WATCHED, &isnull)),
		.attempt = DatumGetInt32(slot_getattr(with->row, KEPT_ATTEMPT, &isnull)),
		.may_run = DatumGetBool(slot_getattr(with->row, KEPT_MAY_RUN, &isnull)),
		.argument = slot_getattr(with->row, KEPT_ARGUMENT, &isnull),
	};
	*hash = DatumGetUInt64(slot_getattr(with->row, KEPT_HASH, &isnull));
}

/*
 * Read jobs of the batch, from its index on, and lock them unless they are locked.
 * What was looked for before and not found is not looked for again: if it is there
 * by now, it may be below a job that is locked.
 */
static void
read_jobs(WithUpdate *with, int from)
{
	bool lock = (from >= with->locked_to);

	with->read_to = Min(lock ? with->nids : with->locked_to, from + with->read_ahead);
	with->read.count = 0;
	for (int i = from; i < with->read_to; i++)
	{
		if ((i == from || with->ids[i] != with->ids[i - 1]) &&
			(lock || om_job_ids_find(&with->locked, with->ids[i]) >= 0))
			om_job_ids_add(&with->read, with->ids[i]);
	}

	ExecClearTuple(with->row);
	tuplestore_clear(with->rows);
	with->update.ids = &with->read;
	om_update_find(
		&with->update,
		(OmQuery){.step = lock ? OM_LOCK : OM_LOOK, .argument_type = with->callable->argument_type},
		keep_row, with);
	with->read_at = GetCurrentCommandId(false);

	if (lock)
	{
		for (int i = 0; i < with->read.count; i++)
			om_job_ids_add(&with->locked, om_job_ids_data(&with->read)[i]);
		with->locked_to = with->read_to;
	}
}

/*
 * Has anything been written since the jobs were read?
 */
static bool
is_overtaken(const WithUpdate *with)
{
	return with->read_at != GetCurrentCommandId(false);
}

/*
 * Move to the row of the job at the batch's index; false when there is none.
 */
static bool
seek_row(WithUpdate *with, int i)
{
	bool isnull;

	for (;;)
	{
		if (!TupIsNull(with->row))
		{
			int64 id = DatumGetInt64(slot_getattr(with->row, KEPT_ID, &isnull));

			if (id >= with->ids[i])
				return id == with->ids[i];
		}
		if (!tuplestore_gettupleslot(with->rows, true, false, with->row))
			return false;
	}
}

/*
 * Get the row of the job at the batch's index, as it is now.
 */
static bool
get_row(WithUpdate *with, int i)
{
	bool overtaken = is_overtaken(with);

	if (i < with->read_to && !overtaken)
		return seek_row(with, i);
	if (with->job_by_job || i < with->read_to)
		with->read_ahead = 1;
	else
		with->read_ahead = Min(2 * with->read_ahead, BATCH_SIZE);
	read_jobs(with, i);
	return seek_row(with, i);
}

static void
mark_untouched(TupleTableSlot *slot, void *state)
{
	WithUpdate *with = state;
	OmFoundRow row;
	int i;

	om_found_row_read(slot, &row);
	i = om_job_ids_find(&with->changes.ids, row.id);
	if (i < 0 || hash_of_updatable(&row) != with->changes.hashes[i])
		return;
	om_update_mark_done(&with->update, row.id);
	om_update_look_at(&with->update, &with->changes.each[i], &row);
}

/*
 * Raise an error if a callable, or a trigger, has written to jobs whose own
 * changes are collected: those would overwrite it.  It may have changed their
 * states, so they are looked at again.
 */
static void
check_untouched(WithUpdate *with)
{
	if (with->changes.ids.count == 0)
		return;
	with->update.ids = &with->changes.ids;
	with->update.due.count = 0;
	om_update_step(&with->update,
				   (OmQuery){.step = OM_LOOK, .argument_type = with->callable->argument_type}, NULL,
				   mark_untouched, with);
	for (int i = 0; i < with->changes.ids.count; i++)
	{
		if (!with->update.done[i])
			ereport(ERROR,
					(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
					 errmsg("job " INT64_FORMAT " was changed before its own changes were written",
							om_job_ids_data(&with->changes.ids)[i]),
					 errdetail("Changes are written for many jobs at once, when the callable has "
							   "been called for each of them."),
					 errhint("Let the callable return what is to change, or update one job at a "
							 "time.")));
	}
}

/*
 * Write the changes that have been collected: a statement for each set of columns
 * that jobs named.  A trigger of one may write to the jobs of the next.
 */
static void
write_by_columns(WithUpdate *with)
{
	while (with->changes.ids.count > 0)
	{
		Datum values[OM_N_UPDATE_COLUMNS];
		CommandId command;
		OmQuery query = {.step = OM_WRITE_EACH, .returns = om_update_returns(&with->update)};

		query.columns = om_job_changes_take(&with->changes, &with->taken);
		om_job_changes_values(&with->taken, values);
		with->update.ids = &with->taken.ids;
		with->update.later = &with->changes.ids;
		CommandCounterIncrement();
		command = GetCurrentCommandId(false);
		om_update_step(&with->update, query, values, om_update_put_job, with);
		with->update.later = NULL;
		/* The statement itself was one command. */
		if (GetCurrentCommandId(false) > command + 1)
			check_untouched(with);
		om_job_changes_clear(&with->taken);
	}
	om_job_changes_clear(&with->changes);
}

static void
write_changes(WithUpdate *with)
{
	write_by_columns(with);
	if (with->unchanged.count > 0)
	{
		with->update.ids = &with->unchanged;
		om_update_step(&with->update, (OmQuery){.step = OM_GET}, NULL, om_update_put_job, with);
		om_update_drop_missing(&with->update);
	}
	with->unchanged.count = 0;
	with->update.due.count = 0;
}

/*
 * Write the changes of a job at once.  The callable may have changed the job as
 * well, or deleted it.
 */
static void
write_at_once(WithUpdate *with, int64 id, const OmChanges *changes)
{
	OmJobIds ids;

	om_job_ids_init(&ids, 1);
	om_job_ids_add(&ids, id);
	with->update.ids = &ids;
	with->update.changes = changes;
	om_update_same(&with->update);
	with->update.ids = &with->read;
	with->update.changes = NULL;
}

/*
 * Call the callable for the job at the batch's index, whose row we are at, and
 * check the changes that it returns.
 */
static void
call_for_job(WithUpdate *with, int i)
{
	OmChanges changes = {0};
	OmFoundRow row;
	uint64 hash;
	Jsonb *json;

	read_kept(with, &row, &hash);
	with->called_for = row.id;
	with->calling = true;
	json = om_callable_call(with->callable, row.argument, with->contexts[i]);
	/* A function in SQL leaves this to the next statement. */
	CommandCounterIncrement();
	if (json != NULL)
		om_changes_check(&changes, json, with->update.jobs);

	if (is_overtaken(with) && !with->job_by_job)
	{
		check_untouched(with);
		with->calling = false;
		write_changes(with);
		with->calling = true;
		with->job_by_job = true;
	}
	if (changes.columns == 0 && with->update.result == NULL)
		; /* nothing to write, and nobody asks for the job */
	else if (with->job_by_job)
		write_at_once(with, row.id, &changes);
	else if (changes.columns != 0)
	{
		om_update_look_at(&with->update, &changes, &row);
		om_job_changes_add(&with->changes, row.id, &changes, hash);
	}
	else
		om_job_ids_add(&with->unchanged, row.id);
	with->calling = false;
}

/*
 * Take the next jobs, as many as a batch may hold; false at the end.
 */
static bool
next_batch(WithUpdate *with, OmNextJob next, void *state)
{
	with->nids = 0;
	with->locked_to = 0;
	with->locked.count = 0;
	with->read_to = 0;
	while (with->nids < BATCH_SIZE &&
		   next(state, with->nids == 0, &with->ids[with->nids], &with->contexts[with->nids]))
		with->nids++;
	return with->nids > 0;
}

static void
update_batch(WithUpdate *with, MemoryContext job_context)
{
	for (int i = 0; i < with->nids; i++)
	{
		CHECK_FOR_INTERRUPTS();

		/* Two rows of a statement trigger may name the same job. */
		if ((i > 0 && with->ids[i] == with->ids[i - 1]) ||
			MemoryContextMemAllocated(with->changes.context, false) > CHANGES_MEMORY)
			write_changes(with);

		if (get_row(with, i))
		{
			MemoryContext caller = MemoryContextSwitchTo(job_context);

			call_for_job(with, i);
			MemoryContextSwitchTo(caller);
			MemoryContextReset(job_context);
		}
	}
	write_changes(with);
}

static TupleDesc
kept_desc(const OmCallable *callable)
{
	TupleDesc desc = CreateTemplateTupleDesc(KEPT_N_COLUMNS);

	TupleDescInitEntry(desc, KEPT_ID, "id", INT8OID, -1, 0);
	TupleDescInitEntry(desc, KEPT_WAS_WATCHED, "was_watched", BOOLOID, -1, 0);
	TupleDescInitEntry(desc, KEPT_ATTEMPT, "attempt", INT4OID, -1, 0);
	TupleDescInitEntry(desc, KEPT_MAY_RUN, "may_run", BOOLOID, -1, 0);
	TupleDescInitEntry(desc, KEPT_HASH, "hash", INT8OID, -1, 0);
	TupleDescInitEntry(desc, KEPT_ARGUMENT, "argument", callable->argument_type, -1, 0);
	return desc;
}

/*
 * Update jobs by a callable, and put them into the result, which may be NULL:
 * then a job may come several times.
 */
void
om_update_with(Oid jobs, OmCallable *callable, OmNextJob next, void *state, bool missing_ok,
			   OmJobResult *result)
{
	WithUpdate with = {.callable = callable, .read_ahead = BATCH_SIZE};
	MemoryContext job_context;
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = with_error_callback,
		.arg = &with,
	};

	SPI_connect();
	om_update_init(&with.update, jobs, BATCH_SIZE, missing_ok, result);
	with.ids = palloc(BATCH_SIZE * sizeof(int64));
	with.contexts = palloc(BATCH_SIZE * sizeof(NullableDatum));
	om_job_ids_init(&with.locked, BATCH_SIZE);
	om_job_ids_init(&with.read, BATCH_SIZE);
	om_job_changes_init(&with.changes, BATCH_SIZE);
	om_job_changes_init(&with.taken, BATCH_SIZE);
	om_job_ids_init(&with.unchanged, 0);
	with.update.ids = &with.read;
	with.row = MakeSingleTupleTableSlot(kept_desc(callable), &TTSOpsMinimalTuple);
	with.rows = tuplestore_begin_heap(false, false, work_mem);
	job_context =
		AllocSetContextCreate(CurrentMemoryContext, "oban_manage job", ALLOCSET_DEFAULT_SIZES);

	error_context_stack = &callback;
	while (next_batch(&with, next, state))
		update_batch(&with, job_context);
	error_context_stack = callback.previous;

	ExecDropSingleTupleTableSlot(with.row);
	tuplestore_end(with.rows);
	SPI_finish();
}

/*
 * The jobs of an OmJobList, one after the other.
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
