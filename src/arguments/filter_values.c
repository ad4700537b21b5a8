/*
 * filter_values.c
 *		Reads the values of a filter's keys: one or many of the values of a column.
 *
 * They get the type of the column, because with a cast of the column no index on it
 * could be used.  Calls json_keys.c and change_values.c; filter.c calls it.
 */
#include "arguments/arguments.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* Reads a value for a column of that type; *exists says whether the type can hold it. */
typedef bool (*ReadElement)(const JsonbValue *value, Oid type, Datum *result, bool *exists);

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

static void
read_text(const JsonbValue *value, Datum *result)
{
	*result =
		PointerGetDatum(cstring_to_text_with_len(value->val.string.val, value->val.string.len));
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
			read_text(value, result);
			return true;

		default:
			return read_state(value, type, result);
	}
}

/*
 * Read an id: a whole number, or a string of digits, because JavaScript has no integers
 * of 64 bits, so its drivers return ids as strings.
 */
static bool
read_id(const JsonbValue *value, Oid type, Datum *result, bool *exists)
{
	int64 number = 0;

	if (value->type != jbvString)
		return read_scalar(value, type, result, exists);

	*exists = true;
	for (int i = 0; i < value->val.string.len; i++)
	{
		char c = value->val.string.val[i];

		if (c < '0' || c > '9')
			return false;
		*exists = *exists && !pg_mul_s64_overflow(number, 10, &number) &&
				  !pg_add_s64_overflow(number, c - '0', &number);
	}
	*result = Int64GetDatum(number);
	return value->val.string.len > 0;
}

/*
 * Read a string that is not blank, as it is.
 */
static bool
read_not_blank(const JsonbValue *value, Oid type, Datum *result, bool *exists)
{
	*exists = true;
	if (value->type != jbvString || om_value_is_blank(value))
		return false;
	read_text(value, result);
	return true;
}

static bool
is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data) &&
		   !JsonContainerIsScalar(value->val.binary.data);
}

/*
 * Read one value, or an array of them.  Returns those that exist in the type, and their
 * number.
 */
static Datum *
read_elements(const OmKeys *keys, const OmKey *key, const JsonbValue *value, Oid type,
			  ReadElement read, int *count)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue element;
	Datum *values;
	bool exists;

	*count = 0;
	if (!is_array(value))
	{
		values = palloc(sizeof(Datum));
		if (!read(value, type, &values[0], &exists))
			om_value_refuse(keys, key, value);
		*count = exists ? 1 : 0;
		return values;
	}

	if (JsonContainerSize(value->val.binary.data) == 0)
		om_value_refuse(keys, key, value);
	values = palloc(JsonContainerSize(value->val.binary.data) * sizeof(Datum));
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		CHECK_FOR_INTERRUPTS();
		if (token != WJB_ELEM)
			continue;
		if (!read(&element, type, &values[*count], &exists))
			om_value_refuse(keys, key, &element);
		*count += exists;
	}
	return values;
}

static Datum
array_of(Datum *values, int count, Oid type)
{
	int16 length;
	bool by_value;
	char alignment;

	get_typlenbyvalalign(type, &length, &by_value, &alignment);
	return PointerGetDatum(construct_array(values, count, type, length, by_value, alignment));
}

/*
 * Read a scalar, or an array of scalars.  *one says whether the result is a single value:
 * then the condition becomes an equality, because more indexes can be used for that.
 * When no value exists in the column's type, the result is an empty array, which matches
 * no job.
 */
Datum
om_filter_any(const OmKeys *keys, const OmKey *key, const JsonbValue *value, Oid type, bool is_id,
			  bool *one)
{
	int count;
	Datum *values = read_elements(keys, key, value, type, is_id ? read_id : read_scalar, &count);

	*one = (count == 1);
	return *one ? values[0] : array_of(values, count, type);
}

/*
 * Read a string, or an array of strings, none of them blank, into an array of that type.
 */
Datum
om_filter_texts(const OmKeys *keys, const OmKey *key, const JsonbValue *value, Oid array_type)
{
	Oid type = get_element_type(array_type);
	int count;
	Datum *values = read_elements(keys, key, value, type, read_not_blank, &count);

	return array_of(values, count, type);
}
