/*
 * oban_manage.h
 *		Types and functions that the files of oban_manage share.
 *
 * The way of a call: an SQL entry point reads its arguments and finds the jobs
 * table (jobs_table.c, job_argument.c), or reads what fired it (triggers.c,
 * trigger_rows.c, trigger_contexts.c); the core of its verb
 * (cancel_retry_delete.c, update.c, update_with.c, read_job.c) runs one or two
 * statements (queries.c builds them, plan_cache.c keeps and runs them) and tells
 * the running Obans (signals.c).
 */
#ifndef OBAN_MANAGE_H
#define OBAN_MANAGE_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "storage/buffile.h"
#include "storage/lockdefs.h"
#include "utils/array.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"

/* ---- oban_manage.c: the module and its settings ---- */

extern char *om_prefix; /* oban_manage.prefix */
extern bool om_notify;	/* oban_manage.notify */

/* ---- jobs_table.c: which table, and what it looks like ---- */

/* What the text of a query depends on. */
typedef struct OmTableShape
{
	const char *schema; /* the prefix, as it is, unquoted */
	const char *name;	/* schema-qualified and quoted */
	Oid row_type;
	bool errors_is_array; /* jsonb[] (Elixir) rather than jsonb (Python) */
} OmTableShape;

extern Oid om_jobs_table_by_prefix(const text *prefix, LOCKMODE lockmode);
extern Oid om_jobs_table_argument(FunctionCallInfo fcinfo, int argno, LOCKMODE lockmode);
extern Oid om_jobs_table_of_row_type(Oid row_relid, LOCKMODE lockmode);
extern void om_jobs_table_shape(Oid jobs, OmTableShape *shape);
extern Form_pg_attribute om_find_column(TupleDesc desc, const char *name);
extern int32 om_jobs_table_max_integer(Oid jobs, const char *column);

/* ---- job_ids.c: growing lists of job ids that are SQL arrays ---- */

/*
 * The ids are collected in place, as a bigint[] whose header is filled in when
 * the array is asked for, so that a million of them are held once.
 */
typedef struct OmJobIds
{
	ArrayType *array;
	int count;
	int capacity;
} OmJobIds;

extern bool om_type_is_job_id(Oid type);
extern int64 om_job_id(Datum value, Oid type);

extern void om_job_ids_init(OmJobIds *ids, int capacity);
extern void om_job_ids_add(OmJobIds *ids, int64 id);
extern void om_job_ids_add_array(OmJobIds *ids, ArrayType *array, Oid type);
extern void om_job_ids_sort(OmJobIds *ids);
extern int64 *om_job_ids_data(const OmJobIds *ids);
extern Datum om_job_ids_array(OmJobIds *ids);
extern int om_job_ids_find(const OmJobIds *ids, int64 id);

/* ---- job_argument.c: the jobs that a call is handed ---- */

#define OM_JOB_N_COLUMNS 19

/* The columns of oban_job, as oban_manage--1.0.sql makes it */
typedef struct OmJobColumn
{
	const char *name;
	Oid type;
} OmJobColumn;

extern const OmJobColumn om_job_columns[OM_JOB_N_COLUMNS];

extern bool om_type_is_oban_job(Oid type);
extern bool om_job_argument(FunctionCallInfo fcinfo, int argno, LOCKMODE lockmode, Oid *jobs,
							int64 *id);
extern Oid om_id_argument(FunctionCallInfo fcinfo, int prefix_argno, OmJobIds *ids);
extern Oid om_record_argument(FunctionCallInfo fcinfo, OmJobIds *ids);
extern Oid om_ids_argument(FunctionCallInfo fcinfo, int prefix_argno, OmJobIds *ids);

/* ---- changes.c, change_values.c: the checking of changes ---- */

/* The keys of changes; all but the last are the columns that may be updated. */
typedef enum OmChangeKey
{
	OM_ARGS,
	OM_MAX_ATTEMPTS,
	OM_META,
	OM_PRIORITY,
	OM_QUEUE,
	OM_SCHEDULED_AT,
	OM_TAGS,
	OM_WORKER,
	OM_SCHEDULE_IN, /* stands for OM_SCHEDULED_AT */
	OM_N_CHANGE_KEYS
} OmChangeKey;

#define OM_N_UPDATE_COLUMNS OM_SCHEDULE_IN

/* A set of the columns that may be updated */
typedef uint16 OmColumnSet;

#define OM_COLUMN_BIT(column) ((OmColumnSet) (1 << (column)))

typedef struct OmChangeKeyInfo
{
	const char *name;
	OmChangeKey column; /* the column that it changes */
	Oid type;			/* of the value that is passed to the query */
	Oid array_type;		/* of the values of many jobs; tags are passed as text then */
	/* Reads a value for the jobs table; false when it is not what the key takes. */
	bool (*read)(const JsonbValue *value, Oid jobs, Datum *result);
	const char *takes; /* completes "takes ..." */
} OmChangeKeyInfo;

