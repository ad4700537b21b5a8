/*
 * change_values.c
 *		Reading times, spans of time, and tags.
 *
 * PostgreSQL's input functions parse times and spans.  json_keys.c adds a hint to their
 * errors.  Calls lower_case.c; changes.c, filter.c and the functions that retry use it.
 */
#include "arguments/arguments.h"

#include <ctype.h>
#include <math.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/numeric.h"

/*
 * Is the character white space in ASCII?  Other white space depends on the locale.
 */
bool
om_is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/*
 * Is the string empty, or all white space?
 */
bool
om_value_is_blank(const JsonbValue *value)
{
	for (int i = 0; i < value->val.string.len; i++)
	{
		if (!om_is_blank(value->val.string.val[i]))
			return false;
	}
	return true;
}

/*
 * May the time be written?  Oban for Python cannot read a year before 1 or after
 * 9999, nor infinity: its fetch fails, and the whole queue stands still.
 */
bool
om_time_fits(Timestamp time)
{
	return time >= OM_FIRST_TIME && time < OM_END_TIME;
}

/*
 * Skip at least "least" and at most "most" digits.  Returns NULL when there are fewer.
 */
static const char *
skip_digits(const char *p, int least, int most)
{
	int n = 0;

	while (p != NULL && n < most && isdigit((unsigned char) p[n]))
		n++;
	return p != NULL && n >= least ? p + n : NULL;
}

/*
 * Skip that character, or return NULL.
 */
static const char *
skip_char(const char *p, char c)
{
	return p != NULL && *p == c ? p + 1 : NULL;
}

/*
 * Skip Z, or an offset: ±HH, ±HHMM or ±HH:MM.
 */
static const char *
skip_offset(const char *p)
{
	if (*p == 'Z' || *p == 'z')
		return p + 1;
	if (*p != '+' && *p != '-')
		return NULL;
	p = skip_digits(p + 1, 2, 2);
	if (p != NULL && *p == ':')
		return skip_digits(p + 1, 2, 2);
	return p != NULL && *p != '\0' ? skip_digits(p, 2, 2) : p;
}

/*
 * Is the string an ISO 8601 date or time, YYYY-MM-DD[(T| )HH:MM[:SS[.F]][offset]],
 * with or without the separators?  PostgreSQL's input functions also accept other
 * strings, whose meaning depends on DateStyle, on TimeZone or on the current time:
 * '01/02/2026', 'tomorrow', 'infinity'.
 */
static bool
is_iso_time(const char *string, bool *has_offset)
{
	const char *p = skip_digits(string, 4, 4);
	bool separated = (p != NULL && *p == '-');

	*has_offset = false;
	if (separated)
		p = skip_digits(skip_char(skip_digits(p + 1, 2, 2), '-'), 2, 2);
	else
		p = skip_digits(string, 8, 8);
	if (p == NULL || *p == '\0')
		return p != NULL;

	if (*p != 'T' && *p != 't' && *p != ' ')
		return false;
	p = skip_digits(p + 1, 2, 2);
	if (separated)
		p = skip_char(p, ':');
	p = skip_digits(p, 2, 2);
	if (p != NULL && (separated ? *p == ':' : isdigit((unsigned char) *p)))
	{
		/* PostgreSQL would read ISO 8601's fraction of a minute as one of a second. */
		p = skip_digits(separated ? p + 1 : p, 2, 2);
		if (p != NULL && *p == '.')
			p = skip_digits(p + 1, 1, PG_INT32_MAX);
	}
	if (p == NULL || *p == '\0')
		return p != NULL;

	*has_offset = true;
	p = skip_offset(p);
	return p != NULL && *p == '\0';
}

