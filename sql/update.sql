-- Updating jobs: every field in every form on every dialect, whole rows compared; which columns are
-- written; all or none; the order of the results.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
-- Each change, and what the row holds then. The schedule lies in the future.
CREATE TABLE tools.changes (key text, changes jsonb, stored jsonb);
INSERT INTO tools.changes VALUES
	('args', '{"args": {"a": [1, null]}}', '{"args": {"a": [1, null]}}'),
	('max_attempts', '{"max_attempts": 25}', '{"max_attempts": 25}'),
	('meta', '{"meta": {"m": true}}', '{"meta": {"m": true}}'),
	('priority', '{"priority": 3}', '{"priority": 3}'),
	('queue', '{"queue": "critical"}', '{"queue": "critical"}'),
	('scheduled_at', '{"scheduled_at": "2098-02-03T04:05:06Z"}',
		'{"scheduled_at": "2098-02-03T04:05:06"}'),
	('tags', '{"tags": ["b", "A "]}', '{"tags": ["a", "b"]}'),
	('worker', '{"worker": "New.Worker"}', '{"worker": "New.Worker"}'),
	('nothing', '{}', '{}');
INSERT INTO tools.changes
SELECT 'every key', jsonb_object_agg(c.key, c.value), jsonb_object_agg(s.key, s.value)
FROM tools.changes, jsonb_each(changes) c, jsonb_each(stored) s WHERE c.key = s.key;
INSERT INTO tools.changes
SELECT 'with schedule_in', changes - 'scheduled_at' || '{"schedule_in": 3600}', stored
FROM tools.changes WHERE key = 'every key';

CREATE TABLE tools.forms (form text, call text);
INSERT INTO tools.forms VALUES
	('id', 'oban_update_job(N, %2$L, %1$L) u'),
	('row', 'P.oban_jobs j, oban_update_job(j, %2$L) u WHERE j.id = N'),
	('oban_job', 'oban_update_job(oban_get_job(N, %1$L), %2$L) u'),
	('array', 'oban_update_job(ARRAY[N]::bigint[], %2$L, %1$L) u'),
	('many_jobs', 'oban_update_many_jobs(''{N}'', %2$L, %1$L) u');

-- Updates each job of a table in every form, each update undone afterwards, and says what differs
-- from the contract, in the table and in what is returned; a NULL mismatch is as promised.
CREATE FUNCTION tools.check_updates(prefix text, OUT form text, OUT state text, OUT key text,
	OUT mismatch text) RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
	before jsonb;
	wanted jsonb;
	result jsonb;
	f record;
BEGIN
	CALL tools.make_jobs(prefix);
	before := tools.rows(prefix);
	FOR f IN
		SELECT j.id, j.state, c.key, c.stored, m.form, format(replace(replace(m.call,
			'N', j.id::text), 'P.', prefix || '.'), prefix, c.changes) AS call
		FROM tools.model j, tools.changes c, tools.forms m WHERE before ? j.id::text
	LOOP
		wanted := before || jsonb_build_object(f.id, before -> f.id::text || f.stored
			|| CASE WHEN f.key = 'with schedule_in' THEN jsonb_build_object('scheduled_at',
					timezone('UTC', now()) + interval '1 hour') ELSE '{}' END
			|| CASE WHEN f.stored ? 'scheduled_at' AND f.state = 'available'
				THEN jsonb '{"state": "scheduled"}' ELSE '{}' END);
		BEGIN
			EXECUTE 'SELECT to_jsonb(u) FROM ' || f.call INTO STRICT result;
			mismatch := nullif(concat_ws('; ',
				tools.difference(tools.rows(prefix), wanted),
				'result: ' || tools.difference(jsonb_build_object('', result),
					jsonb_build_object('', to_jsonb(oban_get_job(f.id, prefix))))), '');
			RAISE EXCEPTION USING ERRCODE = 'P0099';
		EXCEPTION WHEN SQLSTATE 'P0099' THEN
			NULL;
		END;
		form := f.form;
		state := f.state;
		key := f.key;
		RETURN NEXT;
	END LOOP;
END $$;
\set ECHO all

CREATE TABLE tools.cells AS
SELECT prefix, c.* FROM unnest('{ex9,ex11,ex14,py}'::text[]) prefix, tools.check_updates(prefix) c;
SELECT prefix, form, count(*) AS cells, count(mismatch) AS mismatches
FROM tools.cells GROUP BY prefix, form ORDER BY prefix, form;
SELECT * FROM tools.cells WHERE mismatch IS NOT NULL ORDER BY prefix, form, state, key LIMIT 20;

-- Only the columns that were named are written: a trigger on each column tells when an UPDATE sets
-- it, even to the value that it has. A new schedule may move the state.
CREATE TABLE tools.written (n serial, name text);
CREATE FUNCTION tools.note_column() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tools.written (name) VALUES (TG_ARGV[0]);
	RETURN NEW;
