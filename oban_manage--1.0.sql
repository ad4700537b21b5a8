/* oban_manage--1.0.sql */

\echo Use "CREATE EXTENSION oban_manage" to load this file. \quit

CREATE TYPE oban_job AS (
	id bigint,
	state text,
	queue text,
	worker text,
	attempt integer,
	max_attempts integer,
	priority integer,
	args jsonb,
	meta jsonb,
	tags text[],
	errors jsonb,
	attempted_by text[],
	inserted_at timestamptz,
	scheduled_at timestamptz,
	attempted_at timestamptz,
	completed_at timestamptz,
	cancelled_at timestamptz,
	discarded_at timestamptz,
	prefix text
);
COMMENT ON TYPE oban_job IS
'a job, the same whatever oban_jobs table it is in; prefix is the schema of that table';

-- cancel

CREATE FUNCTION oban_cancel_job(job_id bigint, prefix text DEFAULT NULL) RETURNS boolean
AS 'MODULE_PATHNAME', 'oban_cancel_job_by_id' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_cancel_job(bigint, text) IS
'cancel a job that is not completed, discarded or cancelled; tells a worker that executes it to stop; returns whether it was cancelled';

CREATE FUNCTION oban_cancel_job(job record) RETURNS boolean
AS 'MODULE_PATHNAME', 'oban_cancel_job_by_record' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_cancel_job(record) IS
'cancel a job, given as a row of an oban_jobs table or an oban_job';

CREATE FUNCTION oban_cancel_job(job_ids bigint[], prefix text DEFAULT NULL) RETURNS integer
AS 'MODULE_PATHNAME', 'oban_cancel_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_cancel_job(bigint[], text) IS
'cancel many jobs at once; returns how many were cancelled';

CREATE FUNCTION oban_cancel_many_jobs(job_ids bigint[], prefix text DEFAULT NULL) RETURNS integer
AS 'MODULE_PATHNAME', 'oban_cancel_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_cancel_many_jobs(bigint[], text) IS
'cancel many jobs at once; returns how many were cancelled';

-- retry

CREATE FUNCTION oban_retry_job(job_id bigint, prefix text DEFAULT NULL, scheduled_at timestamptz DEFAULT NULL) RETURNS boolean
AS 'MODULE_PATHNAME', 'oban_retry_job_by_id' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_retry_job(bigint, text, timestamptz) IS
'make a job that is not available or executing available now, or scheduled for scheduled_at, with at least one attempt left; wakes its queue; returns whether it was retried';

CREATE FUNCTION oban_retry_job(job record, scheduled_at timestamptz DEFAULT NULL) RETURNS boolean
AS 'MODULE_PATHNAME', 'oban_retry_job_by_record' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_retry_job(record, timestamptz) IS
'retry a job, given as a row of an oban_jobs table or an oban_job, now or at scheduled_at';

CREATE FUNCTION oban_retry_job(job_ids bigint[], prefix text DEFAULT NULL, scheduled_at timestamptz DEFAULT NULL) RETURNS integer
AS 'MODULE_PATHNAME', 'oban_retry_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_retry_job(bigint[], text, timestamptz) IS
'retry many jobs at once, now or at scheduled_at; returns how many were retried';

CREATE FUNCTION oban_retry_many_jobs(job_ids bigint[], prefix text DEFAULT NULL, scheduled_at timestamptz DEFAULT NULL) RETURNS integer
AS 'MODULE_PATHNAME', 'oban_retry_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_retry_many_jobs(bigint[], text, timestamptz) IS
'retry many jobs at once, now or at scheduled_at; returns how many were retried';

-- delete

CREATE FUNCTION oban_delete_job(job_id bigint, prefix text DEFAULT NULL) RETURNS boolean
AS 'MODULE_PATHNAME', 'oban_delete_job_by_id' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_delete_job(bigint, text) IS
'delete a job that is not executing; returns whether it was deleted';

CREATE FUNCTION oban_delete_job(job record) RETURNS boolean
AS 'MODULE_PATHNAME', 'oban_delete_job_by_record' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_delete_job(record) IS
'delete a job, given as a row of an oban_jobs table or an oban_job';

CREATE FUNCTION oban_delete_job(job_ids bigint[], prefix text DEFAULT NULL) RETURNS integer
AS 'MODULE_PATHNAME', 'oban_delete_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_delete_job(bigint[], text) IS
'delete many jobs at once; returns how many were deleted';

