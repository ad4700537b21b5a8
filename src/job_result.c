/*
 * job_result.c
 *		Jobs as the result of a function: one oban_job, or a set of them.
 */
#include "oban_manage.h"

#include "access/htup_details.h"
#include "funcapi.h"
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

		InitMaterializedSRF(fcinfo, 0);
		result->desc = rsinfo->setDesc;
		result->store = rsinfo->setResult;
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
 * Put a row of oban_job's columns into the result.
 */
void
om_job_result_put(OmJobResult *result, TupleTableSlot *row)
{
	MemoryContext caller = MemoryContextSwitchTo(result->context);

	if (result->count == 0)
		check_row(result, row->tts_tupleDescriptor);

	if (result->store != NULL)
		tuplestore_puttupleslot(result->store, row);
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
 * What the function returns: NULL where one job is returned and none was put.
 */
Datum
om_job_result_return(const OmJobResult *result, FunctionCallInfo fcinfo)
{
	if (result->store != NULL)
		return (Datum) 0;
	if (result->count == 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result->job);
}
