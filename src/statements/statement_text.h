/*
 * statement_text.h
 *		What the files that write the text of statements share: pieces of SQL, and the
 *		texts of each verb.
 */
#ifndef OM_STATEMENT_TEXT_H
#define OM_STATEMENT_TEXT_H

#include "statements/statements.h"

#include "port/pg_bitutils.h"

/* Oban keeps UTC in timestamps without time zone. */
#define NOW "pg_catalog.timezone('UTC', pg_catalog.now())"

#define STATE_OF_IS(row, state) row ".state OPERATOR(pg_catalog.=) '" state "'"
#define STATE_IS(state)			STATE_OF_IS("j", state)
#define STATE_IS_NOT(states)	"j.state OPERATOR(pg_catalog.<>) ALL ('{" states "}')"

#define JOB_ID "j.id::pg_catalog.int8"

/* Can the job still run in its state?  Then both Obans need at least one attempt left. */
#define MAY_RUN STATE_IS_NOT("completed,cancelled,discarded")

/* ---- verb_table.c: the texts of each verb ---- */

typedef struct OmVerbText
{
	const char *condition;	   /* the states of the jobs that the verb changes; NULL: all */
	const char *one_condition; /* further condition of OM_WRITE_ONE; NULL: none */
	const char *watched;	   /* is the state before one that signals depend on? NULL: none */
	const char *was;		   /* the same for the row "old", where PostgreSQL returns it */
	const char *lock;		   /* strength of the lock */
	const char *assignments;   /* besides times and the columns of an update */
	const char *new_state;	   /* as text; NULL: the old state, or by the schedule */
	const char *done;		   /* does the written row have the state of the verb? */
	const char *rights;		   /* that the verb needs on the table, as for GRANT */
	bool deletes;			   /* deletes the row; otherwise updates it */
	bool adds_attempt;		   /* needs a max_attempts that can be raised above attempt */
} OmVerbText;

extern const OmVerbText om_verb_texts[];

extern const char *om_verb_condition(OmQuery query, const OmTableShape *shape);
extern const char *om_verb_spent(OmQuery query, const OmTableShape *shape);

/* ---- assignments.c: what a statement assigns to a job's columns ---- */

extern int om_column_param(OmQuery query, OmUpdateColumn column);
extern char *om_new_value(OmQuery query, OmUpdateColumn column);
extern void om_state_by_schedule_append(StringInfo sql, OmQuery query);
extern void om_assignments_append(StringInfo sql, OmQuery query);

/* ---- rows.c: the columns that statements return ---- */

extern void om_found_columns_append(StringInfo sql, OmQuery query, const OmTableShape *shape);
extern void om_written_columns_append(StringInfo sql, OmQuery query, const OmTableShape *shape);
extern void om_survey_columns_append(StringInfo sql, const OmTableShape *shape);
extern void om_state_columns_append(StringInfo sql);

#endif /* OM_STATEMENT_TEXT_H */
