/*
 * guard.c
 *		The guard of a jobs table: a trigger that stops changes that come too late.
 *
 * Workers of both Obans write the result of a run by the job's id alone. And some
 * statements of Oban (the stager, the pruner, operations on many jobs) judge the state
 * on a row version that may be older than the one that they then change. Without the
 * guard, a cancelled job may run, a retry may be overwritten, and an executing job may
 * be started again or deleted.
 *
 * The guard stops two kinds of changes. A late answer is the result of a run that has
 * ended: the job stays as it is, and only what the worker reports is written. A stale
 * statement judged an older version of the row: it changes nothing. Everything else
 * passes. The guard returns as early as it can, because it runs in the statements that
 * workers send most. Calls guard_rows.c, guard_moves.c and run_query.c; PostgreSQL
 * calls it.
 */
#include "functions/guard.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* ---- late answers ---- */

static int64
old_attempt(const GuardedRow *row)
{
	return om_guarded_number(row, row->data->tg_trigtuple, GUARD_ATTEMPT);
}

/*
 * A snooze does not count as an attempt. Oban for Python, and Oban for Elixir since
 * 2.23.1, subtract 1 from attempt. Older Oban for Elixir adds 1 to max_attempts.
 */
static bool
is_snooze(const GuardedRow *row)
{
	HeapTuple old_tuple = row->data->tg_trigtuple;
	HeapTuple new_tuple = row->data->tg_newtuple;

	return row->new_state == JOB_SCHEDULED &&
		   (om_guarded_number(row, new_tuple, GUARD_ATTEMPT) == old_attempt(row) - 1 ||
			om_guarded_number(row, new_tuple, GUARD_MAX_ATTEMPTS) ==
				om_guarded_number(row, old_tuple, GUARD_MAX_ATTEMPTS) + 1);
}

/*
 * Is the UPDATE an answer about a run that has ended, for a job that was retried since
 * and waits to run again?
 */
static bool
answers_ended_run(const GuardedRow *row)
{
	int64 attempt;
	int64 run;
	bool isnull;
	Timestamp attempted_at = DatumGetTimestamp(om_guarded_old(row, GUARD_ATTEMPTED_AT, &isnull));

	if (isnull)
		return false;
	attempt = old_attempt(row);
	if (!om_guarded_adds_entry(row, &run) || run < 1 || run > attempt)
	{
		/* These answers need no entry. They are about the last run. */
		if (row->new_state != JOB_COMPLETED && !(is_snooze(row) && !om_guarded_keeps_schedule(row)))
			return false;
		run = attempt;
	}

	/* A retry puts the schedule after the last run; a rescue or a stager does not. */
	if (run >= attempt)
	{
		Timestamp scheduled_at =
			DatumGetTimestamp(om_guarded_old(row, GUARD_SCHEDULED_AT, &isnull));

		if (isnull || scheduled_at <= attempted_at)
			return false;
	}
	/* A job like this waits because that run failed, not because it was retried. */
	return !(row->old_state == JOB_RETRYABLE && om_guarded_has_entry(row, run));
}

static bool
is_late_answer(const GuardedRow *row)
{
	bool isnull;
	int64 run;

	/* The most frequent case: a worker fetches the job. */
	if (row->new_state == JOB_EXECUTING || row->new_state == 0)
		return false;

	if (row->old_state & JOB_WAITING)
		return answers_ended_run(row);

	if (row->old_state == JOB_EXECUTING)
		return old_attempt(row) > 1 && om_guarded_adds_entry(row, &run) && run >= 1 &&
			   run < old_attempt(row);

	if (row->old_state == JOB_CANCELLED && (row->new_state == JOB_RETRYABLE || is_snooze(row)))
	{
		/* Every retry clears cancelled_at. */
		(void) om_guarded_new(row, GUARD_CANCELLED_AT, &isnull);
		return !isnull;
	}
	return false;
}

/*
 * The row that a late answer writes. errors and meta are what the worker reports. The
 * state, the times and the attempt stay as they were.
 */
