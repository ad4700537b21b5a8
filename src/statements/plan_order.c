/*
 * plan_order.c
 *		The order in which a statement writes its jobs, and the state that they had:
 *		what rests on PostgreSQL's insides. (plan_cache.c asks a plan whether it may
 *		still be used.)
 *
 * What is supposed of PostgreSQL, and which test fails when it does not hold:
 *
 * - A scan of a btree by "id = ANY ($1)" goes through the ids in order, and each row
 *	 is locked when the scan comes to it: specs/calls_in_opposite_orders.
 * - gplan of the plan source is the plan that SPI runs next, while it is valid, and
 *	 each new plan has a new generation: specs/replanned_while_waiting.
 * - SPI_plan_get_cached_plan plans with the settings of that moment, and what it
 *	 makes is kept: sql/hand_made_tables, specs/replanned_while_waiting.
 * - plan_cache_mode alone overrides CURSOR_OPT_GENERIC_PLAN: sql/signals.
 * - The executor calls the ParamFetchHook each time that an expression comes to a
 *	 parameter, also when it computes the row again after it waited for a lock:
 *	 sql/signals, specs/calls_during_fetch.
 * - A plan that depends on a snapshot (saved_xmin) or a role is planned anew, which
 *	 no test shows: without these conditions PostgreSQL would still run a right
 *	 statement, but perhaps not in order.
 *
 * Built with -DOM_LOCK_FIRST, the extension does without this file (plan_order.h), and
 * passes the same tests but for what these assert of it: dev/deep lock_first.
 */
#include "statements/plan_order.h"

#ifndef OM_LOCK_FIRST

#include "access/genam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "catalog/pg_opfamily.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/resowner.h"

/* Give up after this many plans that were invalidated while they were made */
#define MAX_PLANNINGS 3

/*
 * The statement as the plan cache has it.  An SPI plan has one for each command of
 * its text, and our texts have one command.
 */
static CachedPlanSource *
plan_source(SPIPlanPtr kept)
{
	return linitial(SPI_plan_get_plan_sources(kept));
}

/*
 * Would PostgreSQL run the plan that make_by_index has made?  Otherwise it plans
 * anew when it runs the statement: when statistics have changed, or the role while
 * a foreign table's user mapping is in the plan.
 */
static bool
is_made_by_index(SPIPlanPtr kept, const OmPlanOrder *order)
{
	CachedPlanSource *source = plan_source(kept);
	CachedPlan *plan = source->gplan;

	return CachedPlanIsSimplyValid(source, plan, NULL) && plan->generation == order->generation &&
		   !TransactionIdIsValid(plan->saved_xmin) &&
		   !(plan->dependsOnRole && plan->planRoleId != GetUserId());
}

/*
 * Has PostgreSQL planned anew when it ran the statement?  It does so when it had to
 * wait for the lock of a partition that was changed meanwhile.  make_by_index would
 * be given that plan again.
 */
bool
om_plan_is_replaced(SPIPlanPtr kept, const OmPlanOrder *order)
{
	CachedPlan *plan = plan_source(kept)->gplan;

	return plan != NULL && plan->generation != order->generation;
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
 * So neither is allowed where the primary key can serve.  Compiling such small
 * statements (jit) never pays.
 */
static void
make_by_index(SPIPlanPtr kept, Oid jobs, OmPlanOrder *order)
{
	static const char *const off[] = {"enable_seqscan", "enable_bitmapscan", "jit"};
	int nestlevel = NewGUCNestLevel();
	CachedPlan *plan;

	for (size_t i = 0; i < lengthof(off); i++)
		om_set_temporarily(off[i], "off");
	order->in_order = false;
	plan = SPI_plan_get_cached_plan(kept);
	order->generation = plan->generation;
	order->in_order = is_in_order(plan, jobs);
	ReleaseCachedPlan(plan, CurrentResourceOwner);
	AtEOXact_GUC(true, nestlevel);
}

/*
 * Plan a statement by index, unless that is done, and tell whether it would then
 * write its jobs in ascending order of their ids.
 *
 * What others do to the table may put a plan out of date while it is made, and SPI
 * would plan anew.
 */
bool
om_plan_by_index(SPIPlanPtr kept, Oid jobs, OmPlanOrder *order)
{
	for (int tries = 0; tries < MAX_PLANNINGS; tries++)
	{
		if (is_made_by_index(kept, order))
			/* force_custom_plan overrides CURSOR_OPT_GENERIC_PLAN. */
			return order->in_order && plan_cache_mode != PLAN_CACHE_MODE_FORCE_CUSTOM_PLAN;
		make_by_index(kept, jobs, order);
	}
	return false;
}

/*
 * A ParamFetchHook.  The executor asks for a parameter each time that an expression
 * comes to it.  So the last of the two that it asked for before it hands us a row is
 * that of the version which it wrote over.
 */
static ParamExternData *
fetch_param(ParamListInfo params, int number, bool speculative, ParamExternData *workspace)
{
	bool *was_in_state = params->paramFetchArg;

	if (number > params->numParams - OM_N_NOTE_PARAMS)
		*was_in_state = (number < params->numParams);
	return &params->params[number - 1];
}

/*
 * For OM_WRITE_NOTE, where PostgreSQL does not return the old row (before 18): set
 * *was_in_state before each row that the statement returns.
 */
void
om_plan_watch_params(ParamListInfo params, bool *was_in_state)
{
	params->paramFetch = fetch_param;
	params->paramFetchArg = was_in_state;
}

#endif /* OM_LOCK_FIRST */
