/*
 * trigger_contexts.c
 *		The context that a callable gets from a trigger besides the job: the
 *		operation, the table, and the row, as one jsonb object.  triggers.c calls this
 *		file.
 *
 * A statement trigger makes the contexts in the order of its rows, and needs them
 * in the order of the jobs.  So each context is stored, once for all the jobs of
 * its row, and read by its position.  The first contexts are stored in memory, up
 * to work_mem; the others in a temporary file.
 *
 * The tuplesort of the jobs (triggers.c) could carry the contexts and spill by
 * itself.  But then each job needs its own copy of the context, and a row may name
 * thousands of jobs.  We also measured rows of one job each: 10,000 rows with contexts of
 * 10 kB took 1.1 to 1.3 times the processor time.
 */
#include "functions/triggers.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* A batch of jobs ends when contexts that were read from the file take more bytes than this */
#define MOST_LOADED (64 * 1024 * 1024)

/* The next batch keeps the contexts that were read before, if they take no more bytes than this */
#define KEPT_LOADED (8 * 1024 * 1024)

/* A position with this bit is in the file, one without it in memory */
#define IN_FILE (INT64CONST(1) << 62)

/*
 * Prepare to make and store contexts, in the current memory context.
 */
void
om_trigger_contexts_begin(OmTriggerContexts *contexts, const OmTrigger *trigger)
{
	TupleDesc desc = RelationGetDescr(trigger->data->tg_relation);
	/* to_jsonb learns the row's type from the expression that it is called in. */
	Const *row = makeNullConst(desc->tdtypeid, -1, InvalidOid);

	memset(contexts, 0, sizeof(*contexts));
	contexts->trigger = trigger;
	contexts->context = CurrentMemoryContext;
	fmgr_info(F_TO_JSONB, &contexts->to_jsonb);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(row), InvalidOid,
											 InvalidOid, COERCE_EXPLICIT_CALL),
					   &contexts->to_jsonb);
	initStringInfo(&contexts->memory);
}

static void
push_key(JsonbInState *state, const char *name)
{
	JsonbValue key = {.type = jbvString};

	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &key);
}

static void
push_string(JsonbInState *state, const char *name, const char *string)
{
	JsonbValue value = {.type = jbvString};

	push_key(state, name);
	value.val.string.val = unconstify(char *, string);
	value.val.string.len = strlen(string);
	pushJsonbValue(state, WJB_VALUE, &value);
}

/*
 * Set the generated columns of a new row to NULL, as PL/pgSQL does.  PostgreSQL
 * computes them after the BEFORE triggers, so until then a new row holds the
 * values of the old one.  Virtual generated columns are NULL in any row, because
 * PostgreSQL does not compute them for triggers.
 */
static HeapTuple
without_generated(HeapTuple tuple, TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
	{
		int attnum = i + 1;
		Datum value = (Datum) 0;
		bool isnull = true;

		if (TupleDescAttr(desc, i)->attgenerated)
			tuple = heap_modify_tuple_by_cols(tuple, desc, 1, &attnum, &value, &isnull);
	}
	return tuple;
}

static void
push_row(JsonbInState *state, OmTriggerContexts *contexts, bool is_new, TupleTableSlot *row)
{
	TriggerData *data = contexts->trigger->data;
	TupleDesc desc = RelationGetDescr(data->tg_relation);
	JsonbValue value = {.type = jbvNull};

	push_key(state, is_new ? "new" : "old");
	if (row != NULL)
	{
		HeapTuple tuple = ExecFetchSlotHeapTuple(row, false, NULL);
		Datum json;

		if (is_new && TRIGGER_FIRED_BEFORE(data->tg_event))
			tuple = without_generated(tuple, desc);
		/* The slot may have the type of the rows that are inserted, so use the table's. */
		json = FunctionCall1(&contexts->to_jsonb, heap_copy_tuple_as_datum(tuple, desc));
		value.type = jbvBinary;
		value.val.binary.data = &DatumGetJsonbP(json)->root;
		value.val.binary.len = VARSIZE(DatumGetJsonbP(json)) - VARHDRSZ;
	}
	pushJsonbValue(state, WJB_VALUE, &value);
}

/*
 * Make the context for the trigger's current row, as jsonb.  In a row trigger it has
 * both versions of the row, in a statement trigger the version that names the jobs.
 */
Datum
om_trigger_context(OmTriggerContexts *contexts)
{
	const OmTrigger *trigger = contexts->trigger;
	TriggerData *data = trigger->data;
	TupleTableSlot *old = NULL;
	TupleTableSlot *new = NULL;
	JsonbInState state = {0};

	if (trigger->table != NULL)
		*(trigger->reads_new ? &new : &old) = trigger->row;
	else
	{
		if (!TRIGGER_FIRED_BY_INSERT(data->tg_event))
			old = data->tg_trigslot;
		if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
			new = data->tg_newslot;
		else if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
			new = data->tg_trigslot;
	}

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_string(&state, "op",
				TRIGGER_FIRED_BY_INSERT(data->tg_event)	  ? "INSERT"
				: TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? "UPDATE"
														  : "DELETE");
	push_string(&state, "table", RelationGetRelationName(data->tg_relation));
	push_string(&state, "schema", get_namespace_name(RelationGetNamespace(data->tg_relation)));
	push_row(&state, contexts, false, old);
	push_row(&state, contexts, true, new);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbPGetDatum(JsonbValueToJsonb(state.result));
}