END $$;
\set ECHO none
SELECT format('CREATE TRIGGER %1$I BEFORE UPDATE OF %1$I ON %2$s FOR EACH ROW
	EXECUTE FUNCTION tools.note_column(%1$L)', attname, attrelid::regclass)
FROM pg_attribute WHERE attrelid IN ('ex14.oban_jobs'::regclass, 'py.oban_jobs'::regclass)
	AND attnum > 0
ORDER BY attrelid, attnum \gexec
\set ECHO all
CREATE FUNCTION tools.written_by(prefix text, changes jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	TRUNCATE tools.written;
	PERFORM oban_update_many_jobs('{4}', changes, prefix);
	RETURN (SELECT string_agg(DISTINCT name, ', ' ORDER BY name) FROM tools.written);
END $$;
CALL tools.make_jobs('ex14', 'py');
SELECT key, tools.written_by('ex14', changes) AS ex14, tools.written_by('py', changes) AS py
FROM tools.changes ORDER BY key;
-- Cancel writes no more than the contract lists.
TRUNCATE tools.written;
SELECT oban_cancel_job(1, 'ex14'), oban_cancel_many_jobs('{2,3}', 'ex14');
SELECT string_agg(DISTINCT name, ', ' ORDER BY name) AS cancel FROM tools.written;

-- {} writes nothing at all, and the job comes back as it is; a missing job is an error all the
-- same.
SELECT ctid AS before FROM py.oban_jobs WHERE id = 1 \gset
SELECT id, state, priority FROM oban_update_job(1, '{}', 'py');
SELECT id, state, priority FROM oban_update_many_jobs('{7,1}', '{}', 'py');
SELECT ctid = :'before' AS untouched FROM py.oban_jobs WHERE id = 1;
SELECT oban_update_many_jobs('{7,99}', '{}', 'py');
DROP TRIGGER priority ON py.oban_jobs;

-- Results come in id order, each job once; NULL ids are passed over.
SELECT id, queue, priority FROM oban_update_many_jobs('{7,2,NULL,7,4,1}', '{"priority": 4}', 'py');
SELECT id, priority FROM oban_update_job('{5,3}'::bigint[], '{"priority": 5}', 'py');
SELECT string_agg(id || ' ' || priority, ', ' ORDER BY id) AS priorities FROM py.oban_jobs;

-- All or none: a job that does not exist is an error that names the ids, and nothing is changed.
SELECT oban_update_job(99, '{"priority": 9}', 'py');
SELECT oban_update_many_jobs('{1,99,2,98,-5}', '{"priority": 9}', 'py');
SELECT oban_update_job('{99}'::bigint[], '{"priority": 9}', 'py');
-- A row that was read before its job went.
BEGIN;
CREATE TABLE tools.kept AS SELECT oban_get_job(8, 'py') AS job;
DELETE FROM py.oban_jobs WHERE id = 8;
SELECT oban_update_job(job, '{"priority": 9}') FROM tools.kept;
ROLLBACK;
SELECT count(*) FROM py.oban_jobs WHERE priority = 9;

-- A job that is passed in only says which job: nothing of a stale copy is written back.
CREATE TABLE tools.stale AS SELECT oban_get_job(1, 'py') AS job;
UPDATE py.oban_jobs SET args = '{"new": 1}', queue = 'newer' WHERE id = 1;
SELECT args, queue, tags FROM tools.stale, oban_update_job(job, '{"tags": ["x"]}');
SELECT oban_retry_job(job) AS still_available, oban_cancel_job(job) AS cancelled FROM tools.stale;
SELECT args, queue, tags, state FROM py.oban_jobs WHERE id = 1;

-- managing-jobs.md's own examples.
CALL tools.make_jobs('py');
SET oban_manage.prefix = 'py';
SELECT updated.priority, updated.tags
FROM py.oban_jobs job, oban_update_job(job, '{"priority": 0, "tags": ["urgent"]}') updated
WHERE job.id = 1;
SELECT queue FROM oban_update_job(1, '{"queue": "critical"}');
SELECT updated.state FROM py.oban_jobs job, oban_update_job(job, '{"schedule_in": 0}') updated
WHERE job.id = 2;
SELECT id, priority FROM oban_update_many_jobs('{1,2,3}', '{"priority": 0}');

-- Updates of one job in one statement: each sees what the one before it did, also when it writes
-- nothing.
SELECT a.priority, b.priority, b.queue, c.priority, c.queue
FROM oban_update_job(1, '{"priority": 6}') a, oban_update_job(1, '{"queue": "two"}') b,
	oban_update_job(1, '{}') c;
SELECT priority, queue FROM py.oban_jobs WHERE id = 1;

-- A trigger of the table that suppresses the change: none is counted.
CREATE FUNCTION tools.veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER veto BEFORE UPDATE ON ex9.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.veto();
CALL tools.make_jobs('ex9');
SELECT oban_cancel_job(1, 'ex9') AS one, oban_cancel_many_jobs('{1,2,3}', 'ex9') AS many,
	oban_retry_many_jobs('{5}', 'ex9') AS retry;
SELECT tools.states('ex9');
-- One that gives the job another id: it comes back as it is now.
CREATE FUNCTION tools.renumber() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN NEW.id := NEW.id + 100; RETURN NEW; END';
CALL tools.make_jobs('ex14');
CREATE TRIGGER renumber BEFORE UPDATE ON ex14.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION tools.renumber();
SELECT id, queue FROM oban_update_job(1, '{"queue": "q"}', 'ex14');
SELECT id, queue FROM oban_update_many_jobs('{2,3}', '{"queue": "q"}', 'ex14');

-- A log message in the middle of a call, here once the jobs are locked, has the call's context too,
-- and must not disturb it.
CALL tools.make_jobs('ex11');
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_nested_statements = on;
SELECT id, queue FROM oban_update_many_jobs('{1,2,3}', '{"queue": "logged"}', 'ex11');
RESET auto_explain.log_min_duration;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
