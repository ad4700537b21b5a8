/*
 * triggers.c
 *		The trigger functions, one for each verb.  They read the rows (trigger_rows.c),
 *		make contexts for callables (trigger_contexts.c), and run the verbs
 *		(verbs/transitions.c, verbs/update.c, verbs/update_with.c).
 *
 * A trigger skips jobs that do not exist, also in update, because Oban prunes jobs and
 * the rows that name them stay.
 */
#include "functions/triggers.h"

#include "catalog/namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/varlena.h"

/* ---- cancel, retry, delete ---- */

static Datum
change_jobs_of_rows(FunctionCallInfo fcinfo, OmVerb verb)
{
	OmTrigger trigger;
	OmJobIds ids;

	om_trigger_begin(&trigger, fcinfo, 1);
	om_trigger_jobs(&trigger, &ids);
	if (ids.count > 0)
	{
		OmCall call = {.verb = verb, .jobs = om_trigger_jobs_table(&trigger, 1)};

		SPI_connect();
		if (ids.count == 1)
			om_transition_job(&call, om_job_ids_data(&ids)[0]);
		else
			om_transition_jobs(&call, DatumGetArrayTypeP(om_job_ids_array(&ids)));
		SPI_finish();
	}
	return om_trigger_return(&trigger);
}

/*
 * oban_cancel_job(), oban_retry_job(), oban_delete_job() -> trigger
 *		Arguments of the trigger: the column with the jobs' ids, and a prefix.
 *
 * Errors: those of om_trigger_begin and om_jobs_table_by_prefix, and errors of the
 * jobs table itself.
 */
PG_FUNCTION_INFO_V1(oban_cancel_job_trigger);
PG_FUNCTION_INFO_V1(oban_retry_job_trigger);
PG_FUNCTION_INFO_V1(oban_delete_job_trigger);

Datum
oban_cancel_job_trigger(PG_FUNCTION_ARGS)
{
	return change_jobs_of_rows(fcinfo, OM_CANCEL);
}

Datum
oban_retry_job_trigger(PG_FUNCTION_ARGS)
{
	return change_jobs_of_rows(fcinfo, OM_RETRY);
}

Datum
oban_delete_job_trigger(PG_FUNCTION_ARGS)
{
	return change_jobs_of_rows(fcinfo, OM_DELETE);
}

/* ---- update ---- */

/*
 * oban_update_job() -> trigger
 *		Arguments of the trigger: the column with the jobs' ids, the changes, and
 *		a prefix.
 *
 * Errors: as for oban_cancel_job(); the changes are not JSON (22P02); those of
 * om_changes_check; too few max_attempts for the attempts already made (22023).
 */
PG_FUNCTION_INFO_V1(oban_update_job_trigger);

Datum
oban_update_job_trigger(PG_FUNCTION_ARGS)
{
	OmTrigger trigger;
	OmJobIds ids;

	om_trigger_begin(&trigger, fcinfo, 2);
	om_trigger_jobs(&trigger, &ids);
	if (ids.count > 0)
	{
		Oid jobs = om_trigger_jobs_table(&trigger, 2);
		Datum changes =
			DirectFunctionCall1(jsonb_in, CStringGetDatum(trigger.data->tg_trigger->tgargs[1]));

		om_update_jobs(jobs, &ids, DatumGetJsonbP(changes), true, NULL);
	}
	return om_trigger_return(&trigger);
}

/* ---- update with a callable ---- */

/* The tuplesort's columns; it has an item for each job that a row names */
#define ITEM_JOB	 1 /* bigint */
#define ITEM_CONTEXT 2 /* bigint; the position of the row's context (trigger_contexts.c) */
#define ITEM_COLUMNS 2

/* The jobs that the rows of a statement trigger name */
typedef struct RowJobs
{
	Tuplesortstate *items;
	TupleTableSlot *item;
	int64 count;
	OmTriggerContexts *contexts;
} RowJobs;

/*
 * Sort the jobs of all rows by id, and store the contexts of the rows.  Rows that
 * name the same job keep their order, because positions are in the order of rows.
 */
static void
sort_jobs(RowJobs *jobs, OmTrigger *trigger)
{
	TupleDesc desc = CreateTemplateTupleDesc(ITEM_COLUMNS);
	AttrNumber columns[] = {ITEM_JOB, ITEM_CONTEXT};
	Oid operators[] = {Int8LessOperator, Int8LessOperator};
	Oid collations[] = {InvalidOid, InvalidOid};
	bool nulls_first[] = {false, false};
	MemoryContext row_context =
		AllocSetContextCreate(CurrentMemoryContext, "oban_manage row", ALLOCSET_DEFAULT_SIZES);
	TupleTableSlot *item;

	TupleDescInitEntry(desc, ITEM_JOB, "job", INT8OID, -1, 0);
	TupleDescInitEntry(desc, ITEM_CONTEXT, "context", INT8OID, -1, 0);
	TupleDescFinalize(desc);
	item = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	jobs->item = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	jobs->items = tuplesort_begin_heap(desc, lengthof(columns), columns, operators, collations,
									   nulls_first, work_mem, NULL, TUPLESORT_NONE);
	jobs->count = 0;

	while (om_trigger_next_row(trigger))
	{
		MemoryContext caller = MemoryContextSwitchTo(row_context);
		OmJobIds ids;
		int64 position = 0;

		om_job_ids_init(&ids, 1);
		om_trigger_add_row_jobs(trigger, &ids);
		om_job_ids_sort(&ids);
		if (ids.count > 0)
			position = om_trigger_contexts_put(jobs->contexts);
		for (int i = 0; i < ids.count; i++)
		{
			ExecClearTuple(item);
			item->tts_values[ITEM_JOB - 1] = Int64GetDatum(om_job_ids_data(&ids)[i]);
			item->tts_values[ITEM_CONTEXT - 1] = Int64GetDatum(position);
			memset(item->tts_isnull, false, ITEM_COLUMNS);
			ExecStoreVirtualTuple(item);
			tuplesort_puttupleslot(jobs->items, item);
		}
		jobs->count += ids.count;
		MemoryContextSwitchTo(caller);
		MemoryContextReset(row_context);
	}
	ExecDropSingleTupleTableSlot(item);
	tuplesort_performsort(jobs->items);
}

