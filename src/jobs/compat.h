/*
 * compat.h
 *		What PostgreSQL 16 to 19 have renamed or added, under the newest name.
 *		jobs.h includes it.
 */
#ifndef OBAN_MANAGE_COMPAT_H
#define OBAN_MANAGE_COMPAT_H

/* Since 16, one function for all classes of objects. We need only these two. */
#if PG_VERSION_NUM < 160000
#define object_aclcheck(classid, objectid, roleid, mode)                                           \
	((classid) == NamespaceRelationId ? pg_namespace_aclcheck(objectid, roleid, mode)              \
									  : pg_proc_aclcheck(objectid, roleid, mode))
#endif

/* Since 16, a query has a list of the rights that it needs. */
#if PG_VERSION_NUM < 160000
#define ExecCheckPermissions(rtable, permissions, raise) ExecCheckRTPerms(rtable, raise)
#endif

#if PG_VERSION_NUM < 170000
#define SearchPathMatchesCurrentEnvironment(path) OverrideSearchPathMatchesCurrent(path)
#endif

/* UPDATE ... RETURNING old.column */
#define OM_HAS_RETURNING_OLD (PG_VERSION_NUM >= 180000)

/* Since 18 it stands before the declaration. GCC and clang take an attribute there too. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn __attribute__((noreturn))
#endif

/* attgenerated of columns that are computed when they are read */
#if PG_VERSION_NUM < 180000
#define ATTRIBUTE_GENERATED_VIRTUAL 'v'
#endif

#if PG_VERSION_NUM < 190000
/* Since 19 a hand-made tuple descriptor must be completed before it is used. */
#define TupleDescFinalize(desc) ((void) (desc))

/* Since 19 the state holds the finished value, and pushJsonbValue returns nothing. */
typedef struct JsonbInState
{
	JsonbValue *result;
	JsonbParseState *parseState;
} JsonbInState;

#define pushJsonbValue(state, seq, value)                                                          \
	((void) ((state)->result = pushJsonbValue(&(state)->parseState, seq, value)))
#endif

#endif
