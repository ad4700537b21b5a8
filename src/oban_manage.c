/*
 * oban_manage.c
 *		The module and its settings.
 */
#include "oban_manage.h"

#include "utils/guc.h"

PG_MODULE_MAGIC;

char *om_prefix;
bool om_notify;

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

	MarkGUCPrefixReserved("oban_manage");
}
