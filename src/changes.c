/*
 * changes.c
 *		The checking of changes, the jsonb object that says what to update.
 *
 * Everything that may be updated stands in om_change_keys: what is read here,
 * what the errors say is allowed, and what queries.c assigns come from it.
 */
#include "oban_manage.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

/* How much of a refused value an error shows, in bytes */
#define SHOWN_VALUE_LENGTH 60

#define MAX_PRIORITY 9

/*
 * Read a JSON object, which replaces the whole value.
 */
static bool
read_object(const JsonbValue *value, Oid jobs, Datum *result)
{
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		return false;
	*result = JsonbPGetDatum(JsonbValueToJsonb(unconstify(JsonbValue *, value)));
	return true;
}

static bool
read_whole_number(const JsonbValue *value, int32 least, int32 most, Datum *result)
{
	bool overflow = false;
	int32 number;

	/* numeric_int4 rounds, so a fraction shows in the normalized text only. */
	if (value->type != jbvNumeric || strchr(numeric_normalize(value->val.numeric), '.') != NULL)
		return false;
	number = numeric_int4_opt_error(value->val.numeric, &overflow);
	*result = Int32GetDatum(number);
	return !overflow && number >= least && number <= most;
}

static bool
read_max_attempts(const JsonbValue *value, Oid jobs, Datum *result)
{
	return read_whole_number(value, 1, om_jobs_table_max_integer(jobs, "max_attempts"), result);
}

static bool
read_priority(const JsonbValue *value, Oid jobs, Datum *result)
{
	return read_whole_number(value, 0, MAX_PRIORITY, result);
}

/*
 * Read the name of a queue or a worker.
 */
static bool
read_name(const JsonbValue *value, Oid jobs, Datum *result)
{
	int i = 0;

	if (value->type != jbvString)
		return false;
	while (i < value->val.string.len && om_is_blank(value->val.string.val[i]))
		i++;
	*result =
		PointerGetDatum(cstring_to_text_with_len(value->val.string.val, value->val.string.len));
	return i < value->val.string.len;
}

static bool
read_scheduled_at(const JsonbValue *value, Oid jobs, Datum *result)
{
	Timestamp time;

	if (!om_value_time(value, &time))
		return false;
	*result = TimestampGetDatum(time);
	return true;
}

static bool
read_schedule_in(const JsonbValue *value, Oid jobs, Datum *result)
{
	Timestamp time;

	if (!om_value_time_from_now(value, &time))
		return false;
	*result = TimestampGetDatum(time);
	return true;
}

static bool
read_tags(const JsonbValue *value, Oid jobs, Datum *result)
{
	ArrayType *tags;

	if (!om_value_tags(value, &tags))
		return false;
	*result = PointerGetDatum(tags);
	return true;
}

/* clang-format off */
const OmChangeKeyInfo om_change_keys[OM_N_CHANGE_KEYS] = {
	[OM_ARGS] = {"args", OM_ARGS, JSONBOID, JSONBARRAYOID, read_object, "a JSON object"},
	[OM_MAX_ATTEMPTS] = {"max_attempts", OM_MAX_ATTEMPTS, INT4OID, INT4ARRAYOID, read_max_attempts,
						 "a whole number of at least 1 that its column can hold"},
	[OM_META] = {"meta", OM_META, JSONBOID, JSONBARRAYOID, read_object, "a JSON object"},
	[OM_PRIORITY] = {"priority", OM_PRIORITY, INT4OID, INT4ARRAYOID, read_priority,
					 "a whole number from 0 to 9"},
	[OM_QUEUE] = {"queue", OM_QUEUE, TEXTOID, TEXTARRAYOID, read_name,
				  "a string that is not blank"},
	[OM_SCHEDULED_AT] = {"scheduled_at", OM_SCHEDULED_AT, TIMESTAMPOID, TIMESTAMPARRAYOID,
						 read_scheduled_at,
						 "an ISO 8601 time such as \"2030-01-31T12:00:00Z\", "
						 "in UTC when it has no offset"},
	[OM_TAGS] = {"tags", OM_TAGS, TEXTARRAYOID, TEXTARRAYOID, read_tags, "an array of strings"},
	[OM_WORKER] = {"worker", OM_WORKER, TEXTOID, TEXTARRAYOID, read_name,
				   "a string that is not blank"},
	[OM_SCHEDULE_IN] = {"schedule_in", OM_SCHEDULED_AT, TIMESTAMPOID, TIMESTAMPARRAYOID,
						read_schedule_in,
						"a number of seconds, or an interval such as \"5 minutes\""},
};
/* clang-format on */

