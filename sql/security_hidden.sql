-- What a call tells of jobs that row-level security hides: nothing. Each call is made twice, with
-- hidden jobs in the table and without them: every result, message, detail, hint and context, and
-- what is left of the jobs that are seen, must be the same; and the hidden jobs stay as they are.
-- For a role that the policy holds for, and for the table's owner where it is forced.
-- Seen to fail with statements run as the table's owner, and with only the look at jobs
-- (oban_manage_jobs) run so.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\set ECHO none
\set entry_points :abs_srcdir '/fixtures/entry_points.sql'
\set prefix ex14
\i :entry_points
\pset null -
\set SHOW_CONTEXT never
DROP ROLE IF EXISTS regress_oban_a, regress_oban_owner;
CREATE ROLE regress_oban_a;
CREATE ROLE regress_oban_owner;
GRANT USAGE ON SCHEMA ex14 TO regress_oban_a, regress_oban_owner;
GRANT ALL ON ex14.oban_jobs TO regress_oban_a;
-- With other statistics a call may lock before it writes, and an error name what it has found.
ALTER TABLE ex14.oban_jobs SET (autovacuum_enabled = off);

-- Jobs with odd ids are seen, of each state but one; the others are hidden, and have in every column
-- what would show: a word, and numbers that no other job has.
CREATE PROCEDURE tools.make_worlds() LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM ex14.oban_jobs;
	INSERT INTO ex14.oban_jobs (id, state, worker, queue, args, meta, tags, errors, attempt,
		max_attempts, priority, attempted_by, cancelled_at)
	SELECT 2 * g + v, s, CASE v WHEN 1 THEN 'App.Worker' ELSE 'App.Canary' END,
		CASE v WHEN 1 THEN 'mine' ELSE 'canary' END,
		CASE v WHEN 1 THEN jsonb_build_object('n', 2 * g + v) ELSE '{"n": "canary", "canary": 1}' END,
		CASE v WHEN 1 THEN '{}' ELSE '{"uniq_bmp": [7707]}' END::jsonb,
		CASE v WHEN 1 THEN '{a}' ELSE '{canary}' END::text[],
		CASE v WHEN 0 THEN ARRAY[jsonb '"canary"'] ELSE '{}' END,
		CASE v WHEN 1 THEN 1 ELSE 7707 END, CASE v WHEN 1 THEN 20 ELSE 7708 END,
		CASE v WHEN 1 THEN 1 ELSE 7709 END, '{canary}'::text[],
		CASE s WHEN 'cancelled' THEN timestamp '2024-01-01' END
	FROM unnest(enum_range(NULL::ex14.oban_job_state)) WITH ORDINALITY u(s, g),
		generate_series(0, 1) v;
	UPDATE ex14.oban_jobs SET attempted_by = '{node}', attempt = CASE id WHEN 13 THEN 5 ELSE attempt END
		WHERE id % 2 = 1;
END $$;
CREATE FUNCTION tools.look(role text) RETURNS SETOF record LANGUAGE sql AS $$
	SELECT o.* FROM tools.observe(role, 'public',
		'{3,2,99,"2,99","3,2","13,5,2,4,99","7,8,9,10,11,12,14,15,16,17,98"}',
		ARRAY['{"priority": 3}', '{"max_attempts": 3}', '{"max_attempts": 2, "tags": ["b"]}',
			'{"schedule_in": 0, "meta": {"uniq_bmp": []}}', '{"queue": "elsewhere"}', jsonb_build_object('worker', repeat('w', 128))::text]) o
$$;
-- Where the two worlds differ for a role; and how many calls were compared, what they gave, and how
-- many of them told something that only hidden jobs hold.
CREATE FUNCTION tools.compare(role text, OUT calls bigint, OUT differ bigint, OUT changed_hidden bigint,
	OUT told bigint, OUT codes text) LANGUAGE plpgsql AS $$
DECLARE
	before record;
