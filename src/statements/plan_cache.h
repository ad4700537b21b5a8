/*
 * plan_cache.h
 *		A kept plan: what plan_cache.c hands to run_query.c.
 */
#ifndef OM_PLAN_CACHE_H
#define OM_PLAN_CACHE_H

#include "statements/plan_order.h"

/* A kept plan; it lives longer than its entry in the cache while a statement runs it */
typedef struct OmKeptPlan
{
	SPIPlanPtr plan;
	int result_code; /* of OmStatement */
	int nparams;
	Oid param_types[OM_MAX_PARAMS];
	bool no_force;	   /* made while FORCE ROW LEVEL SECURITY did not apply */
	bool by_id;		   /* finds its jobs by their ids alone, with one generic plan */
	OmPlanOrder order; /* of that plan */
	int users;		   /* number of runs in progress, because triggers may nest */
	bool dropped;	   /* by the cache; the last run frees the plan */
} OmKeptPlan;

extern OmKeptPlan *om_plan_fetch(Oid jobs, OmQuery query);
extern void om_plan_release(OmKeptPlan *kept);

#endif /* OM_PLAN_CACHE_H */
