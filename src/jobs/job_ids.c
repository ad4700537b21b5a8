/*
 * job_ids.c
 *		Job ids, and growing lists of them that are SQL arrays.
 *
 * A list can be passed to a statement as it is. Calls only PostgreSQL; the arguments,
 * the verbs and the functions use it.
 */
#include "jobs/jobs.h"

#include "catalog/pg_type.h"
#include "lib/qunique.h"
#include "utils/array.h"
#include "utils/memutils.h"

/*
 * Can a job's id have that type?
 */
bool
om_type_is_job_id(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

int64
om_job_id(Datum value, Oid type)
{
	switch (type)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		default:
			return DatumGetInt64(value);
	}
}

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
		/* The number of ids that an array can hold */
		int most = (MaxAllocSize - ARR_OVERHEAD_NONULLS(1)) / sizeof(int64);

		if (ids->count >= most)
			ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("too many jobs"),
							errdetail("A call takes at most %d jobs.", most),
							errhint("The procedures that work in batches take any number.")));
		ids->capacity = ids->capacity < most / 2 ? ids->capacity * 2 : most;
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
 * Add the elements of an array with any number of dimensions.  type is the type of its
 * elements, one that om_type_is_job_id accepts.  NULLs are skipped.
 */
void
om_job_ids_add_array(OmJobIds *ids, ArrayType *array, Oid type)
{
	ArrayIterator iterator = array_create_iterator(array, 0, NULL);
	Datum id;
	bool isnull;

	while (array_iterate(iterator, &id, &isnull))
	{
		if (!isnull)
			om_job_ids_add(ids, om_job_id(id, type));
	}
	array_free_iterator(iterator);
}

/*
 * Sort the ids in ascending order, and drop duplicates.
 */
void
om_job_ids_sort(OmJobIds *ids)
{
	qsort(om_job_ids_data(ids), ids->count, sizeof(int64), compare_ids);
	ids->count = qunique(om_job_ids_data(ids), ids->count, sizeof(int64), compare_ids);
}

/*
 * The index of an id in a list that is in ascending order; -1 when it is not there.
 */
int
om_job_ids_find(const OmJobIds *ids, int64 id)
{
	const int64 *data = om_job_ids_data(ids);
	const int64 *found = bsearch(&id, data, ids->count, sizeof(int64), compare_ids);

	return found != NULL ? (int) (found - data) : -1;
}
