/*
 * read_ahead.c
 *		Locks and reads the jobs of a batch, many at a time, and hands them out one
 *		by one.
 *
 * The command counter shows whether anything was written after the jobs were read.
 * If so, they are read again, without another lock.  update_with.c calls this file;
 * this file calls update_steps.c, which runs the statements.
 */
#include "verbs/verbs.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/typcache.h"

/* The columns that are kept of each job */
enum
{
	KEPT_ID = 1,	   /* bigint */
	KEPT_WAS_IN_STATE, /* boolean */
	KEPT_ATTEMPT,	   /* integer */
	KEPT_MAY_RUN,	   /* boolean */
	KEPT_HASHES,	   /* bytea; OmColumnHashes */
	KEPT_ARGUMENT,	   /* the job, in the type that the callable takes */
	KEPT_N_COLUMNS = KEPT_ARGUMENT
};

static TupleDesc
kept_desc(Oid argument_type)
{
	TupleDesc desc = CreateTemplateTupleDesc(KEPT_N_COLUMNS);

	TupleDescInitEntry(desc, KEPT_ID, "id", INT8OID, -1, 0);
	TupleDescInitEntry(desc, KEPT_WAS_IN_STATE, "was_in_state", BOOLOID, -1, 0);
	TupleDescInitEntry(desc, KEPT_ATTEMPT, "attempt", INT4OID, -1, 0);
	TupleDescInitEntry(desc, KEPT_MAY_RUN, "may_run", BOOLOID, -1, 0);
	TupleDescInitEntry(desc, KEPT_HASHES, "hashes", BYTEAOID, -1, 0);
	TupleDescInitEntry(desc, KEPT_ARGUMENT, "argument", argument_type, -1, 0);
	TupleDescFinalize(desc);
	return desc;
}

/*
 * Prepare to read jobs for an update, at most "most" at a time.  Allocates in the
 * current memory context.
 */
void
om_read_ahead_init(OmReadAhead *reading, OmUpdate *update, Oid argument_type, int most)
{
	memset(reading, 0, sizeof(*reading));
	reading->update = update;
	reading->argument_type = argument_type;
	reading->most = reading->ahead = most;
	om_job_ids_init(&reading->locked, most);
	om_job_ids_init(&reading->read, most);
	update->ids = &reading->read;
	reading->row = MakeSingleTupleTableSlot(kept_desc(argument_type), &TTSOpsMinimalTuple);
	reading->rows = tuplestore_begin_heap(false, false, work_mem);
}

/*
 * Begin a batch of jobs.  The ids are in ascending order.
 */
void
om_read_ahead_begin_batch(OmReadAhead *reading, const int64 *ids, int nids)
{
	reading->ids = ids;
	reading->nids = nids;
	reading->locked_to = 0;
	reading->locked.count = 0;
	reading->read_to = 0;
}

/*
 * Hash the columns of a job that may be updated.  The hash is over the value, not over
 * how it is stored, because a write to another column may compress this one.
 */
void
om_hash_columns(const OmFoundRow *row, OmColumnHashes *hashes)
{
	HeapTupleHeader record = row->updatable;
	TupleDesc desc =
		lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(record), HeapTupleHeaderGetTypMod(record));
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(record), .t_data = record};
	Datum values[OM_N_UPDATE_COLUMNS];
	bool nulls[OM_N_UPDATE_COLUMNS];

	Assert(desc->natts == lengthof(values));
	heap_deform_tuple(&tuple, desc, values, nulls);
	for (int i = 0; i < OM_N_UPDATE_COLUMNS; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		hashes->of[i] =
			nulls[i] ? 0 : datum_image_hash(values[i], column->attbyval, column->attlen);
	}
	ReleaseTupleDesc(desc);
}

static void
keep_row(TupleTableSlot *slot, void *state)
{
	OmReadAhead *reading = state;
	OmFoundRow row;
	Datum values[KEPT_N_COLUMNS];
	bool nulls[KEPT_N_COLUMNS] = {false};
	union
	{
		bytea varlena;
		char bytes[VARHDRSZ + sizeof(OmColumnHashes)];
	} kept;
	OmColumnHashes hashes;

	om_found_row_read(slot, &row);
	om_hash_columns(&row, &hashes);
	SET_VARSIZE(&kept.varlena, sizeof(kept.bytes));
	memcpy(VARDATA(&kept.varlena), &hashes, sizeof(hashes));

	values[KEPT_ID - 1] = Int64GetDatum(row.id);
	values[KEPT_WAS_IN_STATE - 1] = BoolGetDatum(row.was_in_state);
	values[KEPT_ATTEMPT - 1] = Int32GetDatum(row.attempt);
	values[KEPT_MAY_RUN - 1] = BoolGetDatum(row.may_run);
	values[KEPT_HASHES - 1] = PointerGetDatum(&kept.varlena);
	values[KEPT_ARGUMENT - 1] = row.argument;
	tuplestore_putvalues(reading->rows, reading->row->tts_tupleDescriptor, values, nulls);
	om_update_mark_done(reading->update, row.id);
}

