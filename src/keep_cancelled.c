/*
 * keep_cancelled.c
 *		A guard for the jobs table, which keeps cancelled jobs cancelled.
 *
 * Both Obans report the end of a job by its id alone, so a worker whose job
 * fails or is snoozed after it was cancelled would put it back to retryable or
 * scheduled, and it would run again.
 */
#include "triggers.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "utils/rel.h"

static bool
state_is(const TriggerData *data, HeapTuple tuple, AttrNumber attnum, const char *state)
{
	char *value = SPI_getvalue(tuple, RelationGetDescr(data->tg_relation), attnum);

	return value != NULL && strcmp(value, state) == 0;
}

/*
 * oban_keep_cancelled() -> trigger
 *		For BEFORE UPDATE ... FOR EACH ROW on an oban_jobs table.  Where a
 *		cancelled job becomes retryable or scheduled and cancelled_at stays, which
 *		is what a worker's late answer does, it keeps the state cancelled and lets
 *		all else be written.  An update that clears cancelled_at is a retry.
 *
 * Errors: not such a trigger (39P01), no such columns (42703).
 */
PG_FUNCTION_INFO_V1(oban_keep_cancelled);

Datum
oban_keep_cancelled(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	const char *hint = "The trigger is for an oban_jobs table.";
	TupleDesc desc;
	AttrNumber state;
	AttrNumber cancelled_at;
	HeapTuple tuple;
	Datum kept;
	bool isnull;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function was not called by a trigger"),
						errhint("It is for CREATE TRIGGER.")));
	if (!TRIGGER_FIRED_BEFORE(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		!TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" on \"%s\" cannot keep jobs cancelled",
						data->tg_trigger->tgname, RelationGetRelationName(data->tg_relation)),
				 errhint("Create it BEFORE UPDATE and FOR EACH ROW.")));

	desc = RelationGetDescr(data->tg_relation);
	state = om_trigger_find_column(data, "state", hint)->attnum;
	cancelled_at = om_trigger_find_column(data, "cancelled_at", hint)->attnum;
	tuple = data->tg_newtuple;

	if (heap_attisnull(tuple, cancelled_at, desc) ||
		!state_is(data, data->tg_trigtuple, state, "cancelled") ||
		!(state_is(data, tuple, state, "retryable") || state_is(data, tuple, state, "scheduled")))
		return PointerGetDatum(tuple);

	kept = heap_getattr(data->tg_trigtuple, state, desc, &isnull);
	return PointerGetDatum(
		heap_modify_tuple_by_cols(tuple, desc, 1, (int[]){state}, &kept, &isnull));
}
