/*
 * filter.c
 *		Filters: jsonb objects that say which jobs a call is about.
 *
 * The keys follow Oban.Job.query/1.  A filter becomes a set of conditions and a value
 * for each of them; conditions.c has their SQL.  The filter under a key "not" is the
 * next level of conditions.  Values are passed as parameters, and never become text of a
 * statement.  Calls json_keys.c, filter_values.c and change_values.c; the functions use
 * it.
 */
#include "arguments/arguments.h"

#include "utils/builtins.h"

/* How the value of a key is read */
typedef enum FilterKind
{
	ANY_OF, /* a scalar, or an array: the column equals one of its elements */
	OBJECT, /* the column contains it */
	TEXTS,	/* the column contains all of them, or one of them */
	PART,	/* a string, which the column contains */
	TIMES,	/* a range of time */
	NOT,	/* a filter, which the job does not match */
	ALL		/* true: all jobs */
} FilterKind;

typedef struct FilterKey
{
	OmKey key;
	FilterKind kind;
	OmCondition condition; /* the first of the key's conditions */
} FilterKey;

#define TAKES_ID	 "a whole number, which may be a string of digits, or an array of them"
#define TAKES_NUMBER "a whole number, or an array of them"
#define TAKES_NAME	 "a string, or an array of them"
#define TAKES_STATE	 "a state that the table has, such as \"available\", or an array of them"
#define TAKES_OBJECT "a JSON object that is not empty"
#define TAKES_TEXTS	 "a string that is not blank, or an array of them"
#define TAKES_PART	 "a string that is not empty"
#define TAKES_FILTER "a filter that is not empty"
#define TAKES_TIME                                                                                 \
	"an ISO 8601 time such as \"2030-01-31T12:00:00Z\", in UTC when it has no offset, "            \
	"in the years 0001 to 9999"
#define TAKES_TIMES "{\"after\": time, \"before\": time}, either or both"

/* clang-format off */
static const FilterKey filter_keys[] = {
	{OM_NUMBER_KEY("id", TAKES_ID), ANY_OF, OM_ID_IS},
	{OM_KEY("state", TAKES_STATE), ANY_OF, OM_STATE_IS},
	{OM_KEY("queue", TAKES_NAME), ANY_OF, OM_QUEUE_IS},
	{OM_KEY("worker", TAKES_NAME), ANY_OF, OM_WORKER_IS},
	{OM_NUMBER_KEY("priority", TAKES_NUMBER), ANY_OF, OM_PRIORITY_IS},
	{OM_NUMBER_KEY("attempt", TAKES_NUMBER), ANY_OF, OM_ATTEMPT_IS},
	{OM_NUMBER_KEY("max_attempts", TAKES_NUMBER), ANY_OF, OM_MAX_ATTEMPTS_IS},
	{OM_KEY("args", TAKES_OBJECT), OBJECT, OM_ARGS_CONTAIN},
	{OM_KEY("meta", TAKES_OBJECT), OBJECT, OM_META_CONTAIN},
	{OM_KEY("tags", TAKES_TEXTS), TEXTS, OM_TAGS_CONTAIN},
	{OM_KEY("attempted_by", TAKES_TEXTS), TEXTS, OM_ATTEMPTED_BY_ANY},
	{OM_KEY("error", TAKES_PART), PART, OM_ERROR_CONTAINS},
	{OM_KEY("inserted_at", TAKES_TIMES), TIMES, OM_INSERTED_AFTER},
	{OM_KEY("scheduled_at", TAKES_TIMES), TIMES, OM_SCHEDULED_AFTER},
	{OM_KEY("attempted_at", TAKES_TIMES), TIMES, OM_ATTEMPTED_AFTER},
	{OM_KEY("completed_at", TAKES_TIMES), TIMES, OM_COMPLETED_AFTER},
	{OM_KEY("cancelled_at", TAKES_TIMES), TIMES, OM_CANCELLED_AFTER},
	{OM_KEY("discarded_at", TAKES_TIMES), TIMES, OM_DISCARDED_AFTER},
	{OM_KEY("not", TAKES_FILTER), NOT, OM_NOT},
	{OM_KEY("all", "true"), ALL, OM_N_LEVEL_CONDITIONS},
};
/* clang-format on */

static const OmKeys filter_keys_allowed = {
	.what = "filter",
	.simplest = "{\"all\": true} is every job",
	.unknown = "A key of the jobs' arguments belongs under \"args\".",
	.first = &filter_keys[0].key,
	.size = sizeof(FilterKey),
	.count = lengthof(filter_keys),
};

/* In the order of the two conditions of a time */
static const OmKey time_keys[] = {OM_KEY("after", TAKES_TIME), OM_KEY("before", TAKES_TIME)};

