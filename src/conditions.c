/*
 * conditions.c
 *		The conditions that jobs are found by, as SQL.
 *
 * Each has one parameter; they stand in the order of OmCondition, and so do
 * their parameters, which are the first of a statement.
 */
#include "oban_manage.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "port/pg_bitutils.h"
#include "utils/lsyscache.h"

#define IS(column)		 "j." column " OPERATOR(pg_catalog.=) $%d"
#define IS_ANY(column)	 "j." column " OPERATOR(pg_catalog.=) ANY ($%d)"
#define CONTAINS(column) "j." column " OPERATOR(pg_catalog.@>) $%d"
#define FROM(column)	 "j." column " OPERATOR(pg_catalog.>=) $%d"
#define BEFORE(column)	 "j." column " OPERATOR(pg_catalog.<) $%d"

/* clang-format off */
static const struct
{
	const char *text;
	Oid type; /* of the parameter; InvalidOid: the column's own, or an array of it */
} conditions[OM_N_CONDITIONS] = {
	[OM_ID_IS] = {IS("id"), INT8OID},
	[OM_ID_IS_ANY] = {IS_ANY("id"), INT8ARRAYOID},
	[OM_STATE_IS] = {IS("state"), InvalidOid},
	[OM_STATE_IS_ANY] = {IS_ANY("state"), InvalidOid},
	[OM_QUEUE_IS] = {IS("queue"), TEXTOID},
	[OM_QUEUE_IS_ANY] = {IS_ANY("queue"), TEXTARRAYOID},
	[OM_WORKER_IS] = {IS("worker"), TEXTOID},
	[OM_WORKER_IS_ANY] = {IS_ANY("worker"), TEXTARRAYOID},
	[OM_PRIORITY_IS] = {IS("priority"), INT8OID},
	[OM_PRIORITY_IS_ANY] = {IS_ANY("priority"), INT8ARRAYOID},
	[OM_ATTEMPT_IS] = {IS("attempt"), INT8OID},
	[OM_ATTEMPT_IS_ANY] = {IS_ANY("attempt"), INT8ARRAYOID},
	[OM_MAX_ATTEMPTS_IS] = {IS("max_attempts"), INT8OID},
	[OM_MAX_ATTEMPTS_IS_ANY] = {IS_ANY("max_attempts"), INT8ARRAYOID},
	[OM_ARGS_CONTAIN] = {CONTAINS("args"), JSONBOID},
	[OM_META_CONTAIN] = {CONTAINS("meta"), JSONBOID},
	[OM_TAGS_CONTAIN] = {CONTAINS("tags"), InvalidOid},
	[OM_INSERTED_AFTER] = {FROM("inserted_at"), TIMESTAMPOID},
	[OM_INSERTED_BEFORE] = {BEFORE("inserted_at"), TIMESTAMPOID},
	[OM_SCHEDULED_AFTER] = {FROM("scheduled_at"), TIMESTAMPOID},
	[OM_SCHEDULED_BEFORE] = {BEFORE("scheduled_at"), TIMESTAMPOID},
	[OM_ATTEMPTED_AFTER] = {FROM("attempted_at"), TIMESTAMPOID},
	[OM_ATTEMPTED_BEFORE] = {BEFORE("attempted_at"), TIMESTAMPOID},
	[OM_COMPLETED_AFTER] = {FROM("completed_at"), TIMESTAMPOID},
	[OM_COMPLETED_BEFORE] = {BEFORE("completed_at"), TIMESTAMPOID},
	[OM_CANCELLED_AFTER] = {FROM("cancelled_at"), TIMESTAMPOID},
	[OM_CANCELLED_BEFORE] = {BEFORE("cancelled_at"), TIMESTAMPOID},
	[OM_DISCARDED_AFTER] = {FROM("discarded_at"), TIMESTAMPOID},
	[OM_DISCARDED_BEFORE] = {BEFORE("discarded_at"), TIMESTAMPOID},
	[OM_ID_FROM] = {FROM("id"), INT8OID},
	[OM_ID_UP_TO] = {"j.id OPERATOR(pg_catalog.<=) $%d", INT8OID},
	[OM_LIMIT] = {" LIMIT $%d", INT8OID},
};
/* clang-format on */

StaticAssertDecl(OM_N_CONDITIONS <= 32, "each is a bit of OmConditionSet");

/*
 * WHERE conditions AND the verb's own, which may be NULL
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
		appendStringInfo(sql, conditions[OM_LIMIT].text, pg_popcount32(set));
}

/*
 * The type of a condition's parameter.
 */
static Oid
param_type(OmCondition condition, const OmTableShape *shape)
{
	switch (condition)
	{
		case OM_STATE_IS:
			return shape->state_type;
		case OM_STATE_IS_ANY:
			return get_array_type(shape->state_type);
		case OM_TAGS_CONTAIN:
			return shape->tags_type;
		default:
			return conditions[condition].type;
	}
}

/*
 * The types of the parameters, for a table of that shape.  Returns how many they
 * are.
 */
int
om_conditions_types(OmConditionSet set, const OmTableShape *shape, Oid *types)
{
	int count = 0;

	for (int i = 0; i < OM_N_CONDITIONS; i++)
	{
		if (set & OM_CONDITION_BIT(i))
			types[count++] = param_type(i, shape);
	}
	return count;
}
