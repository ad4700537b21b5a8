/*
 * oban_manage.h
 *		Types and functions that the files of oban_manage share: the arguments of
 *		calls, the statements that are run, results and signals.
 *
 * The way of a call: an SQL entry point reads its arguments and finds the jobs
 * table (jobs_table.c, job_argument.c, filter.c), or reads what fired it
 * (triggers.h); the core of its verb (verbs.h) runs one or two statements
 * (queries.c builds them, plan_cache.c keeps and runs them) and tells the
 * running Obans (signals.c).
 */
#ifndef OBAN_MANAGE_H
#define OBAN_MANAGE_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "storage/lockdefs.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"

#include "compat.h"

/* ---- oban_manage.c: the module and its settings ---- */

extern char *om_prefix; /* oban_manage.prefix */
extern bool om_notify;	/* oban_manage.notify */
extern bool om_guard;	/* oban_manage.guard */

extern void om_set_temporarily(const char *name, const char *value);

/* ---- jobs_table.c: which table, and what it looks like ---- */

/* What the text of a query depends on. */
typedef struct OmTableShape
{
	Oid jobs;
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
extern Oid om_jobs_table_owner(Oid jobs);
extern Oid om_jobs_table_column_type(Oid jobs, const char *column);
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

/* ---- json_keys.c: JSON objects whose keys are known ---- */

typedef struct OmKey
{
	const char *name;
	const char *takes; /* completes "takes ..." */
} OmKey;

/* The keys that an object may have, each the first member of a larger struct */
typedef struct OmKeys
{
	const char *what;	  /* the object, in messages */
	const char *simplest; /* what to pass when there is nothing to say, for a hint */
	const OmKey *first;
	Size size; /* of the struct */
	int count;
} OmKeys;

typedef void (*OmReadValue)(int key, const JsonbValue *value, void *state);

extern const Jsonb *om_jsonb_argument(FunctionCallInfo fcinfo, int argno);
extern void om_object_check(const Jsonb *json, const OmKeys *keys);
extern void om_object_read(JsonbContainer *object, const OmKeys *keys, OmReadValue read,
						   void *state);
pg_noreturn extern void om_value_refuse(const OmKey *key, const JsonbValue *value);
extern bool om_value_whole_number(const JsonbValue *value, int64 *number, bool *fits);

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
typedef uint8 OmColumnSet;

#define OM_COLUMN_BIT(column) ((OmColumnSet) (1 << (column)))

/* An update of these may give a queue a job to run, so its workers are woken. */
#define OM_WAKING_COLUMNS (OM_COLUMN_BIT(OM_QUEUE) | OM_COLUMN_BIT(OM_SCHEDULED_AT))

typedef struct OmChangeKeyInfo
{
	OmKey key;
	OmChangeKey column; /* the column that it changes */
	Oid type;			/* of the value that is passed to the query */
	Oid array_type;		/* of the values of many jobs; tags are passed as text then */
	/* Reads a value for the jobs table; false when it is not what the key takes. */
	bool (*read)(const JsonbValue *value, Oid jobs, Datum *result);
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

/* The times that may be written: years 0001 to 9999, which every Oban can read */
#define OM_FIRST_TIME ((1721426 - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY) /* 0001-01-01 */
#define OM_END_TIME	  ((5373485 - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY) /* 10000-01-01 */

extern bool om_is_blank(char c);
extern bool om_time_fits(Timestamp time);
extern bool om_value_time(const JsonbValue *value, Timestamp *time);
extern bool om_value_time_from_now(const JsonbValue *value, Timestamp *time);
extern bool om_value_tags(const JsonbValue *value, ArrayType **tags);

/* ---- lower_case.c: lower-casing that is the same in every database ---- */

extern text *om_lower_case(const char *string, int len);

/* ---- filter.c, conditions.c: which jobs a call is about ---- */

/* The conditions that jobs are found by, in the order of their parameters */
typedef enum OmCondition
{
	OM_ID_IS,
	OM_ID_IS_ANY, /* of an array, as in each ..._ANY */
	OM_STATE_IS,
	OM_STATE_IS_ANY,
	OM_QUEUE_IS,
	OM_QUEUE_IS_ANY,
	OM_WORKER_IS,
	OM_WORKER_IS_ANY,
	OM_PRIORITY_IS,
	OM_PRIORITY_IS_ANY,
	OM_ATTEMPT_IS,
	OM_ATTEMPT_IS_ANY,
	OM_MAX_ATTEMPTS_IS,
	OM_MAX_ATTEMPTS_IS_ANY,
	OM_ARGS_CONTAIN,
	OM_META_CONTAIN,
	OM_TAGS_CONTAIN,
	OM_INSERTED_AFTER, /* or at that time */
	OM_INSERTED_BEFORE,
	OM_SCHEDULED_AFTER,
	OM_SCHEDULED_BEFORE,
	OM_ATTEMPTED_AFTER,
	OM_ATTEMPTED_BEFORE,
	OM_COMPLETED_AFTER,
	OM_COMPLETED_BEFORE,
	OM_CANCELLED_AFTER,
	OM_CANCELLED_BEFORE,
	OM_DISCARDED_AFTER,
	OM_DISCARDED_BEFORE,
	OM_ID_FROM,
	OM_ID_UP_TO,
	OM_LIMIT, /* no condition, but how many jobs, the lowest ids first */
	OM_N_CONDITIONS
} OmCondition;

typedef uint32 OmConditionSet;

#define OM_CONDITION_BIT(condition) ((OmConditionSet) 1 << (condition))

#define OM_BY_ID  OM_CONDITION_BIT(OM_ID_IS)
#define OM_BY_IDS OM_CONDITION_BIT(OM_ID_IS_ANY)

/* Jobs that meet all of the conditions; when there is none, every job */
typedef struct OmFilter
{
	OmConditionSet conditions;
	Datum values[OM_N_CONDITIONS];
} OmFilter;

extern void om_conditions_append(StringInfo sql, OmConditionSet set, const char *verb_condition);
extern void om_conditions_append_order(StringInfo sql, OmConditionSet set);
extern Oid om_condition_type(OmCondition condition, Oid jobs);
extern int om_conditions_types(OmConditionSet set, Oid jobs, Oid *types);

extern void om_filter_read(OmFilter *filter, const Jsonb *json, Oid jobs);
extern void om_filter_by_ids(OmFilter *filter, Datum ids);
extern void om_filter_add(OmFilter *filter, OmCondition condition, int64 value);
extern int om_filter_params(const OmFilter *filter, Datum *params);

/* ---- job_columns.c: the columns of a job in a statement ---- */

/* Not a cast of an enum to text, which the type's owner may have made */
#define OM_TEXT_OF(state) "pg_catalog.enum_out(" state ")::pg_catalog.text"

extern void om_job_columns_append(StringInfo sql, const OmTableShape *shape, bool named);
extern void om_updatable_append(StringInfo sql);
extern void om_argument_append(StringInfo sql, const OmTableShape *shape, Oid type);

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
	OM_WRITE_ONE,  /* change a job, without locking it first; OM_BY_ID */
	OM_LOCK,	   /* lock the jobs that the verb would change; with states: all */
	OM_LOOK,	   /* the same without a lock */
	OM_WRITE,	   /* change jobs that are locked, or are locked in order so; OM_BY_IDS */
	OM_WRITE_NOTE, /* the same, and note which were executing, or scheduled */
	OM_WRITE_EACH, /* the same, each with its own values, in arrays beside the sorted ids */
	OM_SURVEY,	   /* how many jobs the verb would change, and in which range of ids */
	OM_GET,		   /* jobs as oban_job, as they are now */
	OM_READ,	   /* the same, as the calling statement sees them */
	OM_CANCELLED,  /* is the job cancelled? OM_BY_ID */
	OM_RUN_ENDED,  /* is a run of the job, by its attempt, not the current one? OM_BY_ID */
	OM_STATE	   /* jobs' states, as the active snapshot shows them */
} OmStep;

/* What a query returns of its jobs; the steps without a choice leave it 0 */
typedef enum OmReturns
{
	OM_RETURN_NOTHING,
	OM_RETURN_WRITTEN, /* of the writing steps: up to OM_WRITTEN_QUEUE */
	OM_RETURN_STATES,  /* and OM_WRITTEN_STATE; of OM_LOCK and OM_LOOK: up to OM_LOCK_NEW_STATE */
	OM_RETURN_JOBS	   /* of the writing steps of update: oban_job */
} OmReturns;

/* What is asked of a jobs table; with the table's oid, the key of a kept plan. */
typedef struct OmQuery
{
	uint8 step;			 /* OmStep */
	uint8 verb;			 /* OmVerb, where the step is one of a verb */
	OmColumnSet columns; /* to write; with OM_LOOK: that bear on the new state */
	uint8 returns;		 /* OmReturns */
	Oid argument_type;	 /* of OM_LOCK for a callable: as what it takes the job */
	OmConditionSet conditions;
} OmQuery;

/* The last parameters of OM_WRITE_NOTE: both the time that it writes */
#define OM_N_NOTE_PARAMS 2

#define OM_MAX_PARAMS (OM_N_CONDITIONS + OM_N_UPDATE_COLUMNS + OM_N_NOTE_PARAMS)

/* Columns of the rows that OM_LOCK and OM_LOOK return */
#define OM_LOCK_ID		  1 /* bigint */
#define OM_LOCK_EXECUTING 2 /* boolean; cancel */
#define OM_LOCK_SCHEDULED 2 /* boolean; update */
#define OM_LOCK_ATTEMPT	  3 /* integer; update */
#define OM_LOCK_MAY_RUN	  4 /* boolean: can the job still be run as it is? update */
#define OM_LOCK_UPDATABLE 5 /* record of all that may be updated; for a callable */
#define OM_LOCK_ARGUMENT  6 /* argument_type; for a callable */
#define OM_LOCK_STATE	  5 /* text; with states */
#define OM_LOCK_APPLIES	  6 /* boolean: does the verb act on the job? */
#define OM_LOCK_SPENT	  7 /* boolean: it does not, but only because of the attempts made; retry */
#define OM_LOCK_NEW_STATE 8 /* text; OM_LOOK: what the verb would make it */

/* Columns of the rows that the writing steps return, unless they are oban_job */
#define OM_WRITTEN_ID	 1 /* bigint */
#define OM_WRITTEN_DONE	 2 /* boolean: does the row, as it was written, say so? */
#define OM_WRITTEN_QUEUE 3 /* text; NULL: the job is not available, or the verb wakes nobody */
#define OM_WRITTEN_STATE 4 /* text; with states */

/* Columns of the rows that OM_STATE returns */
#define OM_STATE_ID	   1 /* bigint */
#define OM_STATE_STATE 2 /* the enum of the states */

/* Columns of the row that OM_SURVEY returns */
#define OM_SURVEY_COUNT	  1 /* bigint, as are the others; NULL where there is no job */
#define OM_SURVEY_LOWEST  2
#define OM_SURVEY_HIGHEST 3
#define OM_SURVEY_LAST	  4 /* highest id of all jobs */

/* Columns of oban_job, which OM_GET and the writing steps of update return */
#define OM_JOB_ID	  1
#define OM_JOB_STATE  2
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
extern bool om_query_is_by_id(OmQuery query);

/* ---- plan_cache.c: kept plans, and the running of them ---- */

/*
 * Called for each row that a query returns. What it allocates dies with the
 * query: it keeps things in memory of its state.
 */
typedef void (*OmRowCallback)(TupleTableSlot *row, void *state);

extern uint64 om_query_run(Oid jobs, OmQuery query, const Datum *values, OmRowCallback callback,
						   void *state);
extern bool om_query_run_in_order(Oid jobs, OmQuery query, const Datum *values, bool *noted,
								  OmRowCallback callback, void *state, uint64 *count);
extern int om_trigger_depth(void);
extern bool om_query_writes_now(void);

/* ---- job_result.c: oban_job as a result ---- */

/*
 * Where the jobs that a function returns are put: one composite value, or a set
 * in the order of their ids.
 */
typedef struct OmJobResult
{
	TupleDesc desc;		   /* of oban_job */
	MemoryContext context; /* that outlives SPI */
	Tuplestorestate *set;  /* that is returned; NULL: one job is */
	Tuplesortstate *sort;  /* of the set, since a job came out of order */
	int64 last_id;		   /* of the job put last */
	Datum job;			   /* the last job put, when there is no set */
	int count;
} OmJobResult;

extern void om_job_result_init(OmJobResult *result, FunctionCallInfo fcinfo);
extern void om_job_result_put(TupleTableSlot *row, void *state);
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
extern bool om_signals_kill(Oid jobs);
extern void om_signal_kill(OmSignals *signals, int64 job_id);
extern void om_signal_wake(OmSignals *signals, TupleTableSlot *row, AttrNumber column);

#endif /* OBAN_MANAGE_H */