static HeapTuple
keep_job(const GuardedRow *row)
{
	int attnums[GUARD_N_COLUMNS - GUARD_STATE];
	Datum values[GUARD_N_COLUMNS - GUARD_STATE];
	bool nulls[GUARD_N_COLUMNS - GUARD_STATE];

	for (int i = 0; i < GUARD_N_COLUMNS - GUARD_STATE; i++)
	{
		attnums[i] = row->table->attnums[GUARD_STATE + i];
		values[i] = om_guarded_old(row, GUARD_STATE + i, &nulls[i]);
	}
	return heap_modify_tuple_by_cols(row->data->tg_newtuple,
									 RelationGetDescr(row->data->tg_relation),
									 GUARD_N_COLUMNS - GUARD_STATE, attnums, values, nulls);
}

/* ---- stale statements ---- */

/*
 * Is this version of the row newer than the statement's snapshot? We can find out only
 * in a heap.
 */
static bool
is_newer_version(const GuardedRow *row)
{
	TransactionId xmin;

	if (row->data->tg_relation->rd_tableam != GetHeapamTableAmRoutine())
		return false;
	xmin = HeapTupleHeaderGetXmin(row->data->tg_trigtuple->t_data);
	return XidInMVCCSnapshot(xmin, GetActiveSnapshot()) &&
		   !TransactionIdIsCurrentTransactionId(xmin);
}

/* For note_seen */
typedef struct Seen
{
	const GuardedTable *table;
	int state;
} Seen;

static void
note_seen(TupleTableSlot *slot, void *state)
{
	Seen *seen = state;
	OmStateRow row;

	om_state_row_read(slot, &row);
	seen->state = row.state.isnull ? 0 : om_guarded_state(seen->table, row.state.value);
}

static void
seen_error_callback(void *arg)
{
	errcontext("guard of \"%s\", with the rights of the table's owner", (const char *) arg);
}

/*
 * The state of the job in the statement's snapshot; 0 when the snapshot has no such
 * job. The row may have come from another partition, so we read the whole table. We
 * read with the rights of the table's owner, as the checks of foreign keys do, because
 * the current role may have no right to read the job.
 */
static int
seen_state(const GuardedRow *row)
{
	Oid relid = RelationGetRelid(row->data->tg_relation);
	Seen seen = {.table = row->table};
	OmQuery query = {.step = OM_STATE, .conditions = OM_BY_ID};
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = seen_error_callback,
		.arg = RelationGetRelationName(row->data->tg_relation),
	};
	Datum id = Int64GetDatum(om_guarded_number(row, row->data->tg_trigtuple, GUARD_ID));
	Oid user;
	int context;

	if (row->data->tg_relation->rd_rel->relispartition)
	{
		List *ancestors = get_partition_ancestors(relid);

		if (ancestors != NIL)
			relid = llast_oid(ancestors);
		LockRelationOid(relid, AccessShareLock);
	}

	error_context_stack = &callback;
	GetUserIdAndSecContext(&user, &context);
	SPI_connect();
	SetUserIdAndSecContext(om_jobs_table_owner(relid),
						   context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	om_query_run(relid, query, &id, note_seen, &seen);
	SetUserIdAndSecContext(user, context);
	SPI_finish();
	error_context_stack = callback.previous;
	return seen.state;
}

/*
 * Was the job rescheduled for later?
 */
static bool
is_rescheduled(const GuardedRow *row)
{
	bool isnull;
	Timestamp scheduled_at = DatumGetTimestamp(om_guarded_old(row, GUARD_SCHEDULED_AT, &isnull));

	/* Oban's timestamps hold UTC. */
	return !isnull && scheduled_at > GetCurrentTimestamp() && om_guarded_keeps_schedule(row);
}

static bool
adds_no_entry(const GuardedRow *row)
{
	int64 run;

	return !om_guarded_adds_entry(row, &run);
}

/*
 * Is the DELETE not part of a cascade or of another trigger? There, keeping the row
 * could leave a foreign key that points to nothing.
 */
static bool
is_deleted_directly(const GuardedRow *row)
{
	return om_trigger_depth() == 1;
}

/*
 * What a statement that judged an older version must not do. saw has the states that it
 * judged; 0 when they do not matter.
 */