static char *
string_of(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/*
 * Read an ISO 8601 string into a time in UTC.  Without an offset, the string is in UTC.
 * Returns false when the value is not such a string, or the time may not be written.
 */
bool
om_value_time(const JsonbValue *value, Timestamp *time)
{
	char *string;
	bool has_offset;

	if (value->type != jbvString)
		return false;
	string = string_of(value);
	if (!is_iso_time(string, &has_offset) || strncmp(string, "0000", 4) == 0)
		return false;

	/* A timestamptz counts from 2000-01-01 00:00 UTC, as a timestamp in UTC does. */
	*time = DatumGetTimestamp(DirectFunctionCall3(has_offset ? timestamptz_in : timestamp_in,
												  CStringGetDatum(string),
												  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	return om_time_fits(*time);
}

/*
 * The UTC time that lies a number of seconds, or an interval given as text,
 * after the transaction's start.  Returns false when the value is neither, or the
 * time may not be written.
 */
bool
om_value_time_from_now(const JsonbValue *value, Timestamp *time)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	int nestlevel;
	Datum span;

	if (value->type == jbvNumeric)
	{
		double microseconds =
			rint(DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
													NumericGetDatum(value->val.numeric))) *
				 USECS_PER_SEC);

		/* Neither too large, nor too far in the past */
		if (!(microseconds < (double) (END_TIMESTAMP - now) &&
			  microseconds >= (double) (MIN_TIMESTAMP - now)))
			return false;
		*time = now + (int64) microseconds;
		return om_time_fits(*time);
	}
	if (value->type != jbvString)
		return false;

	/*
	 * Independent of the session's settings: timestamp arithmetic ignores TimeZone, so
	 * each day has 24 hours; and with this IntervalStyle each field has its own sign.
	 */
	nestlevel = NewGUCNestLevel();
	om_set_temporarily("IntervalStyle", "postgres");
	span = DirectFunctionCall3(interval_in, CStringGetDatum(string_of(value)),
							   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	AtEOXact_GUC(true, nestlevel);
	*time =
		DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval, TimestampGetDatum(now), span));
	return om_time_fits(*time);
}

/*
 * Trim and lower-case a tag.  Returns NULL when the tag is blank.
 */
static text *
normalize_tag(const char *string, int len)
{
	while (len > 0 && om_is_blank(*string))
	{
		string++;
		len--;
	}
	while (len > 0 && om_is_blank(string[len - 1]))
		len--;
	return len > 0 ? om_lower_case(string, len) : NULL;
}

/* Compares bytes, so that the order of tags does not depend on the database's locale */
static int
compare_tags(const void *a, const void *b)
{
	const text *left = *(text *const *) a;
	const text *right = *(text *const *) b;
	int left_len = VARSIZE_ANY_EXHDR(left);
	int right_len = VARSIZE_ANY_EXHDR(right);
	int result = memcmp(VARDATA_ANY(left), VARDATA_ANY(right), Min(left_len, right_len));

	return result != 0 ? result : left_len - right_len;
}

/*
 * Read an array of tags into a text[], normalised as Oban for Python does: trimmed,
 * lower-cased, sorted, without blanks, nulls and duplicates.  Returns false when the
 * value is not an array, or has elements other than strings, numbers, booleans, nulls.
 */
bool
om_value_tags(const JsonbValue *value, ArrayType **tags)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue element;
	Datum *texts;
	int ntexts = 0;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data) ||
		JsonContainerIsScalar(value->val.binary.data))
		return false;

	texts = palloc(sizeof(Datum) * Max(JsonContainerSize(value->val.binary.data), 1));
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		text *tag = NULL;

		CHECK_FOR_INTERRUPTS();
		if (token != WJB_ELEM)
			continue;
		switch (element.type)
		{
			case jbvNull:
				break;
			case jbvString:
				tag = normalize_tag(element.val.string.val, element.val.string.len);
				break;
			case jbvNumeric:
				tag = cstring_to_text(DatumGetCString(
					DirectFunctionCall1(numeric_out, NumericGetDatum(element.val.numeric))));
				break;
			case jbvBool:
				tag = cstring_to_text(element.val.boolean ? "true" : "false");
				break;
			default:
				return false;
		}
		if (tag != NULL)
			texts[ntexts++] = PointerGetDatum(tag);
	}

	qsort(texts, ntexts, sizeof(Datum), compare_tags);
	ntexts = qunique(texts, ntexts, sizeof(Datum), compare_tags);
	*tags = construct_array(texts, ntexts, TEXTOID, -1, false, TYPALIGN_INT);
	return true;
}

/*
 * The argument of a retry that says when the jobs should run, as a time in UTC.  NULL
 * gives 0, a time in the past.
 *
 * Errors: a time that may not be written (22008).
 */
Timestamp
om_retry_at_argument(FunctionCallInfo fcinfo, int argno)
{
	Timestamp retry_at;

	if (PG_ARGISNULL(argno))
		return 0;
	/* A timestamptz counts from 2000-01-01 00:00 UTC, as a timestamp in UTC does. */
	retry_at = PG_GETARG_TIMESTAMPTZ(argno);
	if (!om_time_fits(retry_at))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
						errmsg("scheduled_at is out of range"),
						errhint("Give a time in the years 0001 to 9999, or NULL for now.")));
	return retry_at;
}
