/*
 * batch_progress.c
 *		What a procedure reports: how far it has come, as a NOTICE and in
 *		pg_stat_activity, and which jobs the table has refused.
 *
 * Calls only PostgreSQL; batches.c calls it.
 */
#include "functions/batch_progress.h"

#include "mb/pg_wchar.h"
#include "pgstat.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/memutils.h"

void
om_progress_init(OmProgress *progress, OmVerb verb)
{
	progress->verb = verb;
	progress->context =
		AllocSetContextCreate(CurrentMemoryContext, "oban_manage progress", ALLOCSET_SMALL_SIZES);
}

/*
 * A batch begins, perhaps again.
 */
void
om_progress_begin_batch(OmProgress *progress)
{
	MemoryContextReset(progress->context);
	progress->batch_refused = 0;
}

/*
 * The table has refused a job of the batch.  For OmRefusals; its state is an OmProgress.
 */
void
om_progress_refused(int64 id, const ErrorData *error, void *state)
{
	OmProgress *progress = state;

	if (progress->refused + progress->batch_refused < OM_NAMED_REFUSED)
		progress->named[progress->batch_refused] = (OmRefusedJob){
			.id = id,
			.message = MemoryContextStrdup(progress->context, error->message),
			.detail = error->detail != NULL ? MemoryContextStrdup(progress->context, error->detail)
											: NULL,
		};
	progress->batch_refused++;
}

static void
warn_of_refused(const OmProgress *progress)
{
	int64 count = Min(progress->batch_refused, OM_NAMED_REFUSED - progress->refused);

	for (int64 i = 0; i < count; i++)
	{
		const OmRefusedJob *job = &progress->named[i];

		ereport(WARNING, (errmsg("job " INT64_FORMAT " was refused: %s", job->id, job->message),
						  job->detail != NULL ? errdetail_internal("%s", job->detail) : 0));
	}
}

/*
 * Show a line in pg_stat_activity, as a comment after the text of the CALL, which is cut
 * if there is no room for both.
 */
static void
show_activity(const char *line)
{
	const char *query = debug_query_string != NULL ? debug_query_string : "";
	int room = pgstat_track_activity_query_size - 1 - (int) strlen(line) - (int) strlen(" /*  */");
	/* pgstat_report_activity forgets it. */
	uint64 query_id = pgstat_get_my_query_id();
	char *text;

	text = psprintf("%.*s /* %s */", pg_mbcliplen(query, strlen(query), Max(room, 0)), query, line);
	pgstat_report_activity(STATE_RUNNING, text);
	pgstat_report_query_id(query_id, true);
	pfree(text);
}

static void
report(const OmProgress *progress)
{
	double elapsed = Max(GetCurrentTimestamp() - progress->start, 1) / (double) USECS_PER_SEC;
	double rate = progress->done / elapsed;
	int64 total = Max(progress->total, progress->done);
	char left[32] = "unknown time";
	char *line;

	if (rate > 0)
		snprintf(left, sizeof(left), "%.0f s", (total - progress->done) / rate);
	line = psprintf("%s " INT64_FORMAT " of about " INT64_FORMAT " jobs, %.0f per second, %s left",
					om_verbs[progress->verb].participle, progress->done, total, rate, left);
	show_activity(line);
	ereport(NOTICE, (errmsg_internal("%s", line)));
	pfree(line);
}

/*
 * A batch is committed.  Report it if it found jobs.
 */
void
om_progress_end_batch(OmProgress *progress, bool found)
{
	warn_of_refused(progress);
	progress->refused += progress->batch_refused;
	if (found)
		report(progress);
}

/*
 * The procedure ends.
 */
void
om_progress_end(const OmProgress *progress)
{
	if (progress->refused > 0)
		ereport(WARNING, (errmsg_plural(INT64_FORMAT " job was refused by the table",
										INT64_FORMAT " jobs were refused by the table",
										(unsigned long) progress->refused, progress->refused),
						  progress->refused > OM_NAMED_REFUSED
							  ? errdetail("The first %d are named above.", OM_NAMED_REFUSED)
							  : 0,
						  errhint("oban_manage_jobs says why for each job.")));
	if (progress->passed > 0)
		ereport(NOTICE, (errmsg_plural("passed over " INT64_FORMAT
									   " job that another transaction held or changed",
									   "passed over " INT64_FORMAT
									   " jobs that other transactions held or changed",
									   (unsigned long) progress->passed, progress->passed)));
}
