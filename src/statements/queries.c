/*
 * queries.c
 *		The text of every statement that is run on a jobs table.
 *
 * Calls the other files that write text (statement_text.h, conditions.c, job_columns.c);
 * plan_cache.c and run_query.c call it.
 *
 * A verb changes a single job by one UPDATE or DELETE (OM_WRITE_ONE).  Jobs that are
 * named by their ids also take one statement, OM_WRITE, if its plan goes through them
 * in id order (om_query_run_in_order).  Otherwise a verb takes two statements.
 * OM_FIND_AND_LOCK finds the jobs that the verb would change, by ids or by a filter,
 * and locks them in id order.  OM_WRITE then changes the locked jobs.
 *
 * Every statement tests the conditions and the state on the row that it locks.  If a
 * worker changed the row while we waited, PostgreSQL tests the WHERE again on the
 * newest version of that row.  But it does not look at other rows again, so no statement
 * that locks has a join, or a subquery that reads a table.  Where each job gets its own
 * values (OM_WRITE_EACH), they are passed as arrays beside the ids.
 *
 * Who must be told of a job depends on the state that was written, because a trigger
 * may have changed it (rows.c), and on the state before.  From version 18 on,
 * PostgreSQL returns the state before (OM_HAS_RETURNING_OLD), as the last column of
 * OM_WRITE_AND_WATCH.  Before 18, that step assigns a time by one of two parameters
 * (assignments.c), and plan_order.c sees which of them is read.
 *
 * Both the locking and the writing statement have "id = ANY ($1)".  A join instead
 * would fetch a whole table from another server, and ctids are not unique among
 * partitions.
 *
 * All names, functions and operators are qualified.  What resolves operators by
 * search_path (IN, CASE x WHEN, BETWEEN) is not used.  So no search_path and no object
 * in pg_temp can capture a statement.  Literals of unknown type take the type of what
 * they are compared with or assigned to, here the table's own enum in any schema.
 */
#include "statements/statement_text.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"

/*
 * RETURNING what the query asks for
 */
static void
append_returning(StringInfo sql, OmQuery query, const OmTableShape *shape)
{
	if (query.returns == OM_RETURN_NOTHING)
		return;
	appendStringInfoString(sql, " RETURNING ");
	om_written_columns_append(sql, query, shape);
	if (query.step == OM_WRITE_AND_WATCH && OM_HAS_RETURNING_OLD)
		appendStringInfo(sql, ", %s", om_verb_texts[query.verb].was);
}

/*
 * UPDATE name AS j SET assignments WHERE conditions RETURNING ...
 * DELETE FROM name AS j WHERE conditions RETURNING ...
 *
 * Returns the result code that SPI must return for the statement.
 */
static int
append_write(StringInfo sql, OmQuery query, const OmTableShape *shape)
{
	const OmVerbText *verb = &om_verb_texts[query.verb];
	bool one = (query.step == OM_WRITE_ONE);
	bool returns = (query.returns != OM_RETURN_NOTHING);

	if (verb->deletes)
		appendStringInfo(sql, "DELETE FROM %s AS j", shape->name);
	else
	{
		appendStringInfo(sql, "UPDATE %s AS j SET ", shape->name);
		om_assignments_append(sql, query);
	}

	om_conditions_append(sql, query.conditions, om_verb_condition(query, shape));
	if (one && verb->one_condition != NULL)
		appendStringInfo(sql, " AND %s", verb->one_condition);
	if (one && (query.columns & OM_COLUMN_BIT(OM_MAX_ATTEMPTS)))
		appendStringInfo(sql,
						 " AND (CASE WHEN " MAY_RUN " THEN j.attempt OPERATOR(pg_catalog.>=) $%d"
						 " ELSE j.attempt OPERATOR(pg_catalog.>) $%d END) IS NOT TRUE",
						 om_column_param(query, OM_MAX_ATTEMPTS),
						 om_column_param(query, OM_MAX_ATTEMPTS));
	append_returning(sql, query, shape);

	if (verb->deletes)
		return returns ? SPI_OK_DELETE_RETURNING : SPI_OK_DELETE;
	return returns ? SPI_OK_UPDATE_RETURNING : SPI_OK_UPDATE;
}

/*
 * SELECT columns of OmFoundRow FROM name AS j WHERE conditions ORDER BY id [LIMIT ...]
 * [FOR ... [SKIP LOCKED]]
 *
 * Rows are locked after the sort, so in the order of their ids.  The limit counts the
 * rows that still match once they are locked.
 */
static void
append_lock(StringInfo sql, OmQuery query, const OmTableShape *shape)
{
	bool states = (query.returns == OM_RETURN_STATES);

	appendStringInfoString(sql, "SELECT ");
	om_found_columns_append(sql, query, shape);
	appendStringInfo(sql, " FROM %s AS j", shape->name);
	om_conditions_append(sql, query.conditions, states ? NULL : om_verb_condition(query, shape));
	om_conditions_append_order(sql, query.conditions);
	if (query.step != OM_FIND_ONLY)
		appendStringInfo(sql, " FOR %s", om_verb_texts[query.verb].lock);
	if (query.step == OM_FIND_AND_LOCK_FREE)
		appendStringInfoString(sql, " SKIP LOCKED");
}

