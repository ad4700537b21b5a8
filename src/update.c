/*
 * update.c
 *		Updating jobs: the same checked changes to each of them, and the steps that
 *		an update by a callable (update_with.c) takes as well.
 *
 * All of the jobs named are updated, or none.  It takes one UPDATE where that
 * writes all of them, and in id order; otherwise the jobs are locked in that order,
 * looked at, and written by one UPDATE.
 */
#include "verbs.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/lsyscache.h"

/* How many job ids an error names */
#define NAMED_JOBS 10

/*
 * Begin an update, in the current memory context, whose steps are over so many
 * jobs at most.  The caller has connected to SPI.
 */
void
om_update_init(OmUpdate *update, Oid jobs, int capacity, bool missing_ok, OmJobResult *result)
{
	memset(update, 0, sizeof(*update));
	update->jobs = jobs;
	update->missing_ok = missing_ok;
	update->result = result;
	update->done = palloc0(capacity);
	om_job_ids_init(&update->due, 0);
	om_signals_init(&update->signals, jobs);
}

/*
 * Mark a job as done in the running step.  A trigger may have given the row
 * another id, which is none of ours.
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

/*
 * List the jobs of the step that are done, or those that are not, the first of
 * them in full, for a message.  Returns how many there are.
 */
static int
list_jobs(const OmUpdate *update, bool done, StringInfo list)
{
	int count = 0;

	for (int i = 0; i < update->ids->count; i++)
	{
		if (update->done[i] != done)
			continue;
		if (count < NAMED_JOBS)
			appendStringInfo(list, "%s" INT64_FORMAT, count > 0 ? ", " : "",
							 om_job_ids_data(update->ids)[i]);
		count++;
	}
	if (count > NAMED_JOBS)
		appendStringInfo(list, " and %d more", count - NAMED_JOBS);
	return count;
}

/*
 * What went wrong did so at one of the jobs that are not done.  Where they are
 * worked on in id order, as an index scan of a plain table does, it is the
 * first.  Triggers that fire after the statement may fail at any of them.
 *
 * This is called for notices and log messages too, where walking the jobs for
 * each of many would not do.
 */
void
om_update_error_callback(void *arg)
{
	const OmUpdate *update = arg;
	StringInfoData list;
	int count;

	if (!om_is_error())
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
 * Leave in the list the jobs of the step that are done, or those that are not.
 */
static void
keep_jobs(OmUpdate *update, bool done)
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
 * Where jobs of the step do not exist, leave the others in the list, or raise
 * an error that names them if all must exist.
 */
void
om_update_drop_missing(OmUpdate *update)
{
	StringInfoData list;
	int missing;

	if (update->missing_ok)
	{
		keep_jobs(update, true);
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
 * Lock the jobs of the update, and hand each to the callback, which marks it as
 * done.
 */
void
om_update_lock(OmUpdate *update, Oid argument_type, OmRowCallback callback, void *state)
{
	om_update_step(update, (OmQuery){.step = OM_LOCK, .argument_type = argument_type}, NULL,
				   callback, state);
	om_update_drop_missing(update);
}

/*
 * Look at a job that is locked: may the changes be made to it, and will it
 * become available, so that its queue must be woken?
 */
void
om_update_look_at_job(OmUpdate *update, const OmChanges *changes, int64 id, int32 attempt,
					  bool scheduled)
{
	if (changes->columns & OM_COLUMN_BIT(OM_MAX_ATTEMPTS))
	{
		int32 max_attempts = DatumGetInt32(changes->values[OM_MAX_ATTEMPTS]);

		if (attempt > max_attempts)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for \"%s\": %d",
							om_change_keys[OM_MAX_ATTEMPTS].key.name, max_attempts),
					 errdetail("Job " INT64_FORMAT " has already made %d attempts.", id, attempt),
					 errhint("Give at least as many.")));
	}

	if (scheduled && om_changes_make_due(changes))
		om_job_ids_add(&update->due, id);
}

static void
look_at_row(OmUpdate *update, TupleTableSlot *row, int64 id)
{
	bool isnull;

	om_update_look_at_job(update, update->changes, id,
						  DatumGetInt32(slot_getattr(row, OM_LOCK_ATTEMPT, &isnull)),
						  DatumGetBool(slot_getattr(row, OM_LOCK_SCHEDULED, &isnull)));
}

