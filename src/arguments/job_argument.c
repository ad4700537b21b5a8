/*
 * job_argument.c
 *		The jobs that are the argument of a call: by id, as an instance, by an array of
 *		ids.
 *
 * An instance is a row of a jobs table, or an oban_job.  Only the job's id and its
 * table are taken from it, because its other fields may be out of date.  A row of any
 * other table is refused, because its id would be taken for the id of some job.  Calls
 * jobs/; the functions use it.
 */
#include "arguments/arguments.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "parser/parse_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

/*
 * Read argument argno of type record.  Gives the job's id and its table, locked.
 * Returns false when the argument or its id is NULL: then there is nothing to do, and
 * *jobs may be InvalidOid.
 *
 * Errors: neither a row of an oban_jobs table nor an oban_job (42804), and those of
 * om_jobs_table_by_prefix.
 */
bool
om_job_argument(FunctionCallInfo fcinfo, int argno, LOCKMODE lockmode, Oid *jobs, int64 *id)
{
	HeapTupleHeader record;
	HeapTupleData tuple;
	TupleDesc desc;
	Oid row_relid;
	bool is_row; /* of a table; else an oban_job */
	Form_pg_attribute id_column;
	Oid id_type;
	Datum value;
	bool isnull;

	*jobs = InvalidOid;
	if (PG_ARGISNULL(argno))
		return false;

	record = PG_GETARG_HEAPTUPLEHEADER(argno);
	desc = lookup_rowtype_tupdesc_domain(HeapTupleHeaderGetTypeId(record),
										 HeapTupleHeaderGetTypMod(record), false);
	tuple.t_len = HeapTupleHeaderGetDatumLength(record);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = record;

	/* InvalidOid for an anonymous record */
	row_relid = typeOrDomainTypeRelid(desc->tdtypeid);
	is_row = OidIsValid(row_relid) && get_rel_relkind(row_relid) != RELKIND_COMPOSITE_TYPE;
	if (is_row)
		*jobs = om_jobs_table_of_row_type(row_relid, lockmode);
	if (is_row ? !OidIsValid(*jobs) : !om_looks_like_oban_job(desc))
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("argument of type %s is not a job", format_type_be(desc->tdtypeid)),
						errdetail("A job is a row of an oban_jobs table, or an oban_job."),
						errhint("Pass the job's id and its prefix instead.")));

	id_column = om_find_column(desc, "id");
	id_type = id_column != NULL ? getBaseType(id_column->atttypid) : InvalidOid;
	if (!om_type_is_job_id(id_type))
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("type %s has no whole-number column \"id\"",
							   format_type_be(desc->tdtypeid))));

	value = heap_getattr(&tuple, id_column->attnum, desc, &isnull);
	if (!isnull)
	{
		*id = om_job_id(value, id_type);
		if (!is_row)
		{
			bool prefix_isnull;
			Datum prefix = heap_getattr(&tuple, OM_JOB_PREFIX, desc, &prefix_isnull);

			*jobs =
				om_jobs_table_by_prefix(prefix_isnull ? NULL : DatumGetTextPP(prefix), lockmode);
		}
	}
	ReleaseTupleDesc(desc);
	return !isnull;
}

/*
 * Three functions that start a list with the jobs of the first argument, in ascending
 * order, without duplicates.  The list stays empty when the argument is NULL.  They
 * return the jobs table, locked for writing.  The prefix in argument prefix_argno names
 * the table, or the instance does: without an instance it is InvalidOid.
 */
Oid
om_id_argument(FunctionCallInfo fcinfo, int prefix_argno, OmJobIds *ids)
{
	om_job_ids_init(ids, 1);
	if (!PG_ARGISNULL(0))
		om_job_ids_add(ids, PG_GETARG_INT64(0));
	return om_jobs_table_argument(fcinfo, prefix_argno, RowExclusiveLock);
}

Oid
om_record_argument(FunctionCallInfo fcinfo, OmJobIds *ids)
{
	Oid jobs;
	int64 id;

	om_job_ids_init(ids, 1);
	if (om_job_argument(fcinfo, 0, RowExclusiveLock, &jobs, &id))
		om_job_ids_add(ids, id);
	return jobs;
}

Oid
om_ids_argument(FunctionCallInfo fcinfo, int prefix_argno, OmJobIds *ids)
{
	ArrayType *array = PG_ARGISNULL(0) ? NULL : PG_GETARG_ARRAYTYPE_P(0);

	/* At most so many elements are not NULL.  NULLs take almost no space. */
	int capacity = array != NULL ? (ARR_SIZE(array) - ARR_DATA_OFFSET(array)) / sizeof(int64) : 0;

	om_job_ids_init(ids, capacity);
	if (array != NULL)
	{
		om_job_ids_add_array(ids, array, INT8OID);
		/* The array may be large, and is a copy if it came from a table. */
		PG_FREE_IF_COPY(array, 0);
	}
	om_job_ids_sort(ids);
	return om_jobs_table_argument(fcinfo, prefix_argno, RowExclusiveLock);
}
