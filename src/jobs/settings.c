/*
 * settings.c
 *		The module, and its settings (oban_manage.prefix, notify and guard).
 *
 * Calls only PostgreSQL. jobs_table.c, signals.c and functions/guard.c read our settings;
 * the floors above change PostgreSQL's for a moment by om_set_temporarily.
 */
#include "jobs/jobs.h"

#include "utils/guc.h"

PG_MODULE_MAGIC;

char *om_prefix;
bool om_notify;
bool om_guard;

void _PG_init(void);

void
_PG_init(void)
{
	DefineCustomStringVariable(
		"oban_manage.prefix", "Schema of the oban_jobs table when a call names none.",
		"Oban calls it the prefix. A SECURITY DEFINER function must not leave it to its caller.",
		&om_prefix, "public", PGC_USERSET, 0, NULL, NULL, NULL);

	DefineCustomBoolVariable("oban_manage.notify",
							 "Whether running Obans are told of cancelled and runnable jobs.",
							 "Turn it off for two-phase commit, which NOTIFY forbids.", &om_notify,
							 true, PGC_USERSET, 0, NULL, NULL, NULL);

	DefineCustomBoolVariable("oban_manage.guard",
							 "Whether oban_guard_job() guards the jobs of a table.",
							 "Turn it off to make a change by hand that the guard would prevent.",
							 &om_guard, true, PGC_USERSET, 0, NULL, NULL, NULL);

	MarkGUCPrefixReserved("oban_manage");
}

/*
 * Set one of PostgreSQL's settings for a while.  The caller calls NewGUCNestLevel
 * before.  Its AtEOXact_GUC, or an error, restores the value of the session.
 */
void
om_set_temporarily(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}
