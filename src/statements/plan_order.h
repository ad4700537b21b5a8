/*
 * plan_order.h
 *		What plan_order.c does for run_query.c and plan_cache.c.
 *
 * With OM_LOCK_FIRST, plan_order.c is empty.  Then no statement is known to write jobs
 * in id order, so the callers lock several jobs before they write them.  A single job is
 * still written without a lock before it (OM_WRITE_ONE).
 */
#ifndef OM_PLAN_ORDER_H
#define OM_PLAN_ORDER_H

#include "statements/statements.h"

#include "executor/spi.h"
#include "nodes/params.h"

/* The plan of a kept statement that finds its jobs by their ids */
typedef struct OmPlanOrder
{
	int generation; /* of the plan that was made by index; 0: none yet */
	bool in_order;	/* does it write jobs in ascending order of their ids? */
} OmPlanOrder;

#ifndef OM_LOCK_FIRST
extern bool om_plan_by_index(SPIPlanPtr kept, Oid jobs, OmPlanOrder *order);
extern bool om_plan_is_replaced(SPIPlanPtr kept, const OmPlanOrder *order);
extern void om_plan_watch_params(ParamListInfo params, bool *was_in_state);
#else
#define om_plan_by_index(kept, jobs, order)		   false
#define om_plan_is_replaced(kept, order)		   false
#define om_plan_watch_params(params, was_in_state) ((void) (was_in_state))
#endif

#endif /* OM_PLAN_ORDER_H */