BEGIN
	CALL tools.make_worlds();
	before := tools.peek();
	CREATE TEMP TABLE with_hidden AS SELECT DISTINCT ON (l.call) l.* FROM tools.look(role) AS l(n integer, verb text,
		function text, call text, code text, message text, detail text, hint text, context text,
		odd text, even text);
	DELETE FROM ex14.oban_jobs WHERE id % 2 = 0;
	CREATE TEMP TABLE without_hidden AS SELECT DISTINCT ON (l.call) l.* FROM tools.look(role) AS l(n integer, verb text,
		function text, call text, code text, message text, detail text, hint text, context text,
		odd text, even text);
	SELECT count(*),
		count(*) FILTER (WHERE (a.code, a.message, a.detail, a.hint, a.context, a.odd)
			IS DISTINCT FROM (b.code, b.message, b.detail, b.hint, b.context, b.odd)),
		count(*) FILTER (WHERE a.code = '00000' AND a.even IS DISTINCT FROM before.even),
		count(*) FILTER (WHERE concat_ws(' ', a.message, a.detail, a.hint, a.context) ~* 'canary|[ ,([]770[789]\M')
	FROM with_hidden a FULL JOIN without_hidden b USING (call)
	INTO calls, differ, changed_hidden, told;
	-- No counts: where a job is missing and another violates a CHECK, either may be found first.
	SELECT string_agg(DISTINCT w.code, ', ') INTO codes FROM with_hidden w;
	DROP TABLE IF EXISTS tools.differing;
	CREATE TABLE tools.differing AS
	SELECT a.call, a.code, a.message, a.detail, a.hint, a.context, b.code AS code_without,
		b.message AS message_without
	FROM with_hidden a FULL JOIN without_hidden b USING (call)
	WHERE (a.code, a.message, a.detail, a.hint, a.context, a.odd)
		IS DISTINCT FROM (b.code, b.message, b.detail, b.hint, b.context, b.odd);
	DROP TABLE with_hidden, without_hidden;
END $$;
\set ECHO all
SELECT * FROM tools.not_called;

-- Without a policy the worlds do differ: what is compared can tell.
SELECT calls, differ > 0 AS differ, changed_hidden > 0 AS changed_hidden, told > 0 AS told
FROM tools.compare('regress_oban_a');

-- With it they do not, in any field of any call.
ALTER TABLE ex14.oban_jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON ex14.oban_jobs USING (queue = 'mine');
SELECT * FROM tools.compare('regress_oban_a');
TABLE tools.differing;

-- The owner is not held by it, until it is forced.
ALTER TABLE ex14.oban_jobs OWNER TO regress_oban_owner;
SELECT calls, differ > 0 AS differ, changed_hidden > 0 AS changed_hidden, told > 0 AS told
FROM tools.compare('regress_oban_owner');
ALTER TABLE ex14.oban_jobs FORCE ROW LEVEL SECURITY;
SELECT * FROM tools.compare('regress_oban_owner');
TABLE tools.differing;

-- In a foreign key's cascade PostgreSQL runs BEFORE triggers as the table's owner, and does not force
-- policies on it: there all jobs are seen. What is kept of that does not outlive it.
CREATE TABLE tools.seen (fired text, jobs bigint, calls integer);
CREATE FUNCTION tools.call_all() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
	call text;
	calls integer := 0;
BEGIN
	FOR call IN SELECT replace(replace(replace(e.call, 'IDS', '1,3'), 'ID', '3'), 'CHANGES',
			'{"priority": 3}') FROM tools.entry e ORDER BY n LOOP
		BEGIN
			EXECUTE call;
			RAISE SQLSTATE 'P0099';
		EXCEPTION
			WHEN SQLSTATE 'P0099' THEN calls := calls + 1;
			WHEN OTHERS THEN NULL;
		END;
	END LOOP;
	INSERT INTO tools.seen SELECT TG_WHEN, count(*), calls FROM oban_all_jobs('{"all": true}', NULL, 'ex14');
	RETURN OLD;
