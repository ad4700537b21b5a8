/*
 * rights.c
 *		Adds a hint when the caller lacks a right on the jobs table: the rights that
 *		the verb needs.
 *
 * Calls verb_table.c for the rights; run_query.c installs the callback while it runs a
 * query.
 */
#include "statements/plan_cache.h"
#include "statements/statement_text.h"

#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"

/*
 * Does the caller lack a right that the statement needs on its own tables?  The same
 * error code can come from elsewhere: from a trigger or a function that the statement
 * runs, from a policy, or from another server.  So this asks PostgreSQL again.
 */
static bool
lacks_right(const OmKeptPlan *kept)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(kept->plan));
	const Query *query = source->query_list != NIL ? linitial(source->query_list) : NULL;

	return query != NULL && !ExecCheckPermissions(query->rtable, query->rteperminfos, false);
}

/*
 * Is it one of the statements by which the verb changes jobs?  The others only read.
 */
static bool
changes_jobs(OmQuery query)
{
	switch ((OmStep) query.step)
	{
		case OM_WRITE_ONE:
		case OM_FIND_AND_LOCK:
		case OM_FIND_AND_LOCK_FREE:
		case OM_WRITE:
		case OM_WRITE_AND_WATCH:
		case OM_WRITE_EACH:
		case OM_SURVEY:
			return true;
		default:
			return false;
	}
}

/*
 * An error context callback; its argument is an OmRunningQuery.
 */
void
om_rights_error_callback(void *arg)
{
	const OmRunningQuery *running = arg;
	OmQuery query = running->query;

	if (geterrcode() != ERRCODE_INSUFFICIENT_PRIVILEGE || !lacks_right(running->kept))
		return;
	errhint("To %s jobs, a role needs %s on %s.%s",
			changes_jobs(query) ? om_verbs[query.verb].name : "read",
			changes_jobs(query) ? om_verb_texts[query.verb].rights : "SELECT",
			quote_qualified_identifier(get_namespace_name_or_temp(get_rel_namespace(running->jobs)),
									   get_rel_name(running->jobs)),
			om_query_is_by_id_alone(query)
				? ""
				: " A filter needs SELECT on the columns that it names.");
}
