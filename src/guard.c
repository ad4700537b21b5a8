/*
 * guard.c
 *		The guard of a jobs table: a trigger that keeps out what comes too late.
 *
 * Both Obans answer for a job by its id alone. And some of their statements (the
 * stager, the pruner, operations on many jobs) judge the state on a version of
 * the row that may be older than the one they then change. So a cancelled job
 * would run, a retry would be overwritten, a job that executes would be started
 * again or deleted.
 *
 * The guard knows two kinds of statements. A late answer is about a run that has
 * ended: the job stays as it is, and only what the worker reports is written. A
 * stale statement judged an older version of the row: it is passed over. All else
 * goes through, and leaves as early as possible, because the guard runs in the
 * statements that workers send most.
 */
#include "triggers.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* Sets of states, and what a DELETE makes of a job */
#define AVAILABLE 0x001
#define SCHEDULED 0x002
#define SUSPENDED 0x004
#define EXECUTING 0x008
#define RETRYABLE 0x010
#define COMPLETED 0x020
#define DISCARDED 0x040
#define CANCELLED 0x080
#define DELETED	  0x100

#define WAITING	   (AVAILABLE | SCHEDULED | SUSPENDED | RETRYABLE)
#define FINISHED   (COMPLETED | DISCARDED | CANCELLED)
#define UNFINISHED (WAITING | EXECUTING)
#define ALL		   (UNFINISHED | FINISHED)

/* Each state's bit is 1 << its place here. */
static const char *const state_labels[] = {"available", "scheduled", "suspended", "executing",
										   "retryable", "completed", "discarded", "cancelled"};

/* The columns that the guard reads. A late answer changes none from STATE on. */
typedef enum GuardColumn
{
	ID,
	ERRORS,
	MAX_ATTEMPTS,
	STATE,
	ATTEMPT,
	SCHEDULED_AT,
	ATTEMPTED_AT,
	COMPLETED_AT,
	CANCELLED_AT,
	DISCARDED_AT,
	N_COLUMNS
} GuardColumn;

static const char *const column_names[N_COLUMNS] = {
	[ID] = "id",
	[ERRORS] = "errors",
	[MAX_ATTEMPTS] = "max_attempts",
	[STATE] = "state",
	[ATTEMPT] = "attempt",
	[SCHEDULED_AT] = "scheduled_at",
	[ATTEMPTED_AT] = "attempted_at",
	[COMPLETED_AT] = "completed_at",
	[CANCELLED_AT] = "cancelled_at",
	[DISCARDED_AT] = "discarded_at",
};

/* What the guard knows of a table. Entries stay where they are, because nested calls use them. */
typedef struct GuardedTable
{
	Oid relid; /* hash key */
	bool valid;
	bool errors_is_array;
	AttrNumber attnums[N_COLUMNS];
	Oid types[N_COLUMNS];
	Oid states[lengthof(state_labels)]; /* InvalidOid: the table has no such state */
} GuardedTable;

static HTAB *guarded_tables = NULL;

/* The row that a statement is about to change, and what it makes of it */
typedef struct Row
{
	const TriggerData *data;
	const GuardedTable *table;
	int old_state; /* one bit; 0: a state that Oban does not have */
	int new_state;
} Row;

/* An UPDATE that fired the guard, to tell the DELETE of a move to another partition */
typedef struct GuardedUpdate
{
	TransactionId xid;
	CommandId curcid; /* of the statement's snapshot: each statement that writes has its own */
	Oid relid;
	ItemPointerData tid;
} GuardedUpdate;

/* The last one of each depth of triggers, which statements of nested triggers leave alone */
static GuardedUpdate *guarded_updates = NULL;
static int n_guarded_updates = 0;

/* ---- the table ---- */

static void
forget_table(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	GuardedTable *table;

	if (OidIsValid(relid))
	{
		table = hash_search(guarded_tables, &relid, HASH_FIND, NULL);
		if (table != NULL)
			table->valid = false;
		return;
	}
	hash_seq_init(&status, guarded_tables);
	while ((table = hash_seq_search(&status)) != NULL)
		table->valid = false;
}

static void
forget_states(Datum arg, int cacheid, uint32 hashvalue)
{
	forget_table(arg, InvalidOid);
}