static void
note_locked(TupleTableSlot *row, void *state)
{
	OmUpdate *update = state;
	bool isnull;
	int64 id = DatumGetInt64(slot_getattr(row, OM_LOCK_ID, &isnull));

	look_at_row(update, row, id);
	om_update_mark_done(update, id);
}

/*
 * What the writing steps return, which om_update_put_job takes.
 */
OmReturns
om_update_returns(const OmUpdate *update)
{
	if (update->result != NULL)
		return OM_RETURN_JOBS;
	return update->outcomes != NULL ? OM_RETURN_STATES : OM_RETURN_QUEUES;
}

/*
 * Take a job into the result, and wake its queue if the update made it
 * available.  An OmRowCallback, whose state begins with an OmUpdate.
 */
void
om_update_put_job(TupleTableSlot *row, void *state)
{
	OmUpdate *update = state;
	bool isnull;
	int64 id = DatumGetInt64(slot_getattr(row, OM_JOB_ID, &isnull));

	om_update_mark_done(update, id);
	if (update->result != NULL)
		om_job_result_put(row, update->result);
	if (update->outcomes != NULL)
		om_outcomes_written(update->outcomes, row);
	if (update->was_scheduled || om_job_ids_find(&update->due, id) >= 0)
		om_signal_wake(&update->signals, row,
					   update->result != NULL ? OM_JOB_QUEUE : OM_WRITTEN_QUEUE);
}

StaticAssertDecl(OM_JOB_ID == OM_WRITTEN_ID, "om_update_put_job takes either");

static OmQuery
complete_query(OmQuery query)
{
	query.verb = OM_UPDATE;
	query.conditions = query.step == OM_WRITE_ONE ? OM_BY_ID : OM_BY_IDS;
	return query;
}

/*
 * Run a statement over the ids of the update, which are its first parameter;
 * the values of the query's columns follow, and those that note.
 */
uint64
om_update_step(OmUpdate *update, OmQuery query, const Datum *values, OmRowCallback callback,
			   void *state)
{
	bool notes = (query.step == OM_WRITE_NOTE);
	int nvalues = pg_popcount32(query.columns) + (notes ? OM_N_NOTE_PARAMS : 0);
	bool *noted = notes ? &update->was_scheduled : NULL;
	Datum params[OM_MAX_PARAMS];
	uint64 count;

	params[0] = query.step == OM_WRITE_ONE ? Int64GetDatum(om_job_ids_data(update->ids)[0])
										   : om_job_ids_array(update->ids);
	if (values != NULL)
		memcpy(&params[1], values, nvalues * sizeof(Datum));

	memset(update->done, false, update->ids->count);
	update->renamed = 0;
	count =
		om_query_run_noting(update->jobs, complete_query(query), params, noted, callback, state);
	update->was_scheduled = false;
	return count;
}

/*
 * The query that writes the same changes to the jobs of the update.
 */
static OmQuery
same_query(const OmUpdate *update, OmStep step)
{
	return complete_query((OmQuery){
		.step = step,
		.columns = update->changes->columns,
		.returns = om_update_returns(update),
	});
}

/*
 * Run it.  Returns how many jobs were written.
 */
static uint64
write_same(OmUpdate *update, OmStep step)
{
	const OmChanges *changes = update->changes;
	Datum values[OM_N_UPDATE_COLUMNS + OM_N_NOTE_PARAMS];
	int nvalues = 0;

	for (int column = 0; column < OM_N_UPDATE_COLUMNS; column++)
	{
		if (changes->columns & OM_COLUMN_BIT(column))
			values[nvalues++] = changes->values[column];
	}
	if (step == OM_WRITE_NOTE)
		values[nvalues] = values[nvalues + 1] = changes->values[OM_SCHEDULED_AT];
	return om_update_step(update, same_query(update, step), values, om_update_put_job, update);
}

/*
 * Write the changes to jobs that have not been locked, if one statement can do
 * that in id order.  Returns whether all of the jobs were written; otherwise the
 * list has those that were not.
 *
 * Whether a job was scheduled before matters only where it may become available,
 * and its queue must be woken.  Jobs that may have made too many attempts to be
 * written are locked first: to lock them later would be out of order.
 */
static bool
write_unlocked(OmUpdate *update)
{
	bool due = om_changes_make_due(update->changes);
	bool limits = update->changes->columns & OM_COLUMN_BIT(OM_MAX_ATTEMPTS);
	OmStep step = due ? OM_WRITE_NOTE : OM_WRITE;

	if (update->ids->count == 1 && !due)
		return write_same(update, OM_WRITE_ONE) > 0;
	if (limits || !om_query_is_in_order(update->jobs, same_query(update, step)))
		return false;
	write_same(update, step);
	keep_jobs(update, false);
	return update->ids->count <= update->renamed;
}

