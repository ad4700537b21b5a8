/*
 * job_ids.c
 *		Growing lists of job ids that are SQL arrays.
 */
#include "oban_manage.h"

#include "catalog/pg_type.h"
#include "lib/qunique.h"
#include "utils/array.h"
#include "utils/memutils.h"

static Size
ids_size(int capacity)
{
	return ARR_OVERHEAD_NONULLS(1) + (Size) capacity * sizeof(int64);
}

/*
 * Start an empty list in the current memory context, with room for so many ids.
 */
void
om_job_ids_init(OmJobIds *ids, int capacity)
{
	ids->capacity = Max(capacity, 1);
	ids->count = 0;
	ids->array = palloc(ids_size(ids->capacity));
}

int64 *
om_job_ids_data(const OmJobIds *ids)
{
	return (int64 *) ((char *) ids->array + ARR_OVERHEAD_NONULLS(1));
}

void
om_job_ids_add(OmJobIds *ids, int64 id)
{
	if (ids->count == ids->capacity)
	{
		/* As many as an array can hold; repalloc raises the error past that. */
		int most = (MaxAllocSize - ARR_OVERHEAD_NONULLS(1)) / sizeof(int64);

		ids->capacity = ids->capacity < most / 2 ? ids->capacity * 2 : Max(most, ids->count + 1);
		ids->array = repalloc(ids->array, ids_size(ids->capacity));
	}
	om_job_ids_data(ids)[ids->count++] = id;
}

/*
 * The ids as a bigint[], which shares the list's memory.
 */
Datum
om_job_ids_array(OmJobIds *ids)
{
	ArrayType *array = ids->array;

	SET_VARSIZE(array, ids_size(ids->count));
	array->ndim = 1;
	array->dataoffset = 0;
	array->elemtype = INT8OID;
	ARR_DIMS(array)[0] = ids->count;
	ARR_LBOUND(array)[0] = 1;
	return PointerGetDatum(array);
}

static int
compare_ids(const void *a, const void *b)
{
	int64 left = *(const int64 *) a;
	int64 right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

/*
 * Start a list with the distinct ids of a bigint[] of any shape, in ascending
 * order; NULLs are passed over.
 */
void
om_job_ids_distinct(OmJobIds *ids, ArrayType *array)
{
	ArrayIterator iterator = array_create_iterator(array, 0, NULL);
	Datum id;
	bool isnull;

	om_job_ids_init(ids, ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)));
	while (array_iterate(iterator, &id, &isnull))
	{
		if (!isnull)
			om_job_ids_add(ids, DatumGetInt64(id));
	}
	array_free_iterator(iterator);

	qsort(om_job_ids_data(ids), ids->count, sizeof(int64), compare_ids);
	ids->count = qunique(om_job_ids_data(ids), ids->count, sizeof(int64), compare_ids);
}

/*
 * Where the id is in the list, which must be in ascending order; -1 when it is
 * not there.
 */
int
om_job_ids_find(const OmJobIds *ids, int64 id)
{
	const int64 *data = om_job_ids_data(ids);
	const int64 *found = bsearch(&id, data, ids->count, sizeof(int64), compare_ids);

	return found != NULL ? (int) (found - data) : -1;
}
