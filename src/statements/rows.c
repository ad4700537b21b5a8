/*
 * rows.c
 *		The rows that statements return: the text of their columns, and functions that
 *		read them into structs.
 *
 * A struct points into the slot that it was read from, so it is valid until the
 * callback returns.  What the row does not have is zero.  This file calls assignments.c,
 * job_columns.c and verb_table.c for texts.  queries.c calls it for the text; the
 * callbacks of the verbs, of batches.c, outcomes.c, read_job.c and guard.c read the rows.
 */
#include "statements/statement_text.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"

/* ---- jobs that are found: OM_FIND_AND_LOCK, OM_FIND_ONLY ---- */

enum
{
	FOUND_ID = 1,		/* bigint */
	FOUND_WAS_IN_STATE, /* boolean */
	FOUND_ATTEMPT,		/* integer */
	FOUND_MAY_RUN,		/* boolean */

	/* With OM_RETURN_STATES */
	FOUND_STATE = FOUND_MAY_RUN + 1, /* text */
	FOUND_APPLIES,					 /* boolean */
	FOUND_SPENT,					 /* boolean */
	FOUND_NEW_STATE,				 /* text */

	/* For a callable */
	FOUND_UPDATABLE = FOUND_MAY_RUN + 1, /* record */
	FOUND_ARGUMENT						 /* argument_type */
};

static void
append_states(StringInfo sql, OmQuery query, const OmTableShape *shape)
{
	const OmVerbText *verb = &om_verb_texts[query.verb];

	appendStringInfo(sql, ", " OM_TEXT_OF("j.state") ", %s, %s, ",
					 verb->condition != NULL ? om_verb_condition(query, shape) : "true",
					 om_verb_spent(query, shape));
	if (query.columns & OM_COLUMN_BIT(OM_SCHEDULED_AT))
	{
		appendStringInfoString(sql, "pg_catalog.enum_out(");
		om_state_by_schedule_append(sql, query);
		appendStringInfoString(sql, ")::pg_catalog.text");
	}
	else
		appendStringInfoString(sql,
							   verb->new_state != NULL ? verb->new_state : OM_TEXT_OF("j.state"));
}

/*
 * The columns of OmFoundRow, in the order of FOUND_...
 */
void
om_found_columns_append(StringInfo sql, OmQuery query, const OmTableShape *shape)
{
	const char *watched = om_verb_texts[query.verb].watched;

	Assert(query.returns != OM_RETURN_STATES || !OidIsValid(query.argument_type));
	appendStringInfo(sql, JOB_ID ", %s, %s", watched != NULL ? watched : "false",
					 query.verb == OM_UPDATE ? "j.attempt::pg_catalog.int4, " MAY_RUN : "0, false");
	if (query.returns == OM_RETURN_STATES)
		append_states(sql, query, shape);
	if (OidIsValid(query.argument_type))
	{
		om_updatable_append(sql);
		om_argument_append(sql, shape, query.argument_type);
	}
}

/*
 * Does the row have a column of that type at that place?  This shows what the query
 * asked for.
 */
static bool
has_column(TupleTableSlot *slot, int column, Oid type)
{
	TupleDesc desc = slot->tts_tupleDescriptor;

	return desc->natts >= column && TupleDescAttr(desc, column - 1)->atttypid == type;
}

static Datum
get_value(TupleTableSlot *slot, AttrNumber column)
{
	bool isnull;

	return slot_getattr(slot, column, &isnull);
}

static text *
get_text(TupleTableSlot *slot, AttrNumber column)
{
	bool isnull;
	Datum value = slot_getattr(slot, column, &isnull);

	return isnull ? NULL : DatumGetTextPP(value);
}

/*
 * Read a row of OM_FIND_AND_LOCK or OM_FIND_ONLY.
 */
void
om_found_row_read(TupleTableSlot *slot, OmFoundRow *row)
{
	*row = (OmFoundRow){
		.id = DatumGetInt64(get_value(slot, FOUND_ID)),
		.was_in_state = DatumGetBool(get_value(slot, FOUND_WAS_IN_STATE)),
		.attempt = DatumGetInt32(get_value(slot, FOUND_ATTEMPT)),
		.may_run = DatumGetBool(get_value(slot, FOUND_MAY_RUN)),
	};
	if (has_column(slot, FOUND_STATE, TEXTOID))
	{
		row->state = get_text(slot, FOUND_STATE);
		row->applies = DatumGetBool(get_value(slot, FOUND_APPLIES));
		row->spent = DatumGetBool(get_value(slot, FOUND_SPENT));
		row->new_state = get_text(slot, FOUND_NEW_STATE);
	}
	else if (has_column(slot, FOUND_UPDATABLE, RECORDOID))
	{
		row->updatable = DatumGetHeapTupleHeader(get_value(slot, FOUND_UPDATABLE));
		row->argument = get_value(slot, FOUND_ARGUMENT);
	}
}

/* ---- jobs that are written: the writing steps, and OM_GET_NEWEST ---- */

enum
{
	WRITTEN_ID = 1, /* bigint */
	WRITTEN_DONE,	/* boolean */
	WRITTEN_QUEUE,	/* text */
	WRITTEN_STATE	/* text; with OM_RETURN_STATES */
};

