/*
 * verbs.h
 *		The cores of the verbs. They know neither SQL arguments nor triggers nor what
 *		their results are for.
 */
#ifndef OM_VERBS_H
#define OM_VERBS_H

#include "arguments/arguments.h"

/* ---- selection.c: the jobs that a verb is about, found and locked ---- */

/* Retried jobs' times to run, by their rank in id order */
typedef struct OmSpread
{
	TimestampTz start;
	double length; /* microseconds */
	int64 total;   /* jobs that the times are spread over */
	int64 rank;	   /* of the call's first job: how many came before it */
} OmSpread;

/* Who wants to hear of each job of a call */
typedef struct OmObserver
{
	/* A job that was found, with states: does the verb act on it? */
	bool (*found)(const OmFoundRow *row, void *state);
	/* A job that was written, with states */
	void (*written)(const OmWrittenRow *row, void *state);
	void *state;
	bool dry_run; /* only look */
} OmObserver;

typedef struct OmCall
{
	OmVerb verb;
	Oid jobs;
	OmFilter filter;
	OmChanges changes;			/* update */
	Timestamp retry_at;			/* retry: when to run; where that has come, as 0 has: now */
	const OmSpread *spread;		/* retry: when each of them is to run; NULL: all at that time */
	const OmObserver *observer; /* NULL: nobody asks; else jobs in any state are found */
	OmJobIds found;				/* out: the jobs that the verb acted on, distinct, in order, */
	int nrows;					/* how many rows these were, */
	int64 last;					/* and the id of the last one that was locked */
} OmCall;

extern uint64 om_call_find(OmCall *call, bool lock, OmRowCallback callback, void *state);
extern void om_call_add(OmCall *call, int64 id);

/* ---- transitions.c: the verbs that change a job's state or remove it ---- */

extern bool om_transition_job(OmCall *call, int64 id);
extern uint64 om_transition_jobs(OmCall *call, ArrayType *ids);
extern uint64 om_transition_found(OmCall *call);

/* ---- update.c, update_steps.c: updating jobs ---- */

/* An update of a set of jobs, or one */
typedef struct OmUpdate
{
	Oid jobs;
	bool missing_ok;		  /* pass over jobs that do not exist */
	bool may_name_jobs;		  /* may errors name them: does the caller know of them? */
	OmJobResult *result;	  /* NULL: nobody asks for the jobs */
	OmCall *call;			  /* whose filter finds the jobs; NULL: they are named by ids */
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
extern void om_update_look_at(OmUpdate *update, const OmChanges *changes, const OmFoundRow *row);
extern OmReturns om_update_returns(const OmUpdate *update);
extern void om_update_same(OmUpdate *update);
extern void om_update_put_job(TupleTableSlot *slot, void *state);
extern void om_update_error_callback(void *arg);

/* ---- pending_changes.c: changes of many jobs, each its own ---- */

/* Hashes of the values of the columns that may be updated: has anybody written them? */
typedef struct OmColumnHashes
{
	uint32 of[OM_N_UPDATE_COLUMNS];
} OmColumnHashes;

typedef struct OmPendingChanges
{
	OmJobIds ids;			/* in ascending order */
	OmChanges *each;		/* the changes of each of them */
	OmColumnHashes *hashes; /* of each job, when its callable was called */
	MemoryContext context;
} OmPendingChanges;

extern void om_pending_init(OmPendingChanges *changes, int capacity);
extern void om_pending_add(OmPendingChanges *changes, int64 id, const OmChanges *added,
						   const OmColumnHashes *hashes);
extern OmColumnSet om_pending_take(OmPendingChanges *changes, OmPendingChanges *taken);
extern void om_pending_values(const OmPendingChanges *changes, Datum *values);
extern void om_pending_clear(OmPendingChanges *changes);

/* ---- read_ahead.c: jobs that are locked and read ahead ---- */

typedef struct OmReadAhead
{
	OmUpdate *update; /* whose steps find the jobs */
	Oid argument_type;
	const int64 *ids; /* of the batch */
	int nids;

	/* Those of them that are locked, which were looked for up to the batch's index locked_to */
	int locked_to;
	OmJobIds locked;

	/* The locked jobs that are read now, up to the index read_to */
	int read_to;
	int ahead; /* how many to read at a time, */
	int most;  /* and at most */
	bool one_at_a_time;
	OmJobIds read;
	Tuplestorestate *rows; /* what is kept of them */
	TupleTableSlot *row;   /* the one that we are at */
	CommandId read_at;
} OmReadAhead;

extern void om_read_ahead_init(OmReadAhead *reading, OmUpdate *update, Oid argument_type, int most);
extern void om_read_ahead_begin_batch(OmReadAhead *reading, const int64 *ids, int nids);
extern bool om_read_ahead_get(OmReadAhead *reading, int i, OmFoundRow *row, OmColumnHashes *hashes);
extern bool om_read_ahead_is_overtaken(const OmReadAhead *reading);
extern void om_read_ahead_end(OmReadAhead *reading);
extern void om_hash_columns(const OmFoundRow *row, OmColumnHashes *hashes);

/* ---- update_with.c: updating jobs by a callable ---- */

/*
 * Gives the next job of a batch, in ascending order of id, and the context for
 * its callable.  "anew" is true for the first job of a batch: then the contexts
 * of the batch before may be freed.  Returns false when there are no more jobs,
 * or when the contexts of the batch take too much memory: then the batch ends.
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

/* ---- run.c: any verb ---- */

extern uint64 om_call_run(OmCall *call);

#endif /* OM_VERBS_H */
