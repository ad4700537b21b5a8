/*
 * conditions.c
 *		The conditions that select jobs, as SQL.
 *
 * Each condition has one parameter.  The conditions and their parameters are in the
 * order of OmCondition; these are the first parameters of a statement.  Calls
 * jobs/jobs_table.c; queries.c, assignments.c and arguments/filter.c call it.
 */
#include "statements/statements.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/lsyscache.h"

#define IS(column)		 "j." column " OPERATOR(pg_catalog.=) $%d", column, false
#define IS_ANY(column)	 "j." column " OPERATOR(pg_catalog.=) ANY ($%d)", column, true
#define CONTAINS(column) "j." column " OPERATOR(pg_catalog.@>) $%d", column, false
#define FROM(column)	 "j." column " OPERATOR(pg_catalog.>=) $%d", column, false
#define BEFORE(column)	 "j." column " OPERATOR(pg_catalog.<) $%d", column, false
#define UP_TO(column)	 "j." column " OPERATOR(pg_catalog.<=) $%d", column, false

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

StaticAssertDecl(lengthof(conditions) == OM_N_CONDITIONS, "each condition has a row");
StaticAssertDecl(OM_N_CONDITIONS <= sizeof(OmConditionSet) * BITS_PER_BYTE, "each is a bit of it");

/*
 * WHERE conditions AND the condition of the verb, which may be NULL
 */
void
om_conditions_append(StringInfo sql, OmConditionSet set, const char *verb_condition)
{
	const char *separator = " WHERE ";
	int param = 0;

	for (int i = 0; i < OM_LIMIT; i++)
	{
		if ((set & OM_CONDITION_BIT(i)) == 0)
			continue;
		appendStringInfoString(sql, separator);
		appendStringInfo(sql, conditions[i].text, ++param);
		separator = " AND ";
	}
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
	if (set & OM_CONDITION_BIT(OM_LIMIT))
		appendStringInfo(sql, conditions[OM_LIMIT].text, om_conditions_count(set));
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
		Oid type;

		if ((set & OM_CONDITION_BIT(i)) == 0)
			continue;
		type = om_condition_type(i, jobs);
		types[count++] = conditions[i].any ? get_array_type(type) : type;
	}
	return count;
}
