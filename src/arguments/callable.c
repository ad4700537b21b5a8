/*
 * callable.c
 *		Callables: functions that get a job and return the changes to make to it.
 *
 * A callable is any function of the database, in any language.  It is called through
 * fmgr, which checks neither privileges nor types, so this file checks them, in each
 * call.  Calls jobs/; the functions prepare a callable, and verbs/update_with.c
 * calls it.
 */
#include "arguments/arguments.h"

#include "access/htup_details.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

/*
 * Can a callable for the jobs table take the job as that type?  Without a table there
 * is no job to pass, so any row type is accepted.
 */
static bool
type_takes_job(Oid type, Oid jobs)
{
	if (type == JSONBOID)
		return true;
	if (OidIsValid(jobs) ? type == get_rel_type_id(jobs) : get_typtype(type) == TYPTYPE_COMPOSITE)
		return true;
	return om_type_is_oban_job(type);
}

/*
 * Check that the caller has USAGE on a schema (42501).
 */
static void
check_usage(Oid schema)
{
	AclResult aclresult = object_aclcheck(NamespaceRelationId, schema, GetUserId(), ACL_USAGE);

	if (aclresult != ACLCHECK_OK)
		aclcheck_error(aclresult, OBJECT_SCHEMA, get_namespace_name(schema));
}

/*
 * Check that the function is a callable for the jobs table and that the caller may
 * execute it.  Fills in all of the callable except "function".
 */
static void
look_at_function(OmCallable *callable, Oid function, Oid jobs)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	AclResult aclresult;
	const Oid *types;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function with OID %u does not exist", function)));
	proc = (Form_pg_proc) GETSTRUCT(tuple);

	callable->name = format_procedure(function);
	aclresult = object_aclcheck(ProcedureRelationId, function, GetUserId(), ACL_EXECUTE);
	if (aclresult != ACLCHECK_OK)
		aclcheck_error(aclresult, OBJECT_FUNCTION, callable->name);
	/* A regproc given as an OID has had no USAGE check on its schema. */
	check_usage(proc->pronamespace);
	InvokeFunctionExecuteHook(function);

	if (proc->prokind != PROKIND_FUNCTION || proc->proretset)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s cannot be a callable", callable->name),
				 errdetail("A callable is a plain function, not an aggregate, a window function, a "
						   "procedure or a function that returns a set.")));

	types = proc->proargtypes.values;
	if (proc->prorettype != JSONBOID || proc->pronargs < 1 || proc->pronargs > 2 ||
		!type_takes_job(types[0], jobs) || (proc->pronargs == 2 && types[1] != JSONBOID))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s cannot be a callable", callable->name),
				 errdetail("A callable takes the job, as oban_job, the row type of its table or "
						   "jsonb, and may take a context as jsonb; it returns jsonb.")));
	/* The parser checks this right too, but only when the statement's plan is made. */
	if (types[0] != JSONBOID)
		check_usage(get_rel_namespace(get_typ_typrelid(types[0])));
	callable->argument_type = types[0];
	callable->takes_context = (proc->pronargs == 2);
	callable->xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
	callable->tid = tuple->t_self;
	ReleaseSysCache(tuple);
}

/*
 * Prepare to call a function for jobs of the table.  The callable, with state such as
 * the plans of a function in SQL, is kept in the fn_extra of our own function for the
 * next calls in the same statement.  It is made again when the function was replaced.
 *
 * jobs is InvalidOid when there is no job to call the function for.
 *
 * Errors: no such function (42883); no right to execute it, or no USAGE on its schema
 * or on the schema of the job's type (42501); not a plain function (42809); arguments
 * or a result of other types (42804).
 */
OmCallable *
om_callable_prepare(FunctionCallInfo fcinfo, Oid function, Oid jobs)
{
	FmgrInfo *ours = fcinfo->flinfo;
	OmCallable *callable = ours->fn_extra;
	OmCallable found = {0};
	MemoryContext context;

	look_at_function(&found, function, jobs);
	if (callable != NULL && callable->function.fn_oid == function && callable->xmin == found.xmin &&
		ItemPointerEquals(&callable->tid, &found.tid))
	{
		found.function = callable->function;
		*callable = found;
		return callable;
	}

	if (callable != NULL)
	{
		ours->fn_extra = NULL;
		MemoryContextDelete(GetMemoryChunkContext(callable));
	}
	context = AllocSetContextCreate(ours->fn_mcxt, "oban_manage callable", ALLOCSET_SMALL_SIZES);
	callable = MemoryContextAlloc(context, sizeof(OmCallable));
	*callable = found;
	fmgr_info_cxt(function, &callable->function, context);
	ours->fn_extra = callable;
	return callable;
}

/*
 * Call a callable for a job.  Returns the changes in the current memory context.
 * Returns NULL for no changes: the function returned NULL, or it is strict and the
 * context is NULL.
 */
Jsonb *
om_callable_call(OmCallable *callable, Datum job, NullableDatum context)
{
	LOCAL_FCINFO(fcinfo, 2);
	PgStat_FunctionCallUsage usage;
	Datum result;

	if (callable->function.fn_strict && callable->takes_context && context.isnull)
		return NULL;

	InitFunctionCallInfoData(*fcinfo, &callable->function, callable->takes_context ? 2 : 1,
							 InvalidOid, NULL, NULL);
	fcinfo->args[0] = (NullableDatum){.value = job, .isnull = false};
	fcinfo->args[1] = context;

	pgstat_init_function_usage(fcinfo, &usage);
	result = FunctionCallInvoke(fcinfo);
	pgstat_end_function_usage(&usage, true);
	return fcinfo->isnull ? NULL : DatumGetJsonbP(result);
}