END $$;
CREATE TABLE tools.customers (id integer PRIMARY KEY);
CREATE TABLE tools.visits (customer integer REFERENCES tools.customers ON DELETE CASCADE);
INSERT INTO tools.customers VALUES (1);
INSERT INTO tools.visits VALUES (1);
CREATE TRIGGER calls BEFORE DELETE ON tools.visits FOR EACH ROW EXECUTE FUNCTION tools.call_all();
GRANT USAGE ON SCHEMA tools TO regress_oban_owner;
GRANT SELECT ON tools.entry TO regress_oban_owner;
GRANT INSERT ON tools.seen TO regress_oban_owner;
ALTER TABLE tools.visits OWNER TO regress_oban_owner;
CALL tools.make_worlds();
DELETE FROM tools.customers;
SELECT s.jobs = (SELECT count(*) FROM ex14.oban_jobs) AS sees_all, calls
FROM tools.seen s;
SELECT * FROM tools.compare('regress_oban_owner');
TABLE tools.differing;
-- AFTER triggers run as who began it, a superuser here, and since PostgreSQL 18 as the owner, on whom
-- policies are forced.
CREATE OR REPLACE TRIGGER calls AFTER DELETE ON tools.visits FOR EACH ROW
	EXECUTE FUNCTION tools.call_all();
INSERT INTO tools.customers VALUES (1);
INSERT INTO tools.visits VALUES (1);
CALL tools.make_worlds();
DELETE FROM tools.customers;
SELECT s.jobs = (SELECT count(*) FROM ex14.oban_jobs
	WHERE current_setting('server_version_num')::integer < 180000 OR queue = 'mine') AS sees_its_own
FROM tools.seen s WHERE fired = 'AFTER';

-- Policies whose conditions the caller's own columns and functions are in, and one that calls a
-- function: nothing of the statements comes before it, or a value that makes an operator fail would
-- tell. The function is not leakproof, and the filters' operators are not either.
CREATE FUNCTION tools.is_mine(queue text) RETURNS boolean LANGUAGE plpgsql STABLE COST 100000 AS
	$$BEGIN RETURN queue = 'mine'; END$$;
ALTER POLICY mine ON ex14.oban_jobs USING (tools.is_mine(queue));
SELECT calls, differ, changed_hidden, told FROM tools.compare('regress_oban_a');
TABLE tools.differing;

-- What may be seen and not be changed: told as such by oban_manage_jobs, which reads; changed by none.
DROP POLICY mine ON ex14.oban_jobs;
CREATE POLICY see ON ex14.oban_jobs FOR SELECT USING (true);
CREATE POLICY change ON ex14.oban_jobs FOR UPDATE USING (queue = 'mine');
CREATE POLICY remove ON ex14.oban_jobs FOR DELETE USING (queue = 'mine');
SELECT calls, changed_hidden FROM tools.compare('regress_oban_a');
SELECT DISTINCT substring(call FROM 'oban_\w+') AS tells FROM tools.differing ORDER BY 1;

-- The procedures, which commit: the hidden jobs are neither counted nor changed.
DROP POLICY see ON ex14.oban_jobs;
DROP POLICY change ON ex14.oban_jobs;
DROP POLICY remove ON ex14.oban_jobs;
CREATE POLICY mine ON ex14.oban_jobs USING (queue = 'mine');
CREATE TABLE tools.batches (n serial, call text);
INSERT INTO tools.batches (call) VALUES
	($$CALL oban_cancel_in_batches('{"all": true}', 2, prefix => 'ex14')$$),
	($$CALL oban_retry_in_batches('{"state": ["cancelled", "completed"]}', 2, prefix => 'ex14')$$),
	($$CALL oban_update_in_batches('{"all": true}', '{"max_attempts": 6}', 3, prefix => 'ex14')$$),
	($$CALL oban_update_in_batches('{"all": true}', '{"queue": "canary"}', 3, prefix => 'ex14')$$),
	($$CALL oban_delete_in_batches('{"worker": ["App.Canary", "App.Worker"]}', 3, prefix => 'ex14')$$),
	($$CALL oban_delete_in_batches('{"tags": "canary"}', 3, prefix => 'ex14')$$);