/* clang-format off */
static const struct
{
	int old_states;
	int new_states;
	int saw;
	bool (*further)(const GuardedRow *row); /* NULL: always */
} stale_rules[] = {
	{JOB_SCHEDULED | JOB_RETRYABLE, JOB_AVAILABLE, 0, is_rescheduled},
	{JOB_EXECUTING, JOB_AVAILABLE, JOB_IN_ANY_STATE & ~JOB_EXECUTING, NULL}, /* it was fetched */
	{JOB_COMPLETED, JOB_AVAILABLE, JOB_IN_ANY_STATE & ~JOB_COMPLETED, NULL}, /* it ran to its end */
	{JOB_CANCELLED | JOB_DISCARDED | JOB_SUSPENDED, JOB_AVAILABLE, JOB_SCHEDULED | JOB_RETRYABLE,
	 om_guarded_keeps_schedule},
	{JOB_COMPLETED | JOB_DISCARDED, JOB_CANCELLED, JOB_UNFINISHED, adds_no_entry},
	{JOB_EXECUTING, JOB_DELETED, JOB_IN_ANY_STATE & ~JOB_EXECUTING, is_deleted_directly},
	{JOB_WAITING, JOB_DELETED, JOB_FINISHED, is_deleted_directly}, /* it was retried */
};
/* clang-format on */

static bool
is_stale(const GuardedRow *row)
{
	for (size_t i = 0; i < lengthof(stale_rules); i++)
	{
		if ((row->old_state & stale_rules[i].old_states) == 0 ||
			(row->new_state & stale_rules[i].new_states) == 0)
			continue;
		return is_newer_version(row) &&
			   (stale_rules[i].further == NULL || stale_rules[i].further(row)) &&
			   (stale_rules[i].saw == 0 || (seen_state(row) & stale_rules[i].saw) != 0);
	}
	return false;
}

/* ---- the trigger ---- */

/*
 * Does the UPDATE name the column state? The trigger may fire for all updates.
 */
static bool
names_state(const GuardedRow *row)
{
	return bms_is_member(row->table->attnums[GUARD_STATE] - FirstLowInvalidHeapAttributeNumber,
						 row->data->tg_updatedcols);
}

static void
check_event(FunctionCallInfo fcinfo)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function was not called by a trigger"),
						errhint("Use it in CREATE TRIGGER.")));
	if (!TRIGGER_FIRED_BEFORE(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		!(TRIGGER_FIRED_BY_UPDATE(data->tg_event) || TRIGGER_FIRED_BY_DELETE(data->tg_event)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" on \"%s\" cannot guard jobs", data->tg_trigger->tgname,
						RelationGetRelationName(data->tg_relation)),
				 errhint("Create it BEFORE UPDATE OF state OR DELETE and FOR EACH ROW.")));
}

/*
 * oban_guard_job() -> trigger
 *		For a trigger BEFORE UPDATE OF state OR DELETE ... FOR EACH ROW on an oban_jobs
 *		table, without a WHEN clause. Use BEFORE UPDATE OR DELETE if updates that do not
 *		name the state may move rows to another partition. A worker's answer about a
 *		run that has ended writes only the errors and meta that the worker reports; the
 *		statement returns its row as usual. A statement that judged an older version of
 *		the row does not change it, and does not return it. The rules are in
 *		docs/guard.md. Statements of the extension itself pass, and so does everything
 *		while oban_manage.guard is off.
 *
 * Errors: a trigger of another kind, or no trigger (39P01); those of
 * om_jobs_table_shape.
 */
PG_FUNCTION_INFO_V1(oban_guard_job);

Datum
oban_guard_job(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	GuardedRow row = {.data = data};
	bool is_update;
	Datum passed;

	check_event(fcinfo);
	is_update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	passed = PointerGetDatum(is_update ? data->tg_newtuple : data->tg_trigtuple);
	if (!om_guard || om_query_writes_now())
		return passed;

	row.table = om_guarded_table(data->tg_relation);
	row.old_state = om_guarded_state_of(&row, data->tg_trigtuple);
	row.new_state = is_update ? om_guarded_state_of(&row, data->tg_newtuple) : JOB_DELETED;

	if (data->tg_relation->rd_rel->relispartition)
	{
		if (is_update)
			om_guarded_note_update(&row);
		else if (om_guarded_is_moved(&row))
			return passed;
	}

	if (is_update && !names_state(&row))
		return passed;
	if (is_update && is_late_answer(&row))
		return PointerGetDatum(keep_job(&row));
	return is_stale(&row) ? PointerGetDatum(NULL) : passed;
}
