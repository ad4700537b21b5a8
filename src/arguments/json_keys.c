/*
 * json_keys.c
 *		Reads the keys of JSON objects (changes and filters), and raises the errors about
 *		keys and values.
 *
 * Calls change_values.c. filter.c and changes.c define the keys and call it; the
 * functions get jsonb arguments with it, and the guard reads numbers.
 */
#include "arguments/arguments.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/varlena.h"

/* How much of a refused value an error shows, in bytes */
#define SHOWN_VALUE_LENGTH 60

/* How many letters a misspelt key may be away from the key that a hint names */
#define MOST_WRONG_LETTERS 4

static const OmKey *
nth_key(const OmKeys *keys, int n)
{
	return (const OmKey *) ((const char *) keys->first + n * keys->size);
}

/*
 * The number of the key of that name, or -1.
 */
static int
find_key(const OmKeys *keys, const JsonbValue *name)
{
	for (int i = 0; i < keys->count; i++)
	{
		const char *key = nth_key(keys, i)->name;

		if ((int) strlen(key) == name->val.string.len &&
			memcmp(key, name->val.string.val, name->val.string.len) == 0)
			return i;
	}
	return -1;
}

/*
 * The key whose name is most like that one; NULL when none is.  As in PostgreSQL's own
 * hints, at least half of the letters must be right.
 */
static const OmKey *
find_closest(const OmKeys *keys, const JsonbValue *name)
{
	int limit = Min(MOST_WRONG_LETTERS, name->val.string.len / 2);
	const OmKey *closest = NULL;

	for (int i = 0; i < keys->count; i++)
	{
		const OmKey *key = nth_key(keys, i);
		int distance =
			varstr_levenshtein_less_equal(name->val.string.val, name->val.string.len, key->name,
										  strlen(key->name), 1, 1, 1, limit, true);

		if (distance <= limit)
		{
			closest = key;
			limit = distance - 1;
		}
	}
	return closest;
}

/*
 * List the keys allowed, after a hint of its own for the key that is not, or NULL.
 */
static int
hint_at_keys(const OmKeys *keys, const char *first)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < keys->count; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", nth_key(keys, i)->name);
	return errhint("%s%sThe keys allowed are %s.", first != NULL ? first : "",
				   first != NULL ? " " : "", list.data);
}

/*
 * The beginning of a string, for an error message.
 */
static char *
shown(const char *string, int len)
{
	int clipped = pg_mbcliplen(string, len, SHOWN_VALUE_LENGTH);

	return psprintf("%.*s%s", clipped, string, clipped < len ? "..." : "");
}

static char *
shown_value(const JsonbValue *value)
{
	Jsonb *json = JsonbValueToJsonb(unconstify(JsonbValue *, value));
	char *string = JsonbToCString(NULL, &json->root, VARSIZE(json));

	return shown(string, strlen(string));
}

static const char *
path_of(const OmKeys *keys)
{
	return keys->path != NULL ? keys->path : "";
}

/*
 * Is the value a string that holds a whole number?
 */
static bool
is_number_as_text(const JsonbValue *value)
{
	const char *string = value->val.string.val;
	int len = value->val.string.len;
	int digits = len > 0 && *string == '-' ? 1 : 0;

	for (int i = digits; i < len; i++)
	{
		if (string[i] < '0' || string[i] > '9')
			return false;
	}
	return len > digits;
}

/*
 * Raise the error for a value, or an element of a value, that the key does not take.
 */
void
om_value_refuse(const OmKeys *keys, const OmKey *key, const JsonbValue *value)
{
	bool is_text = key->number && value->type == jbvString;
	bool quoted = is_text && is_number_as_text(value);

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for \"%s%s\": %s", path_of(keys), key->name, shown_value(value)),
			 quoted	   ? errdetail("The value is a string that holds a number.")
			 : is_text ? errdetail("The string is not a whole number.")
					   : 0,
			 errhint("%sThe key \"%s%s\" takes %s.", quoted ? "Write it without quotes. " : "",
					 path_of(keys), key->name, key->takes)));
}

/* A key whose value is being read */
typedef struct ReadingKey
{
	const OmKeys *keys;
	const OmKey *key;
} ReadingKey;

/*
 * When one of PostgreSQL's input functions refused the value of a key, the hint says
 * what the key takes.  It replaces the function's hint about settings.  Our own errors
 * (22023) keep their hints.
 */
