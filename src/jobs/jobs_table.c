/*
 * jobs_table.c
 *		Which table a call is about, and what that table looks like.
 *
 * The table is always named oban_jobs; Oban calls its schema the prefix.  Each
 * look-up locks the table, so that what it found stays true until the end of the
 * transaction.  Calls only PostgreSQL, and reads oban_manage.prefix (settings.c); the
 * statements, the arguments and the functions use it.
 */
#include "jobs/jobs.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#define JOBS_TABLE "oban_jobs"

/* How many schemas with a jobs table an error names */
#define MAX_PREFIXES_SHOWN 10

/* The types that a column has in some migration of either Oban */
static const char *const kind_descriptions[] = {
	[OM_INTEGER_COLUMN] = "smallint, integer or bigint",
	[OM_STATE_COLUMN] = "an enum",
	[OM_TEXT_COLUMN] = "text",
	[OM_TEXTS_COLUMN] = "an array of text",
	[OM_JSON_COLUMN] = "jsonb",
	[OM_ERRORS_COLUMN] = "jsonb or an array of jsonb",
	[OM_TIME_COLUMN] = "timestamp without time zone",
};

static int
hint_at_prefix(void)
{
	return errhint("Pass the schema of your oban_jobs table as prefix, or set "
				   "\"oban_manage.prefix\".");
}

/*
 * Can the relation hold jobs?  Its rows must be lockable.
 */
static bool
is_table(char relkind)
{
	return relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE ||
		   relkind == RELKIND_FOREIGN_TABLE;
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

/*
 * Name the schemas with a jobs table that the caller may use, in the detail of an error.
 */
static int
detail_of_prefixes(void)
{
	CatCList *tables = SearchSysCacheList1(RELNAMENSP, CStringGetDatum(JOBS_TABLE));
	List *schemas = NIL;
	StringInfoData list;
	int most = MAX_PREFIXES_SHOWN;
	ListCell *lc;

	for (int i = 0; i < tables->n_members; i++)
	{
		Form_pg_class table = (Form_pg_class) GETSTRUCT(&tables->members[i]->tuple);
		Oid schema = table->relnamespace;
		char *name = get_namespace_name(schema);

		/* Another session may just have dropped the schema. */
		if (name != NULL && is_table(table->relkind) && !table->relispartition &&
			!isAnyTempNamespace(schema) &&
			object_aclcheck(NamespaceRelationId, schema, GetUserId(), ACL_USAGE) == ACLCHECK_OK)
			schemas = lappend(schemas, name);
	}
	ReleaseSysCacheList(tables);
	if (schemas == NIL)
		return 0;

	list_sort(schemas, compare_names);
	initStringInfo(&list);
	foreach (lc, schemas)
	{
		if (most-- == 0)
		{
			appendStringInfoString(&list, " and others");
			break;
		}
		appendStringInfo(&list, "%s\"%s\"", list.len > 0 ? ", " : "", (char *) lfirst(lc));
	}
	return errdetail_plural("There is a table %s in the schema %s.",
							"There are tables %s in the schemas %s.", list_length(schemas),
							JOBS_TABLE, list.data);
}

/*
 * Raise an error unless the rows of the relation can be locked and changed.
 */
static void
check_relkind(Oid relid, const char *schema)
{
	if (!is_table(get_rel_relkind(relid)))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s.%s\" is not a table", schema, JOBS_TABLE),
						errdetail("Its rows cannot be locked."), hint_at_prefix()));
}

/*
 * Look up and lock the jobs table of a prefix, or of oban_manage.prefix when
 * the prefix is NULL.
 *
 * Errors: no such schema (3F000), no right to use it (42501), no such table
 * (42P01), not a table (42809).
 */
Oid
om_jobs_table_by_prefix(const text *prefix, LOCKMODE lockmode)
{
	char *schema = prefix != NULL ? text_to_cstring(prefix) : om_prefix;
	Oid relid;

	relid = RangeVarGetRelidExtended(makeRangeVar(schema, JOBS_TABLE, -1), lockmode, RVR_MISSING_OK,
									 NULL, NULL);
	if (!OidIsValid(relid))
	{
		if (!OidIsValid(LookupExplicitNamespace(schema, true)))
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_SCHEMA),
							errmsg("schema \"%s\" does not exist", schema), detail_of_prefixes(),
							hint_at_prefix()));
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("table \"%s.%s\" does not exist", schema, JOBS_TABLE),
						detail_of_prefixes(), hint_at_prefix()));
	}
	check_relkind(relid, schema);
	return relid;
}

/*
 * The same as om_jobs_table_by_prefix, for an argument that holds a prefix, or NULL.
 */
Oid
om_jobs_table_argument(FunctionCallInfo fcinfo, int argno, LOCKMODE lockmode)
{
	return om_jobs_table_by_prefix(PG_ARGISNULL(argno) ? NULL : PG_GETARG_TEXT_PP(argno), lockmode);
}

/*
 * The jobs table to which the rows of a relation belong, locked.  It is the relation
 * itself, or its topmost ancestor that is named oban_jobs, if the relation is a
 * partition.  InvalidOid when neither is a jobs table.
 */
