/*
 * coverage.h
 *		PostgreSQL's macros without their branches, so that those counted are ours.
 *
 * Each does what it did. A branch in an inline function is counted for this file,
 * and not for the line that uses it; an ERROR that is certain has no branch left.
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/nodes.h"
#include "utils/timestamp.h"

/* A message of less than an ERROR may not be wanted: a branch that is there. */
#undef ereport_domain
#define ereport_domain(elevel, domain, ...)                                                        \
	do                                                                                             \
	{                                                                                              \
		pg_prevent_errno_in_scope();                                                               \
		if ((elevel) >= ERROR)                                                                     \
			(void) errstart_cold(elevel, domain);                                                  \
		if ((elevel) >= ERROR)                                                                     \
			__VA_ARGS__, errfinish(__FILE__, __LINE__, PG_FUNCNAME_MACRO);                         \
		else if (errstart(elevel, domain))                                                         \
			__VA_ARGS__, errfinish(__FILE__, __LINE__, PG_FUNCNAME_MACRO);                         \
		if ((elevel) >= ERROR)                                                                     \
			pg_unreachable();                                                                      \
	} while (0)

static inline void
coverage_rethrow(bool rethrow)
{
	if (rethrow)
		PG_RE_THROW();
}

#undef PG_END_TRY
#define PG_END_TRY()                                                                               \
	}                                                                                              \
	coverage_rethrow(_do_rethrow);                                                                 \
	PG_exception_stack = _save_exception_stack;                                                    \
	error_context_stack = _save_context_stack;                                                     \
	}                                                                                              \
	while (0)

static inline void
coverage_check_for_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
}

#undef CHECK_FOR_INTERRUPTS
#define CHECK_FOR_INTERRUPTS() coverage_check_for_interrupts()

static inline bool
coverage_slot_is_null(TupleTableSlot *slot)
{
	return TupIsNull(slot);
}

#undef TupIsNull
#define TupIsNull(slot) coverage_slot_is_null(slot)

static inline bool
coverage_timestamp_is_finite(Timestamp time)
{
	return !TIMESTAMP_NOT_FINITE(time);
}

#undef TIMESTAMP_NOT_FINITE
#define TIMESTAMP_NOT_FINITE(time) (!coverage_timestamp_is_finite(time))

static inline bool
coverage_timestamp_is_valid(Timestamp time)
{
	return IS_VALID_TIMESTAMP(time);
}

#undef IS_VALID_TIMESTAMP
#define IS_VALID_TIMESTAMP(time) coverage_timestamp_is_valid(time)

static inline Size
coverage_varsize(const void *value)
{
	return VARSIZE_ANY(value);
}

static inline Size
coverage_varsize_exhdr(const void *value)
{
	return VARSIZE_ANY_EXHDR(value);
}

static inline char *
coverage_vardata(const void *value)
{
	return VARDATA_ANY(value);
}

#undef VARSIZE_ANY
#define VARSIZE_ANY(value) coverage_varsize(value)
#undef VARSIZE_ANY_EXHDR
#define VARSIZE_ANY_EXHDR(value) coverage_varsize_exhdr(value)
#undef VARDATA_ANY
#define VARDATA_ANY(value) coverage_vardata(value)