static const OmChangeKeyInfo *
find_key(const JsonbValue *name)
{
	for (int i = 0; i < OM_N_CHANGE_KEYS; i++)
	{
		const char *key = om_change_keys[i].name;

		if ((int) strlen(key) == name->val.string.len &&
			memcmp(key, name->val.string.val, name->val.string.len) == 0)
			return &om_change_keys[i];
	}
	return NULL;
}

static char *
allowed_keys(void)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < OM_N_CHANGE_KEYS; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", om_change_keys[i].name);
	return list.data;
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
 * An input function of PostgreSQL's refused the value of a key: say what the
 * key takes, instead of the function's hint at its settings.
 */
static void
value_error_callback(void *arg)
{
	const OmChangeKeyInfo *key = arg;

	if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_DATA_EXCEPTION)
		errhint("The key \"%s\" takes %s.", key->name, key->takes);
}

static Datum
read_value(const OmChangeKeyInfo *key, const JsonbValue *value, Oid jobs)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = value_error_callback,
		.arg = unconstify(OmChangeKeyInfo *, key),
	};
	Datum result = (Datum) 0;
	bool fits;

	error_context_stack = &callback;
	fits = key->read(value, jobs, &result);
	error_context_stack = callback.previous;

	if (!fits)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for \"%s\": %s", key->name, shown_value(value)),
						errhint("The key \"%s\" takes %s.", key->name, key->takes)));
	return result;
}

/*
 * Check changes for a jobs table.  A NULL json stands for SQL NULL.
 *
 * Errors: NULL (22004); no object, a key that is not allowed, a value that its
 * key does not take, both scheduled_at and schedule_in (22023); a time or span
 * that PostgreSQL refuses (22007, 22008, 22015).
 */
void
om_changes_check(OmChanges *changes, const Jsonb *json, Oid jobs)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue name;
	const OmChangeKeyInfo *scheduled_by = NULL;

	changes->columns = 0;

	if (json == NULL)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("changes must not be null"),
						errhint("Pass a JSON object; {} changes nothing.")));
	if (!JB_ROOT_IS_OBJECT(json))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("changes must be a JSON object"),
				 errhint("The keys allowed are %s.", allowed_keys())));

	iterator = JsonbIteratorInit(unconstify(JsonbContainer *, &json->root));
	while ((token = JsonbIteratorNext(&iterator, &name, true)) != WJB_DONE)
	{
		const OmChangeKeyInfo *key;
		JsonbValue value;

		if (token != WJB_KEY)
			continue;
		key = find_key(&name);
		if (key == NULL)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("unrecognized key \"%s\" in changes",
								   shown(name.val.string.val, name.val.string.len)),
							errhint("The keys allowed are %s.", allowed_keys())));

		(void) JsonbIteratorNext(&iterator, &value, true);
		if (key->column == OM_SCHEDULED_AT)
		{
			if (scheduled_by != NULL)
				ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
								errmsg("\"%s\" and \"%s\" cannot be given together",
									   scheduled_by->name, key->name),
								errdetail("Each says when the job should run."),
								errhint("Give one of them.")));
			scheduled_by = key;
		}
		changes->values[key->column] = read_value(key, &value, jobs);
		changes->columns |= OM_COLUMN_BIT(key->column);
	}
}

/*
 * Do the changes name a schedule that has come, so that a scheduled job
 * becomes available?  queries.c compares with the same now().
 */
bool
om_changes_make_due(const OmChanges *changes)
{
	return (changes->columns & OM_COLUMN_BIT(OM_SCHEDULED_AT)) &&
		   DatumGetTimestamp(changes->values[OM_SCHEDULED_AT]) <=
			   GetCurrentTransactionStartTimestamp();
}
