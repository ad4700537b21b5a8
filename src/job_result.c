/*
 * job_result.c
 *		Jobs as the result of a function: one oban_job, or a set of them.
 */
#include "oban_manage.h"

#include "access/htup_details.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/*
 * Prepare to return what the function is declared to return, in the memory
 * context of the caller, which must be one that outlives SPI.
 */
void
om_job_result_init(OmJobResult *result, FunctionCallInfo fcinfo)
{
	memset(result, 0, sizeof(*result));
	result->context = CurrentMemoryContext;

	if (fcinfo->flinfo->fn_retset)
	{
		ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
		AttrNumber id_column = OM_JOB_ID;
		Oid less = Int8LessOperator;
		Oid collation = InvalidOid;
		bool nulls_first = false;

		InitMaterializedSRF(fcinfo, 0);
		result->desc = rsinfo->setDesc;
		result->set = tuplesort_begin_heap(result->desc, 1, &id_column, &less, &collation,
										   &nulls_first, work_mem, NULL, TUPLESORT_NONE);
	}
	else if (get_call_result_type(fcinfo, NULL, &result->desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
}

/*
 * The columns that queries.c selects and those of the type oban_job are alike,
 * unless someone altered the type.
 */
static void
check_row(const OmJobResult *result, TupleDesc row)
{
	bool alike = (result->desc->natts == row->natts);

	for (int i = 0; alike && i < row->natts; i++)
		alike = TupleDescAttr(result->desc, i)->atttypid == TupleDescAttr(row, i)->atttypid;
	if (!alike)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("type %s is not as the extension made it",
							   format_type_be(result->desc->tdtypeid)),
						errhint("Drop the extension and create it again.")));
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

	if (result->set != NULL)
		tuplesort_puttupleslot(result->set, row);
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

/*
 * Fill the set that the function returns.
 */
static void
return_set(OmJobResult *result, FunctionCallInfo fcinfo)
{
	Tuplestorestate *store = ((ReturnSetInfo *) fcinfo->resultinfo)->setResult;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(result->desc, &TTSOpsMinimalTuple);

	tuplesort_performsort(result->set);
	while (tuplesort_gettupleslot(result->set, true, false, slot, NULL))
	{
		CHECK_FOR_INTERRUPTS();
		tuplestore_puttupleslot(store, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplesort_end(result->set);
}

/*
 * What the function returns: NULL where one job is returned and none was put.
 */
Datum
om_job_result_return(OmJobResult *result, FunctionCallInfo fcinfo)
{
	if (result->set != NULL)
	{
		return_set(result, fcinfo);
		return (Datum) 0;
	}
	if (result->count == 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result->job);
}
