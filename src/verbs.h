/*
 * verbs.h
 *		The cores of the verbs, which the SQL entry points call.
 */
#ifndef OM_VERBS_H
#define OM_VERBS_H

#include "oban_manage.h"

/* ---- outcomes.c: what becomes of each job ---- */

typedef struct OmOutcome
{
	const char *old_state; /* NULL: there is no such job */
	const char *new_state; /* NULL: there is none */
	bool applies;		   /* does the verb act on the job? */
	bool spent;			   /* it would, had the job not made so many attempts; retry */
	bool done;			   /* does the row that was written say so? */
} OmOutcome;

typedef struct OmOutcomes
{
	bool dry_run; /* only look; changes that are empty ask no more */
	OmJobIds ids; /* distinct, in order */
	OmOutcome *each;
	List *states; /* their names, each once */
	MemoryContext context;
} OmOutcomes;

extern bool om_outcomes_found(OmOutcomes *outcomes, TupleTableSlot *row);
extern void om_outcomes_written(OmOutcomes *outcomes, TupleTableSlot *row);

/* ---- calls.c: a verb over the jobs that are found by ids or by a filter ---- */

typedef struct OmVerbName
{
	const char *name;
	const char *participle; /* what was done to a job */
} OmVerbName;

extern const OmVerbName om_verb_names[OM_N_VERBS];

/* Retried jobs' times to run, by their rank in id order */
typedef struct OmSpread
{
	TimestampTz start;
	double length; /* microseconds */
	int64 total;   /* jobs that the times are spread over */
	int64 rank;	   /* of the call's first job: how many came before it */
} OmSpread;

typedef struct OmCall
{
	OmVerb verb;
	Oid jobs;
	OmFilter filter;
	OmChanges changes;		/* update */
	Timestamp retry_at;		/* retry: when to run; where that has come, as 0 has: now */
	const OmSpread *spread; /* retry: when each of them is to run; NULL: all at that time */
	OmOutcomes *outcomes;	/* NULL: nobody asks */
	OmJobIds found;			/* out: the jobs that the verb acted on, distinct, in order, */
	int nrows;				/* how many rows these were, */
	int64 last;				/* and the id of the last one that was locked */
} OmCall;

extern bool om_is_error(void);
extern uint64 om_call_run(OmCall *call);
extern uint64 om_call_find(OmCall *call, bool lock, OmRowCallback callback, void *state);
extern void om_call_add(OmCall *call, int64 id);

/* ---- cancel_retry_delete.c: the verbs that change a job's state or remove it ---- */

extern void om_call_schedule(OmCall *call, FunctionCallInfo fcinfo, int argno);
extern bool om_change_job(OmCall *call, int64 id);
extern uint64 om_change_jobs(OmCall *call, ArrayType *ids);
extern uint64 om_change_found(OmCall *call);

/* ---- update.c, update_steps.c: updating jobs ---- */

/* An update of a set of jobs, or one */
typedef struct OmUpdate
{
	Oid jobs;
	bool missing_ok;		  /* pass over jobs that do not exist */
	bool may_name_jobs;		  /* may errors name them: does the caller know of them? */
	OmJobResult *result;	  /* NULL: nobody asks for the jobs */
	OmOutcomes *outcomes;	  /* NULL: nobody asks what becomes of each */
	const OmChanges *changes; /* to make to each of the jobs; of om_update_same */
	OmColumnSet columns;	  /* that the running step writes */
	OmJobIds *ids;			  /* of the running step; distinct, in order */
	bool *done;				  /* for each of them: has the step done it? */
	const OmJobIds *later;	  /* jobs that a later step will write; NULL: none */
	int renamed;			  /* how many were done that have another id since, by a trigger */
	OmJobIds due;			  /* jobs to write that were scheduled and are due now, */
	bool was_scheduled;		  /* or, when they are not looked at first: the one just written */
	OmSignals signals;
} OmUpdate;

extern void om_update_jobs(Oid jobs, OmJobIds *ids, const Jsonb *json, bool missing_ok,
						   OmJobResult *result);
extern uint64 om_update_found(OmCall *call);

extern void om_update_init(OmUpdate *update, Oid jobs, int capacity, bool missing_ok,
						   OmJobResult *result);
extern OmQuery om_update_begin_step(OmUpdate *update, OmQuery query, const Datum *values,
									Datum *params);
extern uint64 om_update_step(OmUpdate *update, OmQuery query, const Datum *values,
							 OmRowCallback callback, void *state);
extern void om_update_mark_done(OmUpdate *update, int64 id);
extern void om_update_keep_jobs(OmUpdate *update, bool done);
extern void om_update_drop_missing(OmUpdate *update);
extern void om_update_find(OmUpdate *update, OmQuery query, OmRowCallback callback, void *state);
extern void om_update_look_at_job(OmUpdate *update, const OmChanges *changes, int64 id,
								  int32 attempt, bool may_run, bool scheduled);
extern void om_update_look_at_row(OmUpdate *update, const OmChanges *changes, TupleTableSlot *row);
extern OmReturns om_update_returns(const OmUpdate *update);
extern void om_update_same(OmUpdate *update);
extern void om_update_put_job(TupleTableSlot *row, void *state);
extern void om_update_error_callback(void *arg);

/* ---- callable.c: functions that say what to update ---- */

typedef struct OmCallable
{
	FmgrInfo function;
	char *name;			 /* signature, for messages */
	Oid argument_type;	 /* as what it takes the job */
	bool takes_context;	 /* as a second argument */
	TransactionId xmin;	 /* of its row in pg_proc, and where that is: */
	ItemPointerData tid; /* another when it has been replaced */
} OmCallable;

extern OmCallable *om_callable_prepare(FunctionCallInfo fcinfo, Oid function, Oid jobs);
extern Jsonb *om_callable_call(OmCallable *callable, Datum job, NullableDatum context);

/* ---- job_changes.c: changes of many jobs, each its own ---- */

typedef struct OmJobChanges
{
	OmJobIds ids;	 /* in ascending order */
	OmChanges *each; /* the changes of each of them */
	uint64 *hashes;	 /* of what may be updated, when its callable was called */
	MemoryContext context;
} OmJobChanges;

extern void om_job_changes_init(OmJobChanges *changes, int capacity);
extern void om_job_changes_add(OmJobChanges *changes, int64 id, const OmChanges *added,
							   uint64 hash);
extern OmColumnSet om_job_changes_take(OmJobChanges *changes, OmJobChanges *taken);
extern void om_job_changes_values(const OmJobChanges *changes, Datum *values);
extern void om_job_changes_clear(OmJobChanges *changes);

/* ---- update_with.c: updating jobs by a callable ---- */

/*
 * Gives the next job, in ascending order of id, and the context for its
 * callable; false when there is none, or none that can be held in memory with
 * those before.  When "anew" is true, the contexts of those are not needed any
 * more.
 */
typedef bool (*OmNextJob)(void *state, bool anew, int64 *id, NullableDatum *context);

/* A list of jobs that share one context, for om_next_of_list */
typedef struct OmJobList
{
	OmJobIds *ids;
	int next;
	NullableDatum context;
} OmJobList;

extern bool om_next_of_list(void *state, bool anew, int64 *id, NullableDatum *context);
extern void om_update_with(Oid jobs, OmCallable *callable, OmNextJob next, void *state,
						   bool missing_ok, OmJobResult *result);

#endif /* OM_VERBS_H */
