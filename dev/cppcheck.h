/*
 * cppcheck.h
 *		What cppcheck must know of PostgreSQL: that an ERROR does not come back, and what stands in a format.
 *
 * The real headers would do too, but take it minutes a file.
 */
#define INT64_FORMAT "%ld"
#define UINT64_FORMAT "%lu"
#define ERROR 21
#define ereport(level, ...)                                                                        \
	do                                                                                             \
	{                                                                                              \
		(void) (__VA_ARGS__);                                                                      \
		if ((level) >= ERROR)                                                                      \
			abort();                                                                               \
	} while (0)
#define elog(level, ...) ereport(level, errmsg(__VA_ARGS__))
