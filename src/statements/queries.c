/*
 * queries.c
 *		The text of every statement that is run on a jobs table.
 *
 * A verb changes a single job by one UPDATE or DELETE of it (OM_WRITE_ONE).  So
 * it does a set of jobs that is named by their ids, by OM_WRITE, when the plan of
 * that goes through them in id order (om_query_run_in_order).  Otherwise it takes
 * two statements: OM_LOCK finds, by ids or by a filter, and locks, in id order,
 * those that the verb would change, and OM_WRITE changes what was locked.
 *
 * In all of them, the conditions and the state are tested on the row that is
 * locked: when a worker changed it while we waited for it, PostgreSQL tests the
 * WHERE of the very row again on its newest version, but it does not run again
 * any subquery or join that took no lock.  So no statement that locks has one.
 * Where each job gets its own values (OM_WRITE_EACH), arrays beside the ids have them.
 *
 * Who must be told of a job depends on the state that was written, since a trigger
 * may have changed it (append_written), and on the state before, which PostgreSQL
 * returns from version 18 on only.  OM_WRITE_NOTE assigns a time by one of two
 * parameters, and om_query_run_in_order sees which of them is read.
 *
 * "id = ANY ($1)" stands in the locking and in the writing statement: a join would
 * fetch the whole of a table on another server; and partitions share ctids.
 *
 * All names, functions and operators are qualified, and what resolves
 * operators by search_path (IN, CASE x WHEN, BETWEEN) is not used, so that no
 * search_path and no object in pg_temp can capture a statement.  Literals of
 * unknown type take the type of what they are compared with or assigned to,
 * here the table's own enum, wherever that lives.
 */
#include "statements/statements.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"

/* Oban keeps UTC in timestamps without time zone. */
#define NOW "pg_catalog.timezone('UTC', pg_catalog.now())"

#define STATE_IS(state)		 "j.state OPERATOR(pg_catalog.=) '" state "'"
#define STATE_IS_NOT(states) "j.state OPERATOR(pg_catalog.<>) ALL ('{" states "}')"

#define JOB_ID "j.id::pg_catalog.int8"

/* Can the job still be run as it is?  Both Obans need an attempt to be left then. */
#define MAY_RUN STATE_IS_NOT("completed,cancelled,discarded")

/* The attempts made, of which %d is the most that max_attempts can hold */
#define SPENT "(j.attempt OPERATOR(pg_catalog.>=) %d) IS TRUE"

/*
 * A time, but after the last run began.  By that the guard sees that a job was retried
 * since, also by a transaction that is older than the run.
 */
#define AFTER_ATTEMPT(time)                                                                        \
	"GREATEST(" time ", j.attempted_at OPERATOR(pg_catalog.+)"                                     \
	" '1 microsecond'::pg_catalog.interval)"

const OmVerbName om_verb_names[OM_N_VERBS] = {
	[OM_CANCEL] = {"cancel", "cancelled"},
	[OM_RETRY] = {"retry", "retried"},
	[OM_DELETE] = {"delete", "deleted"},
	[OM_UPDATE] = {"update", "updated"},
};

/*
 * What the verbs are made of.
 *
 * The states that a verb acts on are written as those that it does not, so
 * that a table whose enum lacks "suspended" (Elixir before v14) works.
 */
typedef struct VerbQueries
{
	const char *condition;	 /* the states of the jobs that the verb changes; NULL: all */
	bool adds_attempt;		 /* changes no job whose max_attempts cannot be raised above attempt */
	const char *one;		 /* further condition of OM_WRITE_ONE */
	const char *noted;		 /* OM_LOCK_EXECUTING or OM_LOCK_SCHEDULED; OM_WRITE_NOTE notes it */
	const char *lock;		 /* strength of the lock */
	const char *assignments; /* besides times and the columns named; NULL: the row is deleted */
	const char *new_state;	 /* as text; NULL: by the columns, or the old one */
	const char *done;		 /* does a row that was written say so? */
} VerbQueries;

