/*
 * job_result.c
 *		Jobs as the result of a function: one oban_job, or a set of them in the order
 *		of their ids.
 *
 * The functions begin a result and return it. They and verbs/update_steps.c put the rows
 * of a statement into it while the statement runs. Calls only PostgreSQL.
 */
#include "jobs/jobs.h"

#include "access/htup_details.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/*
 * Begin a result of the type that the function is declared to return.  It lives in
 * the current memory context, which must outlive SPI.
 */
void
om_job_result_init(OmJobResult *result, FunctionCallInfo fcinfo)
{
	memset(result, 0, sizeof(*result));
	result->context = CurrentMemoryContext;

	if (fcinfo->flinfo->fn_retset)
	{
		ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

		InitMaterializedSRF(fcinfo, 0);
		result->desc = rsinfo->setDesc;
		result->set = rsinfo->setResult;
	}
	else if (get_call_result_type(fcinfo, NULL, &result->desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
}

/*
 * Check that the type oban_job begins with the columns of the row.  It does not if
 * somebody altered the type.  If the type has more columns, a later version of the
 * extension has added them: then begin to widen the rows.
 */
static void
check_row(OmJobResult *result, TupleDesc row)
{
	bool alike = (result->desc->natts >= row->natts);

	for (int i = 0; alike && i < row->natts; i++)
		alike = TupleDescAttr(result->desc, i)->atttypid == TupleDescAttr(row, i)->atttypid;
	if (!alike)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("type %s was changed since the extension made it",
							   format_type_be(result->desc->tdtypeid)),
						errhint("Drop the extension and create it again.")));
	if (result->desc->natts > row->natts)
		result->wider = MakeSingleTupleTableSlot(result->desc, &TTSOpsVirtual);
}

/*
 * The row with all columns of the type: NULL in those that it lacks.
 */
static TupleTableSlot *
widen(const OmJobResult *result, TupleTableSlot *row)
{
	TupleTableSlot *wider = result->wider;

	slot_getallattrs(row);
	ExecClearTuple(wider);
	for (int i = 0; i < result->desc->natts; i++)
	{
		bool has = (i < row->tts_nvalid);

		wider->tts_isnull[i] = !has || row->tts_isnull[i];
		wider->tts_values[i] = has ? row->tts_values[i] : (Datum) 0;
	}
	return ExecStoreVirtualTuple(wider);
}

/*
 * Begin a sort: move the rows of the set into it.  Later rows go into it too.
 */
static void
begin_sort(OmJobResult *result)
{
	AttrNumber id_column = OM_JOB_ID;
	Oid less = Int8LessOperator;
	Oid collation = InvalidOid;
	bool nulls_first = false;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(result->desc, &TTSOpsMinimalTuple);

	result->sort = tuplesort_begin_heap(result->desc, 1, &id_column, &less, &collation,
										&nulls_first, work_mem, NULL, TUPLESORT_NONE);
	while (tuplestore_gettupleslot(result->set, true, false, slot))
	{
		CHECK_FOR_INTERRUPTS();
		tuplesort_puttupleslot(result->sort, slot);
	}
	tuplestore_clear(result->set);
	ExecDropSingleTupleTableSlot(slot);
}

/*
 * Put a row into the set.  Jobs usually come in the order of their ids.  The first job
 * that is out of order begins a sort.
 */
static void
put_into_set(OmJobResult *result, TupleTableSlot *row)
{
	bool isnull;
	int64 id = DatumGetInt64(slot_getattr(row, OM_JOB_ID, &isnull));

	if (result->sort == NULL && result->count > 0 && id < result->last_id)
		begin_sort(result);
	result->last_id = id;

	if (result->sort != NULL)
		tuplesort_puttupleslot(result->sort, row);
	else
		tuplestore_puttupleslot(result->set, row);
}

/*
 * Put a row of oban_job's columns into the result.  An OmRowCallback, whose
 * state is an OmJobResult.
 */
void
om_job_result_put(TupleTableSlot *row, void *state)
{
	OmJobResult *result = state;
	MemoryContext caller = MemoryContextSwitchTo(result->context);

	if (result->count == 0)
		check_row(result, row->tts_tupleDescriptor);
	if (result->wider != NULL)
		row = widen(result, row);

	if (result->set != NULL)
		put_into_set(result, row);
	else
	{
		bool should_free;
		HeapTuple tuple = ExecFetchSlotHeapTuple(row, false, &should_free);

		result->job = heap_copy_tuple_as_datum(tuple, result->desc);
		if (should_free)
			heap_freetuple(tuple);
	}
	result->count++;
	MemoryContextSwitchTo(caller);
}

static void
end_sort(OmJobResult *result)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(result->desc, &TTSOpsMinimalTuple);

	tuplesort_performsort(result->sort);
	while (tuplesort_gettupleslot(result->sort, true, false, slot, NULL))
	{
		CHECK_FOR_INTERRUPTS();
		tuplestore_puttupleslot(result->set, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplesort_end(result->sort);
}

/*
 * What the function must return.  For a function that returns one job, this is NULL
 * when no job was put into the result.
 */
Datum
om_job_result_return(OmJobResult *result, FunctionCallInfo fcinfo)
{
	if (result->wider != NULL)
		ExecDropSingleTupleTableSlot(result->wider);
	if (result->set != NULL)
	{
		if (result->sort != NULL)
			end_sort(result);
		return (Datum) 0;
	}
	if (result->count == 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result->job);
}
