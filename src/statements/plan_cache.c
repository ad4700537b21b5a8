/*
 * plan_cache.c
 *		Kept plans.
 *
 * A plan is prepared when a backend first runs a query on a table, and kept
 * (SPI_keepplan) under the table's oid and the query.  The callers hold a lock
 * on the table.  When a plan is out of date, its text is built again too, because
 * schemas, tables, columns and types may have been renamed.
 *
 * A query that finds its jobs by their ids has one generic plan, by index
 * (plan_order.c).  Any other filter is planned with its values each time, because the best
 * plan depends on how many jobs match and which partial index can be used.
 *
 * The number of plans is limited, because users choose the tables and the filters.
 * The least recently used plan is dropped first.  Calls queries.c and plan_order.c;
 * run_query.c calls it.
 */
#include "statements/plan_cache.h"

#include "catalog/namespace.h"
#include "executor/spi.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rls.h"

/* A plan takes 30 to 120 kB, more for a table with many partitions. */
#define MAX_PLANS 256

typedef struct PlanKey
{
	uint64 jobs; /* an Oid; in 64 bits, so that no padding follows */
	OmQuery query;
} PlanKey;

StaticAssertDecl(sizeof(PlanKey) == sizeof(uint64) + sizeof(OmQuery), "hashed as bytes");

typedef struct PlanEntry
{
	PlanKey key;
	OmKeptPlan *kept;
	dlist_node node;
} PlanEntry;

static HTAB *plans = NULL;
static dlist_head plans_by_use = DLIST_STATIC_INIT(plans_by_use); /* last used first */

static void
free_kept(OmKeptPlan *kept)
{
	SPI_freeplan(kept->plan);
	pfree(kept);
}

/*
 * Forget an entry.  Free its plan, unless the plan is being run.
 */
static void
drop_entry(PlanEntry *entry)
{
	OmKeptPlan *kept = entry->kept;

	dlist_delete(&entry->node);
	hash_search(plans, &entry->key, HASH_REMOVE, NULL);

	if (kept->users > 0)
		kept->dropped = true;
	else
		free_kept(kept);
}

/*
 * Call it when a plan has been run, after its users were raised by one for the run.
 */
void
om_plan_release(OmKeptPlan *kept)
{
	kept->users--;
	if (kept->dropped && kept->users == 0)
		free_kept(kept);
}

/*
 * May a kept plan still be used?
 *
 * PostgreSQL would parse the text again when the search_path has changed or, if the
 * plan depends on row-level security, when the role or row_security has changed.  The
 * text may then name objects that have moved, so we build it again instead.
 *
 * The plan cache does not track the tables of a statement that a rule has rewritten
 * to nothing.  Nor does it track FORCE ROW LEVEL SECURITY, which does not apply to the
 * owner while a foreign key's cascade runs.
 */
static bool
is_usable(const OmKeptPlan *kept)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(kept->plan));

	return SPI_plan_is_valid(kept->plan) && source->relationOids != NIL &&
		   SearchPathMatchesCurrentEnvironment(source->search_path) &&
		   !(source->dependsOnRLS &&
			 (source->rewriteRoleId != GetUserId() || source->rewriteRowSecurity != row_security ||
			  kept->no_force != InNoForceRLSOperation())) &&
		   !(kept->by_id && om_plan_is_replaced(kept->plan, &kept->order));
}

static OmKeptPlan *
prepare(Oid jobs, OmQuery query)
{
	OmTableShape shape;
	OmStatement statement;
	bool by_id = om_query_is_by_id(query);
	SPIPlanPtr plan;
	OmKeptPlan *kept;

	om_jobs_table_shape(jobs, &shape);
	om_query_build(query, &shape, &statement);

	plan = SPI_prepare_cursor(statement.text, statement.nparams, statement.param_types,
							  by_id ? CURSOR_OPT_GENERIC_PLAN : CURSOR_OPT_CUSTOM_PLAN);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare_cursor returned %s for %s", SPI_result_code_string(SPI_result),
			 statement.text);

	/* From here to the return, nothing may fail except for lack of memory. */
	kept = MemoryContextAllocZero(CacheMemoryContext, offsetof(OmKeptPlan, param_types) +
														  statement.nparams * sizeof(Oid));
	kept->plan = plan;
	kept->no_force = InNoForceRLSOperation();
	kept->by_id = by_id;
	kept->result_code = statement.result_code;
	kept->nparams = statement.nparams;
	memcpy(kept->param_types, statement.param_types, statement.nparams * sizeof(Oid));
	SPI_keepplan(plan);
	return kept;
}

/*
 * The plan for a query of a jobs table that is locked.
 */
OmKeptPlan *
om_plan_fetch(Oid jobs, OmQuery query)
{
	PlanKey key = {.jobs = jobs, .query = query};
	PlanEntry *entry;
	OmKeptPlan *kept;

	if (plans == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(PlanKey), .entrysize = sizeof(PlanEntry)};

		plans = hash_create("oban_manage plans", MAX_PLANS, &ctl, HASH_ELEM | HASH_BLOBS);
	}

	entry = hash_search(plans, &key, HASH_FIND, NULL);
	if (entry != NULL && is_usable(entry->kept))
	{
		dlist_move_head(&plans_by_use, &entry->node);
		return entry->kept;
	}

	/* Drop the old plan after this: it may fail, or run code that prepares the same query. */
	kept = prepare(jobs, query);
	entry = hash_search(plans, &key, HASH_FIND, NULL);
	if (entry != NULL)
		drop_entry(entry);
	if (hash_get_num_entries(plans) >= MAX_PLANS)
		drop_entry(dlist_tail_element(PlanEntry, node, &plans_by_use));
	entry = hash_search(plans, &key, HASH_ENTER, NULL);
	entry->kept = kept;
	dlist_push_head(&plans_by_use, &entry->node);
	return kept;
}
