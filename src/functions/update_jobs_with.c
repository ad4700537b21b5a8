/*
 * update_jobs_with.c
 *		The SQL functions that update jobs by a callable.
 *
 * They read the jobs and prepare the callable (arguments/callable.c);
 * verbs/update_with.c calls the callable for each job.  SQL calls them.
 */
#include "verbs/verbs.h"

/*
 * What the SQL functions have in common.  The callable and its context are the
 * arguments after the job.
 */
static Datum
update_by_callable(FunctionCallInfo fcinfo, Oid jobs, OmJobIds *ids)
{
	OmJobList list = {.ids = ids, .context = om_context_argument(fcinfo, 2)};
	OmJobResult result;
	OmCallable *callable = om_callable_argument(fcinfo, 1, jobs);

	om_job_result_init(&result, fcinfo);
	if (ids->count > 0)
		om_update_with(jobs, callable, om_next_of_list, &list, false, &result);
	return om_job_result_return(&result, fcinfo);
}

/*
 * oban_update_job_with(job_id bigint, callable regproc, context jsonb, prefix text) -> oban_job
 * oban_update_job_with(job record, callable regproc, context jsonb) -> oban_job
 * oban_update_job_with(job_ids bigint[], callable regproc, context jsonb, prefix text),
 * oban_update_many_jobs_with(job_ids bigint[], callable regproc, context jsonb, prefix text)
 *		-> setof oban_job
 *		Update each job with the changes that the callable returns for it; NULL means
 *		no changes.  Returns the jobs, in id order.  For a NULL job or array nothing is
 *		done, and NULL ids are skipped.
 *
 * Errors: a NULL callable (22004); those of om_callable_prepare,
 * om_jobs_table_by_prefix and om_job_argument; a job does not exist, or its
 * callable deleted it (P0002); those of om_changes_check for what the callable
 * returns; too few max_attempts for the attempts already made (22023); and what
 * the callable and the table themselves raise.
 */
PG_FUNCTION_INFO_V1(oban_update_job_with_by_id);
PG_FUNCTION_INFO_V1(oban_update_job_with_by_record);
PG_FUNCTION_INFO_V1(oban_update_jobs_with);

Datum
oban_update_job_with_by_id(PG_FUNCTION_ARGS)
{
	OmJobIds ids;
	Oid jobs = om_id_argument(fcinfo, 3, &ids);

	return update_by_callable(fcinfo, jobs, &ids);
}

Datum
oban_update_job_with_by_record(PG_FUNCTION_ARGS)
{
	OmJobIds ids;
	Oid jobs = om_record_argument(fcinfo, &ids);

	return update_by_callable(fcinfo, jobs, &ids);
}

Datum
oban_update_jobs_with(PG_FUNCTION_ARGS)
{
	OmJobIds ids;
	Oid jobs = om_ids_argument(fcinfo, 3, &ids);

	return update_by_callable(fcinfo, jobs, &ids);
}
