/*
 * pending_changes.c
 *		Changes of many jobs, each its own, that are collected to be written by few
 *		statements.
 */
#include "verbs/verbs.h"

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
om_pending_init(OmPendingChanges *changes, int capacity)
{
	changes->context =
		AllocSetContextCreate(CurrentMemoryContext, "oban_manage changes", ALLOCSET_DEFAULT_SIZES);
	om_job_ids_init(&changes->ids, capacity);
	changes->each = palloc(capacity * sizeof(OmChanges));
	changes->hashes = palloc(capacity * sizeof(OmColumnHashes));
}

/*
 * Add a copy of the changes of a job, whose id is larger than those before.
 */
void
om_pending_add(OmPendingChanges *changes, int64 id, const OmChanges *added,
			   const OmColumnHashes *hashes)
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
		get_typlenbyval(om_update_columns[column].type, &typlen, &typbyval);
		kept->values[column] = datumCopy(added->values[column], typbyval, typlen);
	}
	changes->hashes[changes->ids.count] = *hashes;
	om_job_ids_add(&changes->ids, id);
	MemoryContextSwitchTo(caller);
}

/*
 * Take out those that change the same columns as the first one, so that one
 * statement can write them, and no other column.  Those taken are in order too,
 * and live until the changes that they come from are cleared.  Returns the
 * columns.
 */
OmColumnSet
om_pending_take(OmPendingChanges *changes, OmPendingChanges *taken)
{
	OmColumnSet columns = changes->each[0].columns;
	int64 *ids = om_job_ids_data(&changes->ids);
	int kept = 0;

	taken->ids.count = 0;
	for (int i = 0; i < changes->ids.count; i++)
	{
		if (changes->each[i].columns == columns)
		{
			taken->each[taken->ids.count] = changes->each[i];
			om_job_ids_add(&taken->ids, ids[i]);
		}
		else
		{
			ids[kept] = ids[i];
			changes->each[kept] = changes->each[i];
			changes->hashes[kept] = changes->hashes[i];
			kept++;
		}
	}
	changes->ids.count = kept;
	return columns;
}

/*
 * The values of a column as an array.
 */
static Datum
values_of_column(const OmPendingChanges *changes, OmUpdateColumn column)
{
	Oid type = get_element_type(om_update_columns[column].array_type);
	bool as_text = (type != om_update_columns[column].type);
	int count = changes->ids.count;
	Datum *values = palloc(count * sizeof(Datum));
	ArrayType *array;
	int16 typlen;
	bool typbyval;
	char typalign;

	for (int i = 0; i < count; i++)
	{
		values[i] = changes->each[i].values[column];
		if (as_text)
			values[i] = CStringGetTextDatum(OidOutputFunctionCall(F_ARRAY_OUT, values[i]));
	}
	get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
	array = construct_array(values, count, type, typlen, typbyval, typalign);
	/* Expanded, for in a flat array an element is found by walking to it. */
	return EOHPGetRODatum(
		DatumGetEOHP(expand_array(PointerGetDatum(array), CurrentMemoryContext, NULL)));
}

/*
 * The values of OM_WRITE_EACH for changes of the same columns: an array for each
 * column.  They live until these changes are cleared.
 */
void
om_pending_values(const OmPendingChanges *changes, Datum *values)
{
	MemoryContext caller = MemoryContextSwitchTo(changes->context);

	for (int column = 0; column < OM_N_UPDATE_COLUMNS; column++)
	{
		if (changes->each[0].columns & OM_COLUMN_BIT(column))
			*values++ = values_of_column(changes, column);
	}
	MemoryContextSwitchTo(caller);
}

void
om_pending_clear(OmPendingChanges *changes)
{
	changes->ids.count = 0;
	MemoryContextReset(changes->context);
}