/*
 * An OmNextJob that gives the sorted jobs.
 */
static bool
next_of_sorted(void *state, bool anew, int64 *id, NullableDatum *context)
{
	RowJobs *jobs = state;
	int64 position;

	if (om_trigger_contexts_full(jobs->contexts, anew) ||
		!tuplesort_gettupleslot(jobs->items, true, false, jobs->item, NULL))
		return false;
	*id = DatumGetInt64(slot_getattr(jobs->item, ITEM_JOB, &context->isnull));
	position = DatumGetInt64(slot_getattr(jobs->item, ITEM_CONTEXT, &context->isnull));
	context->value = om_trigger_contexts_get(jobs->contexts, position);
	return true;
}

/*
 * Find the function of a signature.  Types without a schema are PostgreSQL's, or those
 * of the given schema; other types need their schema.  The session's search_path must not
 * choose them.  pg_temp is named last, because PostgreSQL searches it first if it is not
 * named.
 */
static Oid
find_signature(const char *signature, Oid schema)
{
	const char *name = quote_identifier(get_namespace_name(schema));
	int nestlevel = NewGUCNestLevel();
	Oid function;

	om_set_temporarily("search_path", psprintf("%s, pg_temp", name));
	function = DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(signature)));
	AtEOXact_GUC(true, nestlevel);
	return function;
}

/*
 * Find the function that the trigger's second argument names, with its schema.
 * The argument is a name, or a signature when several functions have that name.
 *
 * A name without a schema, or in pg_temp, is refused: the session that fires the
 * trigger would choose the function.  When a foreign key cascades, the function
 * runs with the rights of the table's owner.
 */
static Oid
find_callable(FunctionCallInfo fcinfo, const OmTrigger *trigger)
{
	const Trigger *definition = trigger->data->tg_trigger;
	const char *callable = definition->tgargs[1];
	const char *end = callable;
	List *names;
	Oid function = InvalidOid;

	for (bool quoted = false; *end != '\0' && (quoted || *end != '('); end++)
		if (*end == '"')
			quoted = !quoted;
	names = textToQualifiedNameList(cstring_to_text_with_len(callable, (int) (end - callable)));
	if (list_length(names) >= 2)
		function =
			*end == '('
				? find_signature(callable, get_func_namespace(fcinfo->flinfo->fn_oid))
				: DatumGetObjectId(DirectFunctionCall1(regprocin, CStringGetDatum(callable)));
	if (!OidIsValid(function) || isAnyTempNamespace(get_func_namespace(function)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("callable \"%s\" of trigger \"%s\" on \"%s\" has no fixed schema", callable,
						definition->tgname, RelationGetRelationName(trigger->data->tg_relation)),
				 errdetail("The session that fires the trigger would choose the function, by its "
						   "search_path or pg_temp."),
				 errhint("Write its schema before it, as in 'public.a_function'.")));
	return function;
}

static void
update_with(FunctionCallInfo fcinfo, const OmTrigger *trigger, OmNextJob next, void *state)
{
	Oid jobs = om_trigger_jobs_table(trigger, 2);

	om_update_with(jobs, om_callable_prepare(fcinfo, find_callable(fcinfo, trigger), jobs), next,
				   state, true, NULL);
}

/*
 * oban_update_job_with() -> trigger
 *		Arguments of the trigger: the column with the jobs' ids, the callable with
 *		its schema, and a prefix.  In a callable's signature, types other than
 *		PostgreSQL's and this extension's need their schema too.
 *
 * Errors: as for oban_cancel_job(); a callable without a schema, or in pg_temp
 * (22023); those of oban_update_job_with with arguments.
 */
PG_FUNCTION_INFO_V1(oban_update_job_with_trigger);

Datum
oban_update_job_with_trigger(PG_FUNCTION_ARGS)
{
	OmTrigger trigger;
	OmTriggerContexts contexts;

	om_trigger_begin(&trigger, fcinfo, 2);
	om_trigger_contexts_begin(&contexts, &trigger);
	if (trigger.table != NULL)
	{
		RowJobs jobs = {.contexts = &contexts};

		sort_jobs(&jobs, &trigger);
		if (jobs.count > 0)
			update_with(fcinfo, &trigger, next_of_sorted, &jobs);
		ExecDropSingleTupleTableSlot(jobs.item);
		tuplesort_end(jobs.items);
	}
	else
	{
		OmJobIds ids;
		OmJobList list = {.ids = &ids};

		om_trigger_jobs(&trigger, &ids);
		if (ids.count > 0)
		{
			list.context.value = om_trigger_context(&contexts);
			update_with(fcinfo, &trigger, om_next_of_list, &list);
		}
	}
	om_trigger_contexts_end(&contexts);
	return om_trigger_return(&trigger);
}