/* A level of a filter, or an object of times in it, that is being read */
typedef struct Reading
{
	OmFilter *filter;
	int level;
	Oid jobs;
	OmKeys keys;		   /* the keys that the object may have */
	OmCondition condition; /* of an object of times: the first of its conditions */
} Reading;

static void read_key(int number, const JsonbValue *value, void *state);

/*
 * Begin to read an object that stands under a key of another one.
 */
static Reading
read_under(const Reading *outer, const OmKey *key, const OmKeys *keys)
{
	Reading reading = *outer;

	reading.keys = *keys;
	reading.keys.path =
		psprintf("%s%s.", outer->keys.path != NULL ? outer->keys.path : "", key->name);
	return reading;
}

static void
put(Reading *reading, OmCondition condition, Datum value)
{
	om_filter_put(reading->filter, reading->level, condition, value);
}

static bool
is_object_not_empty(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data) &&
		   JsonContainerSize(value->val.binary.data) > 0;
}

static void
read_time(int number, const JsonbValue *value, void *state)
{
	Reading *reading = state;
	Timestamp time;

	if (!om_value_time(value, &time))
		om_value_refuse(&reading->keys, &time_keys[number], value);
	put(reading, reading->condition + number, TimestampGetDatum(time));
}

static void
read_times(const FilterKey *key, const JsonbValue *value, const Reading *outer)
{
	OmKeys keys = {
		.what = psprintf("\"%s\" of the filter", key->key.name),
		.first = time_keys,
		.size = sizeof(OmKey),
		.count = lengthof(time_keys),
	};
	Reading reading = read_under(outer, &key->key, &keys);

	reading.condition = key->condition;
	om_object_read(value->val.binary.data, &reading.keys, read_time, &reading);
}

/*
 * Read the filter under "not" into the next level.
 */
static void
read_not(const FilterKey *key, const JsonbValue *value, Reading *outer)
{
	Reading reading = read_under(outer, &key->key, &filter_keys_allowed);

	if (++reading.level == OM_N_LEVELS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("filter is nested too deeply"),
				 errdetail("A filter may hold a filter under \"not\", and that one "
						   "another, but no more than %d.",
						   OM_N_LEVELS - 1)));
	put(outer, OM_NOT, (Datum) 0);
	om_object_read(value->val.binary.data, &reading.keys, read_key, &reading);
}

static void
read_key(int number, const JsonbValue *value, void *state)
{
	Reading *reading = state;
	const FilterKey *key = &filter_keys[number];
	bool takes_object = (key->kind == OBJECT || key->kind == TIMES || key->kind == NOT);
	OmCondition condition = key->condition;
	Datum result;
	bool one;

	if ((takes_object && !is_object_not_empty(value)) ||
		(key->kind == ALL && !(value->type == jbvBool && value->val.boolean)) ||
		(key->kind == PART && !(value->type == jbvString && value->val.string.len > 0)))
		om_value_refuse(&reading->keys, &key->key, value);

	switch (key->kind)
	{
		case ALL:
			break;

		case OBJECT:
			put(reading, condition,
				JsonbPGetDatum(JsonbValueToJsonb(unconstify(JsonbValue *, value))));
			break;

		case TEXTS:
			put(reading, condition,
				om_filter_texts(&reading->keys, &key->key, value,
								om_condition_type(condition, reading->jobs)));
			break;

		case PART:
			put(reading, condition,
				PointerGetDatum(
					cstring_to_text_with_len(value->val.string.val, value->val.string.len)));
			break;

		case TIMES:
			read_times(key, value, reading);
			break;

		case NOT:
			read_not(key, value, reading);
			break;

		case ANY_OF:
			result = om_filter_any(&reading->keys, &key->key, value,
								   om_condition_type(condition, reading->jobs),
								   condition == OM_ID_IS, &one);
			/* The condition with an array stands after the one with a single value. */
			put(reading, one ? condition : condition + 1, result);
			break;
	}
}

/*
 * Read a filter for a jobs table that is locked.  A NULL json stands for SQL
 * NULL.
 *
 * Errors: NULL (22004); not an object, an empty one, a key that is not allowed, a
 * value that its key does not take, more "not" than OM_N_LEVELS allows (22023); a time
 * that PostgreSQL refuses (22007, 22008); those of om_jobs_table_shape.
 */
void
om_filter_read(OmFilter *filter, const Jsonb *json, Oid jobs)
{
	Reading reading = {.filter = filter, .jobs = jobs, .keys = filter_keys_allowed};
	OmTableShape shape;

	filter->conditions = (OmConditionSet){{0}};
	om_object_check(json, &filter_keys_allowed);
	if (JB_ROOT_COUNT(json) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("filter must not be empty"),
				 errhint("Pass a JSON object; %s.", filter_keys_allowed.simplest)));

	om_jobs_table_shape(jobs, &shape); /* refuses tables without the columns */
	om_object_read(unconstify(JsonbContainer *, &json->root), &filter_keys_allowed, read_key,
				   &reading);
}
