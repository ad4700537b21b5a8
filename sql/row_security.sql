-- Row-level security: hidden rows are passed over by the verbs, and do not exist for an update;
-- policies and roles change between runs of the same plan.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
DROP ROLE IF EXISTS regress_oban_a, regress_oban_b;
CREATE ROLE regress_oban_a;
CREATE ROLE regress_oban_b;
GRANT USAGE ON SCHEMA py TO regress_oban_a, regress_oban_b;
GRANT ALL ON py.oban_jobs TO regress_oban_a, regress_oban_b;
GRANT ALL ON SCHEMA tools TO PUBLIC;

-- Each role sees the jobs of its own queue: a the odd ids, b the even ones.
CALL tools.fill(12, 'py');
UPDATE py.oban_jobs SET queue = CASE id % 2 WHEN 1 THEN 'regress_oban_a' ELSE 'regress_oban_b' END;
ALTER TABLE py.oban_jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_queue ON py.oban_jobs USING (queue = current_user);

SET ROLE regress_oban_a;
SELECT oban_cancel_job(1, 'py') AS own, oban_cancel_job(2, 'py') AS hidden,
	oban_cancel_job(99, 'py') AS none;
SELECT oban_cancel_many_jobs('{1,2,3,4,5,6}', 'py') AS cancel,
	oban_retry_many_jobs('{1,2,4}', 'py') AS retry,
	oban_delete_many_jobs('{1,2,99}', 'py') AS delete, oban_delete_job(4, 'py') AS hidden;
SELECT oban_cancel_job(jsonb_populate_record(NULL::py.oban_jobs, '{"id": 6}')) AS hidden_row;
SELECT oban_get_job(4, 'py') IS NULL AS hidden, oban_job_cancelled(4, 'py') AS gone_to_me,
	(oban_get_job(3, 'py')).state;