/*
 * Store the context for the trigger's current row.  Returns its position; positions are
 * in the order of the rows.
 */
int64
om_trigger_contexts_put(OmTriggerContexts *contexts)
{
	static const char padding[MAXIMUM_ALIGNOF];
	StringInfo memory = &contexts->memory;
	Datum context = om_trigger_context(contexts);
	Size size = VARSIZE(DatumGetPointer(context));
	int fileno;
	off_t offset;

	if (contexts->file == NULL &&
		memory->len + size <= Min(work_mem * (Size) 1024, MaxAllocSize / 2))
	{
		int position;

		appendBinaryStringInfo(memory, padding, MAXALIGN(memory->len) - memory->len);
		position = memory->len;
		appendBinaryStringInfo(memory, DatumGetPointer(context), size);
		return position;
	}

	if (contexts->file == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(contexts->context);

		contexts->file = BufFileCreateTemp(false);
		MemoryContextSwitchTo(caller);
	}
	BufFileTell(contexts->file, &fileno, &offset);
	BufFileWrite(contexts->file, &size, sizeof(size));
	BufFileWrite(contexts->file, DatumGetPointer(context), size);
	return IN_FILE | ((int64) fileno << 32) | offset;
}

/*
 * Read a context from the file into the current memory context.
 */
static Datum
load_context(BufFile *file, int64 position)
{
	Size size = 0;
	char *context = NULL;
	bool found;

	position &= ~IN_FILE;
	found = BufFileSeek(file, (int) (position >> 32), (off_t) (position & PG_UINT32_MAX),
						SEEK_SET) == 0 &&
			BufFileRead(file, &size, sizeof(size)) == sizeof(size);
	if (found)
	{
		context = palloc(size);
		found = BufFileRead(file, context, size) == size;
	}
	if (!found)
		ereport(ERROR,
				(errcode_for_file_access(), errmsg("could not read from temporary file: %m")));
	return PointerGetDatum(context);
}

typedef struct LoadedContext
{
	int64 position; /* hash key */
	Datum context;
} LoadedContext;

/*
 * Must the batch end, because the contexts that were read from the file take too much
 * memory?  If "anew" is true, a new batch begins.  It does not need the contexts of the
 * previous batch, so these are freed, unless they take little memory.
 */
bool
om_trigger_contexts_full(OmTriggerContexts *contexts, bool anew)
{
	if (contexts->loaded == NULL)
		return false;
	if (!anew)
		return MemoryContextMemAllocated(contexts->loaded_context, true) > MOST_LOADED;

	/* Keep contexts that take little memory, because later jobs may need them again. */
	if (MemoryContextMemAllocated(contexts->loaded_context, true) > KEPT_LOADED)
	{
		MemoryContextReset(contexts->loaded_context);
		contexts->loaded = NULL;
	}
	return false;
}

/*
 * The context at a position.  Must be called after all contexts are stored.  A context in
 * the file is read once, and stays valid until om_trigger_contexts_full is called for a
 * new batch.
 */
Datum
om_trigger_contexts_get(OmTriggerContexts *contexts, int64 position)
{
	MemoryContext caller;
	LoadedContext *loaded;
	bool found;

	if ((position & IN_FILE) == 0)
		return PointerGetDatum(&contexts->memory.data[position]);

	if (contexts->loaded == NULL)
	{
		HASHCTL ctl = {.keysize = sizeof(int64), .entrysize = sizeof(LoadedContext)};

		if (contexts->loaded_context == NULL)
			contexts->loaded_context = AllocSetContextCreate(
				contexts->context, "oban_manage contexts", ALLOCSET_DEFAULT_SIZES);
		ctl.hcxt = contexts->loaded_context;
		contexts->loaded = hash_create("oban_manage loaded contexts", 64, &ctl,
									   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	loaded = hash_search(contexts->loaded, &position, HASH_ENTER, &found);
	if (!found)
	{
		caller = MemoryContextSwitchTo(contexts->loaded_context);
		loaded->context = load_context(contexts->file, position);
		MemoryContextSwitchTo(caller);
	}
	return loaded->context;
}

void
om_trigger_contexts_end(OmTriggerContexts *contexts)
{
	pfree(contexts->memory.data);
	if (contexts->file != NULL)
		BufFileClose(contexts->file);
	if (contexts->loaded_context != NULL)
		MemoryContextDelete(contexts->loaded_context);
}
