/*
 * jobs.h
 *		The jobs table and its columns, ids of jobs, jobs as results, signals,
 *		settings and errors. This is the lowest floor: all others include it.
 */
#ifndef OM_JOBS_H
#define OM_JOBS_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "port/pg_bitutils.h"
#include "storage/lockdefs.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"

#include "jobs/compat.h"

/* ---- settings.c: the module and its settings ---- */

extern char *om_prefix; /* oban_manage.prefix */
extern bool om_notify;	/* oban_manage.notify */
extern bool om_guard;	/* oban_manage.guard */

extern void om_set_temporarily(const char *name, const char *value);

/* ---- errors.c ---- */

extern bool om_is_error(void);
extern bool om_error_is_conflict(const ErrorData *error);
extern bool om_error_is_refusal(const ErrorData *error);

/* ---- jobs_table.c: which table, and what it looks like ---- */

/* What the text of a query depends on, besides the query */
typedef struct OmTableShape
{
	Oid jobs;
	const char *schema; /* the prefix, unquoted */
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

/* ---- columns.c: the columns of oban_job, and those that may be updated ---- */

#define OM_JOB_N_COLUMNS 19

/* What a column of the jobs table holds; jobs_table.c says in which types */
typedef enum OmColumnKind
{
	OM_INTEGER_COLUMN,
	OM_STATE_COLUMN,
	OM_TEXT_COLUMN,
	OM_TEXTS_COLUMN,
	OM_JSON_COLUMN,
	OM_ERRORS_COLUMN,
	OM_TIME_COLUMN,
	OM_NO_COLUMN /* the table has no such column */
} OmColumnKind;

/* The columns of oban_job, as oban_manage--1.0.sql makes it */
typedef struct OmJobColumn
{
	const char *name;
	Oid type;		   /* in oban_job */
	OmColumnKind kind; /* in the jobs table */
} OmJobColumn;

extern const OmJobColumn om_job_columns[];

extern bool om_looks_like_oban_job(TupleDesc desc);
extern bool om_type_is_oban_job(Oid type);
extern int om_job_columns_added(Oid type);

/* Numbers of columns in oban_job, which OM_GET_NEWEST and the writing steps of update return */
#define OM_JOB_ID	  1
#define OM_JOB_STATE  2
#define OM_JOB_QUEUE  3
#define OM_JOB_ERRORS 11
#define OM_JOB_PREFIX 19

/* The columns that may be updated, in the order of their parameters */
typedef enum OmUpdateColumn
{
	OM_ARGS,
	OM_MAX_ATTEMPTS,
	OM_META,
	OM_PRIORITY,
	OM_QUEUE,
	OM_SCHEDULED_AT,
	OM_TAGS,
	OM_WORKER,
	OM_N_UPDATE_COLUMNS
} OmUpdateColumn;

typedef struct OmUpdateColumnInfo
{
	const char *name;
	Oid type;		/* of the value that is passed to a statement */
	Oid array_type; /* of an array of values, one for each job; tags are text in it */
} OmUpdateColumnInfo;

extern const OmUpdateColumnInfo om_update_columns[];

/* A set of the columns that may be updated */
typedef uint8 OmColumnSet;

#define OM_COLUMN_BIT(column) ((OmColumnSet) (1 << (column)))

StaticAssertDecl(OM_N_UPDATE_COLUMNS <= sizeof(OmColumnSet) * BITS_PER_BYTE, "each is a bit of it");

static inline int
om_columns_count(OmColumnSet set)
{
	return pg_popcount64(set);
}

/* An update of these may give a queue a job to run, so its workers are woken. */
#define OM_WAKING_COLUMNS (OM_COLUMN_BIT(OM_QUEUE) | OM_COLUMN_BIT(OM_SCHEDULED_AT))

/* ---- job_ids.c: growing lists of job ids that are SQL arrays ---- */

/*
 * The ids are collected in the memory of a bigint[], so that a million ids need no
 * second copy.  om_job_ids_array fills in the header of the array.
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

/* ---- job_result.c: oban_job as a result ---- */

/*
 * The result of a function that returns jobs: one composite value, or a set in the
 * order of their ids.
 */
typedef struct OmJobResult
{
	TupleDesc desc;		   /* of oban_job */
	MemoryContext context; /* one that outlives SPI */
	Tuplestorestate *set;  /* the set to return; NULL: the function returns one job */
	Tuplesortstate *sort;  /* of the set; NULL: no job came out of order yet */
	TupleTableSlot *wider; /* a row with all columns of desc; NULL: each row has them */
	int64 last_id;		   /* id of the job that was put last */
	Datum job;			   /* the job that was put last, when there is no set */
	int count;
} OmJobResult;

extern void om_job_result_init(OmJobResult *result, FunctionCallInfo fcinfo);
extern void om_job_result_put(TupleTableSlot *row, void *state);
extern Datum om_job_result_return(OmJobResult *result, FunctionCallInfo fcinfo);

/* ---- signals.c: what running Obans are told ---- */

typedef struct OmSignals
{
	Oid jobs;
	const char *schema; /* NULL until it is needed */
	text *last_queue;	/* the queue woken last */
	bool warned;		/* a call raises at most one warning */
	MemoryContext context;
} OmSignals;

extern void om_signals_init(OmSignals *signals, Oid jobs);
extern bool om_signals_kill(Oid jobs);
extern void om_signal_kill(OmSignals *signals, int64 job_id);
extern void om_signal_wake(OmSignals *signals, const text *queue);

#endif /* OM_JOBS_H */