Oid
om_jobs_table_of_row_type(Oid row_relid, LOCKMODE lockmode)
{
	List *relids = list_make1_oid(row_relid);
	ListCell *lc;
	char *schema = NULL;

	/* PostgreSQL finds no ancestors while the partition is being detached. */
	if (get_rel_relispartition(row_relid))
		relids = list_concat(relids, get_partition_ancestors(row_relid));

	foreach (lc, relids)
	{
		char *relname = get_rel_name(lfirst_oid(lc));

		if (relname != NULL && strcmp(relname, JOBS_TABLE) == 0)
			schema = get_namespace_name_or_temp(get_rel_namespace(lfirst_oid(lc)));
	}
	if (schema == NULL)
		return InvalidOid;

	/*
	 * Look the table up again by its schema.  This checks the caller's right to the
	 * schema, and notices when the table was dropped before we had the lock.
	 */
	return om_jobs_table_by_prefix(cstring_to_text(schema), lockmode);
}

static bool
type_is_text(Oid type)
{
	return type == TEXTOID || type == VARCHAROID;
}

/*
 * May a column of that kind have the type?  Domains are accepted where the statements
 * cast the column anyway, or PostgreSQL uses the base type.
 */
static bool
type_fits(Oid type, OmColumnKind kind)
{
	Oid base = getBaseType(type);

	switch (kind)
	{
		case OM_INTEGER_COLUMN:
			return base == INT2OID || base == INT4OID || base == INT8OID;
		case OM_STATE_COLUMN:
			return type_is_enum(type);
		case OM_TEXT_COLUMN:
			return type_is_text(base);
		case OM_TEXTS_COLUMN:
			return type_is_text(get_element_type(base));
		case OM_JSON_COLUMN:
			return type == JSONBOID;
		case OM_ERRORS_COLUMN:
			return type == JSONBOID || type == JSONBARRAYOID;
		case OM_TIME_COLUMN:
			return base == TIMESTAMPOID;
		case OM_NO_COLUMN:
			break;
	}
	return false; /* keep the compiler quiet */
}

/*
 * The column of that name, or NULL.  We find columns by name, never by position,
 * because migrations, Oban Pro and users add and reorder them.
 */
Form_pg_attribute
om_find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (!column->attisdropped && strcmp(NameStr(column->attname), name) == 0)
			return column;
	}
	return NULL;
}

/*
 * Read from the table what the text of a statement depends on.
 *
 * Errors: columns are missing (42703), a column has a type that neither Oban
 * gives it (42804), a callable or a trigger has dropped the table (42P01).
 */
void
om_jobs_table_shape(Oid jobs, OmTableShape *shape)
{
	Relation rel = try_table_open(jobs, NoLock);
	TupleDesc desc;
	StringInfoData missing;
	int nmissing = 0;

	/* The caller has locked the table, but the same transaction may still drop it. */
	if (rel == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("table of the jobs was dropped during the call")));

	desc = RelationGetDescr(rel);
	shape->jobs = jobs;
	shape->schema = get_namespace_name_or_temp(RelationGetNamespace(rel));
	shape->name = quote_qualified_identifier(shape->schema, RelationGetRelationName(rel));
	shape->row_type = RelationGetForm(rel)->reltype;
	shape->errors_is_array = false;

	initStringInfo(&missing);
	for (int i = 0; i < OM_JOB_N_COLUMNS; i++)
	{
		const OmJobColumn *needed = &om_job_columns[i];
		Form_pg_attribute column = om_find_column(desc, needed->name);
		Oid type;

		if (needed->kind == OM_NO_COLUMN)
			continue;
		if (column == NULL)
		{
			appendStringInfo(&missing, "%s%s", nmissing++ > 0 ? ", " : "", needed->name);
			continue;
		}

		type = column->atttypid;
		if (!type_fits(type, needed->kind))
			ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
							errmsg("column \"%s\" of table %s has type %s", needed->name,
								   shape->name, format_type_be(type)),
							errdetail("It must be %s.", kind_descriptions[needed->kind]),
							errhint("Run Oban's latest migrations, or point "
									"\"oban_manage.prefix\" at another schema.")));

		if (needed->kind == OM_ERRORS_COLUMN)
			shape->errors_is_array = (type == JSONBARRAYOID);
	}

	if (nmissing > 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg_plural("table %s lacks the column %s", "table %s lacks the columns %s",
							   nmissing, shape->name, missing.data),
				 errhint("Run Oban's latest migrations, or point \"oban_manage.prefix\" at "
						 "another schema.")));
	pfree(missing.data);
	table_close(rel, NoLock);
}

/*
 * The table's owner.
 */
Oid
om_jobs_table_owner(Oid jobs)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(jobs));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", jobs);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * The type of a column; of a domain, its base type.  InvalidOid when there is no such
 * column, an error that om_jobs_table_shape reports.
 */
Oid
om_jobs_table_column_type(Oid jobs, const char *column)
{
	AttrNumber attnum = get_attnum(jobs, column);

	return attnum != InvalidAttrNumber ? getBaseType(get_atttype(jobs, attnum)) : InvalidOid;
}

/*
 * The largest whole number that a column of the table can hold.  For a bigint column it
 * is that of integer, because oban_job has an integer there.
 */
int32
om_jobs_table_max_integer(Oid jobs, const char *column)
{
	return om_jobs_table_column_type(jobs, column) == INT2OID ? PG_INT16_MAX : PG_INT32_MAX;
}
