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
INSERT INTO oban_jobs (id, queue, worker, priority, max_attempts, args, meta) VALUES
	(123, 'mailers', 'MyApp.SendReminder', 3, 20, '{"appointment": 21}', '{}'),
	(456, 'billing', 'MyApp.SendInvoice', 3, 20, '{"invoice": 2044}', '{"pages": 2}'),
	(789, 'imports', 'MyApp.ImportProducts', 5, 5, '{"file": "autumn.csv"}', '{}');

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

\echo '-- A scheduled job runs right away (example 1 of 5 for schedule_in and callables)'
\echo '-- await oban.update_job(job, {"schedule_in": 0})'
SELECT id, state, scheduled_at <= timezone('UTC', now()) AS is_due FROM oban_jobs WHERE id = 901;
SELECT changed.id, changed.state, changed.scheduled_at <= now() AS is_due
FROM oban_jobs AS job, oban_update_job(job, '{"schedule_in": 0}') AS changed
WHERE job.id = 901;

\echo '-- What cannot be is refused, and nothing is changed'
SELECT oban_update_job(123, '{"queue": "other", "priority": 10}');
SELECT oban_update_job(123, '{"queue": "other", "state": "completed"}');
SELECT oban_update_many_jobs('{123, 999}', '{"queue": "other"}');
SELECT id, queue, state, priority FROM oban_jobs WHERE id = 123;
\set ECHO none

\echo
\echo '== Dynamic Updates with Callables =='
\set ECHO queries
\echo '-- Append to existing tags (example 2 of 5): a callable receives the job and returns the changes'
\echo '-- await oban.update_job(job, lambda job: {"tags": job.tags + ["processed"]})'
CREATE FUNCTION append_processed(job oban_job) RETURNS jsonb LANGUAGE sql
RETURN jsonb_build_object('tags', job.tags || ARRAY['processed']);
SELECT changed.id, changed.tags
FROM oban_jobs AS job, oban_update_job_with(job, 'append_processed') AS changed
WHERE job.id = 123;

\echo '-- Merge into existing meta (example 3 of 5)'
\echo '-- await oban.update_job(job, lambda job: {'
\echo '--     "meta": {**job.meta, "reviewed_at": datetime.now().isoformat()}})'
CREATE FUNCTION mark_reviewed(job oban_job) RETURNS jsonb LANGUAGE sql
RETURN jsonb_build_object('meta', job.meta || jsonb_build_object('reviewed_at', now()));
SELECT changed.id, changed.meta->'asked_by' AS asked_by,
	(changed.meta->>'reviewed_at')::timestamptz = now() AS reviewed_now
FROM oban_jobs AS job, oban_update_job_with(job, 'mark_reviewed') AS changed
WHERE job.id = 789;

\echo '-- Update multiple jobs at once (example 4 of 5)'
\echo '-- jobs = await oban.update_many_jobs([123, 456, 789], {"priority": 0})'
SELECT id, queue, state, priority, tags
FROM oban_update_many_jobs('{123, 456, 789}', '{"priority": 0}');

