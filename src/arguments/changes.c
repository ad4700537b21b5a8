/*
 * changes.c
 *		Checks changes: the jsonb object that says what to update.
 *
 * The table "keys" has each key, the values that it takes, and the function that reads
 * them.  Errors list the keys from this table.  The columns that may be updated are in
 * jobs/columns.c.  Calls json_keys.c and change_values.c; the functions and the verbs
 * use it.
 */
#include "arguments/arguments.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"

#define MAX_PRIORITY 9

/*
 * Read a JSON object.  It will replace the whole value of the column.
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
	int64 number;
	bool fits;

	if (!om_value_whole_number(value, &number, &fits) || !fits || number < least || number > most)
		return false;
	*result = Int32GetDatum((int32) number);
	return true;
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
	if (value->type != jbvString || om_value_is_blank(value))
		return false;
	*result =
		PointerGetDatum(cstring_to_text_with_len(value->val.string.val, value->val.string.len));
	return true;
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

/* A key of changes */
typedef struct ChangeKey
{
	OmKey key;
	OmUpdateColumn column; /* the column that it changes */
	/* Reads a value for the jobs table; returns false when the key does not take it. */
	bool (*read)(const JsonbValue *value, Oid jobs, Datum *result);
} ChangeKey;

/* clang-format off */
static const ChangeKey keys[] = {
	{OM_KEY("args", "a JSON object"), OM_ARGS, read_object},
	{OM_NUMBER_KEY("max_attempts", "a whole number of at least 1 that its column can hold"),
		OM_MAX_ATTEMPTS, read_max_attempts},
	{OM_KEY("meta", "a JSON object"), OM_META, read_object},
	{OM_NUMBER_KEY("priority", "a whole number from 0 to 9"), OM_PRIORITY, read_priority},
	{OM_KEY("queue", "a string that is not blank"), OM_QUEUE, read_name},
	{OM_KEY("scheduled_at", "an ISO 8601 time such as \"2030-01-31T12:00:00Z\", "
		"in UTC when it has no offset, in the years 0001 to 9999"),
		OM_SCHEDULED_AT, read_scheduled_at},
	{OM_KEY("tags", "an array of strings"), OM_TAGS, read_tags},
	{OM_KEY("worker", "a string that is not blank"), OM_WORKER, read_name},
	{OM_KEY("schedule_in", "a number of seconds, or an interval such as \"5 minutes\", "
		"that ends in the years 0001 to 9999"),
		OM_SCHEDULED_AT, read_schedule_in},
};
/* clang-format on */

StaticAssertDecl(lengthof(keys) == OM_N_UPDATE_COLUMNS + 1,
				 "each column has a key, and scheduled_at has two");

static const OmKeys change_keys = {
	.what = "changes",
	.simplest = "{} changes nothing",
	.first = &keys[0].key,
	.size = sizeof(ChangeKey),
	.count = lengthof(keys),
};

/* Changes that are being read */
typedef struct Reading
{
	OmChanges *changes;
	Oid jobs;
	const ChangeKey *scheduled_by; /* scheduled_at or schedule_in if it was read, or NULL */
} Reading;

static void
read_change(int number, const JsonbValue *value, void *state)
{
	const ChangeKey *key = &keys[number];
	Reading *reading = state;

	if (key->column == OM_SCHEDULED_AT)
	{
		if (reading->scheduled_by != NULL)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("\"%s\" and \"%s\" cannot be given together",
								   reading->scheduled_by->key.name, key->key.name),
							errdetail("Each says when the job should run."),
							errhint("Give one of them.")));
		reading->scheduled_by = key;
	}
	if (!key->read(value, reading->jobs, &reading->changes->values[key->column]))
		om_value_refuse(&change_keys, &key->key, value);
	reading->changes->columns |= OM_COLUMN_BIT(key->column);
}

/*
 * Check changes for a jobs table.  A NULL json stands for SQL NULL.
 *
 * Errors: NULL (22004); not an object, a key that is not allowed, a value that its
 * key does not take, both scheduled_at and schedule_in (22023); a time or span
 * that PostgreSQL refuses (22007, 22008, 22015).
 */
void
om_changes_check(OmChanges *changes, const Jsonb *json, Oid jobs)
{
	Reading reading = {.changes = changes, .jobs = jobs};

	changes->columns = 0;
	om_object_check(json, &change_keys);
	om_object_read(unconstify(JsonbContainer *, &json->root), &change_keys, read_change, &reading);
}

/*
 * Do the changes set a schedule that is not in the future, so that a scheduled job
 * becomes available?  The statements compare with the same time, now().
 */
bool
om_changes_make_due(const OmChanges *changes)
{
	return (changes->columns & OM_COLUMN_BIT(OM_SCHEDULED_AT)) &&
		   DatumGetTimestamp(changes->values[OM_SCHEDULED_AT]) <=
			   GetCurrentTransactionStartTimestamp();
}
