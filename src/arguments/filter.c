/*
 * filter.c
 *		Filters: jsonb objects that say which jobs a call is about.
 *
 * The keys follow Oban.Job.query/1.  A filter becomes a set of conditions and a value
 * for each of them; conditions.c has their SQL.  Values are passed as parameters, and
 * never become text of a statement.  Calls json_keys.c and change_values.c; the
 * functions and the verbs use it.
 */
#include "arguments/arguments.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* How the value of a key is read */
typedef enum FilterKind
{
	ANY_OF, /* a scalar, or an array: the column equals one of its elements */
	OBJECT, /* the column contains it */
	TAGS,	/* the column contains all of them */
	TIMES,	/* a range of time */
	ALL		/* true: all jobs */
} FilterKind;

typedef struct FilterKey
{
	OmKey key;
	FilterKind kind;
	OmCondition condition; /* the first of the key's conditions */
} FilterKey;

#define TAKES_NUMBER "a whole number, or an array of them"
#define TAKES_NAME	 "a string, or an array of them"
#define TAKES_STATE	 "a state that the table has, such as \"available\", or an array of them"
#define TAKES_OBJECT "a JSON object that is not empty"
#define TAKES_TAGS	 "a tag, or an array of them"
#define TAKES_TIME                                                                                 \
	"an ISO 8601 time such as \"2030-01-31T12:00:00Z\", in UTC when it has no offset, "            \
	"in the years 0001 to 9999"
#define TAKES_TIMES "{\"after\": time, \"before\": time}, either or both"

/* clang-format off */
static const FilterKey filter_keys[] = {
	{{"id", TAKES_NUMBER}, ANY_OF, OM_ID_IS},
	{{"state", TAKES_STATE}, ANY_OF, OM_STATE_IS},
	{{"queue", TAKES_NAME}, ANY_OF, OM_QUEUE_IS},
	{{"worker", TAKES_NAME}, ANY_OF, OM_WORKER_IS},
	{{"priority", TAKES_NUMBER}, ANY_OF, OM_PRIORITY_IS},
	{{"attempt", TAKES_NUMBER}, ANY_OF, OM_ATTEMPT_IS},
	{{"max_attempts", TAKES_NUMBER}, ANY_OF, OM_MAX_ATTEMPTS_IS},
	{{"args", TAKES_OBJECT}, OBJECT, OM_ARGS_CONTAIN},
	{{"meta", TAKES_OBJECT}, OBJECT, OM_META_CONTAIN},
	{{"tags", TAKES_TAGS}, TAGS, OM_TAGS_CONTAIN},
	{{"inserted_at", TAKES_TIMES}, TIMES, OM_INSERTED_AFTER},
	{{"scheduled_at", TAKES_TIMES}, TIMES, OM_SCHEDULED_AFTER},
	{{"attempted_at", TAKES_TIMES}, TIMES, OM_ATTEMPTED_AFTER},
	{{"completed_at", TAKES_TIMES}, TIMES, OM_COMPLETED_AFTER},
	{{"cancelled_at", TAKES_TIMES}, TIMES, OM_CANCELLED_AFTER},
	{{"discarded_at", TAKES_TIMES}, TIMES, OM_DISCARDED_AFTER},
	{{"all", "true"}, ALL, OM_N_CONDITIONS},
};
/* clang-format on */

static const OmKeys filter_keys_allowed = {
	.what = "filter",
	.simplest = "{\"all\": true} is every job",
	.first = &filter_keys[0].key,
	.size = sizeof(FilterKey),
	.count = lengthof(filter_keys),
};

/* In the order of the two conditions of a time */
static const OmKey time_keys[] = {{"after", TAKES_TIME}, {"before", TAKES_TIME}};

/* The state while a filter, or an object of times in it, is read */
typedef struct Reading
{
	OmFilter *filter;
	Oid jobs;
	const FilterKey *key; /* the key whose times are read */
} Reading;

/*
 * Read a label of the table's own enum of states.
 */
