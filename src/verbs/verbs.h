/*
 * verbs.h
 *		What the files of src/verbs share, and what src/functions calls.  The verbs
 *		do not know SQL arguments or triggers, or what their results are used for.
 */
#ifndef OM_VERBS_H
#define OM_VERBS_H

#include "arguments/arguments.h"

/* ---- selection.c: finding and locking the jobs of a call ---- */

/* When retried jobs run: spread over a time, by their rank in id order */
typedef struct OmSpread
{
	TimestampTz start;
	double length; /* microseconds */
	int64 total;   /* jobs that the times are spread over */
	int64 rank;	   /* of the call's first job: the number of jobs before it */
} OmSpread;

/* Callbacks for each job of a call */
typedef struct OmObserver
{
	/* Called for a job that was found (row with states).  Returns whether the verb acts on it. */
	bool (*found)(const OmFoundRow *row, void *state);
	/* Called for a job that was written (row with states) */
	void (*written)(const OmWrittenRow *row, void *state);
	/* Called when a try of these jobs was undone: what they were found and written as is not true */
	void (*undone)(const OmJobIds *ids, void *state);
	void *state;
	bool dry_run; /* only look, write nothing */
} OmObserver;

/* What to do about the jobs that the table refuses */
typedef struct OmRefusals
{
	/* Called for a job that was refused, with the error */
	void (*refused)(int64 id, const ErrorData *error, void *state);
	void *state;

	/* Kept by parts.c, also from one call to the next */
	int64 tried;		 /* jobs done or refused */
	int64 since_refused; /* jobs done since the last refused one */
	int64 count;		 /* refused jobs */
	int size;			 /* of the next part; 0: whatever the call has */
} OmRefusals;

typedef struct OmCall
{
	OmVerb verb;
	Oid jobs;
	OmFilter filter;
	OmChanges changes;			/* update */
	OmCallable *callable;		/* update: returns the changes of each job; NULL: none */
	NullableDatum context;		/* for the callable */
	Timestamp retry_at;			/* retry: when to run; a past time, such as 0, means now */
	const OmSpread *spread;		/* retry: a time for each job; NULL: all run at retry_at */
	const OmObserver *observer; /* may be NULL; with one, jobs in any state are found */
	const OmJobIds *over;		/* om_call_run_over: the jobs that are tried */
	bool skip_locked;			/* pass over jobs that another transaction holds */
	OmRefusals *refusals; /* om_call_run_over: pass over jobs that the table refuses; or NULL */

	/* Out */
	OmJobIds found;	  /* ids that the verb acts on, distinct and sorted */
	int found_before; /* number of jobs that earlier parts of the call have found */
	bool called;	  /* has the callable been called? */

	/* Out: the jobs that the running statement has handed over */
	int npassed;
	int64 passed;  /* id of the last one */
	bool in_order; /* did they come in ascending order? */
} OmCall;

extern uint64 om_call_find(OmCall *call, bool lock, OmRowCallback callback, void *state);
extern uint64 om_call_look(OmCall *call, OmJobIds *ids);
extern void om_call_add(OmCall *call, int64 id);
extern void om_call_begin_statement(OmCall *call);
extern void om_call_pass(OmCall *call, int64 id);

/* ---- transitions.c: the verbs that change a job's state or remove it ---- */

extern bool om_transition_job(OmCall *call, int64 id);
extern uint64 om_transition_jobs(OmCall *call, ArrayType *ids);
extern uint64 om_transition_found(OmCall *call);

/* ---- update.c, update_steps.c: updating jobs ---- */

/* An update of one or more jobs */
typedef struct OmUpdate
{
	Oid jobs;
	bool missing_ok;		  /* skip jobs that do not exist */
	bool may_name_jobs;		  /* may errors name the jobs, because the caller knows them? */
	OmJobResult *result;	  /* NULL: do not return the jobs */
	OmCall *call;			  /* its filter finds the jobs; NULL: ids name the jobs */
	const OmChanges *changes; /* om_update_same: the changes to each job */
	OmColumnSet columns;	  /* columns that the running step writes */
	OmJobIds *ids;			  /* jobs of the running step; distinct, sorted */
	bool *done;				  /* for each of ids: has the step done the job? */
	const OmJobIds *later;	  /* jobs that a later step will write; NULL: none */
	int renamed;			  /* number of jobs done whose id a trigger has changed */
	uint64 written;			  /* number of rows written so far, in all steps */
	OmJobIds due;			  /* jobs to write that were scheduled and become due */
	bool was_scheduled;		  /* without looking first: was the job just written scheduled? */
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

/* ---- pending_changes.c: changes that differ from job to job ---- */

/* Hashes of the values of the columns that may be updated: has anybody written them? */
typedef struct OmColumnHashes
{
	uint32 of[OM_N_UPDATE_COLUMNS];
} OmColumnHashes;

typedef struct OmPendingChanges
{
	OmJobIds ids;			/* sorted */
	OmChanges *each;		/* for each of ids: the changes */
	OmColumnHashes *hashes; /* for each of ids: when the callable ran */
	MemoryContext context;
} OmPendingChanges;

extern void om_pending_init(OmPendingChanges *changes, int capacity);
extern void om_pending_add(OmPendingChanges *changes, int64 id, const OmChanges *added,
						   const OmColumnHashes *hashes);
extern OmColumnSet om_pending_take(OmPendingChanges *changes, OmPendingChanges *taken);
extern void om_pending_values(const OmPendingChanges *changes, Datum *values);
extern void om_pending_clear(OmPendingChanges *changes);

/* ---- read_ahead.c: locking and reading jobs ahead ---- */

typedef struct OmReadAhead
{
	OmUpdate *update; /* its steps find the jobs */
	Oid argument_type;
	const int64 *ids; /* of the batch */
	int nids;

	int locked_to;	 /* the ids of the batch before this index were looked for */
	OmJobIds locked; /* the jobs that were found so, all locked */

	int read_to;		/* the jobs before this index are read, where they were locked */
	int ahead;			/* how many jobs to read next */
	int most;			/* upper limit of ahead */
	bool one_at_a_time; /* set once a callable has written */
	OmJobIds read;
	Tuplestorestate *rows; /* the kept columns of these jobs */
	TupleTableSlot *row;   /* the current row */
	CommandId read_at;	   /* command counter when the jobs were read */
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
 * the callable.  "anew" is true for the first job of a batch.  Contexts of the
 * previous batch may be freed then.  Returns false to end the batch: no jobs are
 * left, or the contexts of the batch take too much memory.
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
extern uint64 om_update_found_with(OmCall *call);

/* ---- try.c: a step that can be undone ---- */

typedef void (*OmTryStep)(void *state);

extern ErrorData *om_try(OmTryStep step, void *state);

/* ---- run.c: running any verb ---- */

extern uint64 om_call_run(OmCall *call);
extern uint64 om_call_run_again(OmCall *call);
extern ErrorData *om_call_try(OmCall *call, uint64 *count);

/* ---- parts.c: running any verb over a list of jobs ---- */

extern uint64 om_call_run_over(OmCall *call, OmJobIds *ids, bool again);

#endif /* OM_VERBS_H */