/*
 * SELECT columns of OmSurveyRow FROM name AS j WHERE conditions
 */
static void
append_survey(StringInfo sql, OmQuery query, const OmTableShape *shape)
{
	appendStringInfoString(sql, "SELECT ");
	om_survey_columns_append(sql, shape);
	appendStringInfo(sql, " FROM %s AS j", shape->name);
	om_conditions_append(sql, query.conditions, om_verb_condition(query, shape));
}

/*
 * The types of the parameters: one for each condition, one for each column, the times
 * of OM_WRITE_AND_WATCH, and the attempt of a run.
 */
static void
set_param_types(OmStatement *statement, OmQuery query, const OmTableShape *shape)
{
	statement->nparams = om_conditions_types(query.conditions, shape->jobs, statement->param_types);
	for (int column = 0; column < OM_N_UPDATE_COLUMNS; column++)
	{
		if (query.columns & OM_COLUMN_BIT(column))
			statement->param_types[statement->nparams++] =
				query.step == OM_WRITE_EACH ? om_update_columns[column].array_type
											: om_update_columns[column].type;
	}
	for (int i = 0; query.step == OM_WRITE_AND_WATCH && i < OM_N_WATCH_PARAMS; i++)
		statement->param_types[statement->nparams++] = TIMESTAMPOID;
	if (query.step == OM_RUN_ENDED)
		statement->param_types[statement->nparams++] = INT4OID;
}

/*
 * Build the text of a query for a table of that shape.  Allocates in the current
 * memory context.
 */
void
om_query_build(OmQuery query, const OmTableShape *shape, OmStatement *statement)
{
	StringInfoData sql;

	initStringInfo(&sql);
	set_param_types(statement, query, shape);
	statement->result_code = SPI_OK_SELECT;

	switch ((OmStep) query.step)
	{
		case OM_WRITE_ONE:
		case OM_WRITE:
		case OM_WRITE_AND_WATCH:
		case OM_WRITE_EACH:
			statement->result_code = append_write(&sql, query, shape);
			break;

		case OM_FIND_AND_LOCK:
		case OM_FIND_AND_LOCK_FREE:
		case OM_FIND_ONLY:
			append_lock(&sql, query, shape);
			break;

		case OM_SURVEY:
			append_survey(&sql, query, shape);
			break;

		case OM_GET_NEWEST:
		case OM_GET_AS_SEEN:
			appendStringInfoString(&sql, "SELECT ");
			om_job_columns_append(&sql, shape, false);
			appendStringInfo(&sql, " FROM %s AS j", shape->name);
			om_conditions_append(&sql, query.conditions, NULL);
			if (om_conditions_have_limit(query.conditions))
				om_conditions_append_order(&sql, query.conditions);
			break;

		case OM_CANCELLED:
			appendStringInfo(&sql, "SELECT " STATE_IS("cancelled") " FROM %s AS j", shape->name);
			om_conditions_append(&sql, query.conditions, NULL);
			break;

		case OM_STATE:
			appendStringInfoString(&sql, "SELECT ");
			om_state_columns_append(&sql);
			appendStringInfo(&sql, " FROM %s AS j", shape->name);
			om_conditions_append(&sql, query.conditions, NULL);
			break;

		case OM_RUN_ENDED:
			appendStringInfo(
				&sql,
				"SELECT (" STATE_IS(
					"executing") " AND j.attempt OPERATOR(pg_catalog.=) $2) IS NOT TRUE FROM %s AS j",
				shape->name);
			om_conditions_append(&sql, query.conditions, NULL);
			break;
	}
	statement->text = sql.data;
}

/*
 * May the query run with the snapshot of the statement that called us?
 */
bool
om_query_reads_only(OmQuery query)
{
	return query.step == OM_GET_AS_SEEN || query.step == OM_CANCELLED ||
		   query.step == OM_RUN_ENDED || query.step == OM_STATE;
}

#define BY_ID_OR_IDS (OM_CONDITION_BIT(OM_ID_IS) | OM_CONDITION_BIT(OM_ID_IS_ANY))

/*
 * Does the query find its jobs by their ids?  Further conditions are tested on the rows
 * that it finds.
 */
bool
om_query_is_by_id(OmQuery query)
{
	return (query.conditions.levels[0] & BY_ID_OR_IDS) != 0;
}

/*
 * Does it read no other column to find them?
 */
bool
om_query_is_by_id_alone(OmQuery query)
{
	return (query.conditions.levels[0] & ~BY_ID_OR_IDS) == 0;
}
