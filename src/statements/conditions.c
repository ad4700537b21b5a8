/*
 * conditions.c
 *		The conditions that select jobs, as SQL.
 *
 * Each condition has one parameter.  The conditions and their parameters are in the
 * order of OmCondition, one level after the other; these are the first parameters of a
 * statement.  Calls jobs/jobs_table.c; queries.c, assignments.c, arguments/filter.c and
 * the verbs call it.
 */
#include "statements/statements.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/lsyscache.h"

#define IS(column)		 "j." column " OPERATOR(pg_catalog.=) $%d", column, false
#define IS_ANY(column)	 "j." column " OPERATOR(pg_catalog.=) ANY ($%d)", column, true
#define CONTAINS(column) "j." column " OPERATOR(pg_catalog.@>) $%d", column, false
#define OVERLAPS(column) "j." column " OPERATOR(pg_catalog.&&) $%d", column, false
#define FROM(column)	 "j." column " OPERATOR(pg_catalog.>=) $%d", column, false
#define BEFORE(column)	 "j." column " OPERATOR(pg_catalog.<) $%d", column, false
#define UP_TO(column)	 "j." column " OPERATOR(pg_catalog.<=) $%d", column, false

/*
 * Does the text of an entry of "errors" contain the parameter?  An entry without the key
 * "error" is read as a whole.  The column is jsonb or jsonb[], and may hold anything.  The
 * subquery reads only the job's own row, so PostgreSQL runs it again on the newest version
 * of a row that it had to wait for.
 */
#define ERRORS "pg_catalog.to_jsonb(j.errors)"
#define ERROR_CONTAINS                                                                              \
	"EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(CASE WHEN pg_catalog.jsonb_typeof(" ERRORS \
	") OPERATOR(pg_catalog.=) 'array' THEN " ERRORS " END) AS e(entry)"                             \
	" WHERE pg_catalog.strpos(COALESCE("                                                            \
	"e.entry OPERATOR(pg_catalog.->>) 'error'::pg_catalog.text, "                                   \
	"e.entry OPERATOR(pg_catalog.#>>) '{}'::pg_catalog.text[]), $%d) OPERATOR(pg_catalog.>) 0)"

/* clang-format off */
static const struct
{
	const char *text;
	const char *column;
	bool any; /* the parameter is an array */
	Oid type; /* of the parameter, or of its elements; InvalidOid: the column's type */
} conditions[] = {
	[OM_ID_IS] = {IS("id"), INT8OID},
	[OM_ID_IS_ANY] = {IS_ANY("id"), INT8OID},
	[OM_STATE_IS] = {IS("state")},
	[OM_STATE_IS_ANY] = {IS_ANY("state")},
	[OM_QUEUE_IS] = {IS("queue")},
	[OM_QUEUE_IS_ANY] = {IS_ANY("queue")},
	[OM_WORKER_IS] = {IS("worker")},
	[OM_WORKER_IS_ANY] = {IS_ANY("worker")},
	[OM_PRIORITY_IS] = {IS("priority")},
	[OM_PRIORITY_IS_ANY] = {IS_ANY("priority")},
	[OM_ATTEMPT_IS] = {IS("attempt")},
	[OM_ATTEMPT_IS_ANY] = {IS_ANY("attempt")},
	[OM_MAX_ATTEMPTS_IS] = {IS("max_attempts")},
	[OM_MAX_ATTEMPTS_IS_ANY] = {IS_ANY("max_attempts")},
	[OM_ARGS_CONTAIN] = {CONTAINS("args")},
	[OM_META_CONTAIN] = {CONTAINS("meta")},
	[OM_TAGS_CONTAIN] = {CONTAINS("tags")},
	[OM_ATTEMPTED_BY_ANY] = {OVERLAPS("attempted_by")},
	[OM_ERROR_CONTAINS] = {ERROR_CONTAINS, NULL, false, TEXTOID},
	[OM_INSERTED_AFTER] = {FROM("inserted_at")},
	[OM_INSERTED_BEFORE] = {BEFORE("inserted_at")},
	[OM_SCHEDULED_AFTER] = {FROM("scheduled_at")},
	[OM_SCHEDULED_BEFORE] = {BEFORE("scheduled_at")},
	[OM_ATTEMPTED_AFTER] = {FROM("attempted_at")},
	[OM_ATTEMPTED_BEFORE] = {BEFORE("attempted_at")},
	[OM_COMPLETED_AFTER] = {FROM("completed_at")},
	[OM_COMPLETED_BEFORE] = {BEFORE("completed_at")},
	[OM_CANCELLED_AFTER] = {FROM("cancelled_at")},
	[OM_CANCELLED_BEFORE] = {BEFORE("cancelled_at")},
	[OM_DISCARDED_AFTER] = {FROM("discarded_at")},
	[OM_DISCARDED_BEFORE] = {BEFORE("discarded_at")},
	[OM_ID_FROM] = {FROM("id"), INT8OID},
	[OM_ID_UP_TO] = {UP_TO("id"), INT8OID},
	[OM_LIMIT] = {" LIMIT $%d", NULL, false, INT8OID},
};
/* clang-format on */

StaticAssertDecl(lengthof(conditions) == OM_NOT, "each condition has a row");
StaticAssertDecl(OM_N_LEVEL_CONDITIONS <= sizeof(uint64) * BITS_PER_BYTE, "each is a bit of it");

static bool
has(OmConditionSet set, int level, OmCondition condition)
{
	return (set.levels[level] & OM_CONDITION_BIT(condition)) != 0;
}