static void
learn_table(GuardedTable *table, Relation rel)
{
	OmTableShape shape;

	om_jobs_table_shape(RelationGetRelid(rel), &shape); /* refuses tables without the columns */
	table->errors_is_array = shape.errors_is_array;
	for (int i = 0; i < N_COLUMNS; i++)
	{
		Form_pg_attribute column = om_find_column(RelationGetDescr(rel), column_names[i]);

		table->attnums[i] = column->attnum;
		table->types[i] = getBaseType(column->atttypid);
	}
	for (size_t i = 0; i < lengthof(state_labels); i++)
		table->states[i] =
			GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid, ObjectIdGetDatum(table->types[STATE]),
							CStringGetDatum(state_labels[i]));
	table->valid = true;
}

/*
 * What the guard knows of the table, which it learns when a backend first fires
 * it there.
 */
static const GuardedTable *
find_table(Relation rel)
{
	Oid relid = RelationGetRelid(rel);
	GuardedTable *table;
	bool found;

	if (guarded_tables == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(GuardedTable)};

		guarded_tables =
			hash_create("oban_manage guarded tables", 16, &ctl, HASH_ELEM | HASH_BLOBS);
		CacheRegisterRelcacheCallback(forget_table, (Datum) 0);
		CacheRegisterSyscacheCallback(ENUMOID, forget_states, (Datum) 0);
	}

	table = hash_search(guarded_tables, &relid, HASH_ENTER, &found);
	if (!found)
		table->valid = false;
	if (!table->valid)
		learn_table(table, rel);
	return table;
}

/* ---- columns of the row ---- */

static Datum
get_column(const Row *row, HeapTuple tuple, GuardColumn column, bool *isnull)
{
	return heap_getattr(tuple, row->table->attnums[column],
						RelationGetDescr(row->data->tg_relation), isnull);
}

static Datum
get_old(const Row *row, GuardColumn column, bool *isnull)
{
	return get_column(row, row->data->tg_trigtuple, column, isnull);
}

static Datum
get_new(const Row *row, GuardColumn column, bool *isnull)
{
	return get_column(row, row->data->tg_newtuple, column, isnull);
}

/*
 * A whole number of the row; both Obans' tables have no NULL there.
 */
static int64
get_number(const Row *row, HeapTuple tuple, GuardColumn column)
{
	bool isnull;
	Datum value = get_column(row, tuple, column, &isnull);

	return isnull ? 0 : om_job_id(value, row->table->types[column]);
}

static int64
old_attempt(const Row *row)
{
	return get_number(row, row->data->tg_trigtuple, ATTEMPT);
}

static int
state_bit(const GuardedTable *table, Datum state)
{
	for (size_t i = 0; i < lengthof(state_labels); i++)
	{
		if (table->states[i] == DatumGetObjectId(state))
			return 1 << i;
	}
	return 0;
}

static int
get_state(const Row *row, HeapTuple tuple)
{
	bool isnull;
	Datum state = get_column(row, tuple, STATE, &isnull);

	return isnull ? 0 : state_bit(row->table, state);
}

/*
 * Does the statement leave the job's schedule alone?
 */
static bool
keeps_schedule(const Row *row)
{
	bool old_isnull;
	bool new_isnull;
	Datum old_time = get_old(row, SCHEDULED_AT, &old_isnull);
	Datum new_time = get_new(row, SCHEDULED_AT, &new_isnull);

	return old_isnull == new_isnull &&
		   (old_isnull || DatumGetTimestamp(old_time) == DatumGetTimestamp(new_time));
}

/* ---- entries of errors ---- */

/* The entries of errors, of either Oban's type */
typedef struct Entries
{
	int count;
	Datum *array;			   /* of jsonb[] */
	JsonbContainer *container; /* of jsonb */
} Entries;

static Entries
get_entries(const Row *row, HeapTuple tuple)
{
	Entries entries = {0};
	bool isnull;
	Datum errors = get_column(row, tuple, ERRORS, &isnull);

	if (isnull)
		return entries;
	if (row->table->errors_is_array)
	{
		bool *nulls;

		deconstruct_array(DatumGetArrayTypeP(errors), JSONBOID, -1, false, TYPALIGN_INT,
						  &entries.array, &nulls, &entries.count);
		for (int i = 0; i < entries.count; i++)
		{
			if (nulls[i])
				entries.array[i] = (Datum) 0;
		}
	}
	else
	{
		entries.container = &DatumGetJsonbP(errors)->root;
		if (JsonContainerIsArray(entries.container))
			entries.count = JsonContainerSize(entries.container);
	}
	return entries;
}

/*
 * The run that an entry is about: its attempt, a number or the text of one; 0 when
 * it has none.
 */