static bool
read_state(const JsonbValue *value, Oid state_type, Datum *result)
{
	char *label;

	if (value->type != jbvString || value->val.string.len >= NAMEDATALEN)
		return false;
	label = pnstrdup(value->val.string.val, value->val.string.len);
	if (!SearchSysCacheExists2(ENUMTYPOIDNAME, ObjectIdGetDatum(state_type),
							   CStringGetDatum(label)))
		return false;
	/* enum_in refuses a label whose ALTER TYPE is not committed yet. */
	*result = OidFunctionCall2(F_ENUM_IN, CStringGetDatum(label), ObjectIdGetDatum(state_type));
	return true;
}

/*
 * Read a value to compare with a column of that type.  Sets *exists to false when the
 * type cannot hold the value, so that no job can have it.  Returns false when the key
 * does not take the value.
 */
static bool
read_scalar(const JsonbValue *value, Oid type, Datum *result, bool *exists)
{
	int64 number;

	*exists = true;
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			if (!om_value_whole_number(value, &number, exists))
				return false;
			if (type == INT2OID)
				*exists = *exists && number >= PG_INT16_MIN && number <= PG_INT16_MAX;
			else if (type == INT4OID)
				*exists = *exists && number >= PG_INT32_MIN && number <= PG_INT32_MAX;
			*result = type == INT8OID ? Int64GetDatum(number) : Int32GetDatum((int32) number);
			return true;

		case TEXTOID:
		case VARCHAROID:
			if (value->type != jbvString)
				return false;
			*result = PointerGetDatum(
				cstring_to_text_with_len(value->val.string.val, value->val.string.len));
			return true;

		default:
			return read_state(value, type, result);
	}
}

static bool
is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data) &&
		   !JsonContainerIsScalar(value->val.binary.data);
}

static bool
is_object_not_empty(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data) &&
		   JsonContainerSize(value->val.binary.data) > 0;
}

/*
 * Read a scalar, or an array of scalars.  A single value becomes an equality, because
 * more indexes can be used for that.  When no value exists in the column's type, the
 * result is an empty array, which matches no job.
 */
static Datum
read_any(const FilterKey *key, const JsonbValue *value, Oid type, OmCondition *condition)
{
	int count = is_array(value) ? JsonContainerSize(value->val.binary.data) : 1;
	Datum *values = palloc(Max(count, 1) * sizeof(Datum));
	int nvalues = 0;
	bool exists;
	int16 length;
	bool by_value;
	char alignment;

	if (is_array(value))
	{
		JsonbIterator *iterator = JsonbIteratorInit(value->val.binary.data);
		JsonbIteratorToken token;
		JsonbValue element;

		if (count == 0)
			om_value_refuse(&key->key, value);
		while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
		{
			CHECK_FOR_INTERRUPTS();
			if (token != WJB_ELEM)
				continue;
			if (!read_scalar(&element, type, &values[nvalues], &exists))
				om_value_refuse(&key->key, &element);
			nvalues += exists;
		}
	}
	else
	{
		if (!read_scalar(value, type, &values[0], &exists))
			om_value_refuse(&key->key, value);
		nvalues += exists;
	}

	*condition = key->condition;
	if (nvalues == 1)
		return values[0];
	(*condition)++;
	get_typlenbyvalalign(type, &length, &by_value, &alignment);
	return PointerGetDatum(construct_array(values, nvalues, type, length, by_value, alignment));
}

/*
 * Read one tag or many, normalised as the tags of an update are.  The array gets the
 * type of the column, because with a cast of the column no index on it could be used.
 */
static Datum
read_tags(const OmKey *key, const JsonbValue *value, Oid type)
{
	ArrayType *tags;
	JsonbValue array = *value;

	if (value->type == jbvString)
	{
		JsonbInState state = {0};

		pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
		pushJsonbValue(&state, WJB_ELEM, &array);
		pushJsonbValue(&state, WJB_END_ARRAY, NULL);
		JsonbToJsonbValue(JsonbValueToJsonb(state.result), &array);
	}
	if (!om_value_tags(&array, &tags) || ArrayGetNItems(ARR_NDIM(tags), ARR_DIMS(tags)) == 0)
		om_value_refuse(key, value);
	ARR_ELEMTYPE(tags) = get_element_type(type);
	return PointerGetDatum(tags);
}

static void
add_condition(OmFilter *filter, OmCondition condition, Datum value)
{
	filter->conditions |= OM_CONDITION_BIT(condition);
	filter->values[condition] = value;
}