extern const OmChangeKeyInfo om_change_keys[OM_N_CHANGE_KEYS];

/* Changes that have been checked: the columns named, and their new values. */
typedef struct OmChanges
{
	OmColumnSet columns;
	Datum values[OM_N_UPDATE_COLUMNS];
} OmChanges;

extern void om_changes_check(OmChanges *changes, const Jsonb *json, Oid jobs);
extern bool om_changes_make_due(const OmChanges *changes);

extern bool om_is_blank(char c);
extern bool om_value_time(const JsonbValue *value, Timestamp *time);
extern bool om_value_time_from_now(const JsonbValue *value, Timestamp *time);
extern bool om_value_tags(const JsonbValue *value, ArrayType **tags);

/* ---- queries.c: the text of every statement ---- */

typedef enum OmVerb
{
	OM_CANCEL,
	OM_RETRY,
	OM_DELETE,
	OM_UPDATE,
	OM_N_VERBS
} OmVerb;

typedef enum OmStep
{
	OM_WRITE_ONE,  /* change the job $1, without locking it first */
	OM_LOCK,	   /* lock those of the jobs $1 that the verb would change */
	OM_WRITE,	   /* change the jobs $1, which are locked */
	OM_WRITE_EACH, /* the same, each with its own values, in arrays beside the sorted $1 */
	OM_GET_ONE,	   /* the job $1 as an oban_job */
	OM_GET,		   /* the jobs $1 as oban_job */
	OM_CANCELLED   /* is the job $1 cancelled? */
} OmStep;

/* What is asked of a jobs table; with the table's oid, the key of a kept plan. */
typedef struct OmQuery
{
	uint8 step;			 /* OmStep */
	uint8 verb;			 /* OmVerb, where the step is one of a verb */
	OmColumnSet columns; /* of OM_UPDATE */
	Oid argument_type;	 /* of OM_LOCK for a callable: as what it takes the job */
} OmQuery;

#define OM_MAX_PARAMS (1 + OM_N_UPDATE_COLUMNS)

/* Columns of the rows that OM_LOCK returns */
#define OM_LOCK_ID		  1 /* bigint */
#define OM_LOCK_EXECUTING 2 /* boolean; cancel */
#define OM_LOCK_SCHEDULED 2 /* boolean; update */
#define OM_LOCK_ATTEMPT	  3 /* integer; update */
#define OM_LOCK_UPDATABLE 4 /* record of all that may be updated; for a callable */
#define OM_LOCK_ARGUMENT  5 /* argument_type; for a callable */

/* Columns of the rows that OM_WRITE_ONE and OM_WRITE return */
#define OM_CANCEL_ID   1 /* bigint; cancel, OM_WRITE only */
#define OM_RETRY_QUEUE 1 /* text; retry */

/* Columns of oban_job, which OM_GET and the writing steps of update return */
#define OM_JOB_ID	  1
#define OM_JOB_QUEUE  3
#define OM_JOB_ERRORS 11
#define OM_JOB_PREFIX 19

typedef struct OmStatement
{
	char *text;
	int nparams;
	Oid param_types[OM_MAX_PARAMS];
	int result_code; /* the SPI_OK_... that running it must give */
} OmStatement;

extern void om_query_build(OmQuery query, const OmTableShape *shape, OmStatement *statement);
extern bool om_query_reads_only(OmQuery query);

/* ---- plan_cache.c: kept plans, and the running of them ---- */

/*
 * Called for each row that a query returns. What it allocates dies with the
 * query: it keeps things in memory of its state.
 */
typedef void (*OmRowCallback)(TupleTableSlot *row, void *state);

extern uint64 om_query_run(Oid jobs, OmQuery query, const Datum *values, OmRowCallback callback,
						   void *state);

/* ---- job_result.c: oban_job as a result ---- */

/*
 * Where the jobs that a function returns are put: one composite value, or a set
 * that is sorted by id.
 */
typedef struct OmJobResult
{
	TupleDesc desc;		   /* of oban_job */
	MemoryContext context; /* that outlives SPI */
	Tuplesortstate *set;   /* of a set-returning function, or NULL */
	Datum job;			   /* the last job put, when there is no set */
	int count;
} OmJobResult;

extern void om_job_result_init(OmJobResult *result, FunctionCallInfo fcinfo);
extern void om_job_result_put(OmJobResult *result, TupleTableSlot *row);
extern Datum om_job_result_return(OmJobResult *result, FunctionCallInfo fcinfo);

/* ---- signals.c: what running Obans are told ---- */

typedef struct OmSignals
{
	Oid jobs;
	const char *schema; /* looked up when first needed */
	text *last_queue;	/* the queue woken last */
	bool warned;		/* at most one warning a call */
	MemoryContext context;
} OmSignals;