\echo '-- With a callable, each by its current state (example 5 of 5). What a closure holds is the context.'
\echo '-- jobs = await oban.update_many_jobs('
\echo '--     job_ids, lambda job: {"meta": {**job.meta, "batch_id": batch_id}})'
CREATE FUNCTION join_batch(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql
RETURN jsonb_build_object('meta', job.meta || jsonb_build_object('batch_id', context->'batch_id'));
SELECT id, meta FROM oban_update_many_jobs_with('{123, 345, 456}', 'join_batch', '{"batch_id": 7}');

\echo '-- NULL is no change: only jobs that can become more urgent do'
CREATE FUNCTION more_urgent(job oban_job) RETURNS jsonb LANGUAGE sql
RETURN CASE WHEN job.priority > 0 THEN jsonb_build_object('priority', job.priority - 1) END;
SELECT id, priority FROM oban_update_job(456, '{"priority": 9}');
SELECT id, priority FROM oban_update_many_jobs_with('{123, 456}', 'more_urgent');

\echo '-- Without that, the error says which job and which callable, and 456 stays as it is'
CREATE OR REPLACE FUNCTION more_urgent(job oban_job) RETURNS jsonb LANGUAGE sql
RETURN jsonb_build_object('priority', job.priority - 1);
\set ECHO none
\set SHOW_CONTEXT errors
\set ECHO queries
SELECT id, priority FROM oban_update_many_jobs_with('{456, 789}', 'more_urgent');
\set ECHO none
\set SHOW_CONTEXT never
\set ECHO queries
SELECT id, priority FROM oban_jobs WHERE id IN (456, 789) ORDER BY id;
\set ECHO none

\echo
\echo '== Triggers: appointments and their reminders =='
\set ECHO queries
CREATE TABLE appointments (
	id integer PRIMARY KEY,
	starts_at timestamptz NOT NULL,
	cancelled boolean NOT NULL DEFAULT false,
	reminder_job_id bigint
);

\echo '-- The application wires it to its jobs with SQL alone. A deleted appointment ...'
CREATE TRIGGER drop_reminder AFTER DELETE ON appointments
	FOR EACH ROW EXECUTE FUNCTION oban_cancel_job('reminder_job_id');

\echo '-- ... one that is moved, where a callable finds the new row in its context ...'
CREATE FUNCTION remind_a_day_before(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql
RETURN jsonb_build_object('scheduled_at',
	(context->'new'->>'starts_at')::timestamptz - interval '1 day');
CREATE TRIGGER move_reminder AFTER UPDATE OF starts_at ON appointments
	FOR EACH ROW WHEN (OLD.starts_at <> NEW.starts_at)
	EXECUTE FUNCTION oban_update_job_with('reminder_job_id', 'public.remind_a_day_before');

\echo '-- ... and a flag. Taken back, it makes the job live again, and then gives it its time.'
CREATE TRIGGER call_off AFTER UPDATE OF cancelled ON appointments
	FOR EACH ROW WHEN (NEW.cancelled AND NOT OLD.cancelled)
	EXECUTE FUNCTION oban_cancel_job('reminder_job_id');
CREATE TRIGGER reinstate_1 AFTER UPDATE OF cancelled ON appointments
	FOR EACH ROW WHEN (OLD.cancelled AND NOT NEW.cancelled)
	EXECUTE FUNCTION oban_retry_job('reminder_job_id');
CREATE TRIGGER reinstate_2 AFTER UPDATE OF cancelled ON appointments
	FOR EACH ROW WHEN (OLD.cancelled AND NOT NEW.cancelled)
	EXECUTE FUNCTION oban_update_job_with('reminder_job_id', 'public.remind_a_day_before');
\set ECHO none
INSERT INTO oban_jobs (id, queue, worker, state, scheduled_at, args)
SELECT 1000 + id, 'mailers', 'MyApp.SendReminder', 'scheduled', '2098-12-31 09:00',
	   jsonb_build_object('appointment', id)
FROM generate_series(31, 34) AS id;
INSERT INTO appointments (id, starts_at, reminder_job_id)
SELECT id, '2099-01-01 09:00+00', 1000 + id FROM generate_series(31, 34) AS id;
\set ECHO queries

\echo '-- Four appointments'
SELECT * FROM appointments ORDER BY id;
SELECT id, state, scheduled_at, args FROM oban_jobs WHERE id BETWEEN 1031 AND 1034 ORDER BY id;

\echo '-- One is deleted, one moved, one cancelled'
DELETE FROM appointments WHERE id = 31;
UPDATE appointments SET starts_at = '2099-01-15 14:30+00' WHERE id = 32;
UPDATE appointments SET cancelled = true WHERE id = 33;
SELECT id, state, scheduled_at, args FROM oban_jobs WHERE id BETWEEN 1031 AND 1034 ORDER BY id;

\echo '-- The third takes place after all'
UPDATE appointments SET cancelled = false WHERE id = 33;
SELECT id, state, scheduled_at, cancelled_at FROM oban_jobs WHERE id = 1033;

\echo '-- What a transaction that is rolled back did to the jobs is rolled back too'
BEGIN;
DELETE FROM appointments;
SELECT id, state FROM oban_jobs WHERE id BETWEEN 1032 AND 1034 ORDER BY id;
ROLLBACK;
SELECT id, state FROM oban_jobs WHERE id BETWEEN 1032 AND 1034 ORDER BY id;

\echo '-- A trigger that cannot do its work says so, and by its name; nothing is deleted'
CREATE TRIGGER mistaken AFTER DELETE ON appointments
	FOR EACH ROW EXECUTE FUNCTION oban_cancel_job('reminder_id');
DELETE FROM appointments WHERE id = 32;
DROP TRIGGER mistaken ON appointments;
\set ECHO none

\echo
\echo '== Triggers: orders and their follow-ups =='
\set ECHO queries
CREATE TABLE orders (
	id integer PRIMARY KEY,
	customer text NOT NULL,
	paid boolean NOT NULL DEFAULT false,
	express boolean NOT NULL DEFAULT false,
	shipment_job_id bigint,
	reminder_job_ids bigint[]
);

\echo '-- Payment makes the suspended shipment available, and ends the reminders'
CREATE TRIGGER ship AFTER UPDATE OF paid ON orders
	FOR EACH ROW WHEN (NEW.paid AND NOT OLD.paid) EXECUTE FUNCTION oban_retry_job('shipment_job_id');
CREATE TRIGGER no_more_reminders AFTER UPDATE OF paid ON orders
	FOR EACH ROW WHEN (NEW.paid AND NOT OLD.paid) EXECUTE FUNCTION oban_cancel_job('reminder_job_ids');

\echo '-- An express order overtakes the others'
CREATE TRIGGER overtake AFTER UPDATE OF express ON orders
	FOR EACH ROW WHEN (NEW.express AND NOT OLD.express)
	EXECUTE FUNCTION oban_update_job('shipment_job_id', '{"priority": 0, "tags": ["express"]}');

\echo '-- Orders are deleted in bulk: a statement trigger makes one call for all of them'
CREATE TRIGGER drop_shipments AFTER DELETE ON orders REFERENCING OLD TABLE AS deleted
	FOR EACH STATEMENT EXECUTE FUNCTION oban_cancel_job('shipment_job_id');
CREATE TRIGGER drop_reminders AFTER DELETE ON orders REFERENCING OLD TABLE AS deleted
	FOR EACH STATEMENT EXECUTE FUNCTION oban_cancel_job('reminder_job_ids');
\set ECHO none
INSERT INTO oban_jobs (id, queue, worker, state, priority, args)
SELECT 1100 + id, 'default', 'MyApp.ShipOrder', 'suspended', 5, jsonb_build_object('order', id)
FROM generate_series(51, 54) AS id;
INSERT INTO oban_jobs (id, queue, worker, state, scheduled_at, args)
SELECT n * 100 + id, 'mailers', 'MyApp.RemindToPay', 'scheduled',
	   timestamp '2099-01-01 09:00' + n * interval '7 days', jsonb_build_object('order', id)
FROM generate_series(51, 54) AS id, generate_series(12, 13) AS n;
INSERT INTO orders (id, customer, shipment_job_id, reminder_job_ids)
SELECT id, CASE WHEN id < 53 THEN 'Ada' ELSE 'Ben' END, 1100 + id, ARRAY[1200 + id, 1300 + id]
FROM generate_series(51, 54) AS id;
\set ECHO queries

\echo '-- Four orders'
SELECT * FROM orders ORDER BY id;

\echo '-- One is paid, and is urgent'
UPDATE orders SET paid = true WHERE id = 51;
UPDATE orders SET express = true WHERE id = 51;
SELECT id, worker, state, priority, tags FROM oban_jobs
WHERE worker IN ('MyApp.ShipOrder', 'MyApp.RemindToPay') AND args @> '{"order": 51}' ORDER BY id;

\echo '-- One customer''s orders are deleted'
DELETE FROM orders WHERE customer = 'Ben';
SELECT args->'order' AS "order", worker, array_agg(id || ' ' || state ORDER BY id) AS jobs
FROM oban_jobs WHERE worker IN ('MyApp.ShipOrder', 'MyApp.RemindToPay')
GROUP BY args, worker ORDER BY args, worker DESC;
\set ECHO none

\echo
\echo '== Cancelled jobs stay cancelled =='
\set ECHO queries
\echo '-- Job 101 was cancelled while it was executing. Its worker fails later, and reports that by id.'
SELECT id, state, attempt FROM oban_jobs WHERE id = 101;
UPDATE oban_jobs SET state = 'retryable', scheduled_at = timezone('UTC', now()) + interval '15 seconds',
	errors = errors || '{"attempt": 1, "error": "closed"}'::jsonb
WHERE id = 101 RETURNING id, state, cardinality(errors) AS errors;

\echo '-- It would run again. With the guard the worker''s report is kept, and the job stays cancelled.'
SELECT oban_cancel_job(101);
CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON oban_jobs
	FOR EACH ROW EXECUTE FUNCTION oban_guard_job();
UPDATE oban_jobs SET state = 'retryable', scheduled_at = timezone('UTC', now()) + interval '15 seconds',
	errors = errors || '{"attempt": 1, "error": "closed"}'::jsonb
WHERE id = 101 RETURNING id, state, cardinality(errors) AS errors;

\echo '-- A snooze, the same'
UPDATE oban_jobs SET state = 'scheduled', scheduled_at = timezone('UTC', now()) + interval '1 hour',
	attempt = attempt - 1, meta = meta || '{"snoozed": 1}'
WHERE id = 101 RETURNING id, state, attempt, meta;

\echo '-- Whoever wants it to run retries it'
SELECT oban_retry_job(101);
SELECT id, state, cancelled_at FROM oban_jobs WHERE id = 101;
\set ECHO none

\echo
\echo '== After an outage: many jobs by filter =='
INSERT INTO oban_jobs (id, queue, worker, state, attempt, max_attempts, args, discarded_at)
SELECT id, 'partners', 'MyApp.CallPartner', 'discarded', 3, 3, jsonb_build_object('order', id),
	   CASE WHEN id <= 20200 THEN timestamp '2026-02-01'
			ELSE timestamp '2026-03-14 02:00' + (id - 20200) * interval '2 seconds' END
FROM generate_series(20001, 26200) AS id;
INSERT INTO oban_jobs (id, queue, worker, state, attempt, max_attempts, args, completed_at)
SELECT id, 'partners', 'MyApp.CallPartner', 'completed', 1, 3, jsonb_build_object('order', id),
	   '2026-03-14 01:00'
FROM generate_series(26201, 26260) AS id;
INSERT INTO oban_jobs (id, queue, worker, state, attempt, max_attempts, args) VALUES
	(26261, 'partners', 'MyApp.CallPartner', 'executing', 1, 3, '{"order": 26261}'),
	(26262, 'partners', 'MyApp.CallPartner', 'available', 0, 3, '{"order": 26262}');
SET client_min_messages = notice;
\set ECHO queries
\echo '-- A partner did not answer from two o''clock on, and its jobs used up their attempts'
SELECT state, count(*), min(discarded_at) AS first_discarded, max(discarded_at) AS last_discarded
FROM oban_jobs WHERE worker = 'MyApp.CallPartner' GROUP BY state ORDER BY state;

\echo '-- A filter for those of that night, and not the older ones. Dry run: what would a verb look at?'
SELECT count(*) FROM oban_all_jobs('{"worker": "MyApp.CallPartner", "state": "discarded",
	"discarded_at": {"after": "2026-03-14T02:00:00Z"}}');
SELECT id, state, attempt, max_attempts AS max, args, discarded_at
FROM oban_all_jobs('{"worker": "MyApp.CallPartner", "state": "discarded",
	"discarded_at": {"after": "2026-03-14T02:00:00Z"}}', max_jobs => 3);

\echo '-- What would become of these four, and why?'
SELECT * FROM oban_manage_jobs('retry', '{20201, 26201, 26261, 99999}', dry_run => true);

\echo '-- Ten first: does the partner answer again?'
SELECT oban_retry_all_jobs('{"worker": "MyApp.CallPartner", "state": "discarded",
	"discarded_at": {"after": "2026-03-14T02:00:00Z"}}', max_jobs => 10);

\echo '-- It does. The others in batches, each committed, and spread over the next ten minutes'
CALL oban_retry_in_batches('{"worker": "MyApp.CallPartner", "state": "discarded",
	"discarded_at": {"after": "2026-03-14T02:00:00Z"}}', batch_size => 2000, spread => '10 minutes');

\echo '-- The counts'
SELECT state, count(*), min(attempt) AS min_attempt, max(attempt) AS max_attempt,
	max(max_attempts) AS max
FROM oban_jobs WHERE worker = 'MyApp.CallPartner' GROUP BY state ORDER BY state;
SELECT array_agg(jobs ORDER BY minute) AS jobs_a_minute FROM (
	SELECT least(trunc(extract(epoch FROM after) / 60), 9) AS minute, count(*) AS jobs FROM (
		SELECT scheduled_at - min(scheduled_at) OVER () AS after FROM oban_jobs
		WHERE worker = 'MyApp.CallPartner' AND id BETWEEN 20211 AND 26200) AS spread
	GROUP BY minute) AS minutes;

\echo '-- Had it been stopped halfway, the same call would have done the rest. Nothing is left here.'
CALL oban_retry_in_batches('{"worker": "MyApp.CallPartner", "state": "discarded",
	"discarded_at": {"after": "2026-03-14T02:00:00Z"}}');

\echo '-- Small sets need no batches: new orders go before those that waited'
SELECT oban_update_all_jobs('{"worker": "MyApp.CallPartner", "state": "scheduled"}', '{"priority": 3}');

\echo '-- What is asked for by mistake is refused'
SELECT oban_delete_all_jobs('{}');
SELECT oban_delete_all_jobs('{"wroker": "MyApp.CallPartner"}');
BEGIN;
CALL oban_delete_in_batches('{"worker": "MyApp.CallPartner"}');
ROLLBACK;
\set ECHO none
SET client_min_messages = warning;

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