static int64
run_of_entry(const Entries *entries, int i)
{
	JsonbContainer *entry = NULL;
	JsonbValue *attempt;
	int64 run = 0;
	bool fits;

	if (entries->array != NULL)
		entry = entries->array[i] == (Datum) 0 ? NULL : &DatumGetJsonbP(entries->array[i])->root;
	else
	{
		JsonbValue *value = getIthJsonbValueFromContainer(entries->container, i);

		if (value != NULL && value->type == jbvBinary)
			entry = value->val.binary.data;
	}
	if (entry == NULL || !JsonContainerIsObject(entry))
		return 0;

	attempt = getKeyJsonValueFromContainer(entry, "attempt", strlen("attempt"), NULL);
	if (attempt == NULL)
		return 0;
	if (attempt->type == jbvString)
	{
		char *end;
		char *text = pnstrdup(attempt->val.string.val, attempt->val.string.len);

		run = strtoi64(text, &end, 10);
		return *end == '\0' ? run : 0;
	}
	return om_value_whole_number(attempt, &run, &fits) && fits ? run : 0;
}

/*
 * Has the statement left errors alone? Then their bytes are the same, and need not
 * be looked into, nor fetched when they are stored out of line.
 */
static bool
keeps_errors(const Row *row)
{
	bool old_isnull;
	bool new_isnull;
	Datum old_errors = get_old(row, ERRORS, &old_isnull);
	Datum new_errors = get_new(row, ERRORS, &new_isnull);
	Size size;

	if (old_isnull || new_isnull)
		return old_isnull == new_isnull;
	size = VARSIZE_ANY(DatumGetPointer(old_errors));
	return VARSIZE_ANY(DatumGetPointer(new_errors)) == size &&
		   memcmp(DatumGetPointer(old_errors), DatumGetPointer(new_errors), size) == 0;
}

/*
 * Does the statement add an entry to errors? Sets the run that the last one is
 * about; 0 when it says none.
 */
static bool
adds_entry(const Row *row, int64 *run)
{
	Entries new_entries;

	*run = 0;
	if (keeps_errors(row))
		return false;
	new_entries = get_entries(row, row->data->tg_newtuple);
	if (new_entries.count <= get_entries(row, row->data->tg_trigtuple).count)
		return false;
	*run = run_of_entry(&new_entries, new_entries.count - 1);
	return true;
}

static bool
adds_no_entry(const Row *row)
{
	int64 run;

	return !adds_entry(row, &run);
}

/*
 * Had errors an entry about the run before?
 */
static bool
has_entry(const Row *row, int64 run)
{
	Entries entries = get_entries(row, row->data->tg_trigtuple);

	for (int i = 0; i < entries.count; i++)
	{
		if (run_of_entry(&entries, i) == run)
			return true;
	}
	return false;
}

/* ---- late answers ---- */

/*
 * A snooze gives the attempt back: Oban for Python, and Oban for Elixir since
 * 2.23.1, take 1 off attempt; Oban for Elixir before that adds 1 to max_attempts.
 */
static bool
is_snooze(const Row *row)
{
	HeapTuple old_tuple = row->data->tg_trigtuple;
	HeapTuple new_tuple = row->data->tg_newtuple;

	return row->new_state == SCHEDULED &&
		   (get_number(row, new_tuple, ATTEMPT) == old_attempt(row) - 1 ||
			get_number(row, new_tuple, MAX_ATTEMPTS) ==
				get_number(row, old_tuple, MAX_ATTEMPTS) + 1);
}

/*
 * Is it an answer about a run that ended, for a job that was retried since and
 * waits to run again?
 */
static bool
answers_ended_run(const Row *row)
{
	int64 attempt;
	int64 run;
	bool isnull;
	Timestamp attempted_at = DatumGetTimestamp(get_old(row, ATTEMPTED_AT, &isnull));

	if (isnull)
		return false;
	attempt = old_attempt(row);
	if (!adds_entry(row, &run) || run < 1 || run > attempt)
	{
		/* These need no entry, and are about the last run. */
		if (row->new_state != COMPLETED && !(is_snooze(row) && !keeps_schedule(row)))
			return false;
		run = attempt;
	}

	/* A retry puts the schedule after the last run; a rescue or a stager does not. */
	if (run >= attempt)
	{
		Timestamp scheduled_at = DatumGetTimestamp(get_old(row, SCHEDULED_AT, &isnull));

		if (isnull || scheduled_at <= attempted_at)
			return false;
	}
	/* Such a job waits because that run failed, and not because it was retried. */
	return !(row->old_state == RETRYABLE && has_entry(row, run));
}

