/*
 * lower_case.c
 *		Lower-casing that is the same in every database.
 *
 * PostgreSQL's own lower-casing depends on the database's locale, its provider, its
 * encoding and the server's version: in a Turkish database "I" becomes a dotless i,
 * and with the locale C only ASCII letters change.  Tags must be the same
 * everywhere, because filters and other Obans search for the stored tags.  So this file
 * uses Unicode's simple mapping, one character to one, from lower_case_table.h.
 * change_values.c calls it.
 */
#include "arguments/arguments.h"

#include "catalog/pg_conversion.h"
#include "catalog/pg_namespace.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "arguments/lower_case_table.h"

/* The size of a buffer for one converted character, so that PostgreSQL truncates nothing */
#define BUFFER_SIZE (MAX_CONVERSION_GROWTH * (MAX_MULTIBYTE_CHAR_LEN + 1) + 1)

/* The conversions between the string's encoding and UTF-8; InvalidOid: there is none */
typedef struct Conversions
{
	int encoding; /* of the string */
	Oid to_utf8;
	Oid from_utf8;
} Conversions;

static pg_wchar
lower_letter(pg_wchar letter)
{
	int low = 0;
	int high = (int) lengthof(lower_case_ranges) - 1;

	while (low <= high)
	{
		int middle = (low + high) / 2;

		if (letter > lower_case_ranges[middle].last)
			low = middle + 1;
		else if (letter < lower_case_ranges[middle].first)
			high = middle - 1;
		else if ((letter - lower_case_ranges[middle].first) % lower_case_ranges[middle].step == 0)
			return letter + lower_case_ranges[middle].distance;
		else
			break;
	}
	return letter;
}

/*
 * The encoding of a string of the database, and its conversions.  In a database with
 * SQL_ASCII, a string may have any encoding; it is read as UTF-8 if it is valid UTF-8.
 * PostgreSQL has no conversion from MULE_INTERNAL to UTF-8.
 *
 * The conversions are those of pg_catalog: search_path does not choose them.
 */
static Conversions
find_conversions(const char *string, int len)
{
	Conversions found = {.encoding = GetDatabaseEncoding()};

	if (found.encoding == PG_SQL_ASCII && pg_verify_mbstr(PG_UTF8, string, len, true))
		found.encoding = PG_UTF8;
	if (found.encoding != PG_UTF8 && found.encoding != PG_SQL_ASCII)
	{
		found.to_utf8 = FindDefaultConversion(PG_CATALOG_NAMESPACE, found.encoding, PG_UTF8);
		found.from_utf8 = FindDefaultConversion(PG_CATALOG_NAMESPACE, PG_UTF8, found.encoding);
	}
	return found;
}

/*
 * Convert a character into a buffer.  Returns its new length in bytes; 0 when the other
 * encoding does not have it.
 */
static int
convert(Oid conversion, int from, int to, const char *source, int len, char *dest)
{
	int converted = pg_do_encoding_conversion_buf(
		conversion, from, to, unconstify(unsigned char *, (const unsigned char *) source), len,
		(unsigned char *) dest, BUFFER_SIZE, true);

	return converted == len ? (int) strlen(dest) : 0;
}

/*
 * Lower-case a character into a buffer.  Returns its new length in bytes; 0 when the
 * character has no lower case in its encoding, so that it stays as it is.
 */
static int
lower_character(const Conversions *conversions, const char *character, int len, char *lower)
{
	char utf8[BUFFER_SIZE];
	int utf8_len = len;
	pg_wchar letter;
	pg_wchar lower_case;

	if (!IS_HIGHBIT_SET(*character))
	{
		*lower = (char) lower_letter((unsigned char) *character);
		return 1;
	}
	if (conversions->encoding == PG_UTF8)
		memcpy(utf8, character, len);
	else if (OidIsValid(conversions->to_utf8) && OidIsValid(conversions->from_utf8))
		utf8_len =
			convert(conversions->to_utf8, conversions->encoding, PG_UTF8, character, len, utf8);
	else
		return 0;
	if (utf8_len == 0 || utf8_len != pg_encoding_mblen(PG_UTF8, utf8))
		return 0;

	letter = utf8_to_unicode((unsigned char *) utf8);
	lower_case = lower_letter(letter);
	if (lower_case == letter)
		return 0;
	if (conversions->encoding != PG_UTF8)
	{
		unicode_to_utf8(lower_case, (unsigned char *) utf8);
		return convert(conversions->from_utf8, PG_UTF8, conversions->encoding, utf8,
					   pg_encoding_mblen(PG_UTF8, utf8), lower);
	}
	unicode_to_utf8(lower_case, (unsigned char *) lower);
	return pg_encoding_mblen(PG_UTF8, lower);
}

/*
 * A string in lower case, in the current memory context.
 */
text *
om_lower_case(const char *string, int len)
{
	const char *end = string + len;
	Conversions conversions = find_conversions(string, len);
	StringInfoData result;
	text *lowered;

	initStringInfo(&result);
	while (string < end)
	{
		char lower[BUFFER_SIZE];
		int character_len =
			pg_encoding_verifymbchar(conversions.encoding, string, (int) (end - string));
		int lower_len = 0;

		CHECK_FOR_INTERRUPTS();
		if (character_len > 0)
			lower_len = lower_character(&conversions, string, character_len, lower);
		character_len = Max(character_len, 1);
		if (lower_len > 0)
			appendBinaryStringInfo(&result, lower, lower_len);
		else
			appendBinaryStringInfo(&result, string, character_len);
		string += character_len;
	}
	lowered = cstring_to_text_with_len(result.data, result.len);
	pfree(result.data);
	return lowered;
}
