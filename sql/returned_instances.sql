-- Job instances that a statement returns: RETURNING old and new (PostgreSQL 18), MERGE … RETURNING
-- (17). Older versions run what comes closest, and must give the same.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
SELECT current_setting('server_version_num')::integer >= 170000 AS has_merge_returning,
	current_setting('server_version_num')::integer >= 180000 AS has_old,
	CASE WHEN current_setting('server_version_num')::integer >= 180000 THEN 'old' ELSE 'j' END AS old,
	CASE WHEN current_setting('server_version_num')::integer >= 180000 THEN 'new' ELSE 'j' END AS new,
	CASE WHEN current_setting('server_version_num')::integer >= 180000 THEN 'old'
		ELSE 'NULL::ex14.oban_jobs' END AS no_old \gset
\set ECHO all

-- In the statement that changes the job: the verb sees what the statement has written. Of an
-- instance only the id is taken, so the old row serves as well as the new one.
CALL tools.make_jobs('ex14', 'py');
UPDATE ex14.oban_jobs j SET state = 'available' WHERE id = 5 RETURNING oban_cancel_job(:old);
UPDATE ex14.oban_jobs j SET state = 'completed' WHERE id = 3 RETURNING oban_cancel_job(:old);
UPDATE ex14.oban_jobs j SET queue = 'slow' WHERE id = 1
RETURNING (oban_update_job(:old, '{"priority": 7}')).queue, oban_cancel_job(:new),
	oban_cancel_job(:old) AS again;
INSERT INTO ex14.oban_jobs AS j (id, worker) VALUES (1, 'App.Worker')
ON CONFLICT (id) DO UPDATE SET state = 'available' RETURNING oban_delete_job(:old);
SELECT tools.states('ex14');

-- In the query around it, once the statement is through
WITH stopped AS (UPDATE py.oban_jobs j SET state = 'retryable' WHERE id = 3 RETURNING :old AS job)
SELECT oban_cancel_job(job) FROM stopped;
WITH moved AS (UPDATE py.oban_jobs j SET queue = 'slow' WHERE id IN (5, 6)
	RETURNING :old AS old_job, :new AS new_job)
SELECT count(*) FILTER (WHERE oban_retry_job(old_job)) AS retried,
	count(*) FILTER (WHERE oban_cancel_job(new_job)) AS cancelled
FROM moved;
SELECT tools.states('py');

-- A job that is gone, and one that was not there before
DELETE FROM py.oban_jobs j WHERE id = 5 RETURNING oban_cancel_job(:old);
WITH gone AS (DELETE FROM py.oban_jobs j WHERE id = 6 RETURNING :old AS job)
SELECT oban_retry_job(job), oban_delete_job(job) FROM gone;
INSERT INTO ex14.oban_jobs AS j (id, worker) VALUES (20, 'App.Worker')
RETURNING oban_cancel_job(:no_old) AS old, oban_cancel_job(:new) AS new;
SELECT tools.states('py');
SELECT tools.states('ex14');

-- MERGE on the jobs. A row that it has deleted is a job that is gone.
CALL tools.make_jobs('ex14');
\if :has_merge_returning
PREPARE merge AS WITH merged AS (
	MERGE INTO ex14.oban_jobs j
	USING (VALUES (1, 'slow'), (2, NULL), (30, 'media')) v(id, queue) ON j.id = v.id
	WHEN MATCHED AND v.queue IS NULL THEN DELETE
	WHEN MATCHED THEN UPDATE SET queue = v.queue
	WHEN NOT MATCHED THEN INSERT (id, worker, queue) VALUES (v.id, 'App.Worker', v.queue)
	RETURNING merge_action() AS action, j AS job)
SELECT action, (job).queue, oban_cancel_job(job) FROM merged ORDER BY (job).id;
\else
PREPARE merge AS WITH
	u AS (UPDATE ex14.oban_jobs j SET queue = 'slow' WHERE id = 1
		RETURNING 'UPDATE' AS action, j AS job),
	d AS (DELETE FROM ex14.oban_jobs j WHERE id = 2 RETURNING 'DELETE' AS action, j AS job),
	i AS (INSERT INTO ex14.oban_jobs AS j (id, worker, queue) VALUES (30, 'App.Worker', 'media')
		RETURNING 'INSERT' AS action, j AS job)
SELECT action, (job).queue, oban_cancel_job(job)
FROM (TABLE u UNION ALL TABLE d UNION ALL TABLE i) merged ORDER BY (job).id;
\endif
EXECUTE merge;
SELECT tools.states('ex14');
\if :has_merge_returning
PREPARE merge_both AS
MERGE INTO ex14.oban_jobs j USING (VALUES (1), (30)) v(id) ON j.id = v.id
WHEN MATCHED THEN UPDATE SET priority = 5
RETURNING oban_retry_job(:old) AS old, oban_cancel_job(:new) AS new;
\else
PREPARE merge_both AS UPDATE ex14.oban_jobs j SET priority = 5 WHERE id IN (1, 30)
RETURNING oban_retry_job(:old) AS old, oban_cancel_job(:new) AS new;
\endif
EXECUTE merge_both;
SELECT id, state, priority FROM ex14.oban_jobs WHERE id IN (1, 30) ORDER BY id;

-- An application's table: the job that a row named before; and MERGE's further actions (17) fire
-- triggers as the statements do.
CREATE TABLE tools.orders (id integer PRIMARY KEY, job bigint);
INSERT INTO tools.orders VALUES (1, 3), (2, 4), (3, 5), (4, 2);
CALL tools.make_jobs('py');
SET oban_manage.prefix = 'py';
\if :has_old
PREPARE clear AS
UPDATE tools.orders SET job = NULL WHERE id = 1 RETURNING oban_cancel_job(old.job);
\else
PREPARE clear AS
UPDATE tools.orders o SET job = NULL FROM (SELECT * FROM tools.orders WHERE id = 1 FOR UPDATE) old
WHERE o.id = old.id RETURNING oban_cancel_job(old.job);
\endif
EXECUTE clear;
CREATE TRIGGER gone AFTER DELETE ON tools.orders FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('job');
CREATE TRIGGER moved AFTER UPDATE ON tools.orders REFERENCING OLD TABLE AS o NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION oban_retry_job('OLD.job');
\if :has_merge_returning
MERGE INTO tools.orders o USING (VALUES (1), (3)) v(id) ON o.id = v.id
WHEN MATCHED THEN UPDATE SET job = NULL WHEN NOT MATCHED BY SOURCE THEN DELETE;
\else
UPDATE tools.orders SET job = NULL WHERE id IN (1, 3);
DELETE FROM tools.orders WHERE id NOT IN (1, 3);
\endif
SELECT tools.states('py');
RESET oban_manage.prefix;

DEALLOCATE ALL;
DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
