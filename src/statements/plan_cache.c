/*
 * plan_cache.c
 *		Kept plans, and the running of them.
 *
 * A plan is prepared when a backend first asks a query of a table, and kept
 * (SPI_keepplan) under the table's oid and the query.  The callers hold a lock
 * on the table.  A plan that is out of date is thrown away and its text built
 * anew, not only planned anew: schemas, tables, columns and types may have been
 * renamed.
 *
 * A query that finds its jobs by their ids alone has one plan for all of them,
 * by index.  A filter is planned with its values each time: how many jobs they
 * match, and which partial index serves, makes the difference there.
 *
 * Users choose the tables and the filters, so the number of plans is bounded;
 * the one that was used longest ago goes first.
 */
#include "statements/statements.h"

#include "access/genam.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "catalog/pg_opfamily.h"
#include "executor/spi.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "nodes/plannodes.h"
#include "tcop/dest.h"
#include "utils/guc.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/rls.h"

/* At 30 to 120 kB a plan, and more for a table with many partitions */
#define MAX_PLANS 256

typedef struct PlanKey
{
	Oid jobs;
	OmQuery query;
} PlanKey;

StaticAssertDecl(sizeof(PlanKey) == sizeof(Oid) + sizeof(OmQuery), "hashed as bytes");

/* How often a plan is made anew that is out of date as soon as it is made */
#define MAX_PLANNINGS 3

/* A kept plan, which outlives its entry while a statement still runs it */
typedef struct KeptPlan
{
	SPIPlanPtr plan;
	int result_code; /* of OmStatement */
	int nparams;
	Oid param_types[OM_MAX_PARAMS];
	bool no_force;	/* made where FORCE ROW LEVEL SECURITY does not hold */
	bool by_index;	/* one plan, made by plan_by_index */
	int generation; /* of that plan; 0: none yet */
	bool in_order;	/* does that plan write jobs in ascending order of their ids? */
	int users;		/* how many are running it: triggers on the table nest */
	bool dropped;	/* by the cache; the last user frees it */
} KeptPlan;

typedef struct PlanEntry
{
	PlanKey key;
	KeptPlan *kept;
	dlist_node node;
} PlanEntry;

static HTAB *plans = NULL;
static dlist_head plans_by_use = DLIST_STATIC_INIT(plans_by_use); /* newest first */

/* The depth of triggers at which a statement of ours runs; -1: none does */
static int writes_at_depth = -1;

/* A receiver that hands each row to a callback and keeps nothing */
typedef struct RowReceiver
{
	DestReceiver pub;
	OmRowCallback callback; /* or NULL */
	void *state;
} RowReceiver;

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	RowReceiver *receiver = (RowReceiver *) self;

	if (receiver->callback != NULL)
		receiver->callback(slot, receiver->state);
	return true;
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
receiver_done(DestReceiver *self)
{
}

static void
free_kept(KeptPlan *kept)
{
	SPI_freeplan(kept->plan);
	pfree(kept);
}

/*
 * Forget an entry, and free its plan unless that is being run.
 */
static void
drop_entry(PlanEntry *entry)
{
	KeptPlan *kept = entry->kept;

	dlist_delete(&entry->node);
	hash_search(plans, &entry->key, HASH_REMOVE, NULL);

	if (kept->users > 0)
		kept->dropped = true;
	else
		free_kept(kept);
}

/*
 * Would PostgreSQL run the plan that plan_by_index has made?  Otherwise it
 * plans anew as it runs it: when statistics have changed, or the role while a
 * foreign table's user mapping is in the plan.
 */
static bool
is_planned_by_index(const KeptPlan *kept)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(kept->plan));
	CachedPlan *plan = source->gplan;

	return CachedPlanIsSimplyValid(source, plan, NULL) && plan->generation == kept->generation &&
		   !TransactionIdIsValid(plan->saved_xmin) &&
		   !(plan->dependsOnRole && plan->planRoleId != GetUserId());
}

