-- What hardly ever happens, each once: what else no test would run, as dev/coverage tells.
--
-- It fails, among others, when a plan that left the cache while it ran is never freed, and when the right
-- to the schema of a callable that is given by number is not asked for; on a server with assertions
-- (dev/deep) also when such a plan is freed while it runs.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
\set VERBOSITY terse
CALL tools.make_jobs('ex14', 'py');
DROP ROLE IF EXISTS regress_oban_caller;
CREATE ROLE regress_oban_caller;

-- A spread that ends beyond the end of time
CALL oban_retry_in_batches('{"all": true}', spread => '300000 years', prefix => 'ex14');

-- A callable by number, in a schema that the caller may not use
CREATE SCHEMA closed;
CREATE FUNCTION closed.keep(job oban_job) RETURNS jsonb LANGUAGE sql RETURN NULL::jsonb;
SELECT 'closed.keep'::regproc::oid AS keep \gset
GRANT USAGE ON SCHEMA ex14 TO regress_oban_caller;
GRANT SELECT, UPDATE ON ex14.oban_jobs TO regress_oban_caller;
SET ROLE regress_oban_caller;
SELECT oban_update_job_with(1, :keep, NULL, 'ex14');
RESET ROLE;

-- A callable whose job is of a type in such a schema, also where a kept plan has the type already
CREATE TABLE closed.jobs AS SELECT (oban_get_job(1, 'ex14')).*;
SELECT (SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = 'closed.jobs'::regclass AND attnum > 0) AS columns \gset
CREATE TYPE closed.job AS (:columns);
CREATE SCHEMA open;
GRANT USAGE ON SCHEMA open TO regress_oban_caller;
CREATE FUNCTION open.keep(job closed.job) RETURNS jsonb LANGUAGE sql RETURN NULL::jsonb;
SELECT (oban_update_job_with(1, 'open.keep', NULL, 'ex14')).id;
SET ROLE regress_oban_caller;
SELECT oban_update_job_with(1, 'open.keep', NULL, 'ex14');
RESET ROLE;
GRANT USAGE ON SCHEMA closed TO regress_oban_caller;
SET ROLE regress_oban_caller;
SELECT (oban_update_job_with(1, 'open.keep', NULL, 'ex14')).id;
RESET ROLE;
-- Without a job there is no table; types that no job has are refused all the same.
CREATE FUNCTION open.any_row(job record) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE DOMAIN open.job AS oban_job;
CREATE FUNCTION open.of_domain(job open.job) RETURNS jsonb LANGUAGE sql RETURN NULL::jsonb;
SET ROLE regress_oban_caller;
SELECT oban_update_job_with(NULL::oban_job, 'open.any_row');
SELECT oban_update_job_with(NULL::oban_job, 'open.of_domain');
SELECT oban_update_job_with(NULL::oban_job, 'open.keep');
RESET ROLE;
DROP SCHEMA open CASCADE;
DROP TYPE closed.job;
DROP TABLE closed.jobs;

-- Rows that are no job: an id that is no number; a type that is like oban_job but for a name, a type
CREATE SCHEMA odd;
CREATE TABLE odd.oban_jobs AS SELECT 'one' AS id, 'available' AS state;
SELECT oban_cancel_job(j) FROM odd.oban_jobs j;
CREATE TABLE odd.jobs AS SELECT (oban_get_job(1, 'ex14')).*;
ALTER TABLE odd.jobs RENAME meta TO mata;
SELECT (SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = 'odd.jobs'::regclass AND attnum > 0) AS columns \gset
CREATE TYPE odd.job AS (:columns);
SELECT oban_cancel_job(ROW(j.*)::odd.job) FROM odd.jobs j;
ALTER TYPE odd.job RENAME ATTRIBUTE mata TO meta;
SELECT oban_cancel_job(ROW(j.*)::odd.job) FROM odd.jobs j;
ALTER TYPE odd.job ALTER ATTRIBUTE queue TYPE varchar;
SELECT oban_cancel_job(ROW(j.*)::odd.job) FROM odd.jobs j;
ALTER TYPE odd.job DROP ATTRIBUTE prefix;
SELECT oban_cancel_job(NULL::odd.job);
ALTER TABLE odd.jobs DROP prefix;
SELECT oban_cancel_job(ROW(j.*)::odd.job) FROM odd.jobs j;

