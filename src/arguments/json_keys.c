/*
 * json_keys.c
 *		Reads the keys of JSON objects (changes and filters), and raises the errors about
 *		keys and values.
 *
 * Calls only PostgreSQL. filter.c and changes.c define the keys and call it; the
 * functions get jsonb arguments with it, and the guard reads numbers.
 */
#include "arguments/arguments.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

/* How much of a refused value an error shows, in bytes */
#define SHOWN_VALUE_LENGTH 60

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

static int
hint_at_keys(const OmKeys *keys)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < keys->count; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", nth_key(keys, i)->name);
	return errhint("The keys allowed are %s.", list.data);
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

/*
 * Raise the error for a value, or an element of a value, that the key does not take.
 */
void
om_value_refuse(const OmKey *key, const JsonbValue *value)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("invalid value for \"%s\": %s", key->name, shown_value(value)),
					errhint("The key \"%s\" takes %s.", key->name, key->takes)));
}

/*
 * When one of PostgreSQL's input functions refused the value of a key, the hint says
 * what the key takes.  It replaces the function's hint about settings.  Our own errors
 * (22023) keep their hints.
 */
static void
value_error_callback(void *arg)
{
	const OmKey *key = arg;
	int code = geterrcode();

	if (ERRCODE_TO_CATEGORY(code) == ERRCODE_DATA_EXCEPTION &&
		code != ERRCODE_INVALID_PARAMETER_VALUE)
		errhint("The key \"%s\" takes %s.", key->name, key->takes);
}

/*
 * Call "read" for each key of an object, with the number of the key and its value.
 * "read" raises an error (om_value_refuse) when the key does not take the value.
 *
 * Errors: a key that is not allowed (22023), and what "read" raises.
 */
void
om_object_read(JsonbContainer *object, const OmKeys *keys, OmReadValue read, void *state)
{
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue name;

	while ((token = JsonbIteratorNext(&iterator, &name, true)) != WJB_DONE)
	{
		ErrorContextCallback callback = {
			.previous = error_context_stack,
			.callback = value_error_callback,
		};
		JsonbValue value;
		int key;

		if (token != WJB_KEY)
			continue;
		key = find_key(keys, &name);
		if (key < 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("unrecognized key \"%s\" in %s",
								   shown(name.val.string.val, name.val.string.len), keys->what),
							hint_at_keys(keys)));

		(void) JsonbIteratorNext(&iterator, &value, true);
		callback.arg = unconstify(OmKey *, nth_key(keys, key));
		error_context_stack = &callback;
		read(key, &value, state);
		error_context_stack = callback.previous;
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
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s must be a JSON object", keys->what), hint_at_keys(keys)));
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
