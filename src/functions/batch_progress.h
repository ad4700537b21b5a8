/*
 * batch_progress.h
 *		What batch_progress.c does for batches.c.
 */
#ifndef OM_BATCH_PROGRESS_H
#define OM_BATCH_PROGRESS_H

#include "verbs/verbs.h"

/* How many refused jobs are named */
#define OM_NAMED_REFUSED 10

/* A job that the table has refused */
typedef struct OmRefusedJob
{
	int64 id;
	char *message;
	char *detail; /* or NULL */
} OmRefusedJob;

/* How far a procedure has come; counts of jobs in batches that were committed */
typedef struct OmProgress
{
	OmVerb verb;
	TimestampTz start; /* of the first batch */
	int64 done;
	int64 total;   /* estimated */
	int64 refused; /* by the table */
	int64 passed;  /* not locked: held or changed by other transactions */

	/* Of the running batch */
	OmRefusedJob named[OM_NAMED_REFUSED]; /* the first ones */
	int64 batch_refused;
	MemoryContext context; /* of these; reset after each batch */
} OmProgress;

extern void om_progress_init(OmProgress *progress, OmVerb verb);
extern void om_progress_begin_batch(OmProgress *progress);
extern void om_progress_refused(int64 id, const ErrorData *error, void *state);
extern void om_progress_end_batch(OmProgress *progress, bool found);
extern void om_progress_end(const OmProgress *progress);

#endif /* OM_BATCH_PROGRESS_H */
