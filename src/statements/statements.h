/*
 * statements.h
 *		The statements: their text, their parameters, the rows that they return, and
 *		how they are run.  The floors above, and the files of this one, include it.
 */
#ifndef OM_STATEMENTS_H
#define OM_STATEMENTS_H

#include "jobs/jobs.h"

#include "access/htup.h"
#include "port/pg_bitutils.h"

/* ---- conditions.c: which jobs a statement is about ---- */

/* The conditions that select jobs, in the order of their parameters */
typedef enum OmCondition
{
	OM_ID_IS,
	OM_ID_IS_ANY, /* one of an array, as each ..._ANY */
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
	OM_ATTEMPTED_BY_ANY,
	OM_ERROR_CONTAINS,
	OM_INSERTED_AFTER, /* or at exactly that time, as each ..._AFTER */
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
	OM_LIMIT, /* not a condition: at most so many jobs, the lowest ids first */
	OM_NOT,	  /* the conditions of the next level do not all hold; has no parameter */
	OM_N_LEVEL_CONDITIONS
} OmCondition;

/* A filter, the filter under its "not", and the one under the "not" of that */
#define OM_N_LEVELS 3

/* Number of conditions of all levels */
#define OM_N_CONDITIONS (OM_N_LEVELS * OM_N_LEVEL_CONDITIONS)

#define OM_CONDITION_BIT(condition) (UINT64CONST(1) << (condition))

/* For each level, the conditions that the job must meet.  Has no padding. */
typedef struct OmConditionSet
{
	uint64 levels[OM_N_LEVELS];
} OmConditionSet;

#define OM_BY_ID  ((OmConditionSet){.levels = {OM_CONDITION_BIT(OM_ID_IS)}})
#define OM_BY_IDS ((OmConditionSet){.levels = {OM_CONDITION_BIT(OM_ID_IS_ANY)}})

/* Selects the jobs that meet all conditions; without conditions, every job */
typedef struct OmFilter
{
	OmConditionSet conditions;
	Datum values[OM_N_CONDITIONS]; /* of the first level, then of the others */
} OmFilter;

extern int om_conditions_count(OmConditionSet set);
extern bool om_conditions_have_limit(OmConditionSet set);
extern void om_conditions_append(StringInfo sql, OmConditionSet set, const char *verb_condition);
extern void om_conditions_append_order(StringInfo sql, OmConditionSet set);
extern Oid om_condition_type(OmCondition condition, Oid jobs);
extern int om_conditions_types(OmConditionSet set, Oid jobs, Oid *types);

extern void om_filter_put(OmFilter *filter, int level, OmCondition condition, Datum value);
extern void om_filter_by_ids(OmFilter *filter, Datum ids);
extern void om_filter_add(OmFilter *filter, OmCondition condition, int64 value);
extern void om_filter_restrict(OmFilter *filter, Datum ids);
extern int om_filter_params(const OmFilter *filter, Datum *params);

/* ---- job_columns.c: the columns of a job in a statement ---- */

/* Not a cast, because the owner of the enum may have created a cast to text. */
#define OM_TEXT_OF(state) "pg_catalog.enum_out(" state ")::pg_catalog.text"

extern void om_job_columns_append(StringInfo sql, const OmTableShape *shape, bool named);
extern void om_updatable_append(StringInfo sql);
extern void om_argument_append(StringInfo sql, const OmTableShape *shape, Oid type);

/* ---- verb_table.c: the verbs ---- */

/* Add a new verb at the end: then the tables of verbs do not compile until they have it. */
typedef enum OmVerb
{
	OM_CANCEL,
	OM_RETRY,
	OM_DELETE,
	OM_UPDATE,
	OM_N_VERBS
} OmVerb;

typedef struct OmVerbInfo
{
	const char *name;
	const char *participle; /* what was done to a job */
	bool tells;				/* are running Obans told of the jobs that it has written? */
} OmVerbInfo;

extern const OmVerbInfo om_verbs[];

/* ---- queries.c: the text of every statement ---- */

typedef enum OmStep
{
	OM_WRITE_ONE,		   /* change a job, without locking it first; OM_BY_ID */
	OM_FIND_AND_LOCK,	   /* lock the jobs that the verb would change; with states: all */
	OM_FIND_AND_LOCK_FREE, /* the same, of the jobs that no other transaction holds */
	OM_FIND_ONLY,		   /* the same without a lock */
	OM_WRITE,			   /* change jobs, locked before or in id order; OM_BY_IDS */
	OM_WRITE_AND_WATCH,	   /* the same, and tell which were in the state that the verb watches */
	OM_WRITE_EACH,		   /* the same, each with its own values, in arrays beside the sorted ids */
	OM_SURVEY,			   /* how many jobs the verb would change, and in which range of ids */
	OM_GET_NEWEST,		   /* jobs as oban_job, as they are now */
	OM_GET_AS_SEEN,		   /* the same, as the calling statement sees them */
	OM_CANCELLED,		   /* is the job cancelled? OM_BY_ID */
	OM_RUN_ENDED,		   /* has the run with that attempt ended? OM_BY_ID */
	OM_STATE			   /* jobs' states, as the active snapshot shows them */
} OmStep;