CREATE TYPE odd.short_job AS (:columns);
ALTER TYPE odd.short_job DROP ATTRIBUTE mata;
SELECT oban_cancel_job(jsonb_populate_record(NULL::odd.short_job, '{"id": 1, "prefix": "ex14"}'));

-- A filter by a column that the table has not, and a change to it
ALTER TABLE py.oban_jobs RENAME meta TO mata;
SELECT oban_all_jobs('{"meta": {"a": 1}}', NULL, 'py');
ALTER TABLE py.oban_jobs RENAME mata TO meta;
ALTER TABLE py.oban_jobs RENAME max_attempts TO most;
SELECT oban_update_job(1, '{"max_attempts": 3}', 'py');
ALTER TABLE py.oban_jobs RENAME most TO max_attempts;

-- Not as the extension made it: of oban_job a column more, another type
BEGIN;
ALTER TYPE oban_job ADD ATTRIBUTE more text;
SELECT oban_get_job(1, 'ex14');
ROLLBACK;
BEGIN;
ALTER TYPE oban_job DROP ATTRIBUTE prefix, ADD ATTRIBUTE prefix text;
SELECT oban_get_job(1, 'ex14');
ROLLBACK;
BEGIN;
ALTER TYPE oban_job ALTER ATTRIBUTE queue TYPE "char";
SELECT id, queue FROM oban_all_jobs('{"id": 1}', NULL, 'ex14');
ROLLBACK;

-- A state that is NULL, under the guard of a table that allows one
ALTER TABLE py.oban_jobs ALTER state DROP NOT NULL;
CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON py.oban_jobs
	FOR EACH ROW EXECUTE FUNCTION oban_guard_job();
UPDATE py.oban_jobs SET state = NULL WHERE id = 7 RETURNING id, state;
UPDATE py.oban_jobs SET state = 'retryable' WHERE id = 7 RETURNING id, state;

-- Policies that the session asks not to have its rows filtered by: an error, with a plan that was
-- made for the same role before
ALTER TABLE ex14.oban_jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY jobs ON ex14.oban_jobs USING (queue = 'media');
SET ROLE regress_oban_caller;
SELECT oban_cancel_job('{1,3}'::bigint[], 'ex14');
SET row_security = off;
SELECT oban_cancel_job('{1,3,4}'::bigint[], 'ex14');
SET row_security = on;
SELECT oban_cancel_job('{1,3,4}'::bigint[], 'ex14');
RESET row_security;
RESET ROLE;
ALTER TABLE ex14.oban_jobs DISABLE ROW LEVEL SECURITY;
CALL tools.make_jobs('ex14');

-- An index that is not to be used yet, because of rows that this transaction has changed: PostgreSQL
-- plans anew each time
BEGIN;
UPDATE ex14.oban_jobs SET worker = 'Other';
CREATE INDEX ON ex14.oban_jobs (worker);
SELECT oban_cancel_job('{1,2,3}'::bigint[], 'ex14'), oban_delete_job('{5,3}'::bigint[], 'ex14');
SELECT tools.states('ex14');
ROLLBACK;

-- A partitioned table that has but one partition: the plan is of that alone
CREATE SCHEMA one;
CREATE TABLE one.oban_jobs (LIKE ex14.oban_jobs INCLUDING DEFAULTS, PRIMARY KEY (id))
	PARTITION BY RANGE (id);
CREATE TABLE one.part PARTITION OF one.oban_jobs DEFAULT;
INSERT INTO one.oban_jobs SELECT * FROM ex14.oban_jobs;
SELECT oban_cancel_job('{4,1,5}'::bigint[], 'one'), oban_retry_job('{5,2,1}'::bigint[], 'one');
SELECT tools.states('one');
DROP SCHEMA one CASCADE;

-- Rules that make another command of a statement, which has no plan
CREATE RULE notify AS ON DELETE TO ex14.oban_jobs DO INSTEAD NOTIFY oban_test;
SELECT oban_delete_job('{1,2}'::bigint[], 'ex14');
DROP RULE notify ON ex14.oban_jobs;
SELECT oban_delete_job('{1,2}'::bigint[], 'ex14');
CALL tools.make_jobs('ex14');

