/*
 * read_job.c
 *		Reading a job: all of it, or whether it is cancelled.
 *
 * These functions see what the calling statement sees, and lock no row.  They run a
 * statement (statements/run_query.c) without a verb.  SQL calls them.
 */
#include "statements/statements.h"

#include "executor/spi.h"

/*
 * oban_get_job(job_id bigint, prefix text) -> oban_job
 *		The job, or NULL when there is none.
 */
PG_FUNCTION_INFO_V1(oban_get_job);

Datum
oban_get_job(PG_FUNCTION_ARGS)
{
	OmJobResult result;
	Oid jobs;
	Datum id;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	id = PG_GETARG_DATUM(0);
	jobs = om_jobs_table_argument(fcinfo, 1, AccessShareLock);
	om_job_result_init(&result, fcinfo);

	SPI_connect();
	om_query_run(jobs, (OmQuery){.step = OM_GET_AS_SEEN, .conditions = OM_BY_ID}, &id,
				 om_job_result_put, &result);
	SPI_finish();
	return om_job_result_return(&result, fcinfo);
}

static void
note_answer(TupleTableSlot *slot, void *state)
{
	*(bool *) state = om_answer_row_read(slot);
}

/*
 * oban_job_cancelled(job_id bigint, prefix text, attempt integer) -> boolean
 *		Should a worker that executes the job stop?  True when the job is cancelled or
 *		deleted; false when job_id is NULL.  With the attempt that the worker runs,
 *		true as soon as that run has ended: the job is not executing, or it is
 *		executing with another attempt.
 */
PG_FUNCTION_INFO_V1(oban_job_cancelled);

Datum
oban_job_cancelled(PG_FUNCTION_ARGS)
{
	OmQuery query = {.step = OM_CANCELLED, .conditions = OM_BY_ID};
	Datum params[2];
	Oid jobs;
	bool cancelled = true; /* when there is no row */

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	params[0] = PG_GETARG_DATUM(0);
	if (!PG_ARGISNULL(2))
	{
		query.step = OM_RUN_ENDED;
		params[1] = PG_GETARG_DATUM(2);
	}
	jobs = om_jobs_table_argument(fcinfo, 1, AccessShareLock);

	SPI_connect();
	om_query_run(jobs, query, params, note_answer, &cancelled);
	SPI_finish();
	PG_RETURN_BOOL(cancelled);
}