extern void om_signals_init(OmSignals *signals, Oid jobs);
extern void om_signal_kill(OmSignals *signals, int64 job_id);
extern void om_signal_wake(OmSignals *signals, TupleTableSlot *row, AttrNumber column);

/* ---- cancel_retry_delete.c: the verbs that change a job's state or remove it ---- */

extern bool om_change_job(OmVerb verb, Oid jobs, int64 id);
extern uint64 om_change_jobs(OmVerb verb, Oid jobs, ArrayType *ids);

/* ---- update.c: updating jobs; what it shares with update_with.c ---- */

/* An update of a set of jobs, or one */
typedef struct OmUpdate
{
	Oid jobs;
	bool missing_ok;		  /* pass over jobs that do not exist */
	OmJobResult *result;	  /* NULL: nobody asks for the jobs */
	const OmChanges *changes; /* to make to each of the jobs, where they are the same */
	OmJobIds *ids;			  /* of the running step; distinct, in order */
	bool *done;				  /* for each of them: has the step done it? */
	OmJobIds due;			  /* jobs to write that were scheduled and are due now */
	OmSignals signals;
} OmUpdate;

extern void om_update_jobs(Oid jobs, OmJobIds *ids, const Jsonb *changes, bool missing_ok,
						   OmJobResult *result);

extern void om_update_init(OmUpdate *update, Oid jobs, int capacity, bool missing_ok,
						   OmJobResult *result);
extern uint64 om_update_step(OmUpdate *update, OmQuery query, const Datum *values,
							 OmRowCallback callback, void *state);
extern void om_update_mark_done(OmUpdate *update, int64 id);
extern void om_update_drop_missing(OmUpdate *update);
extern void om_update_lock(OmUpdate *update, Oid argument_type, OmRowCallback callback,
						   void *state);
extern void om_update_look_at_job(OmUpdate *update, const OmChanges *changes, int64 id,
								  int32 attempt, bool scheduled);
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
	OmJobIds ids;		 /* in ascending order */
	OmChanges *each;	 /* the changes of each of them */
	uint64 *hashes;		 /* of what may be updated, when its callable was called */
	OmColumnSet columns; /* that any of them names */
	MemoryContext context;
} OmJobChanges;

extern void om_job_changes_init(OmJobChanges *changes, int capacity);
extern void om_job_changes_add(OmJobChanges *changes, int64 id, const OmChanges *added,
							   uint64 hash);
extern void om_job_changes_values(OmJobChanges *changes, Datum *values);
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

/* ---- trigger_rows.c: what fired a trigger, and the jobs that its rows name ---- */

typedef struct OmTrigger
{
	TriggerData *data;
	const char *column; /* that holds the jobs */
	AttrNumber attnum;
	Oid type; /* of its ids */
	bool is_array;
	bool reads_new;			/* the row version: NEW, or OLD */
	Tuplestorestate *table; /* the transition table; NULL in a row trigger */
	int table_pointer;		/* our place in it */
	TupleTableSlot *row;	/* the one that is looked at */
	ErrorContextCallback callback;
} OmTrigger;

extern Form_pg_attribute om_trigger_find_column(const TriggerData *data, const char *name,
												const char *hint);
extern void om_trigger_begin(OmTrigger *trigger, FunctionCallInfo fcinfo, int nargs);
extern bool om_trigger_next_row(OmTrigger *trigger);
extern void om_trigger_add_row_jobs(OmTrigger *trigger, OmJobIds *ids);
extern void om_trigger_jobs(OmTrigger *trigger, OmJobIds *ids);
extern Oid om_trigger_jobs_table(const OmTrigger *trigger, int nargs);
extern Datum om_trigger_return(const OmTrigger *trigger);

/* ---- trigger_contexts.c: what callables get from a trigger ---- */

typedef struct OmTriggerContexts
{
	const OmTrigger *trigger;
	MemoryContext context; /* that lives until the end */
	FmgrInfo to_jsonb;
	StringInfoData memory;		  /* contexts that are stored, */
	BufFile *file;				  /* and those that are too many, each after its size; NULL: none */
	HTAB *loaded;				  /* those of the file that are in memory for now, */
	MemoryContext loaded_context; /* and where */
} OmTriggerContexts;

extern void om_trigger_contexts_begin(OmTriggerContexts *contexts, const OmTrigger *trigger);
extern Datum om_trigger_context(OmTriggerContexts *contexts);
extern int64 om_trigger_contexts_put(OmTriggerContexts *contexts);
extern bool om_trigger_contexts_full(OmTriggerContexts *contexts, bool anew);
extern Datum om_trigger_contexts_get(OmTriggerContexts *contexts, int64 position);
extern void om_trigger_contexts_end(OmTriggerContexts *contexts);

#endif /* OBAN_MANAGE_H */
