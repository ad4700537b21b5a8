/*
 * change_jobs.c
 *		The SQL functions that cancel, retry or delete jobs by id, as an instance, or
 *		by an array of ids.
 *
 * They read the jobs (arguments/job_argument.c); verbs/transitions.c changes them.  SQL
 * calls them.
 */
#include "verbs/verbs.h"

#include "executor/spi.h"

/*
 * The three forms of each verb.  For a NULL job or array they do nothing.
 */

static Datum
change_by_id(FunctionCallInfo fcinfo, OmVerb verb)
{
	OmCall call = {.verb = verb};
	bool changed;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	call.jobs = om_jobs_table_argument(fcinfo, 1, RowExclusiveLock);
	if (verb == OM_RETRY)
		call.retry_at = om_retry_at_argument(fcinfo, 2);

	SPI_connect();
	changed = om_transition_job(&call, PG_GETARG_INT64(0));
	SPI_finish();
	PG_RETURN_BOOL(changed);
}

static Datum
change_by_record(FunctionCallInfo fcinfo, OmVerb verb)
{
	OmCall call = {.verb = verb};
	int64 id;
	bool changed;

	if (!om_job_argument(fcinfo, 0, RowExclusiveLock, &call.jobs, &id))
		PG_RETURN_BOOL(false);
	if (verb == OM_RETRY)
		call.retry_at = om_retry_at_argument(fcinfo, 1);

	SPI_connect();
	changed = om_transition_job(&call, id);
	SPI_finish();
	PG_RETURN_BOOL(changed);
}

static Datum
change_by_ids(FunctionCallInfo fcinfo, OmVerb verb)
{
	OmCall call = {.verb = verb};
	ArrayType *ids;
	uint64 changed;

	if (PG_ARGISNULL(0))
		PG_RETURN_INT32(0);
	ids = PG_GETARG_ARRAYTYPE_P(0);
	call.jobs = om_jobs_table_argument(fcinfo, 1, RowExclusiveLock);
	if (verb == OM_RETRY)
		call.retry_at = om_retry_at_argument(fcinfo, 2);

	SPI_connect();
	changed = om_transition_jobs(&call, ids);
	SPI_finish();
	PG_RETURN_INT32((int32) changed);
}

/*
 * oban_cancel_job(job_id bigint, prefix text) -> boolean
 * oban_cancel_job(job record) -> boolean
 * oban_cancel_job(job_ids bigint[], prefix text),
 * oban_cancel_many_jobs(job_ids bigint[], prefix text) -> integer
 *		Cancel the jobs that are not completed, discarded or cancelled.  Returns
 *		whether the job was cancelled, or how many were.  A worker that executes such
 *		a job is told to stop.
 *
 * Errors: those of om_jobs_table_by_prefix and om_job_argument, and what the
 * table itself raises.
 */
PG_FUNCTION_INFO_V1(oban_cancel_job_by_id);
PG_FUNCTION_INFO_V1(oban_cancel_job_by_record);
PG_FUNCTION_INFO_V1(oban_cancel_jobs);

Datum
oban_cancel_job_by_id(PG_FUNCTION_ARGS)
{
	return change_by_id(fcinfo, OM_CANCEL);
}

Datum
oban_cancel_job_by_record(PG_FUNCTION_ARGS)
{
	return change_by_record(fcinfo, OM_CANCEL);
}

Datum
oban_cancel_jobs(PG_FUNCTION_ARGS)
{
	return change_by_ids(fcinfo, OM_CANCEL);
}

/*
 * oban_retry_job(job_id bigint, prefix text, scheduled_at timestamptz) -> boolean
 * oban_retry_job(job record, scheduled_at timestamptz) -> boolean
 * oban_retry_job(job_ids bigint[], prefix text, scheduled_at timestamptz),
 * oban_retry_many_jobs(job_ids bigint[], prefix text, scheduled_at timestamptz) -> integer
 *		Retry the jobs that are not available or executing: they become available now,
 *		with at least one attempt left, and their queues are woken.  With a
 *		scheduled_at in the future they become scheduled, and no queue is woken.  Jobs
 *		that have made as many attempts as max_attempts can hold do not change.
 *
 * Errors: as for cancel, and those of om_retry_at_argument.
 */
PG_FUNCTION_INFO_V1(oban_retry_job_by_id);
PG_FUNCTION_INFO_V1(oban_retry_job_by_record);
PG_FUNCTION_INFO_V1(oban_retry_jobs);

Datum
oban_retry_job_by_id(PG_FUNCTION_ARGS)
{
	return change_by_id(fcinfo, OM_RETRY);
}

Datum
oban_retry_job_by_record(PG_FUNCTION_ARGS)
{
	return change_by_record(fcinfo, OM_RETRY);
}

Datum
oban_retry_jobs(PG_FUNCTION_ARGS)
{
	return change_by_ids(fcinfo, OM_RETRY);
}

/*
 * oban_delete_job, oban_delete_many_jobs: as for cancel.
 *		Delete the jobs that are not executing.
 */
PG_FUNCTION_INFO_V1(oban_delete_job_by_id);
PG_FUNCTION_INFO_V1(oban_delete_job_by_record);
PG_FUNCTION_INFO_V1(oban_delete_jobs);

Datum
oban_delete_job_by_id(PG_FUNCTION_ARGS)
{
	return change_by_id(fcinfo, OM_DELETE);
}

Datum
oban_delete_job_by_record(PG_FUNCTION_ARGS)
{
	return change_by_record(fcinfo, OM_DELETE);
}

Datum
oban_delete_jobs(PG_FUNCTION_ARGS)
{
	return change_by_ids(fcinfo, OM_DELETE);
}