/*
 * Has PostgreSQL planned anew as it ran the plan?  It does so when it had to
 * wait for the lock of a partition that was changed meanwhile.  plan_by_index
 * would be given that plan again.
 */
static bool
is_planned_otherwise(const KeptPlan *kept)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(kept->plan));
	CachedPlan *plan = source->gplan;

	return kept->by_index && plan != NULL && plan->generation != kept->generation;
}

/*
 * May a kept plan still be used?
 *
 * PostgreSQL parses the text again when the search_path is another or, with
 * row-level security in the plan, the role or row_security; and what the text
 * names may have moved since.  It keeps no watch over the tables of a statement
 * that a rule has made into none, nor over FORCE ROW LEVEL SECURITY, which does
 * not hold for the owner in a foreign key's cascade, and does after it.
 */
static bool
is_usable(const KeptPlan *kept)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(kept->plan));

	return SPI_plan_is_valid(kept->plan) && source->relationOids != NIL &&
		   SearchPathMatchesCurrentEnvironment(source->search_path) &&
		   !(source->dependsOnRLS &&
			 (source->rewriteRoleId != GetUserId() || source->rewriteRowSecurity != row_security ||
			  kept->no_force != InNoForceRLSOperation())) &&
		   !is_planned_otherwise(kept);
}

/*
 * Does a plan write the rows of the jobs table in ascending order of their ids?
 *
 * It does when all that is below the ModifyTable is a forward scan of a btree
 * index whose first column is the id: the scan sorts the array of
 * "id = ANY ($1)", drops duplicates, and goes through it.  Then the rows come and
 * are locked one by one as they are written.
 */
static bool
is_in_order(const CachedPlan *plan, Oid jobs)
{
	Plan *top;
	IndexScan *scan;
	Relation index;
	bool in_order;

	/* A rule may have made several statements of it, or none. */
	if (list_length(plan->stmt_list) != 1)
		return false;
	top = linitial_node(PlannedStmt, plan->stmt_list)->planTree;
	if (top == NULL || !IsA(top, ModifyTable) || !IsA(outerPlan(top), IndexScan))
		return false;

	scan = castNode(IndexScan, outerPlan(top));
	index = index_open(scan->indexid, AccessShareLock);
	in_order = index->rd_index->indrelid == jobs && index->rd_rel->relam == BTREE_AM_OID &&
			   index->rd_index->indkey.values[0] == get_attnum(jobs, "id") &&
			   index->rd_opfamily[0] == INTEGER_BTREE_FAM_OID &&
			   (index->rd_indoption[0] & INDOPTION_DESC) == 0 &&
			   ScanDirectionIsForward(scan->indexorderdir);
	index_close(index, AccessShareLock);
	return in_order;
}

/*
 * Plan a statement by index.
 *
 * A generic plan cannot hash the array of "id = ANY ($1)": a sequential scan,
 * which the planner may choose while the table is small or not yet analyzed,
 * would compare each row with each id; and a bitmap scan would need a sort.
 * So neither is allowed where the primary key can serve. Compiling such small
 * statements (jit) never pays.
 */
static void
plan_by_index(KeptPlan *kept, Oid jobs)
{
	static const char *const off[] = {"enable_seqscan", "enable_bitmapscan", "jit"};
	int nestlevel = NewGUCNestLevel();
	CachedPlan *plan;

	for (size_t i = 0; i < lengthof(off); i++)
		om_set_temporarily(off[i], "off");
	kept->in_order = false;
	plan = SPI_plan_get_cached_plan(kept->plan);
	kept->generation = plan->generation;
	kept->in_order = is_in_order(plan, jobs);
	ReleaseCachedPlan(plan, CurrentResourceOwner);
	AtEOXact_GUC(true, nestlevel);
}