/* clang-format off */
static const VerbQueries verb_queries[OM_N_VERBS] = {
	[OM_CANCEL] = {
		.condition = STATE_IS_NOT("completed,discarded,cancelled"),
		/* a worker must be told, and that takes the state from before */
		.one = STATE_IS_NOT("executing"),
		.noted = STATE_IS("executing"),
		.lock = "NO KEY UPDATE",
		.assignments = "state = 'cancelled'",
		.new_state = "'cancelled'::pg_catalog.text",
		.done = STATE_IS("cancelled"),
	},
	/*
	 * A job whose meta has the key uniq_bmp is one of Oban Pro's unique jobs:
	 * the states in which it is unique. Emptied, it cannot collide with a job
	 * that was inserted since.
	 */
	[OM_RETRY] = {
		.condition = STATE_IS_NOT("available,executing"),
		.adds_attempt = true,
		.lock = "NO KEY UPDATE",
		.assignments = "max_attempts ="
			" GREATEST(j.max_attempts, j.attempt OPERATOR(pg_catalog.+) 1)"
			", completed_at = NULL, cancelled_at = NULL, discarded_at = NULL"
			", meta = CASE WHEN (j.meta OPERATOR(pg_catalog.->) 'uniq_bmp'::pg_catalog.text)"
			" IS NULL THEN j.meta"
			" ELSE pg_catalog.jsonb_set(j.meta, '{uniq_bmp}', '[]') END",
		.new_state = "'available'::pg_catalog.text",
		.done = STATE_IS("available"),
	},
	[OM_DELETE] = {
		.condition = STATE_IS_NOT("executing"),
		.lock = "UPDATE",
		.new_state = "NULL::pg_catalog.text",
		.done = "true",
	},
	[OM_UPDATE] = {
		.noted = STATE_IS("scheduled"),
		.lock = "NO KEY UPDATE",
		.assignments = "",
		.done = "true",
	},
};
/* clang-format on */

/*
 * A condition for the jobs that the verb changes; NULL: all.
 */
static const char *
verb_condition(OmQuery query, const OmTableShape *shape)
{
	const VerbQueries *verb = &verb_queries[query.verb];

	if (!verb->adds_attempt)
		return verb->condition;
	return psprintf("%s AND NOT (" SPENT ")", verb->condition,
					om_jobs_table_max_integer(shape->jobs, "max_attempts"));
}

/*
 * The number of the parameter that has a column's new value: those of the
 * conditions come first, the columns follow in the order of OmUpdateColumn.
 */
static int
column_param(OmQuery query, OmUpdateColumn column)
{
	return 1 + pg_popcount32(query.conditions) +
		   pg_popcount32(query.columns & (OM_COLUMN_BIT(column) - 1));
}

/*
 * The new value of a column.
 *
 * With OM_WRITE_EACH each job's value stands in an array where its id stands in
 * $1, which is sorted: so width_bucket finds it, and no join is needed that could
 * be planned badly.  There is no array of arrays of tags: each comes as an
 * array's text.
 */
static char *
new_value(OmQuery query, OmUpdateColumn column)
{
	int param = column_param(query, column);

	if (query.step != OM_WRITE_EACH)
		return psprintf("$%d", param);
	return psprintf("$%d[pg_catalog.width_bucket(" JOB_ID ", $1)]%s", param,
					column == OM_TAGS ? "::pg_catalog.text[]" : "");
}

/*
 * The state that a new schedule gives a job: it moves between available and
 * scheduled, because workers fetch by state alone.
 */
static void
append_state_by_schedule(StringInfo sql, OmQuery query)
{
	const char *time = new_value(query, OM_SCHEDULED_AT);
	/* Retry does so from any state that it acts on. */
	const char *from_available = query.verb == OM_RETRY ? "" : STATE_IS("available") " AND ";
	const char *from_scheduled = query.verb == OM_RETRY ? "" : STATE_IS("scheduled") " AND ";

	/* The column gives the literals their type: a cast would want USAGE on the type's schema. */
	appendStringInfo(sql,
					 "CASE WHEN %s%s OPERATOR(pg_catalog.>) " NOW " THEN 'scheduled'"
					 " WHEN %s%s OPERATOR(pg_catalog.<=) " NOW " THEN 'available'"
					 " ELSE j.state END",
					 from_available, time, from_scheduled, time);
}

/*
 * A time to assign: the value, or, to note in which state the job was, one of two
 * parameters that both hold it.
 */
static char *
new_time(OmQuery query, char *value)
{
	int param = 1 + pg_popcount32(query.conditions) + pg_popcount32(query.columns);

	if (query.step != OM_WRITE_NOTE)
		return value;
	return psprintf("CASE WHEN %s THEN $%d ELSE $%d END", verb_queries[query.verb].noted, param,
					param + 1);
}

/*
 * Assign the times of the verb and the columns that were named, and no others:
 * what someone else wrote to another column stays.
 */
