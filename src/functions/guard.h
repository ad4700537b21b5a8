/*
 * guard.h
 *		What guard.c, guard_rows.c and guard_moves.c share: states, columns, and the row
 *		that fired the guard.
 */
#ifndef OM_GUARD_H
#define OM_GUARD_H

#include "arguments/arguments.h"

#include "commands/trigger.h"

/* Bits for sets of states; JOB_DELETED is the new state in a DELETE */
#define JOB_AVAILABLE 0x001
#define JOB_SCHEDULED 0x002
#define JOB_SUSPENDED 0x004
#define JOB_EXECUTING 0x008
#define JOB_RETRYABLE 0x010
#define JOB_COMPLETED 0x020
#define JOB_DISCARDED 0x040
#define JOB_CANCELLED 0x080
#define JOB_DELETED	  0x100

#define JOB_WAITING		 (JOB_AVAILABLE | JOB_SCHEDULED | JOB_SUSPENDED | JOB_RETRYABLE)
#define JOB_FINISHED	 (JOB_COMPLETED | JOB_DISCARDED | JOB_CANCELLED)
#define JOB_UNFINISHED	 (JOB_WAITING | JOB_EXECUTING)
#define JOB_IN_ANY_STATE (JOB_UNFINISHED | JOB_FINISHED)

#define JOB_N_STATES 8

/* The columns that the guard reads. A late answer keeps GUARD_STATE and all that follow. */
typedef enum GuardColumn
{
	GUARD_ID,
	GUARD_ERRORS,
	GUARD_MAX_ATTEMPTS,
	GUARD_STATE,
	GUARD_ATTEMPT,
	GUARD_SCHEDULED_AT,
	GUARD_ATTEMPTED_AT,
	GUARD_COMPLETED_AT,
	GUARD_CANCELLED_AT,
	GUARD_DISCARDED_AT,
	GUARD_N_COLUMNS
} GuardColumn;

/* What the guard knows of a table. Entries never move, because nested calls use them. */
typedef struct GuardedTable
{
	Oid relid; /* hash key */
	bool valid;
	bool errors_is_array;
	AttrNumber attnums[GUARD_N_COLUMNS];
	Oid types[GUARD_N_COLUMNS];
	Oid states[JOB_N_STATES]; /* InvalidOid: the table has no such state */
} GuardedTable;

/* The row that a statement is about to change, and its states before and after */
typedef struct GuardedRow
{
	const TriggerData *data;
	const GuardedTable *table;
	int old_state; /* one bit; 0: a state that Oban does not have */
	int new_state;
} GuardedRow;

/* guard_rows.c */
extern const GuardedTable *om_guarded_table(Relation rel);
extern int om_guarded_state(const GuardedTable *table, Datum state);
extern int om_guarded_state_of(const GuardedRow *row, HeapTuple tuple);
extern Datum om_guarded_old(const GuardedRow *row, GuardColumn column, bool *isnull);
extern Datum om_guarded_new(const GuardedRow *row, GuardColumn column, bool *isnull);
extern int64 om_guarded_number(const GuardedRow *row, HeapTuple tuple, GuardColumn column);
extern bool om_guarded_keeps_schedule(const GuardedRow *row);
extern bool om_guarded_adds_entry(const GuardedRow *row, int64 *run);
extern bool om_guarded_has_entry(const GuardedRow *row, int64 run);

/* guard_moves.c */
extern void om_guarded_note_update(const GuardedRow *row);
extern bool om_guarded_is_moved(const GuardedRow *row);

#endif /* OM_GUARD_H */