static KeptPlan *
prepare(Oid jobs, OmQuery query)
{
	OmTableShape shape;
	OmStatement statement;
	bool by_index = om_query_is_by_id(query);
	SPIPlanPtr plan;
	KeptPlan *kept;

	om_jobs_table_shape(jobs, &shape);
	om_query_build(query, &shape, &statement);

	plan = SPI_prepare_cursor(statement.text, statement.nparams, statement.param_types,
							  by_index ? CURSOR_OPT_GENERIC_PLAN : CURSOR_OPT_CUSTOM_PLAN);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare_cursor returned %s for %s", SPI_result_code_string(SPI_result),
			 statement.text);

	/* From here to the return nothing must fail but for want of memory. */
	kept = MemoryContextAllocZero(CacheMemoryContext, sizeof(KeptPlan));
	kept->plan = plan;
	kept->no_force = InNoForceRLSOperation();
	kept->by_index = by_index;
	kept->result_code = statement.result_code;
	kept->nparams = statement.nparams;
	memcpy(kept->param_types, statement.param_types, sizeof(kept->param_types));
	SPI_keepplan(plan);
	return kept;
}

/*
 * The plan for a query of a jobs table that is locked.
 */
static KeptPlan *
fetch_plan(Oid jobs, OmQuery query)
{
	PlanKey key = {.jobs = jobs, .query = query};
	PlanEntry *entry;
	KeptPlan *kept;

	if (plans == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(PlanKey), .entrysize = sizeof(PlanEntry)};

		plans = hash_create("oban_manage plans", MAX_PLANS, &ctl, HASH_ELEM | HASH_BLOBS);
	}

	entry = hash_search(plans, &key, HASH_FIND, NULL);
	if (entry != NULL && is_usable(entry->kept))
	{
		dlist_move_head(&plans_by_use, &entry->node);
		return entry->kept;
	}

	/* Preparing may fail, or run code that prepares the same: drop the old one after it. */
	kept = prepare(jobs, query);
	entry = hash_search(plans, &key, HASH_FIND, NULL);
	if (entry != NULL)
		drop_entry(entry);
	if (hash_get_num_entries(plans) >= MAX_PLANS)
		drop_entry(dlist_tail_element(PlanEntry, node, &plans_by_use));
	entry = hash_search(plans, &key, HASH_ENTER, NULL);
	entry->kept = kept;
	dlist_push_head(&plans_by_use, &entry->node);
	return kept;
}

/*
 * Make a plan ready to be run, and tell whether it would then write its jobs in
 * ascending order of their ids.
 *
 * What others do to the table may put a plan out of date as it is made, and SPI
 * would plan anew.
 */
static bool
make_ready(KeptPlan *kept, Oid jobs)
{
	if (!kept->by_index)
		return false;
	for (int tries = 0; tries < MAX_PLANNINGS; tries++)
	{
		if (is_planned_by_index(kept))
			/* That setting goes before what we ask for when we prepare. */
			return kept->in_order && plan_cache_mode != PLAN_CACHE_MODE_FORCE_CUSTOM_PLAN;
		plan_by_index(kept, jobs);
	}
	return false;
}

/*
 * How many triggers are running, one within the other?
 */
int
om_trigger_depth(void)
{
	LOCAL_FCINFO(fcinfo, 0);

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	return DatumGetInt32(pg_trigger_depth(fcinfo));
}

/*
 * For a trigger on the jobs: is it one of our statements that fired it? What a
 * trigger of our statement writes in its turn is not ours. What a function in a
 * policy or a constraint of the table writes would count as ours.
 */
bool
om_query_writes_now(void)
{
	return writes_at_depth >= 0 && om_trigger_depth() == writes_at_depth + 1;
}

/*
 * Run a plan; with in_order, only if it writes its jobs in that order.  Returns
 * whether it was run.
 */
