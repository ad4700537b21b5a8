/*
 * verb_table.c
 *		The verbs: their names, the states that each acts on, and the texts of its
 *		statements.
 *
 * A condition lists the states that the verb does not act on, so that it also works
 * for a table whose enum lacks "suspended" (Elixir before v14).  Calls
 * jobs/jobs_table.c; queries.c, rows.c and assignments.c put the texts together; the
 * verbs and the functions use the names.
 */
#include "statements/statement_text.h"

#include "lib/stringinfo.h"

const OmVerbInfo om_verbs[] = {
	[OM_CANCEL] = {"cancel", "cancelled", .tells = true},
	[OM_RETRY] = {"retry", "retried", .tells = true},
	[OM_DELETE] = {"delete", "deleted", .tells = false},
	[OM_UPDATE] = {"update", "updated", .tells = true},
};

StaticAssertDecl(lengthof(om_verbs) == OM_N_VERBS, "each verb has a row");

/* clang-format off */
const OmVerbText om_verb_texts[] = {
	[OM_CANCEL] = {
		.condition = STATE_IS_NOT("completed,discarded,cancelled"),
		/* a worker must be told then, which needs the state from before */
		.one_condition = STATE_IS_NOT("executing"),
		.watched = STATE_IS("executing"),
		.was = STATE_OF_IS("old", "executing"),
		.lock = "NO KEY UPDATE",
		.assignments = "state = 'cancelled'",
		.new_state = "'cancelled'::pg_catalog.text",
		.done = STATE_IS("cancelled"),
		.rights = "SELECT (id, state), UPDATE (state, cancelled_at)",
	},
	/*
	 * The key uniq_bmp in meta marks a unique job of Oban Pro. It holds the states in
	 * which the job is unique. A retry empties it, so that the job cannot collide with
	 * a job that was inserted since.
	 */
	[OM_RETRY] = {
		.condition = STATE_IS_NOT("available,executing"),
		.adds_attempt = true,
		.lock = "NO KEY UPDATE",
		.assignments = "max_attempts ="
			" GREATEST(j.max_attempts, j.attempt OPERATOR(pg_catalog.+) 1)"
			", completed_at = NULL, cancelled_at = NULL, discarded_at = NULL"
			", meta = CASE WHEN (j.meta OPERATOR(pg_catalog.->) 'uniq_bmp'::pg_catalog.text)"
			" IS NULL THEN j.meta"
			" ELSE pg_catalog.jsonb_set(j.meta, '{uniq_bmp}', '[]') END",
		.new_state = "'available'::pg_catalog.text",
		.done = STATE_IS("available"),
		.rights = "SELECT (id, state, queue, attempt, attempted_at, max_attempts, meta),"
			" UPDATE (state, scheduled_at, max_attempts, meta, completed_at, cancelled_at,"
			" discarded_at)",
	},
	[OM_DELETE] = {
		.condition = STATE_IS_NOT("executing"),
		.lock = "UPDATE",
		.deletes = true,
		.new_state = "NULL::pg_catalog.text",
		.done = "true",
		/* To lock a job needs UPDATE on any column. */
		.rights = "SELECT (id, state), UPDATE (state), DELETE",
	},
	[OM_UPDATE] = {
		.watched = STATE_IS("scheduled"),
		.was = STATE_OF_IS("old", "scheduled"),
		.lock = "NO KEY UPDATE",
		.assignments = "",
		.done = "true",
		.rights = "SELECT, and UPDATE of the columns that change,",
	},
};
/* clang-format on */

StaticAssertDecl(lengthof(om_verb_texts) == OM_N_VERBS, "each verb has a row");

/*
 * Has the job made as many attempts as the column max_attempts can hold?
 */
static char *
spent(const OmTableShape *shape)
{
	return psprintf("(j.attempt OPERATOR(pg_catalog.>=) %d) IS TRUE",
					om_jobs_table_max_integer(shape->jobs, "max_attempts"));
}

/*
 * A condition for the jobs that the verb changes; NULL: all.
 */
const char *
om_verb_condition(OmQuery query, const OmTableShape *shape)
{
	const OmVerbText *verb = &om_verb_texts[query.verb];

	return verb->adds_attempt ? psprintf("%s AND NOT (%s)", verb->condition, spent(shape))
							  : verb->condition;
}

/*
 * A condition for the jobs that the verb would change if they had made fewer attempts.
 */
const char *
om_verb_spent(OmQuery query, const OmTableShape *shape)
{
	const OmVerbText *verb = &om_verb_texts[query.verb];

	return verb->adds_attempt ? psprintf("%s AND %s", verb->condition, spent(shape)) : "false";
}
