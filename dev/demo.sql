-- Managing Jobs, example by example. Run by psql from the top of the sources, in an empty database;
-- what it must print is in demo.expected.

\set QUIET on
SET client_min_messages = warning;
SET TimeZone = 'UTC';
\set SHOW_CONTEXT never
\pset footer off
\pset null '-'

\i fixtures/elixir.sql
CREATE EXTENSION oban_manage;

INSERT INTO oban_jobs (id, queue, worker, state, attempt, max_attempts, args) VALUES
	(101, 'imports', 'MyApp.ImportProducts', 'executing', 1, 5, '{"file": "spring.csv"}'),
	(102, 'imports', 'MyApp.ImportProducts', 'executing', 2, 5, '{"file": "summer.csv"}'),
	(123, 'mailers', 'MyApp.SendReminder', 'scheduled', 0, 20, '{"appointment": 17}'),
	(234, 'billing', 'MyApp.SendInvoice', 'completed', 1, 20, '{"invoice": 2041}'),
	(345, 'billing', 'MyApp.SendInvoice', 'discarded', 3, 3, '{"invoice": 2042}'),
	(456, 'billing', 'MyApp.SendInvoice', 'available', 0, 20, '{"invoice": 2043}'),
	(567, 'mailers', 'MyApp.SendReminder', 'cancelled', 0, 20, '{"appointment": 18}'),
	(678, 'default', 'MyApp.SyncContacts', 'suspended', 0, 20, '{"account": 5}'),
	(789, 'imports', 'MyApp.ImportProducts', 'retryable', 2, 5, '{"file": "winter.csv"}'),
	(890, 'mailers', 'MyApp.SendReminder', 'scheduled', 0, 20, '{"appointment": 19}'),
	(901, 'mailers', 'MyApp.SendReminder', 'scheduled', 0, 20, '{"appointment": 20}');
UPDATE oban_jobs SET scheduled_at = scheduled_at + interval '3 days' WHERE state = 'scheduled';
UPDATE oban_jobs SET completed_at = inserted_at WHERE state = 'completed';
UPDATE oban_jobs SET discarded_at = inserted_at WHERE state = 'discarded';
UPDATE oban_jobs SET cancelled_at = inserted_at WHERE state = 'cancelled';

\echo
\echo '== The jobs =='
\set ECHO queries
SELECT id, queue, worker, state, attempt, max_attempts AS max, args FROM oban_jobs ORDER BY id;
\set ECHO none

\echo
\echo '== Cancelling Jobs =='
\set ECHO queries
\echo '-- Cancel with the job''s id: await oban.cancel_job(123)'
SELECT oban_cancel_job(123);
SELECT id, state, cancelled_at IS NOT NULL AS has_timestamp FROM oban_jobs WHERE id = 123;

\echo '-- Or with a job instance, which is a row of the table: await oban.cancel_job(job)'
SELECT oban_cancel_job(job) FROM oban_jobs AS job WHERE args @> '{"invoice": 2043}';

\echo '-- Only incomplete jobs can be cancelled'
SELECT id, state, oban_cancel_job(id) FROM oban_jobs
WHERE state IN ('completed', 'discarded', 'cancelled') ORDER BY id;

\echo '-- A job that is executing: its state changes at once, and its worker is told'
LISTEN "public.oban_signal";
SELECT oban_cancel_job(101);

\echo '-- What its worker, in any language, asks at its safe points: if job.cancelled()'
SELECT oban_job_cancelled(101), oban_job_cancelled(102) AS and_102;

\echo '-- Many at once: count = await oban.cancel_many_jobs([123, 456, 789])'
\echo '-- The first two have been cancelled above.'
SELECT oban_cancel_many_jobs('{123, 456, 789}');
SELECT id, state FROM oban_jobs WHERE id IN (123, 456, 789) ORDER BY id;
\set ECHO none

\echo
\echo '== Retrying Jobs =='
\set ECHO queries
\echo '-- Retry with the job''s id: await oban.retry_job(123). The workers of its queue are woken.'
LISTEN "public.oban_insert";
SELECT oban_retry_job(123);
SELECT id, state, cancelled_at, scheduled_at <= timezone('UTC', now()) AS is_due
FROM oban_jobs WHERE id = 123;

\echo '-- Or with a job instance, here one from oban_get_job: await oban.retry_job(job)'
SELECT oban_retry_job(oban_get_job(234));

\echo '-- Jobs that are available or executing are ignored'
SELECT id, state, oban_retry_job(id) FROM oban_jobs
WHERE state IN ('available', 'executing') ORDER BY id;

\echo '-- A job that has exhausted its attempts: the limit is increased'
SELECT id, state, attempt, max_attempts FROM oban_jobs WHERE id = 345;
SELECT oban_retry_job(345);
SELECT id, state, attempt, max_attempts FROM oban_jobs WHERE id = 345;

\echo '-- Many at once: count = await oban.retry_many_jobs([123, 456, 789]). 123 is available already.'
SELECT oban_retry_many_jobs('{123, 456, 789}');

\echo '-- Any job that is not executing can be retried: a reminder for in three days is sent now'
SELECT id, state, scheduled_at <= timezone('UTC', now()) AS is_due FROM oban_jobs WHERE id = 890;
SELECT oban_retry_job(890);
SELECT id, state, scheduled_at <= timezone('UTC', now()) AS is_due FROM oban_jobs WHERE id = 890;
\set ECHO none
UNLISTEN *;

\echo
\echo '== Deleting Jobs =='
\set ECHO queries
\echo '-- Delete with the job''s id: await oban.delete_job(123)'
SELECT oban_delete_job(123);
SELECT count(*) FROM oban_jobs WHERE id = 123;