/*
 * A BEFORE trigger of the table may have changed the state that the verb gave the
 * row.  A retried job counts as done when it is scheduled only if the retry asked for a
 * later time.
 */
static void
append_written(StringInfo sql, OmQuery query)
{
	bool retry = (query.verb == OM_RETRY);
	bool wakes = retry || (query.verb == OM_UPDATE && (query.columns & OM_WAKING_COLUMNS));

	appendStringInfo(sql, JOB_ID ", %s", om_verb_texts[query.verb].done);
	if (retry && (query.columns & OM_COLUMN_BIT(OM_SCHEDULED_AT)))
		appendStringInfo(sql,
						 " OR (" STATE_IS("scheduled") " AND %s OPERATOR(pg_catalog.>) " NOW ")",
						 om_new_value(query, OM_SCHEDULED_AT));
	appendStringInfo(sql, ", %s",
					 wakes ? "CASE WHEN " STATE_IS("available") " THEN j.queue::pg_catalog.text END"
						   : "NULL::pg_catalog.text");
	if (query.returns == OM_RETURN_STATES)
		appendStringInfoString(sql, ", " OM_TEXT_OF("j.state"));
}

/*
 * The columns of OmWrittenRow, in the order of WRITTEN_..., or those of oban_job
 */
void
om_written_columns_append(StringInfo sql, OmQuery query, const OmTableShape *shape)
{
	if (query.returns == OM_RETURN_JOBS)
		om_job_columns_append(sql, shape, false);
	else
		append_written(sql, query);
}

/*
 * Is the job of a row of oban_job available?  Allocates nothing, because there may be a
 * million rows.
 */
static bool
is_available(TupleTableSlot *slot)
{
	static const char available[] = "available";
	const text *state = get_text(slot, OM_JOB_STATE);

	return state != NULL && VARSIZE_ANY_EXHDR(state) == sizeof(available) - 1 &&
		   memcmp(VARDATA_ANY(state), available, sizeof(available) - 1) == 0;
}

/*
 * Read a row of a writing step, or of OM_GET_NEWEST.  A row of oban_job counts as done,
 * because an update has no state of its own.
 */
void
om_written_row_read(TupleTableSlot *slot, OmWrittenRow *row)
{
	if (has_column(slot, OM_JOB_PREFIX, TEXTOID))
		*row = (OmWrittenRow){
			.id = DatumGetInt64(get_value(slot, OM_JOB_ID)),
			.done = true,
			.queue = is_available(slot) ? get_text(slot, OM_JOB_QUEUE) : NULL,
			.job = slot,
		};
	else
		*row = (OmWrittenRow){
			.id = DatumGetInt64(get_value(slot, WRITTEN_ID)),
			.done = DatumGetBool(get_value(slot, WRITTEN_DONE)),
			.queue = get_text(slot, WRITTEN_QUEUE),
			.state =
				has_column(slot, WRITTEN_STATE, TEXTOID) ? get_text(slot, WRITTEN_STATE) : NULL,
		};
}

/* ---- the states of jobs: OM_STATE ---- */

enum
{
	STATE_ID = 1, /* bigint */
	STATE_STATE	  /* the enum of the states */
};

/*
 * The columns of OmStateRow, in the order of STATE_...
 */
void
om_state_columns_append(StringInfo sql)
{
	appendStringInfoString(sql, JOB_ID ", j.state");
}

/*
 * Read a row of OM_STATE.
 */
void
om_state_row_read(TupleTableSlot *slot, OmStateRow *row)
{
	row->id = DatumGetInt64(get_value(slot, STATE_ID));
	row->state.value = slot_getattr(slot, STATE_STATE, &row->state.isnull);
}

/* ---- how many jobs there are, and where: OM_SURVEY ---- */

enum
{
	SURVEY_COUNT = 1, /* bigint, as are the others; those are NULL when no job matches */
	SURVEY_LOWEST,
	SURVEY_HIGHEST,
	SURVEY_LAST
};

/*
 * The columns of OmSurveyRow, in the order of SURVEY_...
 */
void
om_survey_columns_append(StringInfo sql, const OmTableShape *shape)
{
	appendStringInfo(sql,
					 "pg_catalog.count(*), pg_catalog.min(" JOB_ID "), pg_catalog.max(" JOB_ID
					 "), (SELECT pg_catalog.max(" JOB_ID ") FROM %s AS j)",
					 shape->name);
}

/*
 * Read the row of OM_SURVEY.
 */
void
om_survey_row_read(TupleTableSlot *slot, OmSurveyRow *row)
{
	*row = (OmSurveyRow){
		.count = DatumGetInt64(get_value(slot, SURVEY_COUNT)),
		.lowest = DatumGetInt64(get_value(slot, SURVEY_LOWEST)),
		.highest = DatumGetInt64(get_value(slot, SURVEY_HIGHEST)),
		.last = DatumGetInt64(get_value(slot, SURVEY_LAST)),
	};
}

/* ---- OM_CANCELLED, OM_RUN_ENDED ---- */

/*
 * Read the row of OM_CANCELLED or OM_RUN_ENDED, whose one column is the answer.
 */
bool
om_answer_row_read(TupleTableSlot *slot)
{
	return DatumGetBool(get_value(slot, 1));
}
