/*
 * by_filter.c
 *		The SQL functions that find their jobs by a filter: oban_all_jobs, which only
 *		returns them, and one for each verb.
 *
 * They read the filter (arguments/filter.c) and run the verb (verbs/run.c);
 * oban_all_jobs runs a statement (statements/run_query.c).  SQL calls them.
 */
#include "verbs/verbs.h"

#include "executor/spi.h"

/*
 * oban_all_jobs(filter jsonb, max_jobs integer, prefix text) -> setof oban_job
 *		The jobs that match the filter, in id order, at most max_jobs of them.  The
 *		states that a verb acts on do not matter here.
 *
 * Errors: those of om_jobs_table_by_prefix and om_filter_read; max_jobs is
 * negative (22023).
 */
PG_FUNCTION_INFO_V1(oban_all_jobs);

Datum
oban_all_jobs(PG_FUNCTION_ARGS)
{
	Oid jobs = om_jobs_table_argument(fcinfo, 2, AccessShareLock);
	OmFilter filter;
	Datum params[OM_N_CONDITIONS];
	OmJobResult result;

	om_filter_read(&filter, om_jsonb_argument(fcinfo, 0), jobs);
	om_limit_argument(fcinfo, 1, &filter);
	(void) om_filter_params(&filter, params);
	om_job_result_init(&result, fcinfo);

	SPI_connect();
	om_query_run(jobs, (OmQuery){.step = OM_GET_AS_SEEN, .conditions = filter.conditions}, params,
				 om_job_result_put, &result);
	SPI_finish();
	return om_job_result_return(&result, fcinfo);
}

/*
 * Run a verb.  The arguments are, in this order: the filter; for an update, the
 * changes, or the callable and its context; max_jobs; the prefix; for a retry, when the
 * jobs should run.
 */
static Datum
run_by_filter(FunctionCallInfo fcinfo, OmVerb verb, bool callable)
{
	int max_jobs_argno = callable ? 3 : verb == OM_UPDATE ? 2 : 1;
	OmCall call = {
		.verb = verb,
		.jobs = om_jobs_table_argument(fcinfo, max_jobs_argno + 1, RowExclusiveLock),
	};
	uint64 count;

	om_filter_read(&call.filter, om_jsonb_argument(fcinfo, 0), call.jobs);
	if (callable)
	{
		call.callable = om_callable_argument(fcinfo, 1, call.jobs);
		call.context = om_context_argument(fcinfo, 2);
	}
	else if (verb == OM_UPDATE)
		om_changes_check(&call.changes, om_jsonb_argument(fcinfo, 1), call.jobs);
	om_limit_argument(fcinfo, max_jobs_argno, &call.filter);
	if (verb == OM_RETRY)
		call.retry_at = om_retry_at_argument(fcinfo, max_jobs_argno + 2);

	SPI_connect();
	count = om_call_run_again(&call);
	SPI_finish();
	PG_RETURN_INT64(count);
}

/*
 * oban_cancel_all_jobs(filter jsonb, max_jobs integer, prefix text) -> bigint
 * oban_retry_all_jobs(filter jsonb, max_jobs integer, prefix text, scheduled_at timestamptz)
 * -> bigint
 * oban_delete_all_jobs(filter jsonb, max_jobs integer, prefix text) -> bigint
 *		Cancel, retry or delete the jobs that match the filter, if the verb acts on
 *		their states.  Returns how many it changed: at most max_jobs, the lowest ids
 *		first.
 * oban_update_all_jobs(filter jsonb, changes jsonb, max_jobs integer, prefix text)
 * -> bigint
 *		Update the jobs that match the filter, at most max_jobs of them.  Returns how
 *		many it updated; with empty changes, how many match.
 * oban_update_all_jobs_with(filter jsonb, callable regproc, context jsonb,
 * max_jobs integer, prefix text) -> bigint
 *		Call the callable for each job that matches the filter, at most max_jobs of
 *		them, and make the changes that it returns.  All of the jobs are locked first.
 *		Returns how many jobs were changed.
 *
 * A call that loses to a deadlock, or to a row that moves to another partition, gives up
 * its locks and begins again (om_call_try).
 *
 * Errors: those of om_jobs_table_by_prefix, om_filter_read, om_changes_check,
 * om_callable_argument and om_retry_at_argument; max_jobs is negative (22023); too few
 * max_attempts for the attempts that a job has made (22023); and what the callable and
 * the table themselves raise.
 */
PG_FUNCTION_INFO_V1(oban_cancel_all_jobs);
PG_FUNCTION_INFO_V1(oban_retry_all_jobs);
PG_FUNCTION_INFO_V1(oban_delete_all_jobs);
PG_FUNCTION_INFO_V1(oban_update_all_jobs);
PG_FUNCTION_INFO_V1(oban_update_all_jobs_with);

Datum
oban_cancel_all_jobs(PG_FUNCTION_ARGS)
{
	return run_by_filter(fcinfo, OM_CANCEL, false);
}

Datum
oban_retry_all_jobs(PG_FUNCTION_ARGS)
{
	return run_by_filter(fcinfo, OM_RETRY, false);
}

Datum
oban_delete_all_jobs(PG_FUNCTION_ARGS)
{
	return run_by_filter(fcinfo, OM_DELETE, false);
}

Datum
oban_update_all_jobs(PG_FUNCTION_ARGS)
{
	return run_by_filter(fcinfo, OM_UPDATE, false);
}

Datum
oban_update_all_jobs_with(PG_FUNCTION_ARGS)
{
	return run_by_filter(fcinfo, OM_UPDATE, true);
}
