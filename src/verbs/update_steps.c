/*
 * update_steps.c
 *		The steps of an update.  A step is a statement over a list of jobs, and marks
 *		the jobs that are done.
 *
 * update.c, update_with.c and read_ahead.c call this file; this file runs the
 * statements (statements/run_query.c).
 */
#include "verbs/verbs.h"

#include "lib/stringinfo.h"
#include "utils/lsyscache.h"

/* How many job ids an error names */
#define NAMED_JOBS 10

/*
 * Begin an update whose steps have at most "capacity" jobs, in the current memory
 * context.  The caller has connected to SPI.
 */
void
om_update_init(OmUpdate *update, Oid jobs, int capacity, bool missing_ok, OmJobResult *result)
{
	memset(update, 0, sizeof(*update));
	update->jobs = jobs;
	update->missing_ok = missing_ok;
	update->may_name_jobs = !missing_ok;
	update->result = result;
	update->done = palloc0(capacity);
	om_job_ids_init(&update->due, 0);
	om_signals_init(&update->signals, jobs);
}

/*
 * Mark a job as done in the running step.  A trigger may have changed the row's id, so
 * that it is not in the list.
 */
void
om_update_mark_done(OmUpdate *update, int64 id)
{
	int i = om_job_ids_find(update->ids, id);

	if (i >= 0)
		update->done[i] = true;
	else
		update->renamed++;
}

static void
list_job(StringInfo list, int count, int64 id)
{
	if (count < NAMED_JOBS)
		appendStringInfo(list, "%s" INT64_FORMAT, count > 0 ? ", " : "", id);
}

/*
 * List jobs for a message, at most NAMED_JOBS of them by id: the jobs of the step that
 * are done; or, if "done" is false, those that are not done, and those of later steps.
 * Returns how many there are.
 */
static int
list_jobs(const OmUpdate *update, bool done, StringInfo list)
{
	int count = 0;

	for (int i = 0; i < update->ids->count; i++)
	{
		if (update->done[i] == done)
			list_job(list, count++, om_job_ids_data(update->ids)[i]);
	}
	for (int i = 0; !done && update->later != NULL && i < update->later->count; i++)
		list_job(list, count++, om_job_ids_data(update->later)[i]);
	if (count > NAMED_JOBS)
		appendStringInfo(list, " and %d more", count - NAMED_JOBS);
	return count;
}

/*
 * The error occurred at one of the jobs of the step that are not done.  If the
 * statement goes through the jobs in id order, as an index scan of a plain table does,
 * it is the first of them.  Triggers that fire after the statement may fail at any job.
 *
 * Only jobs that were found are named when the ids come from an application's trigger.
 * The caller may have no right to read the column of these ids, and the jobs may be
 * hidden from the caller.
 *
 * PostgreSQL calls this for notices and log messages too.  Going through the jobs for
 * each of those would be too slow.
 */
void
om_update_error_callback(void *arg)
{
	const OmUpdate *update = arg;
	StringInfoData list;
	int count;

	if (!om_is_error() || !update->may_name_jobs)
		return;

	initStringInfo(&list);
	count = list_jobs(update, false, &list);
	if (count == 0)
		count = list_jobs(update, true, &list);
	if (count == 0)
		return; /* between the steps */
	errcontext("update of %s %s", count == 1 ? "job" : "jobs", list.data);
}

/*
 * Keep in the list the jobs of the step that are done, or, if "done" is false, those
 * that are not.
 */
void
om_update_keep_jobs(OmUpdate *update, bool done)
{
	int64 *ids = om_job_ids_data(update->ids);
	int kept = 0;

	for (int i = 0; i < update->ids->count; i++)
	{
		if (update->done[i] == done)
			ids[kept++] = ids[i];
	}
	update->ids->count = kept;
}

/*
 * Remove jobs that do not exist from the list; or, if all must exist, raise an error
 * that names the missing ones.
 */
void
om_update_drop_missing(OmUpdate *update)
{
	StringInfoData list;
	int missing;

	if (update->missing_ok)
	{
		om_update_keep_jobs(update, true);
		return;
	}

	initStringInfo(&list);
	missing = list_jobs(update, false, &list);
	if (missing > 0)
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND),
						errmsg_plural("job %s does not exist in schema \"%s\"",
									  "jobs %s do not exist in schema \"%s\"", missing, list.data,
									  get_namespace_name_or_temp(get_rel_namespace(update->jobs))),
						errdetail("None of the jobs was updated.")));
	pfree(list.data);
}

/*
 * Find the jobs of the update by a query, which locks them or only looks at them.  Hand
 * each to the callback, which marks it as done.
 */
void
om_update_find(OmUpdate *update, OmQuery query, OmRowCallback callback, void *state)
{
	update->may_name_jobs = !update->missing_ok;
	om_update_step(update, query, NULL, callback, state);
	om_update_drop_missing(update);
	update->may_name_jobs = true;
}