/*
 * Is the condition of that index in OmFilter.values there, and does it have a parameter?
 */
static bool
has_value(OmConditionSet set, int i)
{
	OmCondition condition = i % OM_N_LEVEL_CONDITIONS;

	return condition != OM_NOT && has(set, i / OM_N_LEVEL_CONDITIONS, condition);
}

/*
 * The number of parameters of the levels before that one
 */
static int
count_before(OmConditionSet set, int level)
{
	int count = 0;

	for (int i = 0; i < level; i++)
		count += pg_popcount64(set.levels[i] & ~OM_CONDITION_BIT(OM_NOT));
	return count;
}

/*
 * The number of parameters
 */
int
om_conditions_count(OmConditionSet set)
{
	return count_before(set, OM_N_LEVELS);
}

bool
om_conditions_have_limit(OmConditionSet set)
{
	return has(set, 0, OM_LIMIT);
}

/*
 * The conditions of a level, each after a separator.  Returns the separator for what
 * follows.
 */
static const char *
append_level(StringInfo sql, OmConditionSet set, int level, const char *separator)
{
	int param = count_before(set, level);

	for (int i = 0; i < OM_LIMIT; i++)
	{
		if (!has(set, level, i))
			continue;
		appendStringInfoString(sql, separator);
		appendStringInfo(sql, conditions[i].text, ++param);
		separator = " AND ";
	}
	return separator;
}

/*
 * WHERE conditions AND the condition of the verb, which may be NULL
 *
 * The conditions of a next level stand last, negated.  A job that lacks a value (NULL)
 * does not meet the condition, so it meets the negated one.
 */
void
om_conditions_append(StringInfo sql, OmConditionSet set, const char *verb_condition)
{
	const char *separator = append_level(sql, set, 0, " WHERE ");
	int level = 0;

	while (has(set, level, OM_NOT))
	{
		appendStringInfo(sql, "%s(", separator);
		separator = append_level(sql, set, ++level, "");
		/* A level without conditions is every job. */
		if (set.levels[level] == 0)
			appendStringInfoString(sql, "true");
	}
	for (int closed = 0; closed < level; closed++)
		appendStringInfoString(sql, ") IS NOT TRUE");

	if (level > 0)
		separator = " AND ";
	if (verb_condition != NULL)
		appendStringInfo(sql, "%s%s", separator, verb_condition);
}

/*
 * ORDER BY id [LIMIT ...]
 */
void
om_conditions_append_order(StringInfo sql, OmConditionSet set)
{
	appendStringInfoString(sql, " ORDER BY j.id");
	/* It is the last parameter of the first level. */
	if (om_conditions_have_limit(set))
		appendStringInfo(sql, conditions[OM_LIMIT].text, count_before(set, 1));
}

/*
 * The type of a condition's parameter, or of its elements.
 *
 * It is the column's type, because only then does PostgreSQL hash long arrays and use an
 * index on tags.  Ids are always bigint, because the callers have arrays of bigint.
 */
Oid
om_condition_type(OmCondition condition, Oid jobs)
{
	return OidIsValid(conditions[condition].type)
			   ? conditions[condition].type
			   : om_jobs_table_column_type(jobs, conditions[condition].column);
}

/*
 * The types of the parameters for a jobs table.  Returns their number.
 */
int
om_conditions_types(OmConditionSet set, Oid jobs, Oid *types)
{
	int count = 0;

	for (int i = 0; i < OM_N_CONDITIONS; i++)
	{
		OmCondition condition = i % OM_N_LEVEL_CONDITIONS;
		Oid type;

		if (!has_value(set, i))
			continue;
		type = om_condition_type(condition, jobs);
		types[count++] = conditions[condition].any ? get_array_type(type) : type;
	}
	return count;
}

/*
 * Put a condition into a level of a filter.
 */
void
om_filter_put(OmFilter *filter, int level, OmCondition condition, Datum value)
{
	filter->conditions.levels[level] |= OM_CONDITION_BIT(condition);
	filter->values[level * OM_N_LEVEL_CONDITIONS + condition] = value;
}

/*
 * The filter for the jobs of an array of ids.
 */
void
om_filter_by_ids(OmFilter *filter, Datum ids)
{
	filter->conditions = (OmConditionSet){{0}};
	om_filter_put(filter, 0, OM_ID_IS_ANY, ids);
}

/*
 * Restrict a filter to the jobs of an array of ids, which were found by it.  The array
 * takes the place of a range of ids, and of a limit.
 */
void
om_filter_restrict(OmFilter *filter, Datum ids)
{
	filter->conditions.levels[0] &= ~(OM_CONDITION_BIT(OM_ID_FROM) | OM_CONDITION_BIT(OM_ID_UP_TO) |
									  OM_CONDITION_BIT(OM_LIMIT));
	om_filter_put(filter, 0, OM_ID_IS_ANY, ids);
}

/*
 * Add a condition on the ids to a filter, or limit how many jobs it finds, the lowest
 * ids first.
 */
void
om_filter_add(OmFilter *filter, OmCondition condition, int64 value)
{
	om_filter_put(filter, 0, condition, Int64GetDatum(value));
}

/*
 * The values of the filter's conditions, in the order of their parameters: the first
 * parameters of a query with these conditions.  Returns their number.
 */
int
om_filter_params(const OmFilter *filter, Datum *params)
{
	int count = 0;

	for (int i = 0; i < OM_N_CONDITIONS; i++)
	{
		if (has_value(filter->conditions, i))
			params[count++] = filter->values[i];
	}
	return count;
}
