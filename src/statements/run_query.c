/*
 * run_query.c
 *		Runs a query by its kept plan, and hands each row to the caller.
 *
 * Calls plan_cache.c for the plan, plan_order.c for its order and rights.c for a hint;
 * the verbs and the functions call it.
 */
#include "statements/plan_cache.h"

#include "executor/executor.h"
#include "tcop/dest.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

/* The trigger depth at which a statement of ours runs; -1: none runs */
static int writes_at_depth = -1;

/* What run_plan returns when it has not run the plan; no result code of SPI is 0 */
#define NOT_RUN 0

/* A receiver that hands each row to a callback and keeps nothing */
typedef struct RowReceiver
{
	DestReceiver pub;
	OmRowCallback callback; /* or NULL */
	void *state;
	bool *was_in_state; /* set for each row of OM_WRITE_AND_WATCH; NULL: another step */
#if OM_HAS_RETURNING_OLD
	TupleTableSlot *rest; /* the row of OM_WRITE_AND_WATCH without its last column */
#endif
} RowReceiver;

/*
 * From PostgreSQL 18 on, the last column of a row of OM_WRITE_AND_WATCH says whether the
 * job was in the state.  Before 18, om_plan_watch_params notices it.
 */
#if OM_HAS_RETURNING_OLD
static void
prepare_rest(RowReceiver *receiver, TupleDesc row)
{
	TupleDesc rest;

	if (receiver->was_in_state == NULL)
		return;
	rest = CreateTemplateTupleDesc(row->natts - 1);
	for (int i = 1; i <= rest->natts; i++)
		TupleDescCopyEntry(rest, i, row, i);
	TupleDescFinalize(rest);
	receiver->rest = MakeSingleTupleTableSlot(rest, &TTSOpsVirtual);
}

/*
 * Read that column, and return the row without it.
 */
static TupleTableSlot *
take_old_state(RowReceiver *receiver, TupleTableSlot *row)
{
	TupleTableSlot *rest = receiver->rest;
	int last;

	if (rest == NULL)
		return row;
	last = rest->tts_tupleDescriptor->natts;
	ExecClearTuple(rest);
	slot_getallattrs(row);
	*receiver->was_in_state = DatumGetBool(row->tts_values[last]);
	memcpy(rest->tts_values, row->tts_values, last * sizeof(Datum));
	memcpy(rest->tts_isnull, row->tts_isnull, last * sizeof(bool));
	return ExecStoreVirtualTuple(rest);
}
#else
static void
prepare_rest(RowReceiver *receiver, TupleDesc row)
{
}

static TupleTableSlot *
take_old_state(RowReceiver *receiver, TupleTableSlot *row)
{
	return row;
}
#endif

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	RowReceiver *receiver = (RowReceiver *) self;

	slot = take_old_state(receiver, slot);
	if (receiver->callback != NULL)
		receiver->callback(slot, receiver->state);
	return true;
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc row)
{
	prepare_rest((RowReceiver *) self, row);
}

static void
receiver_done(DestReceiver *self)
{
}

/* DestTuplestore, because SPI treats DestNone and DestSPI in a special way */
static const DestReceiver row_receiver = {receive_row, receiver_startup, receiver_done,
										  receiver_done, DestTuplestore};

/*
 * How deeply are the running triggers nested?
 */
int
om_trigger_depth(void)
{
	LOCAL_FCINFO(fcinfo, 0);

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	return DatumGetInt32(pg_trigger_depth(fcinfo));
}

/*
 * For a trigger on the jobs: did one of our statements fire it? A statement inside
 * another trigger that our statement fired does not count as ours. A statement inside a
 * function of a policy or a constraint does.
 */
bool
om_query_writes_now(void)
{
	return writes_at_depth >= 0 && om_trigger_depth() == writes_at_depth + 1;
}

/*
 * Run a plan; with in_order, only if it writes its jobs in id order.  Returns SPI's
 * result code, or NOT_RUN.
 */
