/*
 * trigger_rows.c
 *		Reads the rows that fired a trigger, and the jobs that they name.  triggers.c
 *		calls this file.
 *
 * A row trigger has one row, in an old and a new version.  A statement trigger
 * has all the rows of its statement, in its transition tables.  The trigger's
 * first argument names the column that holds a job's id, or an array of ids.  It
 * may say which version of the row is read: OLD.column or NEW.column.
 */
#include "functions/triggers.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#define QUALIFIER_LENGTH 4 /* of "OLD." and "NEW." */

/*
 * Raise an error, because the event that fired the trigger, or its transition tables,
 * do not give the rows that name the jobs.
 */
static void
refuse(const OmTrigger *trigger, const char *detail, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
					errmsg("trigger \"%s\" on \"%s\" cannot tell which jobs to manage",
						   trigger->data->tg_trigger->tgname,
						   RelationGetRelationName(trigger->data->tg_relation)),
					errdetail_internal("%s", detail), errhint("%s", hint)));
}

/*
 * Read the first argument: which column, of which row version?  Without OLD. or NEW.
 * the new version is read, or the old one if the rows are deleted.
 */
static void
read_column_argument(OmTrigger *trigger)
{
	const char *argument = trigger->data->tg_trigger->tgargs[0];
	TriggerEvent event = trigger->data->tg_event;

	trigger->column = argument;
	trigger->reads_new = !TRIGGER_FIRED_BY_DELETE(event);
	if (pg_strncasecmp(argument, "OLD.", QUALIFIER_LENGTH) == 0)
	{
		trigger->column += QUALIFIER_LENGTH;
		trigger->reads_new = false;
	}
	else if (pg_strncasecmp(argument, "NEW.", QUALIFIER_LENGTH) == 0)
	{
		trigger->column += QUALIFIER_LENGTH;
		trigger->reads_new = true;
	}

	if (trigger->reads_new && TRIGGER_FIRED_BY_DELETE(event))
		refuse(trigger, "A row that is deleted has no new version.", "Use OLD in the argument.");
	if (!trigger->reads_new && TRIGGER_FIRED_BY_INSERT(event))
		refuse(trigger, "A row that is inserted has no old version.", "Use NEW in the argument.");
}

/*
 * Find the column that holds the jobs.
 */
static void
find_job_column(OmTrigger *trigger)
{
	Relation rel = trigger->data->tg_relation;
	Form_pg_attribute column = om_find_column(RelationGetDescr(rel), trigger->column);
	Oid element;

	if (column == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("\"%s\" has no column \"%s\" for trigger \"%s\"", RelationGetRelationName(rel),
					trigger->column, trigger->data->tg_trigger->tgname),
			 errhint("The trigger's first argument is the column with the jobs' ids, without "
					 "double quotes, as in 'job_id' or 'OLD.job_id'.")));

	/* PostgreSQL also forbids generated columns of NEW in a BEFORE trigger's WHEN clause. */
	if ((column->attgenerated && trigger->reads_new &&
		 TRIGGER_FIRED_BEFORE(trigger->data->tg_event)) ||
		column->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
		refuse(
			trigger,
			"A generated column has no value yet in a BEFORE trigger, and a virtual one in none.",
			"Create it AFTER the event, for a stored column.");

	trigger->attnum = column->attnum;
	trigger->type = getBaseType(column->atttypid);
	element = get_element_type(trigger->type);
	trigger->is_array = OidIsValid(element);
	if (trigger->is_array)
		trigger->type = getBaseType(element);
	if (!om_type_is_job_id(trigger->type))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of \"%s\" for trigger \"%s\" has type %s", trigger->column,
						RelationGetRelationName(rel), trigger->data->tg_trigger->tgname,
						format_type_be(column->atttypid)),
				 errdetail("Ids of jobs are smallint, integer or bigint, or an array of these.")));
}

static void
trigger_error_callback(void *arg)
{
	const OmTrigger *trigger = arg;

	errcontext("trigger \"%s\" on \"%s\"", trigger->data->tg_trigger->tgname,
			   RelationGetRelationName(trigger->data->tg_relation));
}

/*
 * Raise an error unless the trigger was created with "nargs" arguments, or with one
 * more, which is the prefix.
 */
static void
check_number_of_arguments(const OmTrigger *trigger, int nargs)
{
	int given = trigger->data->tg_trigger->tgnargs;

	if (given < nargs || given > nargs + 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("wrong number of arguments for trigger \"%s\" on \"%s\"",
						trigger->data->tg_trigger->tgname,
						RelationGetRelationName(trigger->data->tg_relation)),
				 errdetail_plural("It has %d argument; its function takes %d, and a prefix.",
								  "It has %d arguments; its function takes %d, and a prefix.",
								  given, given, nargs),
				 given == 0 ? errhint("The first argument is the name of the column that holds "
									  "the jobs' ids.")
							: 0));
}

/*
 * Prepare to read the transition table from its beginning.  Other triggers of
 * the statement read it too, so we need a read pointer of our own.
 */