static bool
run_plan(KeptPlan *kept, Oid jobs, bool in_order, const SPIExecuteOptions *options, int *result)
{
	volatile bool runs = false;
	int outer_depth = writes_at_depth;

	kept->users++;
	PG_TRY();
	{
		runs = (make_ready(kept, jobs) || !in_order);
		if (runs)
		{
			writes_at_depth = om_trigger_depth();
			*result = SPI_execute_plan_extended(kept->plan, options);
		}
	}
	PG_FINALLY();
	{
		writes_at_depth = outer_depth;
		kept->users--;
		if (kept->dropped && kept->users == 0)
			free_kept(kept);
	}
	PG_END_TRY();
	return runs;
}

/*
 * A ParamFetchHook for OM_WRITE_NOTE: the executor asks for each parameter each
 * time that an expression comes to it, so the last of the two that it asked for
 * before it hands us a row is that of the version that it wrote over.
 */
static ParamExternData *
fetch_param(ParamListInfo params, int number, bool speculative, ParamExternData *workspace)
{
	bool *noted = params->paramFetchArg;

	if (number > params->numParams - OM_N_NOTE_PARAMS)
		*noted = (number < params->numParams);
	return &params->params[number - 1];
}

static bool
run_query(Oid jobs, OmQuery query, const Datum *values, bool in_order, bool *noted,
		  OmRowCallback callback, void *state, uint64 *count)
{
	MemoryContext caller = CurrentMemoryContext;
	KeptPlan *kept = fetch_plan(jobs, query);
	int expected = kept->result_code;
	int result = expected;
	bool runs;
	ParamListInfo params = makeParamList(kept->nparams);
	/* Of a kind that SPI gives no meaning to, as it does to DestNone and DestSPI */
	RowReceiver receiver = {
		.pub = {receive_row, receiver_startup, receiver_done, receiver_done, DestTuplestore},
		.callback = callback,
		.state = state,
	};
	SPIExecuteOptions options = {
		.params = params,
		.read_only = om_query_reads_only(query),
		.dest = &receiver.pub,
	};

	for (int i = 0; i < kept->nparams; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = false;
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = kept->param_types[i];
	}

	if (noted != NULL)
	{
		params->paramFetch = fetch_param;
		params->paramFetchArg = noted;
	}

	runs = run_plan(kept, jobs, in_order, &options, &result);
	/* SPI leaves its own behind, which lives as long as the call. */
	MemoryContextSwitchTo(caller);
	pfree(params);
	if (result < 0)
		elog(ERROR, "SPI_execute_plan_extended returned %s", SPI_result_code_string(result));
	if (result != expected)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("jobs of schema \"%s\" cannot be managed",
							   get_namespace_name_or_temp(get_rel_namespace(jobs))),
						errdetail("A rule on the table rewrites the statement."),
						errhint("Use a trigger in the place of the rule.")));
	*count = runs ? SPI_processed : 0;
	return runs;
}

/*
 * Run a query of a jobs table, which the caller has locked, and hand each row
 * that it returns to the callback (which may be NULL).  values has the query's
 * parameters, none of them NULL.  To be called between SPI_connect and
 * SPI_finish.
 *
 * Returns how many rows it changed, or returned.
 */
uint64
om_query_run(Oid jobs, OmQuery query, const Datum *values, OmRowCallback callback, void *state)
{
	uint64 count;

	(void) run_query(jobs, query, values, false, NULL, callback, state, &count);
	return count;
}

/*
 * Run a query that writes jobs which nobody has locked for it: only if it goes
 * through them in ascending order of their ids.  Returns whether it did, and how
 * many rows it changed.
 *
 * For OM_WRITE_NOTE, sets *noted, before each row is handed to the callback, to
 * whether the job was executing (cancel) or scheduled (update) when it was
 * written; the other steps leave it alone.
 */
bool
om_query_run_in_order(Oid jobs, OmQuery query, const Datum *values, bool *noted,
					  OmRowCallback callback, void *state, uint64 *count)
{
	return run_query(jobs, query, values, true, query.step == OM_WRITE_NOTE ? noted : NULL,
					 callback, state, count);
}
