/*
 * job_changes.c
 *		Changes of many jobs, each its own, that are collected to be written by one
 *		statement.
 */
#include "verbs.h"

#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/*
 * Start to collect the changes of so many jobs at most, in the current memory
 * context.
 */
void
om_job_changes_init(OmJobChanges *changes, int capacity)
{
	changes->context =
		AllocSetContextCreate(CurrentMemoryContext, "oban_manage changes", ALLOCSET_DEFAULT_SIZES);
	om_job_ids_init(&changes->ids, capacity);
	changes->each = palloc(capacity * sizeof(OmChanges));
	changes->hashes = palloc(capacity * sizeof(uint64));
	changes->columns = 0;
}

/*
 * Add a copy of the changes of a job, whose id is larger than those before.
 */
void
om_job_changes_add(OmJobChanges *changes, int64 id, const OmChanges *added, uint64 hash)
{
	MemoryContext caller = MemoryContextSwitchTo(changes->context);
	OmChanges *kept = &changes->each[changes->ids.count];

	Assert(changes->ids.count < changes->ids.capacity);
	kept->columns = added->columns;
	for (int column = 0; column < OM_N_UPDATE_COLUMNS; column++)
	{
		int16 typlen;
		bool typbyval;

		if ((added->columns & OM_COLUMN_BIT(column)) == 0)
			continue;
		get_typlenbyval(om_change_keys[column].type, &typlen, &typbyval);
		kept->values[column] = datumCopy(added->values[column], typbyval, typlen);
	}
	changes->hashes[changes->ids.count] = hash;
	changes->columns |= added->columns;
	om_job_ids_add(&changes->ids, id);
	MemoryContextSwitchTo(caller);
}

/*
 * The values of a column as an array, NULL for the jobs that keep theirs.
 */
static Datum
values_of_column(const OmJobChanges *changes, OmChangeKey column)
{
	Oid type = get_element_type(om_change_keys[column].array_type);
	bool as_text = (type != om_change_keys[column].type);
	int count = changes->ids.count;
	int lower_bound = 1;
	Datum *values = palloc0(count * sizeof(Datum));
	bool *nulls = palloc(count * sizeof(bool));
	ArrayType *array;
	int16 typlen;
	bool typbyval;
	char typalign;

	for (int i = 0; i < count; i++)
	{
		nulls[i] = (changes->each[i].columns & OM_COLUMN_BIT(column)) == 0;
		if (nulls[i])
			continue;
		values[i] = changes->each[i].values[column];
		if (as_text)
			values[i] = CStringGetTextDatum(OidOutputFunctionCall(F_ARRAY_OUT, values[i]));
	}
	get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
	array = construct_md_array(values, nulls, 1, &count, &lower_bound, type, typlen, typbyval,
							   typalign);
	/* Expanded, for in a flat array an element is found by walking to it. */
	return EOHPGetRODatum(
		DatumGetEOHP(expand_array(PointerGetDatum(array), CurrentMemoryContext, NULL)));
}

/*
 * The values of OM_WRITE_EACH: an array for each column that any job names.
 * They live until the changes are cleared.
 */
void
om_job_changes_values(OmJobChanges *changes, Datum *values)
{
	MemoryContext caller = MemoryContextSwitchTo(changes->context);

	for (int column = 0; column < OM_N_UPDATE_COLUMNS; column++)
	{
		if (changes->columns & OM_COLUMN_BIT(column))
			*values++ = values_of_column(changes, column);
	}
	MemoryContextSwitchTo(caller);
}

void
om_job_changes_clear(OmJobChanges *changes)
{
	changes->ids.count = 0;
	changes->columns = 0;
	MemoryContextReset(changes->context);
}