static void
open_transition_table(OmTrigger *trigger)
{
	trigger->table = trigger->reads_new ? trigger->data->tg_newtable : trigger->data->tg_oldtable;
	if (trigger->table == NULL)
		refuse(trigger,
			   trigger->reads_new ? "A statement trigger needs the transition table NEW TABLE."
								  : "A statement trigger needs the transition table OLD TABLE.",
			   "Create it AFTER the event, with REFERENCING, or FOR EACH ROW.");
	trigger->row =
		MakeSingleTupleTableSlot(RelationGetDescr(trigger->data->tg_relation), &TTSOpsMinimalTuple);
	trigger->table_pointer = tuplestore_alloc_read_pointer(trigger->table, EXEC_FLAG_REWIND);
	tuplestore_select_read_pointer(trigger->table, trigger->table_pointer);
	tuplestore_rescan(trigger->table);
}

static void
push_error_context(OmTrigger *trigger)
{
	trigger->callback.previous = error_context_stack;
	trigger->callback.callback = trigger_error_callback;
	trigger->callback.arg = trigger;
	error_context_stack = &trigger->callback;
}

/*
 * Prepare to read the rows that fired the trigger.  The trigger function takes "nargs"
 * arguments, and then an optional prefix.  From here to om_trigger_return, the context
 * of an error names the trigger.
 *
 * Errors: not called as a trigger, fired by TRUNCATE, or the transition table or row
 * version that is needed is missing (39P01); a wrong number of arguments (22023); no
 * such column (42703); the column cannot hold ids (42804).
 */
void
om_trigger_begin(OmTrigger *trigger, FunctionCallInfo fcinfo, int nargs)
{
	memset(trigger, 0, sizeof(*trigger));
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function was not called by a trigger"),
						errhint("Pass a job, or use it in CREATE TRIGGER.")));
	trigger->data = (TriggerData *) fcinfo->context;

	check_number_of_arguments(trigger, nargs);
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->data->tg_event))
		refuse(trigger, "TRUNCATE gives a trigger no rows.",
			   "Manage the jobs by a call before the TRUNCATE.");
	read_column_argument(trigger);
	find_job_column(trigger);
	if (TRIGGER_FIRED_FOR_STATEMENT(trigger->data->tg_event))
		open_transition_table(trigger);
	push_error_context(trigger);
}

/*
 * Move to the next row; false if there is none.
 */
bool
om_trigger_next_row(OmTrigger *trigger)
{
	TriggerData *data = trigger->data;

	if (trigger->table != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		tuplestore_select_read_pointer(trigger->table, trigger->table_pointer);
		if (tuplestore_gettupleslot(trigger->table, true, false, trigger->row))
			return true;
		ExecDropSingleTupleTableSlot(trigger->row);
		trigger->row = NULL;
		return false;
	}

	if (trigger->row != NULL)
		return false;
	trigger->row = trigger->reads_new && TRIGGER_FIRED_BY_UPDATE(data->tg_event)
					   ? data->tg_newslot
					   : data->tg_trigslot;
	return true;
}

/*
 * Add the jobs that the row names to the list.
 */
void
om_trigger_add_row_jobs(OmTrigger *trigger, OmJobIds *ids)
{
	bool isnull;
	Datum value = slot_getattr(trigger->row, trigger->attnum, &isnull);

	if (isnull)
		return;
	if (trigger->is_array)
	{
		ArrayType *array = DatumGetArrayTypeP(value);

		om_job_ids_add_array(ids, array, trigger->type);
		if ((Pointer) array != DatumGetPointer(value))
			pfree(array);
	}
	else
		om_job_ids_add(ids, om_job_id(value, trigger->type));
}

/*
 * List the jobs that all the rows name, sorted, each once.
 */
void
om_trigger_jobs(OmTrigger *trigger, OmJobIds *ids)
{
	om_job_ids_init(ids, 1);
	while (om_trigger_next_row(trigger))
		om_trigger_add_row_jobs(trigger, ids);
	om_job_ids_sort(ids);
}

/*
 * The jobs table of the prefix, which is the argument after "nargs" others.  Without
 * that argument, the prefix is the setting oban_manage.prefix.
 */
Oid
om_trigger_jobs_table(const OmTrigger *trigger, int nargs)
{
	Trigger *definition = trigger->data->tg_trigger;

	return om_jobs_table_by_prefix(
		definition->tgnargs > nargs ? cstring_to_text(definition->tgargs[nargs]) : NULL,
		RowExclusiveLock);
}

/*
 * Remove the error context that om_trigger_begin set up.  Returns what the trigger
 * function must return so that PostgreSQL does the operation unchanged.
 */
Datum
om_trigger_return(const OmTrigger *trigger)
{
	TriggerData *data = trigger->data;

	error_context_stack = trigger->callback.previous;

	/* What an AFTER trigger returns is ignored. */
	if (!TRIGGER_FIRED_FOR_ROW(data->tg_event))
		return PointerGetDatum(NULL);
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple
																   : data->tg_trigtuple);
}
