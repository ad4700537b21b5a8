/*
 * parts.c
 *		Runs a call over a list of jobs.  Passes over the jobs that the table refuses,
 *		if the call asks for that.
 *
 * The list is first tried whole.  When the table refuses it, parts of it are tried, each
 * in a subtransaction, until a refused job stands alone.  Parts come in ascending order
 * of their ids, so no lock is taken below one that is held.
 *
 * A statement hands over its jobs in the order of their ids (OmCall's "passed"), so the
 * job after the last one is the suspect.  It is tried alone, after the jobs before it.
 * An error at the end of a statement, such as that of an AFTER trigger, tells nothing:
 * then the part is halved.
 *
 * Once a job was refused, parts are small, because the work of a part that is refused is
 * lost.  Small parts cost more statements.  With one refused job among "gap" jobs, the
 * sum of both is least at a size in proportion to the square root of the gap.  A longer
 * run of good jobs lets the parts grow with it, so n refused jobs among m take about
 * n log m statements.  Where refused jobs stand together, parts begin with one job, and
 * double while they succeed.
 *
 * batches.c and manage_jobs.c call this file; this file calls run.c.
 */
#include "verbs/verbs.h"

#include "miscadmin.h"

/*
 * What a part costs beside its jobs, compared with what is lost of a job when the part is
 * refused.  Measured: the time of a call changes little from half of it to twice.
 */
#define OVERHEAD 32

typedef struct Parts
{
	OmCall *call;
	const int64 *ids; /* the jobs, sorted */
	int count;

	int from;	 /* the jobs before this index are done */
	int size;	 /* of the next part */
	int suspect; /* index of the job to try alone; -1: none */
	bool guess;	 /* may the last job that was passed tell the suspect? */
	int failed;	 /* one of the jobs before this index, and not done, is refused; 0: not known */
} Parts;

/*
 * The largest part that pays.  Until a job was refused that is all jobs.
 */
static int
largest_part(const Parts *parts)
{
	const OmRefusals *refusals = parts->call->refusals;
	int64 gap;
	int64 size = 1;

	if (refusals->count == 0)
		return parts->count;
	gap = Max(refusals->since_refused, refusals->tried / refusals->count);
	/* About the root */
	while (2 * size * size <= OVERHEAD * gap && size < parts->count)
		size *= 2;
	/* So that a long list with few refused jobs does not take many parts */
	size = Max(size, refusals->since_refused / 4);
	return (int) Min(size, parts->count);
}

/*
 * Let the call be over these jobs alone, if they still match its filter.
 */
static void
choose_jobs(OmCall *call, OmJobIds *ids)
{
	call->over = ids;
	om_filter_restrict(&call->filter, om_job_ids_array(ids));
}

/*
 * Try the next part of the jobs.  Returns NULL, or the error with which it failed.
 */
static ErrorData *
try_part(const Parts *parts, int count, uint64 *changed)
{
	OmJobIds ids;
	ErrorData *error;

	om_job_ids_init(&ids, count);
	for (int i = 0; i < count; i++)
		om_job_ids_add(&ids, parts->ids[parts->from + i]);
	choose_jobs(parts->call, &ids);
	error = om_call_try(parts->call, changed);
	parts->call->over = NULL;
	pfree(ids.array);
	return error;
}

/*
 * How many jobs of the part come before the suspect; -1 when nothing is known.
 */
static int
count_before_suspect(const Parts *parts, int count)
{
	const OmCall *call = parts->call;
	int before = 0;

	if (!parts->guess || !call->in_order)
		return -1;
	while (call->npassed > 0 && before < count && parts->ids[parts->from + before] <= call->passed)
		before++;
	return before < count ? before : -1;
}

/*
 * The part was done.
 */
static void
go_on(Parts *parts, int count)
{
	OmRefusals *refusals = parts->call->refusals;

	parts->from += count;
	refusals->tried += count;
	refusals->since_refused += count;
	if (parts->from == parts->suspect)
	{
		parts->size = 1;
		return;
	}
	if (parts->suspect >= 0)
	{
		/* The suspect was done too. */
		parts->suspect = -1;
		parts->guess = false;
	}
	if (parts->from < parts->failed)
		parts->size = Max((parts->failed - parts->from) / 2, 1);
	else
	{
		parts->guess = true;
		parts->size = Min(2 * parts->size, largest_part(parts));
	}
}

/*
 * The part of several jobs was refused.  Choose a smaller one.
 */
static void
shrink(Parts *parts, int count)
{
	int before = count_before_suspect(parts, count);

	parts->failed = parts->from + count;
	parts->suspect = before >= 0 ? parts->from + before : -1;
	parts->size = before > 0 ? before : before == 0 ? 1 : count / 2;
}

/*
 * The job was refused.
 */
static void
refuse(Parts *parts, const ErrorData *error)
{
	OmRefusals *refusals = parts->call->refusals;
	int64 gap = refusals->since_refused;

	refusals->refused(parts->ids[parts->from], error, refusals->state);
	refusals->tried++;
	refusals->count++;
	refusals->since_refused = 0;
	parts->from++;
	parts->failed = 0;
	parts->suspect = -1;
	parts->guess = true;
	parts->size = (int) Max(Min(gap, largest_part(parts)), 1);
	parts->call->found_before++;
}

/*
 * Run the call over the jobs, each of which must still match its filter.  Returns how
 * many it changed.  The ids are distinct and sorted.  With "again", a call that loses
 * to another transaction is tried again.  A call with "refusals" always is.
 */
uint64
om_call_run_over(OmCall *call, OmJobIds *ids, bool again)
{
	Parts parts = {
		.call = call,
		.ids = om_job_ids_data(ids),
		.count = ids->count,
		.suspect = -1,
		.guess = true,
	};
	uint64 total = 0;

	if (call->refusals == NULL)
	{
		choose_jobs(call, ids);
		return again ? om_call_run_again(call) : om_call_run(call);
	}

	parts.size = call->refusals->size > 0 ? call->refusals->size : parts.count;
	while (parts.from < parts.count)
	{
		int count = Min(parts.size, parts.count - parts.from);
		uint64 changed;
		ErrorData *error;

		CHECK_FOR_INTERRUPTS();
		error = try_part(&parts, count, &changed);
		if (error == NULL)
		{
			total += changed;
			call->found_before += call->found.count;
			go_on(&parts, count);
			continue;
		}
		if (!om_error_is_refusal(error))
			ReThrowError(error);
		if (count == 1)
			refuse(&parts, error);
		else
			shrink(&parts, count);
		FreeErrorData(error);
	}
	if (call->refusals->count > 0)
		call->refusals->size = parts.size;
	return total;
}
