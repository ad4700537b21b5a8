/*
 * plan_order.c
 *		The order in which a statement writes its jobs, and the state that they had:
 *		everything that depends on PostgreSQL's internals, except that plan_cache.c
 *		checks whether a plan is still valid.
 *
 * run_query.c and plan_cache.c call it.  What it assumes of PostgreSQL, and which test
 * fails when an assumption is wrong:
 *
 * - A scan of a btree by "id = ANY ($1)" goes through the ids in order, and each row
 *	 is locked when the scan comes to it: specs/calls_in_opposite_orders.
 * - While gplan of the plan source is valid, SPI runs it next.  Each new plan has a new
 *	 generation: specs/replanned_while_waiting.
 * - SPI_plan_get_cached_plan plans with the current settings, and the plan is kept:
 *	 sql/hand_made_tables, specs/replanned_while_waiting.
 * - plan_cache_mode alone overrides CURSOR_OPT_GENERIC_PLAN: sql/signals.
 * - The executor calls the ParamFetchHook each time that an expression reads a
 *	 parameter, also when it computes the row again after it waited for a lock:
 *	 sql/signals, specs/calls_during_fetch.
 * - A plan that depends on a snapshot (saved_xmin) or a role may be planned again.  No
 *	 test shows this: without these conditions PostgreSQL would still run a correct
 *	 statement, but perhaps not in order.
 *
 * A build with -DOM_LOCK_FIRST does not use this file (plan_order.h).  dev/deep
 * lock_first runs the tests on it; dev/lock_first.diff has what differs.  Some of that
 * is not only the plan: to delete several jobs by their ids needs UPDATE as well, and a
 * missing job is reported (P0002) before a missing right (42501).
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

/* Give up after this many plans that were invalidated while planning */
#define MAX_PLANNINGS 3

/*
 * The plan source of a kept plan.  An SPI plan has one source for each command of its
 * text, and our texts have one command.
 */
static CachedPlanSource *
plan_source(SPIPlanPtr kept)
{
	return linitial(SPI_plan_get_plan_sources(kept));
}

/*
 * Would PostgreSQL run the plan that make_by_index has made?  Otherwise it plans again
 * when it runs the statement: after statistics have changed, or after the role has
 * changed if the plan contains a foreign table's user mapping.
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
 * Did PostgreSQL plan again when it ran the statement?  It does so when it waited for
 * the lock of a partition and the partition was changed meanwhile.  The kept plan is
 * then of no more use, because make_by_index would get PostgreSQL's new plan.
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
 * It does when the only node below the ModifyTable is a forward scan of a btree index
 * whose first column is the id.  The scan sorts the array of "id = ANY ($1)", drops
 * duplicates, and looks up one id after the other.  Each row is locked when it is
 * written.
 */
static bool
is_in_order(const CachedPlan *plan, Oid jobs)
{
	Plan *top;
	IndexScan *scan;
	Relation index;
	bool in_order;

	/* A rule may have rewritten the statement to several, or to none. */
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
 * So both are turned off, and the planner takes the primary key if it can.  So is jit,
 * because compiling such small statements costs more than it saves.
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
 * Plan a statement by index, unless that is done.  Returns whether the statement will
 * write its jobs in ascending order of their ids.
 *
 * Changes to the table may invalidate a plan while it is made.  SPI would then plan
 * again without our settings, so we try again.
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
 * A ParamFetchHook.  The executor calls it each time that an expression reads a
 * parameter.  Of the two parameters, the one that was read last before we get a row
 * belongs to the row version that was overwritten.
 */
static ParamExternData *
fetch_param(ParamListInfo params, int number, bool speculative, ParamExternData *workspace)
{
	bool *was_in_state = params->paramFetchArg;

	if (number > params->numParams - OM_N_WATCH_PARAMS)
		*was_in_state = (number < params->numParams);
	return &params->params[number - 1];
}

/*
 * For OM_WRITE_AND_WATCH, where PostgreSQL does not return the old row (before 18): set
 * *was_in_state before each row that the statement returns.
 */
void
om_plan_watch_params(ParamListInfo params, bool *was_in_state)
{
	params->paramFetch = fetch_param;
	params->paramFetchArg = was_in_state;
}

#endif /* OM_LOCK_FIRST */