static void
value_error_callback(void *arg)
{
	const ReadingKey *reading = arg;
	int code = geterrcode();

	if (ERRCODE_TO_CATEGORY(code) == ERRCODE_DATA_EXCEPTION &&
		code != ERRCODE_INVALID_PARAMETER_VALUE)
		errhint("The key \"%s%s\" takes %s.", path_of(reading->keys), reading->key->name,
				reading->key->takes);
}

/*
 * Raise the error for a key that is not allowed.
 */
static void
refuse_key(const OmKeys *keys, const JsonbValue *name)
{
	const OmKey *closest = find_closest(keys, name);

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unrecognized key \"%s\" in %s",
					shown(name->val.string.val, name->val.string.len), keys->what),
			 hint_at_keys(keys, closest != NULL
									? psprintf("Perhaps you meant the key \"%s\".", closest->name)
									: keys->unknown)));
}

/*
 * Call "read" for each key of an object, with the number of the key and its value.
 * "read" raises an error (om_value_refuse) when the key does not take the value.  It may
 * read an object in the value by this function: errors then name the inner key.
 *
 * Errors: a key that is not allowed (22023), and what "read" raises.
 */
void
om_object_read(JsonbContainer *object, const OmKeys *keys, OmReadValue read, void *state)
{
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue name;
	ErrorContextCallback *caller = error_context_stack;
	ReadingKey reading = {.keys = keys};
	ErrorContextCallback callback = {
		.previous = caller,
		.callback = value_error_callback,
		.arg = &reading,
	};

	if (caller != NULL && caller->callback == value_error_callback)
		callback.previous = caller->previous;
	while ((token = JsonbIteratorNext(&iterator, &name, true)) != WJB_DONE)
	{
		JsonbValue value;
		int key;

		if (token != WJB_KEY)
			continue;
		key = find_key(keys, &name);
		if (key < 0)
			refuse_key(keys, &name);

		(void) JsonbIteratorNext(&iterator, &value, true);
		reading.key = nth_key(keys, key);
		error_context_stack = &callback;
		read(key, &value, state);
		error_context_stack = caller;
	}
}

/*
 * An argument that is jsonb, or NULL where it is SQL NULL.
 */
const Jsonb *
om_jsonb_argument(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : PG_GETARG_JSONB_P(argno);
}

/*
 * Is the value a string that holds the text of an object?  Some drivers and libraries
 * turn the text of a parameter into JSON once more.
 */
static bool
is_object_as_text(const Jsonb *json)
{
	JsonbValue value;
	int i = 0;

	if (!JB_ROOT_IS_SCALAR(json) ||
		!JsonbExtractScalar(unconstify(JsonbContainer *, &json->root), &value) ||
		value.type != jbvString)
		return false;
	while (i < value.val.string.len && om_is_blank(value.val.string.val[i]))
		i++;
	return i < value.val.string.len && value.val.string.val[i] == '{';
}

/*
 * Check that an argument is an object; a NULL json stands for SQL NULL.
 *
 * Errors: NULL (22004); not an object (22023).
 */
void
om_object_check(const Jsonb *json, const OmKeys *keys)
{
	if (json == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", keys->what),
				 errhint("Pass a JSON object; %s.", keys->simplest)));
	if (!JB_ROOT_IS_OBJECT(json))
	{
		bool text = is_object_as_text(json);

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object", keys->what),
				 text ? errdetail("It is a JSON string that itself holds JSON.") : 0,
				 text ? errhint("Pass the object, not its text.") : hint_at_keys(keys, NULL)));
	}
}

/*
 * Read a whole number.  *fits says whether an int64 can hold it; if not, *number is 0.
 * Returns false when the value is not a whole number.
 */
bool
om_value_whole_number(const JsonbValue *value, int64 *number, bool *fits)
{
	Datum numeric;

	if (value->type != jbvNumeric)
		return false;
	numeric = NumericGetDatum(value->val.numeric);
	if (DatumGetInt32(DirectFunctionCall1(numeric_min_scale, numeric)) > 0)
		return false;

	/* Compare as numeric, not as text, because the text of 1e131071 is long. */
	*fits = DatumGetBool(DirectFunctionCall2(numeric_ge, numeric,
											 NumericGetDatum(int64_to_numeric(PG_INT64_MIN)))) &&
			DatumGetBool(DirectFunctionCall2(numeric_le, numeric,
											 NumericGetDatum(int64_to_numeric(PG_INT64_MAX))));
	*number = *fits ? DatumGetInt64(DirectFunctionCall1(numeric_int8, numeric)) : 0;
	return true;
}
