/*
 * read_job.c
 *		Reading a job: all of it, or whether it is cancelled.
 *
 * These see what the calling statement sees, and lock no row.
 */
#include "oban_manage.h"

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
	om_query_run(jobs, (OmQuery){.step = OM_READ, .conditions = OM_BY_ID}, &id, om_job_result_put,
				 &result);
	SPI_finish();
	return om_job_result_return(&result, fcinfo);
}

static void
note_cancelled(TupleTableSlot *row, void *state)
{
	bool isnull;

	*(bool *) state = DatumGetBool(slot_getattr(row, 1, &isnull));
}

/*
 * oban_job_cancelled(job_id bigint, prefix text) -> boolean
 *		Should a worker that executes the job stop?  True once the job is
 *		cancelled or gone; false for NULL.
 */
PG_FUNCTION_INFO_V1(oban_job_cancelled);

Datum
oban_job_cancelled(PG_FUNCTION_ARGS)
{
	Oid jobs;
	Datum id;
	bool cancelled = true; /* when there is no row */

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	id = PG_GETARG_DATUM(0);
	jobs = om_jobs_table_argument(fcinfo, 1, AccessShareLock);

	SPI_connect();
	om_query_run(jobs, (OmQuery){.step = OM_CANCELLED, .conditions = OM_BY_ID}, &id, note_cancelled,
				 &cancelled);
	SPI_finish();
	PG_RETURN_BOOL(cancelled);
}