GRANT USAGE ON SCHEMA tools TO regress_oban_a, regress_oban_owner;
GRANT SELECT ON tools.batches TO regress_oban_a, regress_oban_owner;
CALL tools.make_worlds();
SELECT even FROM tools.peek() \gset before_
SET ROLE regress_oban_a;
SELECT call FROM tools.batches ORDER BY n \gexec
RESET ROLE;
SELECT odd IS NULL AS mine_are_deleted, even = :'before_even' AS hidden_are_not FROM tools.peek();
-- As the owner, on whom it is forced, also after a cascade
CALL tools.make_worlds();
SELECT even FROM tools.peek() \gset before_
INSERT INTO tools.customers VALUES (1);
INSERT INTO tools.visits VALUES (1);
DELETE FROM tools.customers;
SET ROLE regress_oban_owner;
SELECT call FROM tools.batches ORDER BY n \gexec
RESET ROLE;
SELECT odd IS NULL AS mine_are_deleted, even = :'before_even' AS hidden_are_not FROM tools.peek();

-- A trigger comes with ids out of a column that the caller may have no right to read. An error names
-- those that were found for the caller, once they were, and no other.
CALL tools.make_worlds();
CREATE TABLE tools.app (note text, job_ids bigint[]);
GRANT UPDATE (note) ON tools.app TO regress_oban_a;
INSERT INTO tools.app VALUES ('x', '{2,3,4}');
CREATE FUNCTION tools.fails(job oban_job) RETURNS jsonb LANGUAGE sql RETURN (1 / 0)::text::jsonb;
CREATE FUNCTION tools.leaves_queue(job oban_job) RETURNS jsonb LANGUAGE sql
	RETURN '{"queue": "canary"}'::jsonb;
CREATE FUNCTION tools.fire(arguments text) RETURNS record LANGUAGE plpgsql AS $$
DECLARE
	result record;
BEGIN
	EXECUTE 'CREATE OR REPLACE TRIGGER app AFTER UPDATE ON tools.app FOR EACH ROW
		EXECUTE FUNCTION ' || arguments;
	SET LOCAL ROLE regress_oban_a;
	result := tools.try('UPDATE tools.app SET note = ''y'' RETURNING 1');
	RESET ROLE;
	RETURN result;
END $$;
SELECT a.arguments, t.code, t.message, t.context ~ '\m[24]\M' AS names_others
FROM unnest(ARRAY['oban_update_job(''job_ids'', ''{"queue": "canary"}'', ''ex14'')',
		'oban_update_job(''job_ids'', ''{"queue": "canary", "max_attempts": 5}'', ''ex14'')',
		'oban_update_job(''job_ids'', ''{"schedule_in": 5, "queue": "canary"}'', ''ex14'')',
		'oban_update_job_with(''job_ids'', ''tools.fails'', ''ex14'')',
		'oban_update_job_with(''job_ids'', ''tools.leaves_queue'', ''ex14'')']) a(arguments),
	tools.fire(a.arguments) AS t(code text, message text, detail text, hint text, context text);
REVOKE ALL ON ex14.oban_jobs FROM regress_oban_a;
SELECT t.code, t.message, t.context ~ '\d' AS names_any
FROM unnest(ARRAY['oban_update_job(''job_ids'', ''{"priority": 1}'', ''ex14'')',
		'oban_update_job_with(''job_ids'', ''tools.leaves_queue'', ''ex14'')']) a(arguments),
	tools.fire(a.arguments) AS t(code text, message text, detail text, hint text, context text);

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
DROP ROLE regress_oban_a, regress_oban_owner;