static void
append_times_and_columns(StringInfo sql, OmQuery query, const OmTableShape *shape)
{
	const char *separator = query.verb == OM_UPDATE ? "" : ", ";

	for (int column = 0; column < OM_N_UPDATE_COLUMNS; column++)
	{
		const char *name = om_update_columns[column].name;
		char *value = new_value(query, column);

		if ((query.columns & OM_COLUMN_BIT(column)) == 0)
			continue;
		if (column == OM_SCHEDULED_AT)
			value = new_time(query,
							 query.verb == OM_RETRY ? psprintf(AFTER_ATTEMPT("%s"), value) : value);
		appendStringInfo(sql, "%s%s = %s", separator, name, value);
		separator = ", ";
	}

	if (query.columns & OM_COLUMN_BIT(OM_SCHEDULED_AT))
	{
		appendStringInfoString(sql, ", state = ");
		append_state_by_schedule(sql, query);
	}
	else if (query.verb == OM_RETRY)
		appendStringInfoString(sql, ", state = 'available', scheduled_at = " AFTER_ATTEMPT(NOW));
	else if (query.verb == OM_CANCEL)
		appendStringInfo(sql, ", cancelled_at = %s", new_time(query, NOW));
}

/*
 * id, done, queue[, state] of a row that was written.
 *
 * A BEFORE trigger of the table may have given the row another state than the
 * verb did.  A retried job may be scheduled only where it was to be.
 */
static void
append_written(StringInfo sql, OmQuery query)
{
	bool retry = (query.verb == OM_RETRY);
	bool wakes = retry || (query.verb == OM_UPDATE && (query.columns & OM_WAKING_COLUMNS));

	appendStringInfo(sql, JOB_ID ", %s", verb_queries[query.verb].done);
	if (retry && (query.columns & OM_COLUMN_BIT(OM_SCHEDULED_AT)))
		appendStringInfo(sql,
						 " OR (" STATE_IS("scheduled") " AND %s OPERATOR(pg_catalog.>) " NOW ")",
						 new_value(query, OM_SCHEDULED_AT));
	appendStringInfo(sql, ", %s",
					 wakes ? "CASE WHEN " STATE_IS("available") " THEN j.queue::pg_catalog.text END"
						   : "NULL::pg_catalog.text");
	if (query.returns == OM_RETURN_STATES)
		appendStringInfoString(sql, ", " OM_TEXT_OF("j.state"));
}

/*
 * RETURNING what the query asks for
 */
static void
append_returning(StringInfo sql, OmQuery query, const OmTableShape *shape)
{
	if (query.returns == OM_RETURN_NOTHING)
		return;
	appendStringInfoString(sql, " RETURNING ");
	if (query.returns == OM_RETURN_JOBS)
		om_job_columns_append(sql, shape, false);
	else
		append_written(sql, query);
}

/*
 * UPDATE name AS j SET assignments WHERE conditions RETURNING ...
 * DELETE FROM name AS j WHERE conditions RETURNING ...
 *
 * Returns the result code that running it must give.
 */
static int
append_write(StringInfo sql, OmQuery query, const OmTableShape *shape)
{
	const VerbQueries *verb = &verb_queries[query.verb];
	bool one = (query.step == OM_WRITE_ONE);
	bool returns = (query.returns != OM_RETURN_NOTHING);

	if (verb->assignments == NULL)
		appendStringInfo(sql, "DELETE FROM %s AS j", shape->name);
	else
	{
		appendStringInfo(sql, "UPDATE %s AS j SET %s", shape->name, verb->assignments);
		append_times_and_columns(sql, query, shape);
	}

	om_conditions_append(sql, query.conditions, verb_condition(query, shape));
	if (one && verb->one != NULL)
		appendStringInfo(sql, " AND %s", verb->one);
	if (one && (query.columns & OM_COLUMN_BIT(OM_MAX_ATTEMPTS)))
		appendStringInfo(sql,
						 " AND (CASE WHEN " MAY_RUN " THEN j.attempt OPERATOR(pg_catalog.>=) $%d"
						 " ELSE j.attempt OPERATOR(pg_catalog.>) $%d END) IS NOT TRUE",
						 column_param(query, OM_MAX_ATTEMPTS),
						 column_param(query, OM_MAX_ATTEMPTS));
	append_returning(sql, query, shape);

	if (verb->assignments == NULL)
		return returns ? SPI_OK_DELETE_RETURNING : SPI_OK_DELETE;
	return returns ? SPI_OK_UPDATE_RETURNING : SPI_OK_UPDATE;
}

/*
 * , state, does the verb apply, is only the attempt missing, the state that it gives
 */
