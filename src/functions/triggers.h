/*
 * triggers.h
 *		What triggers.c, trigger_rows.c and trigger_contexts.c share.
 */
#ifndef OM_TRIGGERS_H
#define OM_TRIGGERS_H

#include "verbs/verbs.h"

#include "commands/trigger.h"
#include "storage/buffile.h"
#include "utils/hsearch.h"
#include "utils/tuplestore.h"

/* ---- trigger_rows.c: the rows that fired a trigger, and the jobs that they name ---- */

typedef struct OmTrigger
{
	TriggerData *data;
	const char *column; /* holds the jobs' ids */
	AttrNumber attnum;
	Oid type; /* of an id */
	bool is_array;
	bool reads_new;			/* the NEW version of a row, not OLD */
	Tuplestorestate *table; /* the transition table; NULL in a row trigger */
	int table_pointer;		/* our read pointer in table */
	TupleTableSlot *row;	/* the current row */
	ErrorContextCallback callback;
} OmTrigger;

extern void om_trigger_begin(OmTrigger *trigger, FunctionCallInfo fcinfo, int nargs);
extern bool om_trigger_next_row(OmTrigger *trigger);
extern void om_trigger_add_row_jobs(OmTrigger *trigger, OmJobIds *ids);
extern void om_trigger_jobs(OmTrigger *trigger, OmJobIds *ids);
extern Oid om_trigger_jobs_table(const OmTrigger *trigger, int nargs);
extern Datum om_trigger_return(const OmTrigger *trigger);

/* ---- trigger_contexts.c: the contexts that callables get from a trigger ---- */

typedef struct OmTriggerContexts
{
	const OmTrigger *trigger;
	MemoryContext context; /* lives as long as OmTriggerContexts */
	FmgrInfo to_jsonb;
	StringInfoData memory;		  /* stored contexts, up to work_mem */
	BufFile *file;				  /* further contexts, each after its size; NULL: none */
	HTAB *loaded;				  /* contexts that were read from the file, by position */
	MemoryContext loaded_context; /* memory of loaded */
} OmTriggerContexts;

extern void om_trigger_contexts_begin(OmTriggerContexts *contexts, const OmTrigger *trigger);
extern Datum om_trigger_context(OmTriggerContexts *contexts);
extern int64 om_trigger_contexts_put(OmTriggerContexts *contexts);
extern bool om_trigger_contexts_full(OmTriggerContexts *contexts, bool anew);
extern Datum om_trigger_contexts_get(OmTriggerContexts *contexts, int64 position);
extern void om_trigger_contexts_end(OmTriggerContexts *contexts);

#endif /* OM_TRIGGERS_H */
