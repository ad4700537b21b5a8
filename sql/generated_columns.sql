-- A jobs table with a generated column of its own: a virtual one from PostgreSQL 18 on, a stored one
-- before. What a statement reads of both is the same.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
SELECT CASE WHEN current_setting('server_version_num')::integer >= 180000 THEN 'VIRTUAL'
	ELSE 'STORED' END AS kind \gset
\set ECHO all
-- Before the columns that it is made of, and after them
ALTER TABLE ex14.oban_jobs RENAME TO plain_jobs;
CREATE TABLE ex14.oban_jobs (
	place text GENERATED ALWAYS AS (queue || ' for ' || worker) :kind,
	LIKE ex14.plain_jobs INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
	urgent boolean GENERATED ALWAYS AS (priority < 2) :kind,
	PRIMARY KEY (id));
CALL tools.make_jobs('ex14');
SET oban_manage.prefix = 'ex14';

-- By id, by row, by filter; the columns that a statement returns are the right ones.
SELECT oban_cancel_many_jobs('{1,2}') AS many, oban_retry_job(7) AS one;
SELECT oban_cancel_job(j), place FROM ex14.oban_jobs j WHERE urgent OR id = 4 ORDER BY id;
SELECT id, queue, state FROM oban_all_jobs('{"queue": "media"}');
SELECT * FROM oban_manage_jobs('retry', '{1,3,4}');
SELECT id, queue, priority FROM oban_update_many_jobs('{1,4,5}', '{"priority": 0, "queue": "fast"}')
ORDER BY id;
SELECT id, place, urgent FROM ex14.oban_jobs ORDER BY id;

-- A callable over the row type gets the column, as it is in the locked row.
CREATE FUNCTION tools.by_row(job ex14.oban_jobs) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN jsonb_build_object('tags', jsonb_build_array(job.place, job.urgent::text), 'priority', 3);
END $$;
CREATE FUNCTION tools.by_job(job oban_job) RETURNS jsonb LANGUAGE sql
	AS $$SELECT jsonb_build_object('meta', jsonb_build_object('queue', job.queue))$$;
SELECT id, tags FROM oban_update_many_jobs_with('{1,4,6}', 'tools.by_row');
SELECT id, tags FROM oban_update_many_jobs_with('{1,6}', 'tools.by_row');
SELECT id, meta FROM oban_update_many_jobs_with('{1,6}', 'tools.by_job');

-- Triggers on the jobs, the guard among them, read the other columns as they are.
CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON ex14.oban_jobs
	FOR EACH ROW EXECUTE FUNCTION oban_guard_job();
CREATE TRIGGER again AFTER UPDATE OF state ON ex14.oban_jobs FOR EACH ROW
	WHEN (NEW.state = 'discarded') EXECUTE FUNCTION oban_retry_job('id');
UPDATE ex14.oban_jobs SET state = 'executing', attempt = 4 WHERE id = 7;
SELECT oban_cancel_job(7);
-- The late answer of a worker: with the guard the job stays cancelled.
UPDATE ex14.oban_jobs SET state = 'retryable', errors = errors || '{"attempt": 4}'::jsonb
WHERE id = 7 RETURNING state, place;
UPDATE ex14.oban_jobs SET state = 'discarded' WHERE id = 2 RETURNING state, place;
CALL oban_update_in_batches('{"all": true}', '{"queue": "last"}', 4);
SELECT id, state, place, urgent FROM ex14.oban_jobs ORDER BY id;
SELECT oban_delete_all_jobs('{"all": true}');

-- The column itself cannot be updated, and is no key.
SELECT code, message FROM tools.try($$SELECT oban_update_job(3, '{"urgent": true}')$$);
SELECT code, message FROM tools.try($$SELECT oban_all_jobs('{"urgent": true}')$$);

RESET oban_manage.prefix;
SET client_min_messages = warning;
DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
