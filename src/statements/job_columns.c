/*
 * job_columns.c
 *		The columns of a job in a statement's result: as oban_job, or in the type that a
 *		callable takes.
 *
 * Calls jobs/columns.c for the names; queries.c and rows.c call it.
 */
#include "statements/statements.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

/*
 * The columns of oban_job, in its order, computed from the table of either Oban.
 */
/* clang-format off */
static const char *const job_columns[] = {
	"j.id::pg_catalog.int8",
	OM_TEXT_OF("j.state"),
	"j.queue::pg_catalog.text",
	"j.worker::pg_catalog.text",
	"j.attempt::pg_catalog.int4",
	"j.max_attempts::pg_catalog.int4",
	"j.priority::pg_catalog.int4",
	"j.args",
	"COALESCE(j.meta, '{}')",
	"COALESCE(j.tags::pg_catalog.text[], '{}')",
	"j.errors",
	"j.attempted_by::pg_catalog.text[]",
	"pg_catalog.timezone('UTC', j.inserted_at)",
	"pg_catalog.timezone('UTC', j.scheduled_at)",
	"pg_catalog.timezone('UTC', j.attempted_at)",
	"pg_catalog.timezone('UTC', j.completed_at)",
	"pg_catalog.timezone('UTC', j.cancelled_at)",
	"pg_catalog.timezone('UTC', j.discarded_at)",
	NULL, /* the table's schema */
};
/* clang-format on */

StaticAssertDecl(lengthof(job_columns) == OM_JOB_N_COLUMNS, "each column has a row");

/*
 * List the columns of oban_job.  With named, each column follows its name, as
 * jsonb_build_object needs it.
 */
void
om_job_columns_append(StringInfo sql, const OmTableShape *shape, bool named)
{
	for (int i = 0; i < OM_JOB_N_COLUMNS; i++)
	{
		if (i > 0)
			appendStringInfoString(sql, ", ");
		if (named)
			appendStringInfo(sql, "'%s', ", om_job_columns[i].name);

		if (i + 1 == OM_JOB_ERRORS && shape->errors_is_array)
			appendStringInfo(sql, "pg_catalog.to_jsonb(%s)", job_columns[i]);
		else if (i + 1 == OM_JOB_PREFIX)
			appendStringInfo(sql, "%s::pg_catalog.text", quote_literal_cstr(shape->schema));
		else
			appendStringInfoString(sql, job_columns[i]);
	}
}

/*
 * A record of the columns that may be updated, in the order of OmUpdateColumn.  Where
 * one of them has changed since the callable ran, something else has written the job.
 */
void
om_updatable_append(StringInfo sql)
{
	appendStringInfoString(sql, ", ROW(");
	for (int column = 0; column < OM_N_UPDATE_COLUMNS; column++)
		appendStringInfo(sql, "%sj.%s", column > 0 ? ", " : "", om_update_columns[column].name);
	appendStringInfoString(sql, "), ");
}

/*
 * The job in the type that a callable takes: jsonb, the table's row type, or oban_job.
 */
void
om_argument_append(StringInfo sql, const OmTableShape *shape, Oid type)
{
	if (type == JSONBOID)
	{
		appendStringInfoString(sql, "pg_catalog.jsonb_build_object(");
		om_job_columns_append(sql, shape, true);
		appendStringInfoChar(sql, ')');
	}
	else if (type == shape->row_type)
		appendStringInfo(sql, "(j.*)::%s", shape->name);
	else
	{
		appendStringInfoString(sql, "ROW(");
		om_job_columns_append(sql, shape, false);
		for (int added = om_job_columns_added(type); added > 0; added--)
			appendStringInfoString(sql, ", NULL");
		appendStringInfo(sql, ")::%s", format_type_be_qualified(type));
	}
}