-- An update cannot tell a hidden job from one that does not exist.
SELECT oban_update_job(4, '{"priority": 1}', 'py');
SELECT oban_update_job(99, '{"priority": 1}', 'py');
SELECT oban_update_many_jobs('{3,4,99}', '{"priority": 1}', 'py');
SELECT oban_update_many_jobs('{4}', '{}', 'py');
SELECT id, priority FROM oban_update_many_jobs('{5,3}', '{"priority": 1}', 'py');
-- Nor can an update by a callable, which is not called for it; a trigger passes over it.
CREATE FUNCTION tools.raise(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING 'called for job %', job.id;
	RETURN jsonb_build_object('priority', job.priority + 1);
END $$;
SELECT oban_update_job_with(4, 'tools.raise', NULL, 'py');
SELECT oban_update_many_jobs_with('{4,99}', 'tools.raise', NULL, 'py');
SELECT id, priority FROM oban_update_many_jobs_with('{5,3}', 'tools.raise', NULL, 'py');
CREATE TABLE tools.app (jobs bigint[]);
CREATE TRIGGER raise AFTER INSERT ON tools.app FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('jobs', 'tools.raise', 'py');
CREATE TRIGGER tag AFTER INSERT ON tools.app REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job('jobs', '{"tags": ["seen"]}', 'py');
INSERT INTO tools.app VALUES ('{2,3,4,5,99}');
RESET ROLE;
SELECT string_agg(format('%s %s %s', id, priority, tags), ', ' ORDER BY id) FROM py.oban_jobs
WHERE id BETWEEN 2 AND 5;
SET ROLE regress_oban_a;
DROP TABLE tools.app;
-- What max_attempts may be says nothing about a hidden job's attempts.
RESET ROLE;
UPDATE py.oban_jobs SET attempt = 7 WHERE id = 4;
SET ROLE regress_oban_a;
SELECT oban_update_many_jobs('{3,4}', '{"max_attempts": 2}', 'py');
-- WITH CHECK: a job cannot be moved out of sight.
SELECT code, message, context
FROM tools.try('SELECT oban_update_job(5, ''{"queue": "regress_oban_b"}'', ''py'')');
CREATE FUNCTION tools.hide(job oban_job) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb '{"queue": "regress_oban_b"}'$$;
SELECT code, message, context
FROM tools.try('SELECT oban_update_job_with(5, ''tools.hide'', NULL, ''py'')');
RESET ROLE;
SELECT tools.states('py');

-- Roles take turns over the same plans, single and many, more than five times each.
CREATE FUNCTION tools.turn(p_role text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
BEGIN
	PERFORM set_config('role', p_role, true);
	FOR i IN 1..3 LOOP
		found := concat_ws(' ', found, oban_cancel_many_jobs('{7,8,9,10}', 'py'),
			oban_retry_many_jobs('{7,8,9,10}', 'py'), oban_cancel_job(9, 'py'),
			oban_retry_job(9, 'py'),
			(SELECT count(*) FROM generate_series(7, 10) g WHERE NOT oban_job_cancelled(g, 'py')));
	END LOOP;
	RETURN found;
END $$;
SELECT tools.turn('regress_oban_a');
SELECT tools.turn('regress_oban_b');
SELECT tools.turn('none');
SELECT tools.turn('regress_oban_a');
-- In one statement.
SELECT r, tools.turn(r)
FROM unnest('{regress_oban_a,regress_oban_b,none,regress_oban_b}'::text[]) r;

-- The policy changes, is dropped (nothing is seen then), and comes back.
ALTER POLICY own_queue ON py.oban_jobs USING (id < 9);
SELECT tools.turn('regress_oban_a');
DROP POLICY own_queue ON py.oban_jobs;
SELECT tools.turn('regress_oban_a');
CREATE POLICY all_jobs ON py.oban_jobs USING (true);
SELECT tools.turn('regress_oban_a');
ALTER TABLE py.oban_jobs DISABLE ROW LEVEL SECURITY;
SELECT tools.turn('regress_oban_b');
DROP POLICY all_jobs ON py.oban_jobs;
ALTER TABLE py.oban_jobs ENABLE ROW LEVEL SECURITY;

-- A setting of the application decides, as with tenants; the plan stays the same.
CREATE POLICY tenant ON py.oban_jobs USING (id = current_setting('tools.tenant', true)::bigint);
SET ROLE regress_oban_a;
SET tools.tenant = '7';
SELECT oban_cancel_many_jobs('{7,8,9}', 'py') AS changed, oban_cancel_job(8, 'py') AS eight;
SET tools.tenant = '8';
SELECT oban_cancel_many_jobs('{7,8,9}', 'py') AS changed, oban_retry_job(8, 'py') AS eight;
RESET ROLE;

-- To see is not to change: another policy for each command.
DROP POLICY tenant ON py.oban_jobs;
CREATE POLICY see ON py.oban_jobs FOR SELECT USING (true);
CREATE POLICY change ON py.oban_jobs FOR UPDATE USING (id % 2 = 1);
CREATE POLICY remove ON py.oban_jobs FOR DELETE USING (id > 8);
CALL tools.fill(12, 'py');
SET ROLE regress_oban_a;
SELECT oban_cancel_job(2, 'py') AS even, oban_cancel_job(1, 'py') AS odd,
	oban_cancel_many_jobs('{1,2,3,4}', 'py') AS many, (oban_get_job(2, 'py')).state AS seen;
SELECT oban_update_many_jobs('{5,6}', '{"priority": 1}', 'py');
SELECT oban_delete_job(7, 'py') AS seven, oban_delete_many_jobs('{5,7}', 'py') AS below,
	oban_delete_job(9, 'py') AS nine, oban_delete_many_jobs('{8,11}', 'py') AS above;
RESET ROLE;
SELECT tools.states('py');

-- row_security = off: an error rather than some of the rows.
SET ROLE regress_oban_a;
SET row_security = off;
SELECT code, message FROM tools.try('SELECT oban_cancel_job(1, ''py'')');
SELECT code, message FROM tools.try('SELECT oban_get_job(1, ''py'')');
RESET row_security;
SELECT oban_retry_job(1, 'py');
RESET ROLE;

-- The owner sees all, until FORCE.
ALTER TABLE py.oban_jobs OWNER TO regress_oban_a;
SET ROLE regress_oban_a;
SELECT oban_cancel_many_jobs('{1,2,3,4}', 'py');
ALTER TABLE py.oban_jobs FORCE ROW LEVEL SECURITY;
SELECT oban_retry_many_jobs('{1,2,3,4}', 'py');
ALTER TABLE py.oban_jobs NO FORCE ROW LEVEL SECURITY;
SELECT oban_retry_many_jobs('{1,2,3,4}', 'py');
RESET ROLE;
-- SECURITY DEFINER: the owner's policies, whoever calls.
CREATE FUNCTION tools.cancel_all() RETURNS integer LANGUAGE sql SECURITY DEFINER
	AS $$SELECT public.oban_cancel_many_jobs('{1,2,3,4}', 'py')$$;
ALTER FUNCTION tools.cancel_all() OWNER TO regress_oban_a;
SET ROLE regress_oban_b;
SELECT tools.cancel_all();
SELECT oban_retry_many_jobs('{1,2,3,4}', 'py') AS odd_only;
RESET ROLE;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
DROP ROLE regress_oban_a, regress_oban_b;
