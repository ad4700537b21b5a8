/*
 * manage_jobs.c
 *		The SQL functions oban_manage_jobs and oban_manage_all_jobs: run a verb over
 *		many jobs, and return the outcome for each job.
 *
 * All jobs that the call names are locked and looked at, also those that the verb does
 * not act on.  So the returned states are those at the time of the action.  A dry run
 * looks without a lock.  Calls verbs/parts.c, and outcomes.c for the rows.
 */
#include "functions/outcomes.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/builtins.h"

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

/* Where the arguments are */
typedef struct Arguments
{
	int dry_run;
	int skip_refused;
	int skip_locked;
	int prefix;
} Arguments;

/*
 * Read the arguments that both functions have: the action, the changes, and those in
 * "at".  Does not read which jobs.
 */
static void
begin_call(FunctionCallInfo fcinfo, const Arguments *at, OmCall *call, OmOutcomes *outcomes)
{
	const Jsonb *changes = om_jsonb_argument(fcinfo, 2);
	bool dry_run;

	call->verb = verb_argument(fcinfo, 0);
	dry_run = om_boolean_argument(fcinfo, at->dry_run, "dry_run");
	call->skip_locked = om_boolean_argument(fcinfo, at->skip_locked, "skip_locked");
	call->jobs =
		om_jobs_table_argument(fcinfo, at->prefix, dry_run ? AccessShareLock : RowExclusiveLock);

	if (call->verb == OM_UPDATE)
		om_changes_check(&call->changes, changes, call->jobs);
	else if (changes != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("action \"%s\" takes no changes", om_verbs[call->verb].name),
				 errhint("Pass changes with the action \"%s\" only.", om_verbs[OM_UPDATE].name)));
	om_outcomes_init(outcomes, call, dry_run,
					 om_boolean_argument(fcinfo, at->skip_refused, "skip_refused"));
}

/*
 * Run the call over the jobs of the outcomes, and return what became of them.
 */
static void
run_and_return(FunctionCallInfo fcinfo, OmCall *call, OmOutcomes *outcomes)
{
	om_outcomes_begin(outcomes);
	if (outcomes->ids.count > 0)
	{
		(void) om_call_run_over(call, &outcomes->ids,
								outcomes->by_filter && !outcomes->observer.dry_run);
		om_outcomes_complete(outcomes);
	}
	SPI_finish();
	om_outcomes_return(outcomes, fcinfo);
}

/*
 * oban_manage_jobs(action text, job_ids bigint[], changes jsonb, dry_run boolean,
 * prefix text, skip_refused boolean, skip_locked boolean) -> table (job_id bigint,
 * outcome text, old_state text, new_state text, reason text)
 *		Cancel, retry, delete or update the jobs.  Returns the outcome for each
 *		distinct id, in id order; with dry_run, the outcome that the call would have.
 *		NULL ids are skipped.  Ids that do not exist are not_found, for update too.
 *		skip_refused passes over jobs that the table refuses (om_error_is_refusal);
 *		a dry run writes nothing, so it knows only of too few max_attempts.
 *		skip_locked passes over jobs that another transaction holds.
 * oban_manage_all_jobs(action text, filter jsonb, changes jsonb, max_jobs integer,
 * dry_run boolean, skip_refused boolean, skip_locked boolean, prefix text) -> the same
 *		The same for the jobs that match the filter, in any state, at most max_jobs of
 *		them, the lowest ids first.  Jobs that no longer match when they are locked
 *		are passed over, and have no row.
 *
 * Errors: action, dry_run, skip_refused or skip_locked is NULL (22004); no such action,
 * changes without update, max_jobs is negative (22023); those of
 * om_jobs_table_by_prefix, om_filter_read and om_changes_check; too few max_attempts
 * for the attempts that a job has made (22023); and errors of the table itself.
 */
PG_FUNCTION_INFO_V1(oban_manage_jobs);
PG_FUNCTION_INFO_V1(oban_manage_all_jobs);

Datum
oban_manage_jobs(PG_FUNCTION_ARGS)
{
	static const Arguments at = {.dry_run = 3, .prefix = 4, .skip_refused = 5, .skip_locked = 6};
	OmOutcomes outcomes = {0};
	OmCall call = {0};

	InitMaterializedSRF(fcinfo, 0);
	begin_call(fcinfo, &at, &call, &outcomes);
	if (!PG_ARGISNULL(1))
		om_job_ids_add_array(&outcomes.ids, PG_GETARG_ARRAYTYPE_P(1), INT8OID);
	om_job_ids_sort(&outcomes.ids);
	SPI_connect();
	run_and_return(fcinfo, &call, &outcomes);
	return (Datum) 0;
}

Datum
oban_manage_all_jobs(PG_FUNCTION_ARGS)
{
	static const Arguments at = {.dry_run = 4, .skip_refused = 5, .skip_locked = 6, .prefix = 7};
	OmOutcomes outcomes = {.by_filter = true};
	OmCall call = {0};

	InitMaterializedSRF(fcinfo, 0);
	begin_call(fcinfo, &at, &call, &outcomes);
	om_filter_read(&call.filter, om_jsonb_argument(fcinfo, 1), call.jobs);
	om_limit_argument(fcinfo, 3, &call.filter);
	SPI_connect();
	om_call_look(&call, &outcomes.ids);
	run_and_return(fcinfo, &call, &outcomes);
	return (Datum) 0;
}