static bool
is_late_answer(const Row *row)
{
	bool isnull;
	int64 run;

	/* Most often a worker has fetched the job. */
	if (row->new_state == EXECUTING || row->new_state == 0)
		return false;

	if (row->old_state & WAITING)
		return answers_ended_run(row);

	if (row->old_state == EXECUTING)
		return old_attempt(row) > 1 && adds_entry(row, &run) && run >= 1 && run < old_attempt(row);

	if (row->old_state == CANCELLED && (row->new_state == RETRYABLE || is_snooze(row)))
	{
		/* Every retry clears it. */
		(void) get_new(row, CANCELLED_AT, &isnull);
		return !isnull;
	}
	return false;
}

/*
 * The row that a late answer writes: what the worker reports, in errors and meta,
 * and the state, the times and the attempt as they were.
 */
static HeapTuple
keep_job(const Row *row)
{
	int attnums[N_COLUMNS - STATE];
	Datum values[N_COLUMNS - STATE];
	bool nulls[N_COLUMNS - STATE];

	for (int i = 0; i < N_COLUMNS - STATE; i++)
	{
		attnums[i] = row->table->attnums[STATE + i];
		values[i] = get_old(row, STATE + i, &nulls[i]);
	}
	return heap_modify_tuple_by_cols(row->data->tg_newtuple,
									 RelationGetDescr(row->data->tg_relation), N_COLUMNS - STATE,
									 attnums, values, nulls);
}

/* ---- stale statements ---- */

/*
 * Is the row newer than what the statement's snapshot shows of it? Only of a heap
 * can that be told.
 */
static bool
is_newer_version(const Row *row)
{
	TransactionId xmin;

	if (row->data->tg_relation->rd_tableam != GetHeapamTableAmRoutine())
		return false;
	xmin = HeapTupleHeaderGetXmin(row->data->tg_trigtuple->t_data);
	return XidInMVCCSnapshot(xmin, GetActiveSnapshot()) &&
		   !TransactionIdIsCurrentTransactionId(xmin);
}

typedef struct Seen
{
	const GuardedTable *table;
	int state;
} Seen;

static void
note_seen(TupleTableSlot *slot, void *state)
{
	Seen *seen = state;
	bool isnull;
	Datum value = slot_getattr(slot, OM_STATE_STATE, &isnull);

	seen->state = isnull ? 0 : state_bit(seen->table, value);
}

/*
 * The state that the statement saw: that of the job in its own snapshot; 0 when
 * there was none. A row may have come from another partition, so the whole table is
 * looked at, with the rights of its owner, as a foreign key's checks do: whoever
 * answers may have no right to read the job.
 */
static int
seen_state(const Row *row)
{
	Oid relid = RelationGetRelid(row->data->tg_relation);
	Seen seen = {.table = row->table};
	Datum id = Int64GetDatum(get_number(row, row->data->tg_trigtuple, ID));
	Oid user;
	int context;

	if (row->data->tg_relation->rd_rel->relispartition)
	{
		List *ancestors = get_partition_ancestors(relid);

		if (ancestors != NIL)
			relid = llast_oid(ancestors);
		LockRelationOid(relid, AccessShareLock);
	}

	GetUserIdAndSecContext(&user, &context);
	SPI_connect();
	SetUserIdAndSecContext(om_jobs_table_owner(relid),
						   context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	om_query_run(relid, (OmQuery){.step = OM_STATE, .conditions = OM_BY_ID}, &id, note_seen, &seen);
	SetUserIdAndSecContext(user, context);
	SPI_finish();
	return seen.state;
}

/*
 * Was the job rescheduled for later?
 */
static bool
is_rescheduled(const Row *row)
{
	bool isnull;
	Timestamp scheduled_at = DatumGetTimestamp(get_old(row, SCHEDULED_AT, &isnull));

	/* Oban's timestamps hold UTC. */
	return !isnull && scheduled_at > GetCurrentTimestamp() && keeps_schedule(row);
}

/* Not by a cascade, or by another trigger: foreign keys would be left dangling. */
static bool
is_deleted_directly(const Row *row)
{
	return om_trigger_depth() == 1;
}

/*
 * What a statement that judged an older version must not do. Where the state that
 * it saw does not matter, saw is 0.
 */
/* clang-format off */
static const struct
{
	int old_states;
	int new_states;
	int saw;
	bool (*further)(const Row *row); /* NULL: always */
} stale_rules[] = {
	{SCHEDULED | RETRYABLE, AVAILABLE, 0, is_rescheduled},
	{EXECUTING, AVAILABLE, ALL & ~EXECUTING, NULL}, /* it was fetched */
	{COMPLETED, AVAILABLE, ALL & ~COMPLETED, NULL}, /* it ran to its end */
	{CANCELLED | DISCARDED | SUSPENDED, AVAILABLE, SCHEDULED | RETRYABLE, keeps_schedule},
	{COMPLETED | DISCARDED, CANCELLED, UNFINISHED, adds_no_entry},
	{EXECUTING, DELETED, ALL & ~EXECUTING, is_deleted_directly},
	{WAITING, DELETED, FINISHED, is_deleted_directly}, /* it was retried */
};
/* clang-format on */

static bool
is_stale(const Row *row)
{
	for (size_t i = 0; i < lengthof(stale_rules); i++)
	{
		if ((row->old_state & stale_rules[i].old_states) == 0 ||
			(row->new_state & stale_rules[i].new_states) == 0)
			continue;
		return is_newer_version(row) &&
			   (stale_rules[i].further == NULL || stale_rules[i].further(row)) &&
			   (stale_rules[i].saw == 0 || (seen_state(row) & stale_rules[i].saw) != 0);
	}
	return false;
}

/* ---- moves to another partition ---- */

static GuardedUpdate
this_statement(const Row *row)
{
	return (GuardedUpdate){
		.xid = GetTopTransactionIdIfAny(),
		.curcid = GetActiveSnapshot()->curcid,
		.relid = RelationGetRelid(row->data->tg_relation),
		.tid = row->data->tg_trigtuple->t_self,
	};
}

/*
 * Note an UPDATE of a row in a partition, which may become a move.
 */
static void
note_update(const Row *row)
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
	guarded_updates[depth] = this_statement(row);
}

