/*
 * signals.c
 *		What running Obans are told, by NOTIFY in the caller's transaction.
 *
 * The channel is <prefix>.oban_<name>, with the prefix unquoted.  The payload is
 * compact JSON that begins with "{", because Oban for Python decodes anything else as
 * base64, and its listener ends when that fails.  PostgreSQL sends at commit, and drops
 * duplicates within a transaction.  Calls only PostgreSQL; the verbs and
 * functions/manage_jobs.c use it.
 */
#include "jobs/jobs.h"

#include "commands/async.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"

#define KILL_CHANNEL "oban_signal"

/* As in PostgreSQL's async.c, which does not export it */
#define PAYLOAD_MAX_LENGTH (BLCKSZ - NAMEDATALEN - 128)

/*
 * Begin to send signals to the Obans of a jobs table.  What is kept from one signal to
 * the next is allocated in the current memory context.
 */
void
om_signals_init(OmSignals *signals, Oid jobs)
{
	memset(signals, 0, sizeof(*signals));
	signals->jobs = jobs;
	signals->context = CurrentMemoryContext;
}

/*
 * Would om_signal_kill really tell the worker of a job of this table to stop?
 */
bool
om_signals_kill(Oid jobs)
{
	const char *schema = get_namespace_name_or_temp(get_rel_namespace(jobs));

	return om_notify && strlen(schema) + strlen("." KILL_CHANNEL) < NAMEDATALEN;
}

/*
 * Notify the channel <prefix>.<name>.  PostgreSQL refuses long names and payloads
 * with an error, which would undo the change of the job.  So we do not notify then, and
 * raise a warning, once in a call.
 */
static void
notify(OmSignals *signals, const char *name, const char *payload)
{
	MemoryContext caller = MemoryContextSwitchTo(signals->context);
	char *channel;

	if (signals->schema == NULL)
		signals->schema = get_namespace_name_or_temp(get_rel_namespace(signals->jobs));
	channel = psprintf("%s.%s", signals->schema, name);

	if (strlen(channel) < NAMEDATALEN && strlen(payload) < PAYLOAD_MAX_LENGTH)
		Async_Notify(channel, payload);
	else if (!signals->warned)
	{
		ereport(WARNING,
				(errcode(ERRCODE_NAME_TOO_LONG), errmsg("cannot notify channel \"%s\"", channel),
				 errdetail("PostgreSQL limits a channel's name to %d bytes and its payload to %d.",
						   NAMEDATALEN - 1, PAYLOAD_MAX_LENGTH - 1),
				 errhint("The jobs are changed, but running Obans are not told.")));
		signals->warned = true;
	}
	pfree(channel);
	MemoryContextSwitchTo(caller);
}

/*
 * Tell the worker that runs a job to stop.
 */
void
om_signal_kill(OmSignals *signals, int64 job_id)
{
	char payload[64];

	if (!om_notify)
		return;
	snprintf(payload, sizeof(payload), "{\"action\":\"pkill\",\"job_id\":" INT64_FORMAT "}",
			 job_id);
	notify(signals, KILL_CHANNEL, payload);
}

/*
 * Wake the workers of a queue.  NULL wakes none.  Jobs of the same queue often follow
 * each other, so the queue that was woken last is not woken again.  PostgreSQL drops
 * the other duplicates.
 */
void
om_signal_wake(OmSignals *signals, const text *queue)
{
	StringInfoData payload;
	char *string;
	Size len;

	if (!om_notify || queue == NULL)
		return;
	len = VARSIZE_ANY_EXHDR(queue);
	if (signals->last_queue != NULL && VARSIZE_ANY_EXHDR(signals->last_queue) == len &&
		memcmp(VARDATA_ANY(signals->last_queue), VARDATA_ANY(queue), len) == 0)
		return;

	if (signals->last_queue != NULL)
		pfree(signals->last_queue);
	signals->last_queue = MemoryContextAlloc(signals->context, VARSIZE_ANY(queue));
	memcpy(signals->last_queue, queue, VARSIZE_ANY(queue));

	initStringInfo(&payload);
	appendStringInfoString(&payload, "{\"queue\":");
	string = text_to_cstring(queue);
	escape_json(&payload, string);
	pfree(string);
	appendStringInfoChar(&payload, '}');
	notify(signals, "oban_insert", payload.data);
	pfree(payload.data);
}
