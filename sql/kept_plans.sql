-- Plans that are kept: used while they leave the cache, made again in the same statement, refused,
-- impossible. What a change of the table does to them is in ddl.sql.
--
-- It fails, among others, when a plan that left the cache while it ran is never freed; on a server
-- with assertions (dev/deep) also when such a plan is freed while it runs.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
\set VERBOSITY terse
CALL tools.make_jobs('ex14', 'py');
DROP ROLE IF EXISTS regress_oban_caller;
CREATE ROLE regress_oban_caller;
GRANT USAGE ON SCHEMA ex14 TO regress_oban_caller;
GRANT SELECT, UPDATE ON ex14.oban_jobs TO regress_oban_caller;

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

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
DROP ROLE regress_oban_caller;