CREATE FUNCTION oban_delete_many_jobs(job_ids bigint[], prefix text DEFAULT NULL) RETURNS integer
AS 'MODULE_PATHNAME', 'oban_delete_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_delete_many_jobs(bigint[], text) IS
'delete many jobs at once; returns how many were deleted';

-- update

CREATE FUNCTION oban_update_job(job_id bigint, changes jsonb, prefix text DEFAULT NULL)
RETURNS oban_job
AS 'MODULE_PATHNAME', 'oban_update_job_by_id' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_update_job(bigint, jsonb, text) IS
'update a job with a JSON object of changes (args, max_attempts, meta, priority, queue, scheduled_at or schedule_in, tags, worker); returns the job';

CREATE FUNCTION oban_update_job(job record, changes jsonb) RETURNS oban_job
AS 'MODULE_PATHNAME', 'oban_update_job_by_record' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_update_job(record, jsonb) IS
'update a job, given as a row of an oban_jobs table or an oban_job';

CREATE FUNCTION oban_update_job(job_ids bigint[], changes jsonb, prefix text DEFAULT NULL)
RETURNS SETOF oban_job
AS 'MODULE_PATHNAME', 'oban_update_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_update_job(bigint[], jsonb, text) IS
'update many jobs at once, all of them or none; returns the jobs in id order';

CREATE FUNCTION oban_update_many_jobs(job_ids bigint[], changes jsonb, prefix text DEFAULT NULL)
RETURNS SETOF oban_job
AS 'MODULE_PATHNAME', 'oban_update_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_update_many_jobs(bigint[], jsonb, text) IS
'update many jobs at once, all of them or none; returns the jobs in id order';

-- update with a callable

