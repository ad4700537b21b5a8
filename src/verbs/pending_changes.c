/*
 * pending_changes.c
 *		Collects changes that differ from job to job, so that few statements can
 *		write them.
 *
 * Calls jobs/job_ids.c and jobs/columns.c; update_with.c calls this file.
 */
#include "verbs/verbs.h"

#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/*
 * Start to collect changes, of at most "capacity" jobs, in the current memory
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
 * Add a copy of the changes of a job.  Its id must be larger than those added
 * before.
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
 * Move into "taken" the jobs that change the same columns as the first job, so
 * that one statement can write them.  They stay sorted by id.  Their values live
 * until "changes" is cleared.  Returns the columns.
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
 * The values of a column as an array, one for each job.
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
	/* Expand the array, because finding an element of a flat array means walking to it. */
	return EOHPGetRODatum(
		DatumGetEOHP(expand_array(PointerGetDatum(array), CurrentMemoryContext, NULL)));
}

/*
 * The parameters of OM_WRITE_EACH, for jobs that change the same columns: an
 * array for each column.  The arrays live until "changes" is cleared.
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
