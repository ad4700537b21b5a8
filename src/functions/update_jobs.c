/*
 * update_jobs.c
 *		The SQL functions that update jobs with the same changes.
 *
 * They read the jobs (arguments/job_argument.c); verbs/update.c checks and makes the
 * changes.  SQL calls them.
 */
#include "verbs/verbs.h"

/*
 * What the SQL functions have in common.  The changes are the argument after the job.
 */
static Datum
update_by_changes(FunctionCallInfo fcinfo, Oid jobs, OmJobIds *ids)
{
	const Jsonb *changes = om_jsonb_argument(fcinfo, 1);
	OmJobResult result;

	om_job_result_init(&result, fcinfo);
	om_update_jobs(jobs, ids, changes, false, &result);
	return om_job_result_return(&result, fcinfo);
}

/*
 * oban_update_job(job_id bigint, changes jsonb, prefix text) -> oban_job
 * oban_update_job(job record, changes jsonb) -> oban_job
 * oban_update_job(job_ids bigint[], changes jsonb, prefix text),
 * oban_update_many_jobs(job_ids bigint[], changes jsonb, prefix text) -> setof oban_job
 *		Update the jobs; returns them, in id order.  For a NULL job or array nothing is
 *		done, and NULL ids are skipped.
 *
 * Errors: those of om_jobs_table_by_prefix, om_job_argument and
 * om_changes_check; a job does not exist (P0002); too few max_attempts for the
 * attempts already made (22023); and what the table itself raises.
 */
PG_FUNCTION_INFO_V1(oban_update_job_by_id);
PG_FUNCTION_INFO_V1(oban_update_job_by_record);
PG_FUNCTION_INFO_V1(oban_update_jobs);

Datum
oban_update_job_by_id(PG_FUNCTION_ARGS)
{
	OmJobIds ids;
	Oid jobs = om_id_argument(fcinfo, 2, &ids);

	return update_by_changes(fcinfo, jobs, &ids);
}

Datum
oban_update_job_by_record(PG_FUNCTION_ARGS)
{
	OmJobIds ids;
	Oid jobs = om_record_argument(fcinfo, &ids);

	return update_by_changes(fcinfo, jobs, &ids);
}

Datum
oban_update_jobs(PG_FUNCTION_ARGS)
{
	OmJobIds ids;
	Oid jobs = om_ids_argument(fcinfo, 2, &ids);

	return update_by_changes(fcinfo, jobs, &ids);
}
