/*
 * arguments.h
 *		Reading and checking the arguments of a call: jobs, filters, changes, callables.
 *		verbs/ and functions/ include it.
 */
#ifndef OM_ARGUMENTS_H
#define OM_ARGUMENTS_H

#include "statements/statements.h"

/* ---- job_argument.c: the jobs that a call is handed ---- */

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
	bool number;	   /* a number, or an array of them? */
} OmKey;

#define OM_KEY(name, takes)                                                                        \
	{                                                                                              \
		name, takes, false                                                                         \
	}
#define OM_NUMBER_KEY(name, takes)                                                                 \
	{                                                                                              \
		name, takes, true                                                                          \
	}

/* The keys that an object may have.  Each OmKey is the first member of a larger struct. */
typedef struct OmKeys
{
	const char *what;	  /* the object, in messages */
	const char *simplest; /* the simplest object to pass, for a hint */
	const char *unknown;  /* hint for a key that is not like any of these, or NULL */
	const char *path;	  /* goes before the keys in messages: "inserted_at."; or NULL */
	const OmKey *first;
	Size size; /* of the struct */
	int count;
} OmKeys;

typedef void (*OmReadValue)(int key, const JsonbValue *value, void *state);

extern const Jsonb *om_jsonb_argument(FunctionCallInfo fcinfo, int argno);
extern void om_object_check(const Jsonb *json, const OmKeys *keys);
extern void om_object_read(JsonbContainer *object, const OmKeys *keys, OmReadValue read,
						   void *state);
pg_noreturn extern void om_value_refuse(const OmKeys *keys, const OmKey *key,
										const JsonbValue *value);
extern bool om_value_whole_number(const JsonbValue *value, int64 *number, bool *fits);

/* ---- changes.c, change_values.c: the checking of changes ---- */

/* Checked changes: the columns to update, and their new values */
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
extern bool om_value_is_blank(const JsonbValue *value);
extern bool om_time_fits(Timestamp time);
extern bool om_value_time(const JsonbValue *value, Timestamp *time);
extern bool om_value_time_from_now(const JsonbValue *value, Timestamp *time);
extern Timestamp om_retry_at_argument(FunctionCallInfo fcinfo, int argno);
extern bool om_value_tags(const JsonbValue *value, ArrayType **tags);

/* ---- lower_case.c: lower-casing that is the same in every database ---- */

extern text *om_lower_case(const char *string, int len);

/* ---- filter.c, filter_values.c: filters, which say which jobs a call is about ---- */

extern void om_filter_read(OmFilter *filter, const Jsonb *json, Oid jobs);
extern Datum om_filter_any(const OmKeys *keys, const OmKey *key, const JsonbValue *value, Oid type,
						   bool is_id, bool *one);
extern Datum om_filter_texts(const OmKeys *keys, const OmKey *key, const JsonbValue *value,
							 Oid array_type);

/* ---- callable.c: functions that say what to update ---- */

typedef struct OmCallable
{
	FmgrInfo function;
	char *name;			/* signature, for messages */
	Oid argument_type;	/* the type in which it takes the job */
	bool takes_context; /* as a second argument */

	/* Of its row in pg_proc; these change when the function is replaced */
	TransactionId xmin;
	ItemPointerData tid;
} OmCallable;

extern OmCallable *om_callable_prepare(FunctionCallInfo fcinfo, Oid function, Oid jobs);
extern Jsonb *om_callable_call(OmCallable *callable, Datum job, NullableDatum context);

/* ---- scalar_arguments.c: plain arguments of the calls over many jobs ---- */

extern bool om_boolean_argument(FunctionCallInfo fcinfo, int argno, const char *name);
extern void om_limit_argument(FunctionCallInfo fcinfo, int argno, OmFilter *filter);
extern int64 om_max_jobs_argument(FunctionCallInfo fcinfo, int argno);
extern int32 om_batch_size_argument(FunctionCallInfo fcinfo, int argno);
extern double om_interval_argument(FunctionCallInfo fcinfo, int argno, const char *name);
extern OmCallable *om_callable_argument(FunctionCallInfo fcinfo, int argno, Oid jobs);
extern NullableDatum om_context_argument(FunctionCallInfo fcinfo, int argno);

#endif /* OM_ARGUMENTS_H */