static int
run_plan(OmKeptPlan *kept, Oid jobs, bool in_order, const SPIExecuteOptions *options)
{
	volatile int result = NOT_RUN;
	int outer_depth = writes_at_depth;

	kept->users++;
	PG_TRY();
	{
		if ((kept->by_id && om_plan_by_index(kept->plan, jobs, &kept->order)) || !in_order)
		{
			writes_at_depth = om_trigger_depth();
			result = SPI_execute_plan_extended(kept->plan, options);
		}
	}
	PG_FINALLY();
	{
		writes_at_depth = outer_depth;
		om_plan_release(kept);
	}
	PG_END_TRY();
	return result;
}

/*
 * The parameters of a statement.  No value is NULL.
 */
static ParamListInfo
bind_params(const OmKeptPlan *kept, const Datum *values)
{
	ParamListInfo params = makeParamList(kept->nparams);

	for (int i = 0; i < kept->nparams; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = false;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = kept->param_types[i];
	}
	return params;
}

/*
 * Raise an error when a rule has replaced the statement that was prepared.
 */
static void
check_result(Oid jobs, int result, int expected)
{
	if (result < 0)
		elog(ERROR, "SPI_execute_plan_extended returned %s", SPI_result_code_string(result));
	if (result != expected)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("jobs of schema \"%s\" cannot be managed",
							   get_namespace_name_or_temp(get_rel_namespace(jobs))),
						errdetail("A rule on the table rewrites the statement."),
						errhint("Use a trigger in the place of the rule.")));
}

/*
 * Run a query; with in_order, only if it writes its jobs in id order.  Returns whether
 * it was run, and in *count how many rows it changed or returned.
 */
static bool
run_query(Oid jobs, OmQuery query, const Datum *values, bool in_order, RowReceiver *receiver,
		  uint64 *count)
{
	MemoryContext caller = CurrentMemoryContext;
	OmKeptPlan *kept = om_plan_fetch(jobs, query);
	int expected = kept->result_code; /* running it may free it */
	int result;
	OmRunningQuery running = {.jobs = jobs, .query = query, .kept = kept};
	ErrorContextCallback hint = {
		.previous = error_context_stack,
		.callback = om_rights_error_callback,
		.arg = &running,
	};
	SPIExecuteOptions options = {
		.params = bind_params(kept, values),
		.read_only = om_query_reads_only(query),
		.dest = &receiver->pub,
	};

	if (receiver->was_in_state != NULL && !OM_HAS_RETURNING_OLD)
		om_plan_watch_params(options.params, receiver->was_in_state);
	error_context_stack = &hint;
	result = run_plan(kept, jobs, in_order, &options);
	error_context_stack = hint.previous;
	/* SPI leaves its own memory context behind, which lives until SPI_finish. */
	MemoryContextSwitchTo(caller);
	pfree(options.params);
	if (result == NOT_RUN)
		return false;
	check_result(jobs, result, expected);
	*count = SPI_processed;
	return true;
}

/*
 * Run a query on a jobs table that the caller has locked.  Each row that the query
 * returns goes to the callback, which may be NULL.  values are the parameters of the
 * query; none is NULL.  Call it between SPI_connect and SPI_finish.
 *
 * Returns how many rows the query changed or returned.
 */
uint64
om_query_run(Oid jobs, OmQuery query, const Datum *values, OmRowCallback callback, void *state)
{
	RowReceiver receiver = {.pub = row_receiver, .callback = callback, .state = state};
	uint64 count = 0;

	(void) run_query(jobs, query, values, false, &receiver, &count);
	return count;
}

/*
 * Run a query that writes jobs without a lock taken before, but only if it writes them
 * in ascending order of their ids.  Returns whether it was run, and in *count how many
 * rows it changed.
 *
 * For OM_WRITE_AND_WATCH, *was_in_state is set before each call of the callback: was the
 * job executing (cancel) or scheduled (update) before it was written?  The other steps
 * do not set it.
 */
bool
om_query_run_in_order(Oid jobs, OmQuery query, const Datum *values, bool *was_in_state,
					  OmRowCallback callback, void *state, uint64 *count)
{
	RowReceiver receiver = {.pub = row_receiver, .callback = callback, .state = state};

	if (query.step == OM_WRITE_AND_WATCH)
		receiver.was_in_state = was_in_state;
	return run_query(jobs, query, values, true, &receiver, count);
}