-- Batches all of whose jobs a trigger keeps
CREATE FUNCTION tools.keeps() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER keeps BEFORE UPDATE ON ex14.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.keeps();
SET client_min_messages = notice;
CALL oban_cancel_in_batches('{"state": ["available", "scheduled"]}', 10, prefix => 'ex14');
SET client_min_messages = warning;
DROP TRIGGER keeps ON ex14.oban_jobs;

-- A callable that is replaced between two calls in the statement that holds on to it, in the
-- transaction that made it
DO $$
DECLARE
	job oban_job;
BEGIN
	FOR i IN 1 .. 3 LOOP
		EXECUTE format('CREATE OR REPLACE FUNCTION tools.again(job oban_job) RETURNS jsonb LANGUAGE sql
			RETURN jsonb_build_object(''priority'', %s)', i);
		job := oban_update_job_with(1, 'tools.again', NULL, 'ex14');
		RAISE WARNING 'priority %', job.priority;
	END LOOP;
END $$;

-- A table with its errors in a column that is neither Oban's
CREATE TABLE odd.errors (LIKE ex14.oban_jobs INCLUDING ALL);
DROP TABLE odd.oban_jobs;
ALTER TABLE odd.errors ALTER errors DROP DEFAULT, ALTER errors TYPE text[] USING NULL;
ALTER TABLE odd.errors RENAME TO oban_jobs;
SELECT oban_cancel_job(1, 'odd');
ALTER TABLE odd.oban_jobs ALTER errors TYPE jsonb USING NULL, ALTER id TYPE smallint;
INSERT INTO odd.oban_jobs (id, state, queue, worker, errors)
VALUES (1, 'available', 'default', 'W', '[]');
SELECT oban_cancel_job(1, 'odd');
SELECT oban_job_cancelled(1, 'odd');

ALTER TABLE odd.oban_jobs RENAME TO errors;
CREATE TABLE odd.oban_jobs (LIKE ex14.oban_jobs);
ALTER TABLE odd.oban_jobs ALTER priority TYPE text;
SELECT oban_cancel_job(1, 'odd');

-- Times that go wrong at a separator, in the offset, and after it
SELECT time, tools.refusal(format('SELECT oban_update_job(2, %L, %L)',
	jsonb_build_object('scheduled_at', time), 'ex14'))
FROM unnest('{2031-02x03, 2031-02-03T10x00, 2031-02-03T10:00+1, 2031-02-03T10:00+01:0,
	2031-02-03T10:00+01:00x, 2031-02-03T10:00+0100x, 2031-02-03T10:00Zx}'::text[]) time;

-- What a callable warns of tells for which job
CREATE FUNCTION tools.warns(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'noticed';
	RAISE WARNING 'warned';
	RETURN NULL;
END $$;
\set VERBOSITY default
\set SHOW_CONTEXT always
SET client_min_messages = notice;
SELECT (oban_update_job_with(1, 'tools.warns', NULL, 'ex14')).id;
-- What a trigger warns of does not: an update may be of many
CREATE FUNCTION tools.warns() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'noticed';
	RAISE WARNING 'warned';
	RETURN NEW;
END $$;
CREATE TRIGGER warns BEFORE UPDATE ON ex14.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.warns();
SELECT (oban_update_job(1, '{"priority": 2}', 'ex14')).id;
DROP TRIGGER warns ON ex14.oban_jobs;
SET client_min_messages = warning;
\set VERBOSITY terse

-- The reason, where nobody is told
SET oban_manage.notify = off;
SELECT outcome, reason FROM oban_manage_jobs('cancel', '{3}', prefix => 'ex14');
RESET oban_manage.notify;

-- A statement trigger with a callable, and rows that name no job
CREATE TABLE odd.appointments (id int, job_id bigint);
CREATE TRIGGER keep AFTER INSERT ON odd.appointments REFERENCING NEW TABLE AS made
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('job_id', 'closed.keep', 'ex14');
INSERT INTO odd.appointments VALUES (1, NULL), (2, NULL);
INSERT INTO odd.appointments SELECT 1, 1 WHERE false;

-- Rows whose contexts are more than is held in memory, and come again for many jobs
CREATE TABLE odd.notes (id int, job_ids bigint[], note text);
CREATE FUNCTION tools.reads(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN jsonb_build_object('tags', ARRAY[length(context #>> '{new,note}')::text]);
CREATE TRIGGER reads AFTER INSERT ON odd.notes REFERENCING NEW TABLE AS made
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('job_ids', 'tools.reads', 'ex14');
SET work_mem = '64kB';
INSERT INTO odd.notes SELECT n, ARRAY[n % 3 + 1, n % 5 + 3], repeat('x', 900000 + n)
FROM generate_series(1, 90) n;
RESET work_mem;
SELECT id, tags FROM ex14.oban_jobs WHERE id < 8 ORDER BY id;

-- A callable that drops the table of its jobs, or makes it anew
CALL tools.make_jobs('ex9');
CREATE FUNCTION tools.drops(job jsonb, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	CREATE TABLE odd.kept (LIKE ex9.oban_jobs);
	DROP TABLE ex9.oban_jobs;
	IF context ? 'anew' THEN
		CREATE TABLE ex9.oban_jobs (LIKE odd.kept);
	END IF;
	RETURN context -> 'changes';
END $$;
SELECT oban_update_job_with(1, 'tools.drops', '{"changes": {"priority": 7}}', 'ex9');
SELECT oban_update_job_with('{1,2}'::bigint[], 'tools.drops', '{"changes": {"priority": 7}}', 'ex9');
SELECT oban_update_job_with('{1,2}'::bigint[], 'tools.drops', '{"anew": 1}', 'ex9');
SELECT tools.states('ex9');

-- A plan that leaves the cache while a statement runs it: a trigger of the table asks for more others
-- than are kept, meanwhile; and once with an error that ends the statement
CREATE FUNCTION tools.crowd() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	keys text[] := '{id,priority,attempt,max_attempts,queue,worker,state,tags,args}';
	filter jsonb;
BEGIN
	FOR i IN 1 .. 300 LOOP
		SELECT jsonb_object_agg(keys[n], CASE n WHEN 9 THEN '{"a": 1}' WHEN 8 THEN '"t"'
				WHEN 7 THEN '"available"' WHEN 6 THEN '"w"' WHEN 5 THEN '"q"' ELSE '1' END::jsonb)
		INTO filter FROM generate_series(1, 9) n WHERE i & (1 << (n - 1)) <> 0;
		PERFORM count(*) FROM oban_all_jobs(filter, NULL, 'py');
	END LOOP;
	IF OLD.id = 4 THEN
		RAISE 'crowded';
	END IF;
	RETURN NEW;
END $$;
CALL tools.make_jobs('ex14');
CREATE TRIGGER crowd BEFORE UPDATE ON ex14.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.crowd();
SELECT id, state FROM oban_update_job('{1,2}'::bigint[], '{"priority": 3}', 'ex14');
SELECT oban_update_job(4, '{"priority": 3}', 'ex14');
SELECT oban_cancel_job('{1,2}'::bigint[], 'ex14'), oban_cancel_job(8, 'ex14');
-- The same while two statements run it, one in a trigger of the other
CREATE FUNCTION tools.nests() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF pg_trigger_depth() = 1 THEN
		PERFORM oban_update_job('{5,6}'::bigint[], '{"priority": 2}', 'ex14');
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER a_nests BEFORE UPDATE ON ex14.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.nests();
SELECT id, priority FROM oban_update_job('{1,2}'::bigint[], '{"priority": 1}', 'ex14');
DROP TRIGGER a_nests ON ex14.oban_jobs;
SELECT id, priority FROM ex14.oban_jobs WHERE id IN (5, 6) ORDER BY id;
SELECT count(*) AS plans FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource' \gset
DO $$ BEGIN
	FOR i IN 1 .. 10 LOOP
		PERFORM oban_update_job('{5,6}'::bigint[], '{"priority": 4}', 'ex14');
	END LOOP;
END $$;
SELECT count(*) - :plans AS plans_more FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource';

\set ECHO none
DROP SCHEMA odd, closed CASCADE;
DROP OWNED BY regress_oban_caller;
DROP ROLE regress_oban_caller;
\set ECHO all
DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
