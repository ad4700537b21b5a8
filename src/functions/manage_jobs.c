/*
 * manage_jobs.c
 *		The SQL function oban_manage_jobs: runs a verb over many jobs (verbs/run.c), and
 *		returns the outcome for each job.
 *
 * All jobs that the call names are locked and looked at, also those that the verb does
 * not act on.  So the returned states are those at the time of the action.  A dry run
 * looks without a lock.
 */
#include "verbs/verbs.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

typedef struct Outcome
{
	const char *old_state; /* NULL: no such job */
	const char *new_state; /* NULL: the job has none */
	bool applies;		   /* does the verb act on the job? */
	bool spent;			   /* retry: it would, but the job has made too many attempts */
	bool done;			   /* does the written row have the verb's new state? */
} Outcome;

typedef struct Outcomes
{
	OmObserver observer;
	OmJobIds ids;  /* distinct, sorted */
	Outcome *each; /* for each of ids */
	List *states;  /* names of states, each once */
	MemoryContext context;
} Outcomes;

/*
 * A kept copy of the name of a state, or NULL for NULL.  Each name is kept once,
 * because there are few.
 */
static const char *
keep_state(Outcomes *outcomes, const text *name)
{
	MemoryContext caller;
	char *state;
	ListCell *lc;

	if (name == NULL)
		return NULL;
	state = text_to_cstring(name);
	foreach (lc, outcomes->states)
	{
		if (strcmp(lfirst(lc), state) == 0)
		{
			pfree(state);
			return lfirst(lc);
		}
	}

	caller = MemoryContextSwitchTo(outcomes->context);
	state = pstrdup(state);
	outcomes->states = lappend(outcomes->states, state);
	MemoryContextSwitchTo(caller);
	return state;
}

/*
 * The outcome of a job.  NULL if the call did not name it: a trigger changed the row's
 * id, or a foreign server sent a row that was not asked for.
 */
static Outcome *
find_outcome(Outcomes *outcomes, int64 id)
{
	int i = om_job_ids_find(&outcomes->ids, id);

	return i >= 0 ? &outcomes->each[i] : NULL;
}

/*
 * Record a job that was found.  Returns whether the verb acts on it.  If partitions or
 * children repeat an id, a row that the verb acts on is preferred.
 */
static bool
note_old_state(const OmFoundRow *row, void *state)
{
	Outcomes *outcomes = state;
	Outcome *outcome = find_outcome(outcomes, row->id);

	if (outcome == NULL)
		return false;
	if (!outcome->applies)
	{
		outcome->old_state = keep_state(outcomes, row->state);
		/* Unless in a dry run, note_new_state sets the new state if the job is written. */
		outcome->new_state = outcomes->observer.dry_run && row->applies
								 ? keep_state(outcomes, row->new_state)
								 : outcome->old_state;
		outcome->applies = row->applies;
		outcome->spent = row->spent;
	}
	return row->applies;
}

/*
 * Record a job that was written.  If partitions or children repeat an id, a row that
 * was done is preferred.
 */
static void
note_new_state(const OmWrittenRow *row, void *state)
{
	Outcomes *outcomes = state;
	Outcome *outcome = find_outcome(outcomes, row->id);

	if (outcome == NULL || outcome->done)
		return;
	outcome->done = row->done;
	outcome->new_state = keep_state(outcomes, row->state);
}

static int
hint_at_actions(void)
{
	StringInfoData list;

	initStringInfo(&list);
	for (OmVerb verb = 0; verb < OM_N_VERBS; verb++)
	{
		const char *separator = verb + 1 == OM_N_VERBS ? " and " : ", ";

		appendStringInfo(&list, "%s%s", verb == 0 ? "" : separator, om_verbs[verb].name);
	}
	return errhint("The actions are %s.", list.data);
}

static OmVerb
verb_argument(FunctionCallInfo fcinfo, int argno)
{
	char *name;

	if (PG_ARGISNULL(argno))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("action must not be null"),
						hint_at_actions()));
	name = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	for (OmVerb verb = 0; verb < OM_N_VERBS; verb++)
	{
		if (strcmp(name, om_verbs[verb].name) == 0)
			return verb;
	}
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("unrecognized action \"%s\"", name), hint_at_actions()));
}

/*
 * Read the arguments: the action, the jobs, the changes, the dry run, the prefix.
 */
static void
read_arguments(FunctionCallInfo fcinfo, OmCall *call, Outcomes *outcomes)
{
	const Jsonb *changes = om_jsonb_argument(fcinfo, 2);
	OmJobIds *ids = &outcomes->ids;

	call->verb = verb_argument(fcinfo, 0);
	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("dry_run must not be null")));
	call->jobs =
		om_jobs_table_argument(fcinfo, 4, PG_GETARG_BOOL(3) ? AccessShareLock : RowExclusiveLock);

	if (call->verb == OM_UPDATE)
		om_changes_check(&call->changes, changes, call->jobs);
	else if (changes != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("action \"%s\" takes no changes", om_verbs[call->verb].name),
				 errhint("Pass changes with the action \"%s\" only.", om_verbs[OM_UPDATE].name)));

	om_job_ids_init(ids, 0);
	if (!PG_ARGISNULL(1))
		om_job_ids_add_array(ids, PG_GETARG_ARRAYTYPE_P(1), INT8OID);
	om_job_ids_sort(ids);
	om_filter_by_ids(&call->filter, om_job_ids_array(ids));

	call->observer = &outcomes->observer;
	outcomes->observer.found = note_old_state;
	outcomes->observer.written = note_new_state;
	outcomes->observer.state = outcomes;
	/* Empty changes write nothing. */
	outcomes->observer.dry_run =
		PG_GETARG_BOOL(3) || (call->verb == OM_UPDATE && call->changes.columns == 0);
	outcomes->each =
		MemoryContextAllocExtended(CurrentMemoryContext, Max(ids->count, 1) * sizeof(Outcome),
								   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	outcomes->context = CurrentMemoryContext;
}