/*
 * Does the DELETE belong to an UPDATE that moves the row to another partition? It
 * fires the guard for the same row twice. To keep the row then would lose the
 * UPDATE, which may be a worker's answer.
 */
static bool
is_moved(const Row *row)
{
	GuardedUpdate now = this_statement(row);
	int depth = om_trigger_depth();
	GuardedUpdate *update;

	if (depth >= n_guarded_updates)
		return false;
	update = &guarded_updates[depth];
	return update->xid == now.xid && update->curcid == now.curcid && update->relid == now.relid &&
		   ItemPointerEquals(&update->tid, &now.tid);
}

/* ---- the trigger ---- */

static void
check_event(FunctionCallInfo fcinfo)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function was not called by a trigger"),
						errhint("It is for CREATE TRIGGER.")));
	if (!TRIGGER_FIRED_BEFORE(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		!(TRIGGER_FIRED_BY_UPDATE(data->tg_event) || TRIGGER_FIRED_BY_DELETE(data->tg_event)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" on \"%s\" cannot guard jobs", data->tg_trigger->tgname,
						RelationGetRelationName(data->tg_relation)),
				 errhint("Create it BEFORE UPDATE OF state OR DELETE and FOR EACH ROW.")));
}

/*
 * oban_guard_job() -> trigger
 *		For BEFORE UPDATE OF state OR DELETE ... FOR EACH ROW on an oban_jobs table,
 *		without a WHEN clause. A worker's answer about a run that ended keeps the job
 *		as it is, and writes the errors and meta that the worker reports; its row is
 *		returned as always. A statement that judged an older version of the row is
 *		passed over, and returns no row. The rules are in docs/guard.md. What the
 *		extension itself writes goes through, and so does everything while
 *		oban_manage.guard is off.
 *
 * Errors: not such a trigger (39P01), and those of om_jobs_table_shape.
 */
PG_FUNCTION_INFO_V1(oban_guard_job);

Datum
oban_guard_job(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	Row row = {.data = data};
	bool is_update;
	Datum passed;

	check_event(fcinfo);
	is_update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	passed = PointerGetDatum(is_update ? data->tg_newtuple : data->tg_trigtuple);
	if (!om_guard)
		return passed;

	row.table = find_table(data->tg_relation);
	row.old_state = get_state(&row, data->tg_trigtuple);
	row.new_state = is_update ? get_state(&row, data->tg_newtuple) : DELETED;

	if (data->tg_relation->rd_rel->relispartition)
	{
		if (is_update)
			note_update(&row);
		else if (is_moved(&row))
			return passed;
	}

	if (is_update && is_late_answer(&row))
		return om_query_writes_now() ? passed : PointerGetDatum(keep_job(&row));
	if (is_stale(&row) && !om_query_writes_now())
		return PointerGetDatum(NULL);
	return passed;
}