CREATE FUNCTION oban_update_job_with(job_id bigint, callable regproc, context jsonb DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS oban_job
AS 'MODULE_PATHNAME', 'oban_update_job_with_by_id' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_update_job_with(bigint, regproc, jsonb, text) IS
'update a job with the changes that a function returns as jsonb, which gets the locked job (an oban_job, a row of its table, or jsonb) and may take the context; returns the job';

CREATE FUNCTION oban_update_job_with(job record, callable regproc, context jsonb DEFAULT NULL)
RETURNS oban_job
AS 'MODULE_PATHNAME', 'oban_update_job_with_by_record' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_update_job_with(record, regproc, jsonb) IS
'update a job, given as a row of an oban_jobs table or an oban_job, with the changes that a function returns';

CREATE FUNCTION oban_update_job_with(job_ids bigint[], callable regproc, context jsonb DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS SETOF oban_job
AS 'MODULE_PATHNAME', 'oban_update_jobs_with' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_update_job_with(bigint[], regproc, jsonb, text) IS
'update many jobs, all of them or none, each with the changes that a function returns for it; returns the jobs in id order';

CREATE FUNCTION oban_update_many_jobs_with(job_ids bigint[], callable regproc, context jsonb DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS SETOF oban_job
AS 'MODULE_PATHNAME', 'oban_update_jobs_with' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_update_many_jobs_with(bigint[], regproc, jsonb, text) IS
'update many jobs, all of them or none, each with the changes that a function returns for it; returns the jobs in id order';

-- many jobs by filter

CREATE FUNCTION oban_all_jobs(filter jsonb, max_jobs integer DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS SETOF oban_job
AS 'MODULE_PATHNAME', 'oban_all_jobs' LANGUAGE C STABLE PARALLEL SAFE COST 100;
COMMENT ON FUNCTION oban_all_jobs(jsonb, integer, text) IS
'the jobs that match a filter, in id order: what a verb with this filter would look at';

CREATE FUNCTION oban_cancel_all_jobs(filter jsonb, max_jobs integer DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'oban_cancel_all_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_cancel_all_jobs(jsonb, integer, text) IS
'cancel the jobs that match a filter, at most max_jobs of them, the lowest ids first; returns how many were cancelled';

CREATE FUNCTION oban_retry_all_jobs(filter jsonb, max_jobs integer DEFAULT NULL, prefix text DEFAULT NULL, scheduled_at timestamptz DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'oban_retry_all_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_retry_all_jobs(jsonb, integer, text, timestamptz) IS
'retry the jobs that match a filter, now or at scheduled_at, at most max_jobs of them, the lowest ids first; returns how many were retried';

CREATE FUNCTION oban_delete_all_jobs(filter jsonb, max_jobs integer DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'oban_delete_all_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_delete_all_jobs(jsonb, integer, text) IS
'delete the jobs that match a filter, at most max_jobs of them, the lowest ids first; returns how many were deleted';

CREATE FUNCTION oban_update_all_jobs(filter jsonb, changes jsonb, max_jobs integer DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'oban_update_all_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_update_all_jobs(jsonb, jsonb, integer, text) IS
'update the jobs that match a filter, at most max_jobs of them, the lowest ids first; returns how many were updated';

CREATE FUNCTION oban_update_all_jobs_with(filter jsonb, callable regproc, context jsonb DEFAULT NULL, max_jobs integer DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS bigint
AS 'MODULE_PATHNAME', 'oban_update_all_jobs_with' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_update_all_jobs_with(jsonb, regproc, jsonb, integer, text) IS
'update the jobs that match a filter, at most max_jobs of them, with the changes that a function returns for each; returns how many were changed';

CREATE FUNCTION oban_manage_jobs(action text, job_ids bigint[], changes jsonb DEFAULT NULL, dry_run boolean DEFAULT false, prefix text DEFAULT NULL, skip_refused boolean DEFAULT false, skip_locked boolean DEFAULT false)
RETURNS TABLE (job_id bigint, outcome text, old_state text, new_state text, reason text)
AS 'MODULE_PATHNAME', 'oban_manage_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_manage_jobs(text, bigint[], jsonb, boolean, text, boolean, boolean) IS
'cancel, retry, delete or update jobs; returns for each id what became of it and why, or with dry_run what would';

CREATE FUNCTION oban_manage_all_jobs(action text, filter jsonb, changes jsonb DEFAULT NULL, max_jobs integer DEFAULT NULL, dry_run boolean DEFAULT false, skip_refused boolean DEFAULT false, skip_locked boolean DEFAULT false, prefix text DEFAULT NULL)
RETURNS TABLE (job_id bigint, outcome text, old_state text, new_state text, reason text)
AS 'MODULE_PATHNAME', 'oban_manage_all_jobs' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_manage_all_jobs(text, jsonb, jsonb, integer, boolean, boolean, boolean, text) IS
'the same for the jobs that match a filter, at most max_jobs of them, the lowest ids first';

-- many jobs in batches

CREATE PROCEDURE oban_cancel_in_batches(filter jsonb, batch_size integer DEFAULT 10000, pause interval DEFAULT '0', max_jobs bigint DEFAULT NULL, skip_refused boolean DEFAULT false, skip_locked boolean DEFAULT false, prefix text DEFAULT NULL, INOUT affected bigint DEFAULT NULL)
AS 'MODULE_PATHNAME', 'oban_cancel_in_batches' LANGUAGE C;
COMMENT ON PROCEDURE oban_cancel_in_batches(jsonb, integer, interval, bigint, boolean, boolean, text, bigint) IS
'cancel the jobs that match a filter, batch_size of them a transaction, with a pause after each; affected is how many were cancelled';

CREATE PROCEDURE oban_retry_in_batches(filter jsonb, batch_size integer DEFAULT 10000, pause interval DEFAULT '0', spread interval DEFAULT '0', max_jobs bigint DEFAULT NULL, skip_refused boolean DEFAULT false, skip_locked boolean DEFAULT false, prefix text DEFAULT NULL, INOUT affected bigint DEFAULT NULL)
AS 'MODULE_PATHNAME', 'oban_retry_in_batches' LANGUAGE C;
COMMENT ON PROCEDURE oban_retry_in_batches(jsonb, integer, interval, interval, bigint, boolean, boolean, text, bigint) IS
'retry the jobs that match a filter, batch_size of them a transaction, with a pause after each; they run over the time of the spread, each by its rank in id order among those found at the start; affected is how many were retried';

CREATE PROCEDURE oban_delete_in_batches(filter jsonb, batch_size integer DEFAULT 10000, pause interval DEFAULT '0', max_jobs bigint DEFAULT NULL, skip_refused boolean DEFAULT false, skip_locked boolean DEFAULT false, prefix text DEFAULT NULL, INOUT affected bigint DEFAULT NULL)
AS 'MODULE_PATHNAME', 'oban_delete_in_batches' LANGUAGE C;
COMMENT ON PROCEDURE oban_delete_in_batches(jsonb, integer, interval, bigint, boolean, boolean, text, bigint) IS
'delete the jobs that match a filter, batch_size of them a transaction, with a pause after each; affected is how many were deleted';

CREATE PROCEDURE oban_update_in_batches(filter jsonb, changes jsonb, batch_size integer DEFAULT 10000, pause interval DEFAULT '0', max_jobs bigint DEFAULT NULL, skip_refused boolean DEFAULT false, skip_locked boolean DEFAULT false, prefix text DEFAULT NULL, INOUT affected bigint DEFAULT NULL)
AS 'MODULE_PATHNAME', 'oban_update_in_batches' LANGUAGE C;
COMMENT ON PROCEDURE oban_update_in_batches(jsonb, jsonb, integer, interval, bigint, boolean, boolean, text, bigint) IS
'update the jobs that match a filter, batch_size of them a transaction, with a pause after each; affected is how many were updated';

CREATE PROCEDURE oban_update_in_batches_with(filter jsonb, callable regproc, context jsonb DEFAULT NULL, batch_size integer DEFAULT 10000, pause interval DEFAULT '0', max_jobs bigint DEFAULT NULL, skip_refused boolean DEFAULT false, skip_locked boolean DEFAULT false, prefix text DEFAULT NULL, INOUT affected bigint DEFAULT NULL)
AS 'MODULE_PATHNAME', 'oban_update_in_batches_with' LANGUAGE C;
COMMENT ON PROCEDURE oban_update_in_batches_with(jsonb, regproc, jsonb, integer, interval, bigint, boolean, boolean, text, bigint) IS
'update the jobs that match a filter with the changes that a function returns for each, batch_size of them a transaction, with a pause after each; affected is how many were changed';

-- triggers

CREATE FUNCTION oban_cancel_job() RETURNS trigger
AS 'MODULE_PATHNAME', 'oban_cancel_job_trigger' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_cancel_job() IS
'trigger function: cancel the jobs whose ids are in a column; arguments: column [, prefix]';

CREATE FUNCTION oban_retry_job() RETURNS trigger
AS 'MODULE_PATHNAME', 'oban_retry_job_trigger' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_retry_job() IS
'trigger function: retry the jobs whose ids are in a column; arguments: column [, prefix]';

CREATE FUNCTION oban_delete_job() RETURNS trigger
AS 'MODULE_PATHNAME', 'oban_delete_job_trigger' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_delete_job() IS
'trigger function: delete the jobs whose ids are in a column; arguments: column [, prefix]';

CREATE FUNCTION oban_update_job() RETURNS trigger
AS 'MODULE_PATHNAME', 'oban_update_job_trigger' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_update_job() IS
'trigger function: update the jobs whose ids are in a column; arguments: column, changes [, prefix]';

CREATE FUNCTION oban_update_job_with() RETURNS trigger
AS 'MODULE_PATHNAME', 'oban_update_job_with_trigger' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_update_job_with() IS
'trigger function: update the jobs whose ids are in a column with the changes that a function returns, whose context is the trigger''s op, table, schema, old and new; arguments: column, callable with its schema [, prefix]';

CREATE FUNCTION oban_guard_job() RETURNS trigger
AS 'MODULE_PATHNAME', 'oban_guard_job' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
COMMENT ON FUNCTION oban_guard_job() IS
'trigger function, BEFORE UPDATE OF state OR DELETE FOR EACH ROW on oban_jobs: keeps out the late answers of workers, and statements that judged an older version of the job';

-- reading

CREATE FUNCTION oban_get_job(job_id bigint, prefix text DEFAULT NULL) RETURNS oban_job
AS 'MODULE_PATHNAME', 'oban_get_job' LANGUAGE C STABLE PARALLEL SAFE COST 100;
COMMENT ON FUNCTION oban_get_job(bigint, text) IS
'the job, or NULL when there is none';

CREATE FUNCTION oban_job_cancelled(job_id bigint, prefix text DEFAULT NULL, attempt integer DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'oban_job_cancelled' LANGUAGE C STABLE PARALLEL SAFE COST 100;
COMMENT ON FUNCTION oban_job_cancelled(bigint, text, integer) IS
'should a worker that executes the job stop: true once the job is cancelled or gone; with the attempt that the worker runs, true once the job is no longer executing with that attempt';
