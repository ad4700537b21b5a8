/*
 * discard_caches.c
 *		Turns debug_discard_caches on within some of the calls of oban_manage.
 *
 * On a server with assertions, made for valgrind, a call takes some 20 s with
 * debug_discard_caches = 1, and a session's own SQL is as slow, so that all the
 * tests would take weeks.  Loaded by session_preload_libraries, this draws which
 * calls of a session have it, for how long each and all of them; whatever runs
 * within such a call has it too.
 *
 * One finding is not ours, and comes with some draws in sql/callables.sql: to_jsonb
 * of a row reads the names of its columns when it has let go of their type, so
 * that keys are 0x7F.  SELECT to_jsonb(ROW(1)::some_type) with this setting shows
 * it without the extension, on 15.18.
 */
#include "postgres.h"

#include <limits.h>

#include "access/htup_details.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

PG_MODULE_MAGIC;

static int every;		/* one call in so many */
static int call_limit;	/* seconds of a call, after which it goes on without */
static int total_limit; /* seconds of a session's calls, after which none has it */
static int seed;

static bool seeded;
static pg_prng_state choices;
static TimeoutId timeout;
static int depth; /* of calls since the one that has it; 0: none */
static TimestampTz began;
static int64 spent; /* microseconds */

void _PG_init(void);

/*
 * Is it a function in C of the library?
 */
static bool
is_ours(Oid function)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool ours = false;
	bool isnull;
	Datum library;

	if (!HeapTupleIsValid(tuple))
		return false;
	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId)
	{
		library = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_probin, &isnull);
		ours = !isnull && strstr(TextDatumGetCString(library), "oban_manage") != NULL;
	}
	ReleaseSysCache(tuple);
	return ours;
}

/*
 * The same choices for the same test, whose name is the application's.
 */
static bool
is_drawn(void)
{
	if (!seeded)
		pg_prng_seed(
			&choices,
			hash_bytes((const unsigned char *) application_name, strlen(application_name)) + seed);
	seeded = true;
	return pg_prng_uint64_range(&choices, 1, every) == 1 &&
		   spent < total_limit * (int64) USECS_PER_SEC;
}

static void
stop(void)
{
	debug_discard_caches = 0;
}

static void
call_hook(FmgrHookEventType event, FmgrInfo *function, Datum *state)
{
	if (event == FHET_START)
	{
		if (depth > 0)
			depth++;
		else if (is_drawn())
		{
			depth = 1;
			began = GetCurrentTimestamp();
			enable_timeout_after(timeout, call_limit * 1000);
			debug_discard_caches = 1;
		}
	}
	else if (depth > 0 && --depth == 0)
	{
		stop();
		disable_timeout(timeout, false);
		spent += GetCurrentTimestamp() - began;
		elog(LOG, "discarded caches in a call of the function with OID %u", function->fn_oid);
	}
}

void
_PG_init(void)
{
	DefineCustomIntVariable("discard_caches.every", "One call in so many.", NULL, &every, 10, 1,
							INT_MAX, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("discard_caches.call_limit", "Seconds of a call.", NULL, &call_limit, 20,
							1, 100000, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("discard_caches.total_limit", "Seconds of the calls of a session.", NULL,
							&total_limit, 30, 1, 1000000, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("discard_caches.seed", "Other choices.", NULL, &seed, 1, 0, INT_MAX,
							PGC_SUSET, 0, NULL, NULL, NULL);
	timeout = RegisterTimeout(USER_TIMEOUT, stop);
	needs_fmgr_hook = is_ours;
	fmgr_hook = call_hook;
}