/*
 * Read the current row, as keep_row stored it.
 */
static void
read_kept(const OmReadAhead *reading, OmFoundRow *row, OmColumnHashes *hashes)
{
	bool isnull;
	Datum kept;

	*row = (OmFoundRow){
		.id = DatumGetInt64(slot_getattr(reading->row, KEPT_ID, &isnull)),
		.was_in_state = DatumGetBool(slot_getattr(reading->row, KEPT_WAS_IN_STATE, &isnull)),
		.attempt = DatumGetInt32(slot_getattr(reading->row, KEPT_ATTEMPT, &isnull)),
		.may_run = DatumGetBool(slot_getattr(reading->row, KEPT_MAY_RUN, &isnull)),
		.argument = slot_getattr(reading->row, KEPT_ARGUMENT, &isnull),
	};
	kept = slot_getattr(reading->row, KEPT_HASHES, &isnull);
	memcpy(hashes, VARDATA_ANY(DatumGetPointer(kept)), sizeof(*hashes));
}

/*
 * Read jobs of the batch, starting at the index "from".  Lock them unless they are
 * already locked.
 *
 * An id that was not found before is not looked for again.  If the job exists by
 * now, locking it could break the id order, because a job with a higher id may be
 * locked already.
 */
static void
read_jobs(OmReadAhead *reading, int from)
{
	const int64 *ids = reading->ids;
	bool lock = (from >= reading->locked_to);
	OmQuery query = {
		.step = lock ? OM_FIND_AND_LOCK : OM_FIND_ONLY,
		.argument_type = reading->argument_type,
	};

	reading->read_to = Min(lock ? reading->nids : reading->locked_to, from + reading->ahead);
	reading->read.count = 0;
	for (int i = from; i < reading->read_to; i++)
	{
		if ((i == from || ids[i] != ids[i - 1]) &&
			(lock || om_job_ids_find(&reading->locked, ids[i]) >= 0))
			om_job_ids_add(&reading->read, ids[i]);
	}

	ExecClearTuple(reading->row);
	tuplestore_clear(reading->rows);
	reading->update->ids = &reading->read;
	om_update_find(reading->update, query, keep_row, reading);
	reading->read_at = GetCurrentCommandId(false);

	if (lock)
	{
		for (int i = 0; i < reading->read.count; i++)
			om_job_ids_add(&reading->locked, om_job_ids_data(&reading->read)[i]);
		reading->locked_to = reading->read_to;
	}
}

/*
 * Has anything been written since the jobs were read?
 */
bool
om_read_ahead_is_overtaken(const OmReadAhead *reading)
{
	return reading->read_at != GetCurrentCommandId(false);
}

/*
 * Move to the row of the job at an index of the batch; false if there is no such
 * job.
 */
static bool
seek_row(OmReadAhead *reading, int i)
{
	bool isnull;

	for (;;)
	{
		if (!TupIsNull(reading->row))
		{
			int64 id = DatumGetInt64(slot_getattr(reading->row, KEPT_ID, &isnull));

			if (id >= reading->ids[i])
				return id == reading->ids[i];
		}
		if (!tuplestore_gettupleslot(reading->rows, true, false, reading->row))
			return false;
	}
}

/*
 * Get the job at an index of the batch, as it is now, and the hashes of its updatable
 * columns.  The row has no "updatable", and is valid until the next job is asked
 * for.  Returns false if there is no such job.
 */
bool
om_read_ahead_get(OmReadAhead *reading, int i, OmFoundRow *row, OmColumnHashes *hashes)
{
	if (i >= reading->read_to || om_read_ahead_is_overtaken(reading))
	{
		if (reading->one_at_a_time || i < reading->read_to)
			reading->ahead = 1;
		else
			reading->ahead = Min(2 * reading->ahead, reading->most);
		read_jobs(reading, i);
	}
	if (!seek_row(reading, i))
		return false;
	read_kept(reading, row, hashes);
	return true;
}

void
om_read_ahead_end(OmReadAhead *reading)
{
	ExecDropSingleTupleTableSlot(reading->row);
	tuplestore_end(reading->rows);
}