\echo '-- Or with a job instance: await oban.delete_job(job)'
SELECT oban_delete_job(job) FROM oban_jobs AS job WHERE args @> '{"account": 5}';

\echo '-- A job that is executing cannot be deleted; cancel it first, and then delete it'
SELECT oban_delete_job(102);
SELECT oban_cancel_job(102);
SELECT oban_delete_job(102);

\echo '-- Many at once: count = await oban.delete_many_jobs([123, 456, 789]). 123 is gone already.'
SELECT oban_delete_many_jobs('{123, 456, 789}');

\echo '-- What is left'
SELECT id, queue, worker, state, args FROM oban_jobs ORDER BY id;
\set ECHO none
INSERT INTO oban_jobs (id, queue, worker, priority, max_attempts, args) VALUES
	(123, 'mailers', 'MyApp.SendReminder', 3, 20, '{"appointment": 21}'),
	(456, 'billing', 'MyApp.SendInvoice', 3, 20, '{"invoice": 2044}'),
	(789, 'imports', 'MyApp.ImportProducts', 5, 5, '{"file": "autumn.csv"}');

\echo
\echo '== Updating Jobs =='
\set ECHO queries
\echo '-- Three new jobs'
SELECT id, queue, worker, state, priority, max_attempts AS max, args, meta, tags
FROM oban_jobs WHERE id IN (123, 456, 789) ORDER BY id;

\echo '-- A job instance: await oban.update_job(job, {"priority": 0, "tags": ["urgent"]})'
SELECT changed.id, changed.priority, changed.tags
FROM oban_jobs AS job, oban_update_job(job, '{"priority": 0, "tags": ["urgent"]}') AS changed
WHERE job.id = 123;

\echo '-- Or by job ID: await oban.update_job(123, {"queue": "critical"})'
SELECT id, queue FROM oban_update_job(123, '{"queue": "critical"}');

\echo '-- Reprioritizing'
SELECT id, priority FROM oban_update_job(456, '{"priority": 9}');

\echo '-- Rescheduling, with a time or with how long to wait'
SELECT id, state, scheduled_at
FROM oban_update_job(456, '{"scheduled_at": "2099-01-01T09:00:00+01:00"}');
SELECT id, state, scheduled_at - now() AS wait
FROM oban_update_job(456, '{"schedule_in": "5 minutes"}');

\echo '-- Reassigning'
SELECT id, queue, worker
FROM oban_update_job(789, '{"queue": "night", "worker": "MyApp.ImportSlowly"}');

\echo '-- Annotating. Tags are trimmed, lower-cased and sorted, each once.'
SELECT id, meta, tags
FROM oban_update_job(789, '{"meta": {"asked_by": "Ada"}, "tags": [" Winter ", "import", "winter"]}');

\echo '-- The job''s arguments and its maximum retry attempts'
SELECT id, args, max_attempts
FROM oban_update_job(789, '{"args": {"file": "autumn.csv", "rows": 500}, "max_attempts": 8}');

\echo '-- A scheduled job runs right away: await oban.update_job(job, {"schedule_in": 0})'
SELECT id, state, scheduled_at <= timezone('UTC', now()) AS is_due FROM oban_jobs WHERE id = 901;
SELECT changed.id, changed.state, changed.scheduled_at <= now() AS is_due
FROM oban_jobs AS job, oban_update_job(job, '{"schedule_in": 0}') AS changed
WHERE job.id = 901;

\echo '-- Many at once: jobs = await oban.update_many_jobs([123, 456, 789], {"priority": 0})'
SELECT id, queue, state, priority, tags
FROM oban_update_many_jobs('{123, 456, 789}', '{"priority": 0}');

\echo '-- What cannot be is refused, and nothing is changed'
SELECT oban_update_job(123, '{"queue": "other", "priority": 10}');
SELECT oban_update_job(123, '{"queue": "other", "state": "completed"}');
SELECT oban_update_many_jobs('{123, 999}', '{"queue": "other"}');
SELECT id, queue, state, priority FROM oban_jobs WHERE id = 123;
\set ECHO none

\echo
\echo '== Oban for Python, in a schema of its own =='
\set schema python
\i fixtures/python.sql
INSERT INTO python.oban_jobs (queue, worker, state, attempt, max_attempts, args) VALUES
	('mailers', 'app.workers.SendReminder', 'scheduled', 0, 20, '{"appointment": 22}'),
	('billing', 'app.workers.SendInvoice', 'discarded', 5, 5, '{"invoice": 2045}'),
	('imports', 'app.workers.ImportProducts', 'executing', 1, 5, '{"file": "autumn.csv"}'),
	('imports', 'app.workers.ImportProducts', 'available', 0, 5, '{"file": "twice.csv"}');
\set ECHO queries
SELECT id, queue, worker, state, attempt, max_attempts AS max, args FROM python.oban_jobs ORDER BY id;

\echo '-- The schema, which Oban calls the prefix, is named in the call ...'
SELECT oban_cancel_job(1, 'python');

\echo '-- ... or comes with the job instance ...'
SELECT oban_retry_job(job) FROM python.oban_jobs AS job WHERE state = 'discarded';

\echo '-- ... or is set once'
SET oban_manage.prefix = 'python';
LISTEN "python.oban_signal";
SELECT oban_cancel_job(3);
SELECT oban_delete_job(4);
SELECT id, tags FROM oban_update_job(2, '{"tags": ["urgent"]}');
SELECT id, state, attempt, max_attempts AS max, tags FROM python.oban_jobs ORDER BY id;
\set ECHO none
