/*
 * guard_rows.c
 *		What the guard reads of the row that fired it: states, columns, and the
 *		entries of errors.
 *
 * The guard runs each time that a worker fetches a job or writes its result. So each
 * backend looks up once what the guard needs to know of a table, and errors are read
 * only if the statement changes them. Calls jobs/ and arguments/json_keys.c; guard.c
 * calls it.
 */
#include "functions/guard.h"

#include "access/htup_details.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* The bit of a state is 1 << its index here. */
static const char *const state_labels[] = {"available", "scheduled", "suspended", "executing",
										   "retryable", "completed", "discarded", "cancelled"};

static const char *const column_names[] = {
	[GUARD_ID] = "id",
	[GUARD_ERRORS] = "errors",
	[GUARD_MAX_ATTEMPTS] = "max_attempts",
	[GUARD_STATE] = "state",
	[GUARD_ATTEMPT] = "attempt",
	[GUARD_SCHEDULED_AT] = "scheduled_at",
	[GUARD_ATTEMPTED_AT] = "attempted_at",
	[GUARD_COMPLETED_AT] = "completed_at",
	[GUARD_CANCELLED_AT] = "cancelled_at",
	[GUARD_DISCARDED_AT] = "discarded_at",
};

StaticAssertDecl(lengthof(state_labels) == JOB_N_STATES, "each state has a label");
StaticAssertDecl(lengthof(column_names) == GUARD_N_COLUMNS, "each column has a name");

static HTAB *guarded_tables = NULL;
static uint64 n_invalidations = 0;

/* ---- the table ---- */

static void
forget_table(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	GuardedTable *table;

	n_invalidations++;
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

/*
 * Look up what the guard must know of a table. An error leaves the entry invalid, and
 * so does an invalidation that arrives meanwhile. The next row then looks it up again.
 */
static void
learn_table(GuardedTable *table, Relation rel)
{
	uint64 before = n_invalidations;
	OmTableShape shape;

	om_jobs_table_shape(RelationGetRelid(rel), &shape); /* refuses tables without the columns */
	table->errors_is_array = shape.errors_is_array;
	for (int i = 0; i < GUARD_N_COLUMNS; i++)
	{
		Form_pg_attribute column = om_find_column(RelationGetDescr(rel), column_names[i]);

		table->attnums[i] = column->attnum;
		table->types[i] = getBaseType(column->atttypid);
	}
	for (size_t i = 0; i < JOB_N_STATES; i++)
		table->states[i] = GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid,
										   ObjectIdGetDatum(table->types[GUARD_STATE]),
										   CStringGetDatum(state_labels[i]));
	table->valid = (n_invalidations == before);
}

/*
 * What the guard knows of the table. It is looked up when the guard first runs for the
 * table in a backend.
 */
const GuardedTable *
om_guarded_table(Relation rel)
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
get_column(const GuardedRow *row, HeapTuple tuple, GuardColumn column, bool *isnull)
{
	return heap_getattr(tuple, row->table->attnums[column],
						RelationGetDescr(row->data->tg_relation), isnull);
}

Datum
om_guarded_old(const GuardedRow *row, GuardColumn column, bool *isnull)
{
	return get_column(row, row->data->tg_trigtuple, column, isnull);
}

Datum
om_guarded_new(const GuardedRow *row, GuardColumn column, bool *isnull)
{
	return get_column(row, row->data->tg_newtuple, column, isnull);
}

/*
 * A whole number of the row.  NULL, which the tables of neither Oban allow, gives 0.
 */
int64
om_guarded_number(const GuardedRow *row, HeapTuple tuple, GuardColumn column)
{
	bool isnull;
	Datum value = get_column(row, tuple, column, &isnull);

	return isnull ? 0 : om_job_id(value, row->table->types[column]);
}

int
om_guarded_state(const GuardedTable *table, Datum state)
{
	for (size_t i = 0; i < JOB_N_STATES; i++)
	{
		if (table->states[i] == DatumGetObjectId(state))
			return 1 << i;
	}
	return 0;
}

int
om_guarded_state_of(const GuardedRow *row, HeapTuple tuple)
{
	bool isnull;
	Datum state = get_column(row, tuple, GUARD_STATE, &isnull);

	return isnull ? 0 : om_guarded_state(row->table, state);
}

/*
 * Does the statement leave the job's schedule alone?
 */
bool
om_guarded_keeps_schedule(const GuardedRow *row)
{
	bool old_isnull;
	bool new_isnull;
	Datum old_time = om_guarded_old(row, GUARD_SCHEDULED_AT, &old_isnull);
	Datum new_time = om_guarded_new(row, GUARD_SCHEDULED_AT, &new_isnull);

	return old_isnull == new_isnull &&
		   (old_isnull || DatumGetTimestamp(old_time) == DatumGetTimestamp(new_time));
}

/* ---- entries of errors ---- */

/* The entries of the column errors, which is jsonb[] or jsonb */
typedef struct Entries
{
	int count;
	Datum *array;			   /* if it is jsonb[]; 0 stands for NULL */
	JsonbContainer *container; /* if it is jsonb */
} Entries;

static Entries
get_entries(const GuardedRow *row, HeapTuple tuple)
{
	Entries entries = {0};
	bool isnull;
	Datum errors = get_column(row, tuple, GUARD_ERRORS, &isnull);

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
		if (JsonContainerIsArray(entries.container) && !JsonContainerIsScalar(entries.container))
			entries.count = JsonContainerSize(entries.container);
	}
	return entries;
}

/*
 * The run that an entry is about: the entry's "attempt", which is a number or a string
 * of digits; 0 when there is none.
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

		if (value->type == jbvBinary)
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
 * Has the statement left the column errors unchanged? Then its bytes are the same. So
 * it need not be parsed, nor fetched if it is stored out of line.
 */
static bool
keeps_errors(const GuardedRow *row)
{
	bool old_isnull;
	bool new_isnull;
	Datum old_errors = om_guarded_old(row, GUARD_ERRORS, &old_isnull);
	Datum new_errors = om_guarded_new(row, GUARD_ERRORS, &new_isnull);
	Size size;

	if (old_isnull || new_isnull)
		return old_isnull == new_isnull;
	size = VARSIZE_ANY(DatumGetPointer(old_errors));
	return VARSIZE_ANY(DatumGetPointer(new_errors)) == size &&
		   memcmp(DatumGetPointer(old_errors), DatumGetPointer(new_errors), size) == 0;
}

/*
 * Does the statement add an entry to errors? Sets *run to the run that the last entry
 * is about; 0 when the entry does not say.
 */
bool
om_guarded_adds_entry(const GuardedRow *row, int64 *run)
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

/*
 * Does errors of the old row have an entry about that run?
 */
bool
om_guarded_has_entry(const GuardedRow *row, int64 run)
{
	Entries entries = get_entries(row, row->data->tg_trigtuple);

	for (int i = 0; i < entries.count; i++)
	{
		if (run_of_entry(&entries, i) == run)
			return true;
	}
	return false;
}
