/*
 * outcomes.h
 *		What became of each job of a call: what outcomes.c collects for manage_jobs.c.
 */
#ifndef OM_OUTCOMES_H
#define OM_OUTCOMES_H

#include "verbs/verbs.h"

typedef struct OmOutcome
{
	const char *old_state; /* NULL: no such job */
	const char *new_state; /* NULL: the job has none */
	const char *refused;   /* why the table refused the job; NULL: it did not */
	bool locked;		   /* passed over, because another transaction holds the job */
	bool applies;		   /* does the verb act on the job? */
	bool spent;			   /* retry: it would, but the job has made too many attempts */
	bool done;			   /* does the written row have the verb's new state? */
} OmOutcome;

typedef struct OmOutcomes
{
	OmCall *call;
	OmObserver observer; /* of the call */
	OmRefusals refusals; /* of the call, if it passes over jobs that the table refuses */
	OmJobIds ids;		 /* distinct, sorted */
	OmOutcome *each;	 /* for each of ids */
	List *states;		 /* names of states, each once */
	bool by_filter;		 /* a filter has found the ids: jobs that no longer match have no outcome */
	MemoryContext context;
} OmOutcomes;

extern void om_outcomes_init(OmOutcomes *outcomes, OmCall *call, bool dry_run, bool skip_refused);
extern void om_outcomes_begin(OmOutcomes *outcomes);
extern void om_outcomes_complete(OmOutcomes *outcomes);
extern void om_outcomes_return(const OmOutcomes *outcomes, FunctionCallInfo fcinfo);

#endif /* OM_OUTCOMES_H */