static void
append_states(StringInfo sql, OmQuery query, const OmTableShape *shape)
{
	const VerbQueries *verb = &verb_queries[query.verb];

	appendStringInfo(sql, ", " OM_TEXT_OF("j.state") ", %s, ",
					 verb->condition != NULL ? verb_condition(query, shape) : "true");
	if (verb->adds_attempt)
		appendStringInfo(sql, "%s AND " SPENT ", ", verb->condition,
						 om_jobs_table_max_integer(shape->jobs, "max_attempts"));
	else
		appendStringInfoString(sql, "false, ");
	if (query.columns & OM_COLUMN_BIT(OM_SCHEDULED_AT))
	{
		appendStringInfoString(sql, "pg_catalog.enum_out(");
		append_state_by_schedule(sql, query);
		appendStringInfoString(sql, ")::pg_catalog.text");
	}
	else
		appendStringInfoString(sql,
							   verb->new_state != NULL ? verb->new_state : OM_TEXT_OF("j.state"));
}

/*
 * SELECT id, noted, attempt, may run[, states][, updatable, argument] FROM name AS j
 * WHERE conditions ORDER BY id [LIMIT ...] [FOR ...]
 *
 * Rows are locked above the sort, so in the order of their ids; and the limit
 * counts those that still match then.
 */
static void
append_lock(StringInfo sql, OmQuery query, const OmTableShape *shape)
{
	const VerbQueries *verb = &verb_queries[query.verb];
	bool states = (query.returns == OM_RETURN_STATES);

	appendStringInfo(sql, "SELECT " JOB_ID ", %s, %s", verb->noted != NULL ? verb->noted : "false",
					 query.verb == OM_UPDATE ? "j.attempt::pg_catalog.int4, " MAY_RUN : "0, false");
	if (states)
		append_states(sql, query, shape);
	if (OidIsValid(query.argument_type))
	{
		om_updatable_append(sql);
		om_argument_append(sql, shape, query.argument_type);
	}
	appendStringInfo(sql, " FROM %s AS j", shape->name);
	om_conditions_append(sql, query.conditions, states ? NULL : verb_condition(query, shape));
	om_conditions_append_order(sql, query.conditions);
	if (query.step == OM_LOCK)
		appendStringInfo(sql, " FOR %s", verb->lock);
}

/*
 * SELECT how many jobs, their lowest and highest ids, the highest id of all
 * FROM name AS j WHERE conditions
 */
static void
append_survey(StringInfo sql, OmQuery query, const OmTableShape *shape)
{
	appendStringInfo(sql,
					 "SELECT pg_catalog.count(*), pg_catalog.min(" JOB_ID
					 "), pg_catalog.max(" JOB_ID "), (SELECT pg_catalog.max(" JOB_ID
					 ") FROM %s AS j) FROM %s AS j",
					 shape->name, shape->name);
	om_conditions_append(sql, query.conditions, verb_condition(query, shape));
}

/*
 * The types of the parameters: one of each condition, one of each column, those
 * that note, and the attempt of a run.
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
	for (int i = 0; query.step == OM_WRITE_NOTE && i < OM_N_NOTE_PARAMS; i++)
		statement->param_types[statement->nparams++] = TIMESTAMPOID;
	if (query.step == OM_RUN_ENDED)
		statement->param_types[statement->nparams++] = INT4OID;
}

/*
 * Build the text of a query for a table of that shape, in the current memory
 * context.
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
		case OM_WRITE_NOTE:
		case OM_WRITE_EACH:
			statement->result_code = append_write(&sql, query, shape);
			break;

		case OM_LOCK:
		case OM_LOOK:
			append_lock(&sql, query, shape);
			break;

		case OM_SURVEY:
			append_survey(&sql, query, shape);
			break;

		case OM_GET:
		case OM_READ:
			appendStringInfoString(&sql, "SELECT ");
			om_job_columns_append(&sql, shape, false);
			appendStringInfo(&sql, " FROM %s AS j", shape->name);
			om_conditions_append(&sql, query.conditions, NULL);
			if (query.conditions & OM_CONDITION_BIT(OM_LIMIT))
				om_conditions_append_order(&sql, query.conditions);
			break;

		case OM_CANCELLED:
			appendStringInfo(&sql, "SELECT " STATE_IS("cancelled") " FROM %s AS j", shape->name);
			om_conditions_append(&sql, query.conditions, NULL);
			break;

		case OM_STATE:
			appendStringInfo(&sql, "SELECT " JOB_ID ", j.state FROM %s AS j", shape->name);
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
	return query.step == OM_READ || query.step == OM_CANCELLED || query.step == OM_RUN_ENDED ||
		   query.step == OM_STATE;
}

/*
 * Does the query find its jobs by their ids alone?
 */
bool
om_query_is_by_id(OmQuery query)
{
	return query.conditions == OM_BY_ID || query.conditions == OM_BY_IDS;
}
