/*
 * outcomes.c
 *		Collects what became of each job of a call, and returns it as a set of rows.
 *
 * A call hands its jobs to the observer (verbs/verbs.h) when they are found and when
 * they are written.  manage_jobs.c calls this file; this file runs one statement
 * (statements/run_query.c) for the jobs that the call has not found.
 */
#include "functions/outcomes.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

/*
 * A kept copy of the name of a state, or NULL for NULL.  Each name is kept once,
 * because there are few.
 */
static const char *
keep_state(OmOutcomes *outcomes, const text *name)
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
static OmOutcome *
find_outcome(OmOutcomes *outcomes, int64 id)
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
	OmOutcomes *outcomes = state;
	OmOutcome *outcome = find_outcome(outcomes, row->id);

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
	OmOutcomes *outcomes = state;
	OmOutcome *outcome = find_outcome(outcomes, row->id);

	if (outcome == NULL || outcome->done)
		return;
	outcome->done = row->done;
	outcome->new_state = keep_state(outcomes, row->state);
}

/*
 * A try of these jobs was undone: forget what was recorded about them.
 */
static void
forget(const OmJobIds *ids, void *state)
{
	OmOutcomes *outcomes = state;

	for (int i = 0; i < ids->count; i++)
	{
		OmOutcome *outcome = find_outcome(outcomes, om_job_ids_data(ids)[i]);

		if (outcome != NULL)
			memset(outcome, 0, sizeof(*outcome));
	}
}

static void
note_refusal(int64 id, const ErrorData *error, void *state)
{
	OmOutcomes *outcomes = state;
	OmOutcome *outcome = find_outcome(outcomes, id);

	if (outcome != NULL)
		outcome->refused = MemoryContextStrdup(outcomes->context, error->message);
}

/*
 * Observe a call, whose jobs are not known yet.  A dry run writes nothing, and so do
 * empty changes.
 */
void
om_outcomes_init(OmOutcomes *outcomes, OmCall *call, bool dry_run, bool skip_refused)
{
	outcomes->call = call;
	outcomes->context = CurrentMemoryContext;
	outcomes->observer = (OmObserver){
		.found = note_old_state,
		.written = note_new_state,
		.undone = forget,
		.state = outcomes,
		.dry_run = dry_run || (call->verb == OM_UPDATE && call->changes.columns == 0),
	};
	outcomes->refusals = (OmRefusals){
		.refused = note_refusal,
		.state = outcomes,
	};
	call->observer = &outcomes->observer;
	if (skip_refused)
		call->refusals = &outcomes->refusals;
	om_job_ids_init(&outcomes->ids, 0);
}

/*
 * The jobs are known: outcomes->ids.
 */
void
om_outcomes_begin(OmOutcomes *outcomes)
{
	outcomes->each = MemoryContextAllocExtended(outcomes->context,
												Max(outcomes->ids.count, 1) * sizeof(OmOutcome),
												MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
}

static void
note_not_found(TupleTableSlot *slot, void *state)
{
	OmOutcomes *outcomes = state;
	OmOutcome *outcome;
	OmFoundRow row;

	om_found_row_read(slot, &row);
	outcome = find_outcome(outcomes, row.id);
	if (outcome == NULL || outcome->old_state != NULL)
		return;
	(void) note_old_state(&row, state);
	if (outcome->refused != NULL)
		outcome->new_state = outcome->old_state;
	else
		outcome->locked = outcomes->call->skip_locked && !outcomes->observer.dry_run;
}

/*
 * Look, without a lock, at the jobs that the call has not found: the table has refused
 * them, another transaction holds them, or row-level security lets the caller see but
 * not lock them.
 */
void
om_outcomes_complete(OmOutcomes *outcomes)
{
	OmCall *call = outcomes->call;
	OmQuery query = {
		.step = OM_FIND_ONLY,
		.verb = call->verb,
		.returns = OM_RETURN_STATES,
	};
	Datum params[OM_N_CONDITIONS];

	if (call->refusals == NULL &&
		(outcomes->observer.dry_run ||
		 (!call->skip_locked && check_enable_rls(call->jobs, InvalidOid, true) != RLS_ENABLED)))
		return;
	om_filter_restrict(&call->filter, om_job_ids_array(&outcomes->ids));
	(void) om_filter_params(&call->filter, params);
	query.conditions = call->filter.conditions;
	om_query_run(call->jobs, query, params, note_not_found, outcomes);
}

static char *
reason_of(const OmOutcomes *outcomes, const OmOutcome *outcome, bool done)
{
	const OmCall *call = outcomes->call;
	const char *done_to = om_verbs[call->verb].participle;

	if (outcome->refused != NULL)
		return pstrdup(outcome->refused);
	if (outcome->locked)
		return pstrdup("another transaction holds the job");
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
						? "; their workers are told"
						: "");
}

static Datum
text_datum(const char *string)
{
	return string != NULL ? CStringGetTextDatum(string) : (Datum) 0;
}

static const char *
label_of(const OmOutcomes *outcomes, const OmOutcome *outcome, bool done)
{
	if (outcome->refused != NULL)
		return "refused";
	if (outcome->locked)
		return "locked";
	if (outcome->old_state == NULL)
		return "not_found";
	return done ? om_verbs[outcomes->call->verb].participle : "ignored";
}

/*
 * Fill the set that the function returns, in id order.
 */
void
om_outcomes_return(const OmOutcomes *outcomes, FunctionCallInfo fcinfo)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext row_context =
		AllocSetContextCreate(CurrentMemoryContext, "oban_manage outcome", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(row_context);

	for (int i = 0; i < outcomes->ids.count; i++)
	{
		const OmOutcome *outcome = &outcomes->each[i];
		bool done = outcome->applies && (outcomes->observer.dry_run || outcome->done);
		const char *new_state = outcome->new_state;
		Datum values[5];
		bool nulls[5] = {false};

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(row_context);
		if (outcome->old_state == NULL && outcomes->by_filter)
			continue;
		if (done && outcomes->call->verb == OM_DELETE)
			new_state = NULL;
		values[0] = Int64GetDatum(om_job_ids_data(&outcomes->ids)[i]);
		values[1] = text_datum(label_of(outcomes, outcome, done));
		values[2] = text_datum(outcome->old_state);
		values[3] = text_datum(new_state);
		values[4] = text_datum(reason_of(outcomes, outcome, done));
		nulls[2] = (outcome->old_state == NULL);
		nulls[3] = (new_state == NULL);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(row_context);
}
