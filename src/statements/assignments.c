/*
 * assignments.c
 *		What a statement assigns to a job's columns: the times of the verb, the columns
 *		that an update names, and the state that follows from a new schedule.
 *
 * Calls conditions.c and verb_table.c for numbers and texts, and jobs/columns.c for
 * names; queries.c and rows.c call it.
 */
#include "statements/statement_text.h"

#include "lib/stringinfo.h"

/*
 * A time, or the moment after the last run began if that is later.  This tells the guard
 * that the job was retried after that run, even if the retry's transaction began before
 * the run.  Nothing that Oban can read comes after a run at the end of time: then the
 * time is assigned as it is, and the guard does not see the retry.
 */
#define AFTER_ATTEMPT(time)                                                                        \
	"CASE WHEN j.attempted_at OPERATOR(pg_catalog.<) '9999-12-31'::pg_catalog.timestamp"           \
	" THEN GREATEST(" time ", j.attempted_at OPERATOR(pg_catalog.+)"                               \
	" '1 microsecond'::pg_catalog.interval) ELSE " time " END"

/*
 * The number of the parameter that holds a column's new value.  The parameters of the
 * conditions come first.  Those of the columns follow, in the order of OmUpdateColumn.
 */
int
om_column_param(OmQuery query, OmUpdateColumn column)
{
	return 1 + om_conditions_count(query.conditions) +
		   om_columns_count(query.columns & (OM_COLUMN_BIT(column) - 1));
}

/*
 * The new value of a column.
 *
 * With OM_WRITE_EACH, the values are an array.  A job's value has the same index there
 * as the job's id has in $1.  $1 is sorted, so width_bucket finds the index, and the
 * statement needs no join, which could be planned badly.  The tags of each job are
 * passed as text, because PostgreSQL has no array of arrays of different lengths.
 */
char *
om_new_value(OmQuery query, OmUpdateColumn column)
{
	int param = om_column_param(query, column);

	if (query.step != OM_WRITE_EACH)
		return psprintf("$%d", param);
	return psprintf("$%d[pg_catalog.width_bucket(" JOB_ID ", $1)]%s", param,
					column == OM_TAGS ? "::pg_catalog.text[]" : "");
}

/*
 * The state that follows from a new schedule.  The job moves between available and
 * scheduled, because workers fetch by state alone.
 */
void
om_state_by_schedule_append(StringInfo sql, OmQuery query)
{
	const char *time = om_new_value(query, OM_SCHEDULED_AT);
	/* A retry moves the job from any state that it acts on. */
	const char *from_available = query.verb == OM_RETRY ? "" : STATE_IS("available") " AND ";
	const char *from_scheduled = query.verb == OM_RETRY ? "" : STATE_IS("scheduled") " AND ";

	/* The column gives the literals their type. A cast would need USAGE on the type's schema. */
	appendStringInfo(sql,
					 "CASE WHEN %s%s OPERATOR(pg_catalog.>) " NOW " THEN 'scheduled'"
					 " WHEN %s%s OPERATOR(pg_catalog.<=) " NOW " THEN 'available'"
					 " ELSE j.state END",
					 from_available, time, from_scheduled, time);
}

/*
 * A time to assign.  Before PostgreSQL 18, OM_WRITE_AND_WATCH assigns one of two
 * parameters that both hold the time; which one it reads shows the state that the job
 * had.
 */
static char *
new_time(OmQuery query, char *value)
{
	int param = 1 + om_conditions_count(query.conditions) + om_columns_count(query.columns);

	if (query.step != OM_WRITE_AND_WATCH || OM_HAS_RETURNING_OLD)
		return value;
	return psprintf("CASE WHEN %s THEN $%d ELSE $%d END", om_verb_texts[query.verb].watched, param,
					param + 1);
}

/*
 * The assignments of an UPDATE: those of the verb, its times, and the columns that an
 * update names.  No other column is assigned, so what others wrote there stays.
 */
void
om_assignments_append(StringInfo sql, OmQuery query)
{
	const char *separator = query.verb == OM_UPDATE ? "" : ", ";

	appendStringInfoString(sql, om_verb_texts[query.verb].assignments);
	for (int column = 0; column < OM_N_UPDATE_COLUMNS; column++)
	{
		const char *name = om_update_columns[column].name;
		char *value = om_new_value(query, column);

		if ((query.columns & OM_COLUMN_BIT(column)) == 0)
			continue;
		if (column == OM_SCHEDULED_AT)
			value =
				new_time(query, query.verb == OM_RETRY ? psprintf(AFTER_ATTEMPT("%s"), value, value)
													   : value);
		appendStringInfo(sql, "%s%s = %s", separator, name, value);
		separator = ", ";
	}

	if (query.columns & OM_COLUMN_BIT(OM_SCHEDULED_AT))
	{
		appendStringInfoString(sql, ", state = ");
		om_state_by_schedule_append(sql, query);
	}
	else if (query.verb == OM_RETRY)
		appendStringInfoString(sql, ", state = 'available', scheduled_at = " AFTER_ATTEMPT(NOW));
	else if (query.verb == OM_CANCEL)
		appendStringInfo(sql, ", cancelled_at = %s", new_time(query, NOW));
}
