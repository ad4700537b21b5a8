/*
 * plan_cache.h
 *		A kept plan, and a query that is run by it: what run_query.c shares with
 *		plan_cache.c and rights.c.
 */
#ifndef OM_PLAN_CACHE_H
#define OM_PLAN_CACHE_H

#include "statements/plan_order.h"

/* A kept plan; it lives longer than its entry in the cache while a statement runs it */
typedef struct OmKeptPlan
{
	SPIPlanPtr plan;
	int result_code;   /* of OmStatement */
	bool no_force;	   /* made while FORCE ROW LEVEL SECURITY did not apply */
	bool by_id;		   /* finds its jobs by their ids, with one generic plan */
	OmPlanOrder order; /* of that plan */
	int users;		   /* number of runs in progress, because triggers may nest */
	bool dropped;	   /* by the cache; the last run frees the plan */
	int nparams;
	Oid param_types[FLEXIBLE_ARRAY_MEMBER];
} OmKeptPlan;

extern OmKeptPlan *om_plan_fetch(Oid jobs, OmQuery query);
extern void om_plan_release(OmKeptPlan *kept);

/* ---- rights.c: which rights a verb needs ---- */

/* A query that is being run */
typedef struct OmRunningQuery
{
	Oid jobs;
	OmQuery query;
	const OmKeptPlan *kept;
} OmRunningQuery;

extern void om_rights_error_callback(void *arg);

#endif /* OM_PLAN_CACHE_H */