static char *
reason_of(const OmCall *call, const Outcome *outcome, bool done)
{
	const char *done_to = om_verbs[call->verb].participle;

	if (outcome->old_state == NULL)
		return psprintf("schema \"%s\" has no such job",
						get_namespace_name_or_temp(get_rel_namespace(call->jobs)));
	if (outcome->spent)
		return pstrdup("the job has made as many attempts as max_attempts can hold");
	if (!outcome->applies)
		return psprintf("%s jobs are not %s", outcome->old_state, done_to);
	if (!done)
		return psprintf("a trigger or policy of the table kept the job from being %s", done_to);
	if (call->verb == OM_UPDATE)
		return psprintf("jobs in any state are %s", done_to);
	return psprintf("%s jobs are %s%s", outcome->old_state, done_to,
					call->verb == OM_CANCEL && strcmp(outcome->old_state, "executing") == 0 &&
							om_signals_kill(call->jobs)
						? ", and their workers told"
						: "");
}

static Datum
text_datum(const char *string)
{
	return string != NULL ? CStringGetTextDatum(string) : (Datum) 0;
}

/*
 * Fill the set that the function returns, in id order.
 */
static void
return_outcomes(const OmCall *call, const Outcomes *outcomes, FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext row_context =
		AllocSetContextCreate(CurrentMemoryContext, "oban_manage outcome", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(row_context);

	for (int i = 0; i < outcomes->ids.count; i++)
	{
		const Outcome *outcome = &outcomes->each[i];
		bool done = outcome->applies && (outcomes->observer.dry_run || outcome->done);
		const char *new_state = outcome->new_state;
		Datum values[5];
		bool nulls[5] = {false};

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(row_context);
		if (done && call->verb == OM_DELETE)
			new_state = NULL;
		values[0] = Int64GetDatum(om_job_ids_data(&outcomes->ids)[i]);
		values[1] = text_datum(outcome->old_state == NULL ? "not_found"
							   : done					  ? om_verbs[call->verb].participle
														  : "ignored");
		values[2] = text_datum(outcome->old_state);
		values[3] = text_datum(new_state);
		values[4] = text_datum(reason_of(call, outcome, done));
		nulls[2] = (outcome->old_state == NULL);
		nulls[3] = (new_state == NULL);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(row_context);
}

static void
note_hidden(TupleTableSlot *slot, void *state)
{
	const Outcome *outcome;
	OmFoundRow row;

	om_found_row_read(slot, &row);
	outcome = find_outcome(state, row.id);
	if (outcome != NULL && outcome->old_state == NULL)
		(void) note_old_state(&row, state);
}

/*
 * Row-level security may let the caller see jobs that the caller may not lock.  Look
 * for those too.
 */
static void
find_visible(const OmCall *call, Outcomes *outcomes)
{
	OmQuery query = {
		.step = OM_FIND_ONLY,
		.verb = call->verb,
		.returns = OM_RETURN_STATES,
		.conditions = OM_BY_IDS,
	};

	if (!outcomes->observer.dry_run &&
		check_enable_rls(call->jobs, InvalidOid, true) == RLS_ENABLED)
		om_query_run(call->jobs, query, &call->filter.values[OM_ID_IS_ANY], note_hidden, outcomes);
}

/*
 * oban_manage_jobs(action text, job_ids bigint[], changes jsonb, dry_run boolean,
 * prefix text) -> table (job_id bigint, outcome text, old_state text, new_state text,
 * reason text)
 *		Cancel, retry, delete or update the jobs.  Returns the outcome for each
 *		distinct id, in id order; with dry_run, the outcome that the call would have.
 *		NULL ids are skipped.  Ids that do not exist are not_found, for update too.
 *
 * Errors: action or dry_run is NULL (22004); no such action, changes without
 * update (22023); those of om_jobs_table_by_prefix and om_changes_check; too few
 * max_attempts for the attempts that a job has made (22023); and errors of the
 * table itself.
 */
PG_FUNCTION_INFO_V1(oban_manage_jobs);

Datum
oban_manage_jobs(PG_FUNCTION_ARGS)
{
	Outcomes outcomes = {0};
	OmCall call = {0};

	InitMaterializedSRF(fcinfo, 0);
	read_arguments(fcinfo, &call, &outcomes);
	if (outcomes.ids.count > 0)
	{
		SPI_connect();
		(void) om_call_run(&call);
		find_visible(&call, &outcomes);
		SPI_finish();
		return_outcomes(&call, &outcomes, fcinfo);
	}
	return (Datum) 0;
}