/* What a query returns of its jobs; 0 for the steps that have no choice */
typedef enum OmReturns
{
	OM_RETURN_NOTHING,
	OM_RETURN_WRITTEN, /* writing steps: OmWrittenRow without states */
	OM_RETURN_STATES,  /* writing steps, OM_FIND_AND_LOCK, OM_FIND_ONLY: with states */
	OM_RETURN_JOBS	   /* writing steps of update: OmWrittenRow with oban_job */
} OmReturns;

/* A query of a jobs table.  With the table's oid it is the key of a kept plan. */
typedef struct OmQuery
{
	uint8 step;			 /* OmStep */
	uint8 verb;			 /* OmVerb, where the step is one of a verb */
	OmColumnSet columns; /* to write; with OM_FIND_ONLY: that the new state depends on */
	uint8 returns;		 /* OmReturns */
	Oid argument_type;	 /* of a callable; with OM_FIND_AND_LOCK, to return the job so */
	OmConditionSet conditions;
} OmQuery;

StaticAssertDecl(sizeof(OmQuery) == 4 * sizeof(uint8) + sizeof(Oid) + sizeof(OmConditionSet),
				 "no padding, because it is hashed as bytes");

/* The last parameters of OM_WRITE_AND_WATCH: both hold the time that it writes */
#define OM_N_WATCH_PARAMS (OM_HAS_RETURNING_OLD ? 0 : 2)

#define OM_MAX_PARAMS (OM_N_CONDITIONS + OM_N_UPDATE_COLUMNS + OM_N_WATCH_PARAMS)

typedef struct OmStatement
{
	char *text;
	int nparams;
	Oid param_types[OM_MAX_PARAMS];
	int result_code; /* the SPI_OK_... that SPI must return for it */
} OmStatement;

extern void om_query_build(OmQuery query, const OmTableShape *shape, OmStatement *statement);
extern bool om_query_reads_only(OmQuery query);
extern bool om_query_is_by_id(OmQuery query);
extern bool om_query_is_by_id_alone(OmQuery query);

/* ---- rows.c: the rows that statements return ---- */

/* OM_FIND_AND_LOCK, OM_FIND_ONLY: a job that was found */
typedef struct OmFoundRow
{
	int64 id;
	bool was_in_state; /* was the job executing (cancel) or scheduled (update)? */
	int32 attempt;	   /* only for update, as is may_run */
	bool may_run;	   /* can the job still run in its state? */

	/* With OM_RETURN_STATES */
	text *state;
	bool applies;	 /* does the verb act on the job? */
	bool spent;		 /* retry: not retried only because of the attempts made? */
	text *new_state; /* OM_FIND_ONLY: the state that the verb would give; NULL: none */

	/* With an argument_type */
	HeapTupleHeader updatable; /* record of the columns that may be updated */
	Datum argument;			   /* the job as the callable takes it */
} OmFoundRow;

/* The writing steps, OM_GET_NEWEST: a job that was written, or only read */
typedef struct OmWrittenRow
{
	int64 id;
	bool done;			 /* does the row have the state of the verb? true with a job */
	text *queue;		 /* of an available job; without a job: if the verb wakes workers */
	text *state;		 /* with OM_RETURN_STATES */
	TupleTableSlot *job; /* oban_job; with OM_RETURN_JOBS, OM_GET_NEWEST */
} OmWrittenRow;

/* OM_STATE */
typedef struct OmStateRow
{
	int64 id;
	NullableDatum state; /* the enum of the states */
} OmStateRow;

/* OM_SURVEY: the jobs that the verb would change; without any, all but "last" are 0 */
typedef struct OmSurveyRow
{
	int64 count;
	int64 lowest; /* id, as are the others */
	int64 highest;
	int64 last; /* highest id of all jobs in the table */
} OmSurveyRow;

extern void om_found_row_read(TupleTableSlot *slot, OmFoundRow *row);
extern void om_written_row_read(TupleTableSlot *slot, OmWrittenRow *row);
extern void om_state_row_read(TupleTableSlot *slot, OmStateRow *row);
extern void om_survey_row_read(TupleTableSlot *slot, OmSurveyRow *row);
extern bool om_answer_row_read(TupleTableSlot *slot);

/* ---- run_query.c: running queries, by plans that are kept ---- */

/*
 * Called for each row that a query returns. The memory that the callback allocates is
 * freed with the query, so what it keeps must be in memory of its state.
 */
typedef void (*OmRowCallback)(TupleTableSlot *row, void *state);

extern uint64 om_query_run(Oid jobs, OmQuery query, const Datum *values, OmRowCallback callback,
						   void *state);
extern bool om_query_run_in_order(Oid jobs, OmQuery query, const Datum *values, bool *was_in_state,
								  OmRowCallback callback, void *state, uint64 *count);
extern int om_trigger_depth(void);
extern bool om_query_writes_now(void);

#endif /* OM_STATEMENTS_H */