static void
read_time(int number, const JsonbValue *value, void *state)
{
	Reading *reading = state;
	Timestamp time;

	if (!om_value_time(value, &time))
	{
		OmKey key = time_keys[number];

		key.name = psprintf("%s.%s", reading->key->key.name, key.name);
		om_value_refuse(&key, value);
	}
	add_condition(reading->filter, reading->key->condition + number, TimestampGetDatum(time));
}

static void
read_times(const FilterKey *key, const JsonbValue *value, Reading *reading)
{
	OmKeys keys = {
		.what = psprintf("\"%s\" of the filter", key->key.name),
		.first = time_keys,
		.size = sizeof(OmKey),
		.count = lengthof(time_keys),
	};

	if (!is_object_not_empty(value))
		om_value_refuse(&key->key, value);
	reading->key = key;
	om_object_read(value->val.binary.data, &keys, read_time, reading);
}

static void
read_key(int number, const JsonbValue *value, void *state)
{
	const FilterKey *key = &filter_keys[number];
	Reading *reading = state;
	OmFilter *filter = reading->filter;
	OmCondition condition = key->condition;
	Datum result;

	switch (key->kind)
	{
		case ALL:
			if (value->type != jbvBool || !value->val.boolean)
				om_value_refuse(&key->key, value);
			break;

		case OBJECT:
			if (!is_object_not_empty(value))
				om_value_refuse(&key->key, value);
			result = JsonbPGetDatum(JsonbValueToJsonb(unconstify(JsonbValue *, value)));
			add_condition(filter, condition, result);
			break;

		case TAGS:
			add_condition(filter, condition,
						  read_tags(&key->key, value, om_condition_type(condition, reading->jobs)));
			break;

		case TIMES:
			read_times(key, value, reading);
			break;

		case ANY_OF:
			result = read_any(key, value, om_condition_type(condition, reading->jobs), &condition);
			add_condition(filter, condition, result);
			break;
	}
}

/*
 * Read a filter for a jobs table that is locked.  A NULL json stands for SQL
 * NULL.
 *
 * Errors: NULL (22004); not an object, an empty one, a key that is not allowed, a
 * value that its key does not take (22023); a time that PostgreSQL refuses
 * (22007, 22008); those of om_jobs_table_shape.
 */
void
om_filter_read(OmFilter *filter, const Jsonb *json, Oid jobs)
{
	Reading reading = {.filter = filter, .jobs = jobs};
	OmTableShape shape;

	filter->conditions = 0;
	om_object_check(json, &filter_keys_allowed);
	if (JB_ROOT_COUNT(json) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("filter must not be empty"),
				 errhint("Pass a JSON object; %s.", filter_keys_allowed.simplest)));

	om_jobs_table_shape(jobs, &shape); /* refuses tables without the columns */
	om_object_read(unconstify(JsonbContainer *, &json->root), &filter_keys_allowed, read_key,
				   &reading);
}

/*
 * The filter for the jobs of an array of ids.
 */
void
om_filter_by_ids(OmFilter *filter, Datum ids)
{
	filter->conditions = 0;
	add_condition(filter, OM_ID_IS_ANY, ids);
}

/*
 * Restrict a filter to the jobs of an array of ids, which were found by it.  The array
 * takes the place of a range of ids, and of a limit.
 */
void
om_filter_restrict(OmFilter *filter, Datum ids)
{
	filter->conditions &= ~(OM_CONDITION_BIT(OM_ID_FROM) | OM_CONDITION_BIT(OM_ID_UP_TO) |
							OM_CONDITION_BIT(OM_LIMIT));
	add_condition(filter, OM_ID_IS_ANY, ids);
}

/*
 * Add a condition on the ids to a filter, or limit how many jobs it finds, the lowest
 * ids first.
 */
void
om_filter_add(OmFilter *filter, OmCondition condition, int64 value)
{
	add_condition(filter, condition, Int64GetDatum(value));
}

/*
 * The values of the filter's conditions, in the order of OmCondition: the first
 * parameters of a query with these conditions.  Returns their number.
 */
int
om_filter_params(const OmFilter *filter, Datum *params)
{
	int count = 0;

	for (int condition = 0; condition < OM_N_CONDITIONS; condition++)
	{
		if (filter->conditions & OM_CONDITION_BIT(condition))
			params[count++] = filter->values[condition];
	}
	return count;
}
