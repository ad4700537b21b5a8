/*
 * plan_cache.h
 *		A kept plan, for those who run it.
 */
#ifndef OM_PLAN_CACHE_H
#define OM_PLAN_CACHE_H

#include "statements/plan_order.h"

/* A kept plan, which outlives its entry while a statement still runs it */
typedef struct OmKeptPlan
{
	SPIPlanPtr plan;
	int result_code; /* of OmStatement */
	int nparams;
	Oid param_types[OM_MAX_PARAMS];
	bool no_force;	   /* made where FORCE ROW LEVEL SECURITY does not hold */
	bool by_id;		   /* finds its jobs by their ids alone: one plan for all of them */
	OmPlanOrder order; /* of that plan */
	int users;		   /* how many are running it: triggers on the table nest */
	bool dropped;	   /* by the cache; the last user frees it */
} OmKeptPlan;

extern OmKeptPlan *om_plan_fetch(Oid jobs, OmQuery query);
extern void om_plan_release(OmKeptPlan *kept);

#endif /* OM_PLAN_CACHE_H */
