/*
 * columns.c
 *		The columns of oban_job, and the columns of a job that may be updated.
 *
 * Calls only PostgreSQL. The statements, the arguments and the verbs use it.
 * jobs_table.c says which types the columns of a table may have.
 */
#include "jobs/jobs.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

/* clang-format off */
const OmJobColumn om_job_columns[] = {
	{"id", INT8OID, OM_INTEGER_COLUMN},
	{"state", TEXTOID, OM_STATE_COLUMN},
	{"queue", TEXTOID, OM_TEXT_COLUMN},
	{"worker", TEXTOID, OM_TEXT_COLUMN},
	{"attempt", INT4OID, OM_INTEGER_COLUMN},
	{"max_attempts", INT4OID, OM_INTEGER_COLUMN},
	{"priority", INT4OID, OM_INTEGER_COLUMN},
	{"args", JSONBOID, OM_JSON_COLUMN},
	{"meta", JSONBOID, OM_JSON_COLUMN},
	{"tags", TEXTARRAYOID, OM_TEXTS_COLUMN},
	{"errors", JSONBOID, OM_ERRORS_COLUMN},
	{"attempted_by", TEXTARRAYOID, OM_TEXTS_COLUMN},
	{"inserted_at", TIMESTAMPTZOID, OM_TIME_COLUMN},
	{"scheduled_at", TIMESTAMPTZOID, OM_TIME_COLUMN},
	{"attempted_at", TIMESTAMPTZOID, OM_TIME_COLUMN},
	{"completed_at", TIMESTAMPTZOID, OM_TIME_COLUMN},
	{"cancelled_at", TIMESTAMPTZOID, OM_TIME_COLUMN},
	{"discarded_at", TIMESTAMPTZOID, OM_TIME_COLUMN},
	{"prefix", TEXTOID, OM_NO_COLUMN},
};

const OmUpdateColumnInfo om_update_columns[] = {
	[OM_ARGS] = {"args", JSONBOID, JSONBARRAYOID},
	[OM_MAX_ATTEMPTS] = {"max_attempts", INT4OID, INT4ARRAYOID},
	[OM_META] = {"meta", JSONBOID, JSONBARRAYOID},
	[OM_PRIORITY] = {"priority", INT4OID, INT4ARRAYOID},
	[OM_QUEUE] = {"queue", TEXTOID, TEXTARRAYOID},
	[OM_SCHEDULED_AT] = {"scheduled_at", TIMESTAMPOID, TIMESTAMPARRAYOID},
	[OM_TAGS] = {"tags", TEXTARRAYOID, TEXTARRAYOID},
	[OM_WORKER] = {"worker", TEXTOID, TEXTARRAYOID},
};
/* clang-format on */

StaticAssertDecl(lengthof(om_job_columns) == OM_JOB_N_COLUMNS, "each column has a row");
StaticAssertDecl(lengthof(om_update_columns) == OM_N_UPDATE_COLUMNS, "each column has a row");

/*
 * Does the row begin with the columns of oban_job?  A later version of the extension may
 * have added columns at the end, and be installed in the database of a session that
 * still runs the module of this version.
 */
bool
om_looks_like_oban_job(TupleDesc desc)
{
	if (desc->natts < OM_JOB_N_COLUMNS ||
		(desc->natts > OM_JOB_N_COLUMNS && desc->tdtypeid == RECORDOID))
		return false;
	for (int i = 0; i < OM_JOB_N_COLUMNS; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped || column->atttypid != om_job_columns[i].type ||
			strcmp(NameStr(column->attname), om_job_columns[i].name) != 0)
			return false;
	}
	return true;
}

/*
 * Is the type the composite type oban_job, or one that begins with the same columns?
 */
bool
om_type_is_oban_job(Oid type)
{
	Oid relid = get_typ_typrelid(type);
	TupleDesc desc;
	bool result;

	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_COMPOSITE_TYPE)
		return false;
	desc = lookup_rowtype_tupdesc(type, -1);
	result = om_looks_like_oban_job(desc);
	ReleaseTupleDesc(desc);
	return result;
}

/*
 * How many columns a type that looks like oban_job has after those of oban_job.
 */
int
om_job_columns_added(Oid type)
{
	TupleDesc desc = lookup_rowtype_tupdesc(type, -1);
	int added = 0;

	for (int i = OM_JOB_N_COLUMNS; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			added++;
	}
	ReleaseTupleDesc(desc);
	return added;
}