/*
 * Raise an error if max_attempts leaves no attempt to a job that may still run, or is
 * less than the attempts that a job has made.
 *
 * If a waiting job has no attempt left, Oban for Elixir does not run it but fetches it
 * again and again.  In Oban for Python, each fetch of the job's queue fails.
 */
static void
check_max_attempts(int64 id, int32 attempt, bool may_run, int32 max_attempts)
{
	int64 least = (int64) attempt + (may_run ? 1 : 0);

	if (max_attempts < least)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for \"%s\": %d",
							   om_update_columns[OM_MAX_ATTEMPTS].name, max_attempts),
						errdetail_plural("Job " INT64_FORMAT " has already made %d attempt.",
										 "Job " INT64_FORMAT " has already made %d attempts.",
										 (unsigned long) attempt, id, attempt),
						may_run ? errhint("Give at least " INT64_FORMAT
										  ". In Oban, a waiting job that has "
										  "no attempts left stops its whole queue.",
										  least)
								: errhint("Give at least " INT64_FORMAT ".", least)));
}

/*
 * Check a job that was found: may the changes be made to it?  Remember the job if the
 * changes make it available, because its queue must then be woken.
 */
void
om_update_look_at(OmUpdate *update, const OmChanges *changes, const OmFoundRow *row)
{
	if (changes->columns & OM_COLUMN_BIT(OM_MAX_ATTEMPTS))
		check_max_attempts(row->id, row->attempt, row->may_run,
						   DatumGetInt32(changes->values[OM_MAX_ATTEMPTS]));

	if (row->was_in_state && om_changes_make_due(changes))
		om_job_ids_add(&update->due, row->id);
}

static const OmObserver *
observer_of(const OmUpdate *update)
{
	return update->call != NULL ? update->call->observer : NULL;
}

/*
 * What the writing steps return to om_update_put_job.
 */
OmReturns
om_update_returns(const OmUpdate *update)
{
	if (update->result != NULL)
		return OM_RETURN_JOBS;
	return observer_of(update) != NULL ? OM_RETURN_STATES : OM_RETURN_WRITTEN;
}

/*
 * Wake the queue of a job that was written, if the step wrote the job's queue, or if the
 * job was scheduled and is due now.
 */
static void
wake_queue(OmUpdate *update, const OmWrittenRow *row)
{
	if ((update->columns & OM_COLUMN_BIT(OM_QUEUE)) != 0 || update->was_scheduled ||
		om_job_ids_find(&update->due, row->id) >= 0)
		om_signal_wake(&update->signals, row->queue);
}

/*
 * Put a job that was written into the result, and wake its queue if needed.  An
 * OmRowCallback; its state is an OmUpdate.
 */
void
om_update_put_job(TupleTableSlot *slot, void *state)
{
	OmUpdate *update = state;
	const OmObserver *observer = observer_of(update);
	OmWrittenRow row;

	om_written_row_read(slot, &row);
	om_update_mark_done(update, row.id);
	if (update->result != NULL)
		om_job_result_put(row.job, update->result);
	if (observer != NULL)
		observer->written(&row, observer->state);
	wake_queue(update, &row);
	update->written++;
	if (update->call != NULL)
		om_call_pass(update->call, row.id);
}

/*
 * Begin a step: a statement over the ids of the update.  Fills params: first the ids,
 * then the values of the query's columns, then the times of OM_WRITE_AND_WATCH.  Returns
 * the query with its other members set.
 */
OmQuery
om_update_begin_step(OmUpdate *update, OmQuery query, const Datum *values, Datum *params)
{
	int nvalues = om_columns_count(query.columns) +
				  (query.step == OM_WRITE_AND_WATCH ? OM_N_WATCH_PARAMS : 0);
	bool one = (query.step == OM_WRITE_ONE);

	query.verb = OM_UPDATE;
	query.conditions = one ? OM_BY_ID : OM_BY_IDS;
	params[0] =
		one ? Int64GetDatum(om_job_ids_data(update->ids)[0]) : om_job_ids_array(update->ids);
	if (values != NULL)
		memcpy(&params[1], values, nvalues * sizeof(Datum));

	memset(update->done, false, update->ids->count);
	update->renamed = 0;
	if (update->call != NULL && values != NULL)
		om_call_begin_statement(update->call);
	update->columns = query.columns;
	return query;
}

/*
 * Run a step.  Returns how many rows it changed or returned.
 */
uint64
om_update_step(OmUpdate *update, OmQuery query, const Datum *values, OmRowCallback callback,
			   void *state)
{
	Datum params[OM_MAX_PARAMS];

	query = om_update_begin_step(update, query, values, params);
	return om_query_run(update->jobs, query, params, callback, state);
}