/*
 * Make the same changes to the jobs of the update, or raise an error.
 *
 * Jobs that could not be written are locked and looked at, which tells why, and
 * written if they can be by now.  Empty changes write nothing, so they lock
 * nothing either.
 */
void
om_update_same(OmUpdate *update)
{
	if (update->changes->columns == 0)
	{
		om_update_step(update, (OmQuery){.step = OM_GET}, NULL, om_update_put_job, update);
		om_update_drop_missing(update);
		return;
	}

	if (!write_unlocked(update))
	{
		update->due.count = 0;
		om_update_lock(update, InvalidOid, note_locked, update);
		if (update->ids->count > 0)
			write_same(update, OM_WRITE);
	}
}

/*
 * Update the jobs, whose ids are distinct and in order, and put them into the
 * result, which may be NULL.  NULL changes stand for SQL NULL; they are checked
 * even when there is no job.
 */
void
om_update_jobs(Oid jobs, OmJobIds *ids, const Jsonb *json, bool missing_ok, OmJobResult *result)
{
	OmChanges changes;
	OmUpdate update;
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = om_update_error_callback,
		.arg = &update,
	};

	om_changes_check(&changes, json, jobs);
	if (ids->count == 0)
		return;

	SPI_connect();
	om_update_init(&update, jobs, ids->count, missing_ok, result);
	update.ids = ids;
	update.changes = &changes;
	error_context_stack = &callback;
	om_update_same(&update);
	error_context_stack = callback.previous;
	SPI_finish();
}

/* An update of the jobs of a filter */
typedef struct Found
{
	OmUpdate update;
	OmCall *call;
} Found;

static void
note_found(TupleTableSlot *row, void *state)
{
	Found *found = state;
	bool isnull;
	int64 id = DatumGetInt64(slot_getattr(row, OM_LOCK_ID, &isnull));

	if (found->call->outcomes != NULL)
		(void) om_outcomes_found(found->call->outcomes, row);
	look_at_row(&found->update, row, id);
	om_call_add(found->call, id);
}

/*
 * Update the jobs of the call's filter.  Returns how many were updated; with
 * empty changes, which write and lock nothing, how many were found.  The caller
 * has connected to SPI.
 */
uint64
om_update_found(OmCall *call)
{
	bool dry_run = (call->outcomes != NULL && call->outcomes->dry_run);
	bool writes = (call->changes.columns != 0 && !dry_run);
	Found found = {.call = call};
	OmUpdate *update = &found.update;
	OmJobIds none;
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = om_update_error_callback,
		.arg = update,
	};
	uint64 count;

	om_job_ids_init(&none, 0);
	om_update_init(update, call->jobs, 0, true, NULL);
	update->changes = &call->changes;
	update->outcomes = call->outcomes;
	update->ids = &none;
	error_context_stack = &callback;

	count = om_call_find(call, writes, note_found, &found);
	om_job_ids_sort(&update->due);
	if (writes && count > 0)
	{
		update->done = palloc(count);
		update->ids = &call->found;
		count = write_same(update, OM_WRITE);
	}
	error_context_stack = callback.previous;
	return count;
}

/*
 * What the SQL entry points have in common: the changes are the argument after
 * the job.
 */
static Datum
update_and_return(FunctionCallInfo fcinfo, Oid jobs, OmJobIds *ids)
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
 *		Update the jobs; returns them, in id order.  A NULL job or array is
 *		nothing to do, and NULL ids are passed over.
 *
 * Errors: those of om_jobs_table_by_prefix, om_job_argument and
 * om_changes_check; a job does not exist (P0002); fewer max_attempts than the
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

	return update_and_return(fcinfo, jobs, &ids);
}

Datum
oban_update_job_by_record(PG_FUNCTION_ARGS)
{
	OmJobIds ids;
	Oid jobs = om_record_argument(fcinfo, &ids);

	return update_and_return(fcinfo, jobs, &ids);
}

Datum
oban_update_jobs(PG_FUNCTION_ARGS)
{
	OmJobIds ids;
	Oid jobs = om_ids_argument(fcinfo, 2, &ids);

	return update_and_return(fcinfo, jobs, &ids);
}
