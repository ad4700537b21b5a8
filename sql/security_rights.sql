-- Every function and procedure of the extension, trigger functions included: what a role gets that
-- may not use the schema, not read the table, not write it, not write the columns needed; through a
-- function with SECURITY DEFINER; and without EXECUTE. A function that has no call in
-- fixtures/entry_points.sql fails here.
-- Seen to fail with statements run as the table's owner (no check of rights), and with a function
-- added to the extension's script.
DROP EXTENSION IF EXISTS oban_manage CASCADE;
SET track_functions = 'all';
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
\set VERBOSITY terse
DROP ROLE IF EXISTS regress_oban_some, regress_oban_owner;
CREATE ROLE regress_oban_some;
CREATE ROLE regress_oban_owner;
CALL tools.make_jobs('ex14');
-- What each function gives the role, and whether anything was written.
GRANT SELECT ON tools.entry TO PUBLIC;
CREATE TABLE tools.seen (situation text, function text, code text, message text, written boolean);
CREATE PROCEDURE tools.look(p_situation text, p_role text) LANGUAGE plpgsql AS $$
DECLARE
	before record := tools.peek();
BEGIN
	INSERT INTO tools.seen
	SELECT p_situation, o.function, o.code, o.message, before IS DISTINCT FROM (o.odd, o.even)
	FROM tools.observe(p_role, 'public', '{"4,5"}', '{"{\"priority\": 7}"}') o;
END $$;
-- By function: the errors, and none where it goes through.
CREATE FUNCTION tools.codes(p_situation text, OUT verb text, OUT code text, OUT functions bigint,
	OUT message text) RETURNS SETOF record LANGUAGE sql AS $$
	SELECT DISTINCT ON (e.verb, s.code) e.verb, s.code, count(*) OVER (PARTITION BY e.verb, s.code),
		CASE WHEN s.code <> '00000' THEN s.message END
	FROM tools.seen s JOIN (SELECT DISTINCT function::text, verb FROM tools.entry
		WHERE function::text NOT LIKE 'oban_manage%'
		UNION SELECT DISTINCT function::text, 'manage' FROM tools.entry
		WHERE function::text LIKE 'oban_manage%') e
		USING (function)
	WHERE situation = p_situation ORDER BY e.verb, s.code, s.message
$$;
\set ECHO all
SELECT count(*) AS functions FROM pg_depend WHERE deptype = 'e'
	AND classid = 'pg_proc'::regclass
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'oban_manage');
SELECT * FROM tools.not_called;

-- No right to the schema.
CALL tools.look('schema', 'regress_oban_some');
SELECT * FROM tools.codes('schema');
-- None on the table.
GRANT USAGE ON SCHEMA ex14 TO regress_oban_some, regress_oban_owner;
CALL tools.look('table', 'regress_oban_some');
SELECT * FROM tools.codes('table');
-- To read it: those that only read go through, and nothing is written.
GRANT SELECT ON ex14.oban_jobs TO regress_oban_some;
CALL tools.look('read', 'regress_oban_some');
SELECT * FROM tools.codes('read');
-- To read it, and to write columns that no verb writes alone: what writes is refused all the same.
GRANT UPDATE (errors, attempted_by, inserted_at) ON ex14.oban_jobs TO regress_oban_some;
CALL tools.look('columns', 'regress_oban_some');
SELECT * FROM tools.codes('columns');
-- To write it, not to read it.
REVOKE SELECT ON ex14.oban_jobs FROM regress_oban_some;
GRANT UPDATE, DELETE ON ex14.oban_jobs TO regress_oban_some;
CALL tools.look('write', 'regress_oban_some');
SELECT * FROM tools.codes('write');
SELECT situation, function FROM tools.seen WHERE code = '00000' AND written;
-- All rights: everything works.
GRANT SELECT ON ex14.oban_jobs TO regress_oban_some;
CALL tools.look('all', 'regress_oban_some');
SELECT * FROM tools.codes('all');
REVOKE ALL ON ex14.oban_jobs FROM regress_oban_some;
REVOKE USAGE ON SCHEMA ex14 FROM regress_oban_some;

-- The procedures, outside of a transaction: in each of these situations, then with all rights.
\set ECHO queries
SELECT format('SET ROLE regress_oban_some'), replace(replace(call, 'IDS', '4,5'), 'CHANGES', '{}')
FROM tools.entry WHERE call LIKE 'CALL%' ORDER BY n \gexec
RESET ROLE;
GRANT USAGE ON SCHEMA ex14 TO regress_oban_some;
GRANT SELECT, UPDATE (errors) ON ex14.oban_jobs TO regress_oban_some;
SET ROLE regress_oban_some;
SELECT replace(replace(call, 'IDS', '4,5'), 'CHANGES', '{"priority": 7}')
FROM tools.entry WHERE call LIKE 'CALL%' ORDER BY n \gexec
RESET ROLE;
SELECT tools.states('ex14');
GRANT UPDATE, DELETE ON ex14.oban_jobs TO regress_oban_some;
SET ROLE regress_oban_some;
SELECT replace(replace(call, 'IDS', '4,5'), 'CHANGES', '{"priority": 7}')
FROM tools.entry WHERE call LIKE 'CALL%' ORDER BY n DESC \gexec
RESET ROLE;
\set ECHO all
SELECT tools.states('ex14');
CALL tools.make_jobs('ex14');
-- Every function has been called to its end: so none of these calls is of another than it says.
SELECT pg_stat_force_next_flush();
SELECT * FROM tools.not_reached;

-- SECURITY DEFINER lends its owner's rights, to every function, and no more than those; procedures
-- cannot commit in it.
REVOKE ALL ON ex14.oban_jobs FROM regress_oban_some;
GRANT ALL ON ex14.oban_jobs TO regress_oban_owner;
GRANT ALL ON SCHEMA tools TO regress_oban_owner;
SET ROLE regress_oban_owner;
CREATE FUNCTION tools.as_owner(call text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	result record;
BEGIN
	EXECUTE call INTO result;
	RETURN result::text;
END $$;
RESET ROLE;
CREATE TABLE tools.direct AS SELECT n, call FROM tools.entry;
UPDATE tools.entry SET call = format('SELECT tools.as_owner(%L)', call);
CALL tools.look('definer', 'regress_oban_some');
SELECT * FROM tools.codes('definer');
REVOKE UPDATE, DELETE ON ex14.oban_jobs FROM regress_oban_owner;
CALL tools.look('poor definer', 'regress_oban_some');
SELECT * FROM tools.codes('poor definer');
UPDATE tools.entry e SET call = d.call FROM tools.direct d WHERE d.n = e.n;

-- EXECUTE taken from PUBLIC, of one function after the other, by a role with all rights on the table:
-- the function is refused and no other is. A trigger asks for it as it is created, not as it fires.
GRANT ALL ON ex14.oban_jobs TO regress_oban_some;
CREATE FUNCTION tools.without(f regprocedure) RETURNS TABLE (refused text, code text, message text,
	others_refused bigint) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', f);
	RETURN QUERY SELECT f::text, min(o.code) FILTER (WHERE o.function = f::text),
		min(o.message) FILTER (WHERE o.function = f::text AND o.code <> '00000'),
		count(*) FILTER (WHERE o.function <> f::text AND o.code = '42501')
	FROM tools.observe('regress_oban_some', 'public', '{"4,5"}', '{"{\"priority\": 7}"}') o;
	EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO PUBLIC', f);
END $$;
SELECT w.* FROM (SELECT function, min(n) AS n FROM tools.entry GROUP BY function) e,
	tools.without(e.function) w ORDER BY e.n;
CREATE FUNCTION tools.try_trigger(f text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CREATE TEMP TABLE mine (jobs bigint);
	EXECUTE format('CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION %s', f);
	RETURN 'created';
EXCEPTION WHEN insufficient_privilege THEN RETURN sqlerrm;
END $$;
BEGIN;
SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', oid::regprocedure) AS statement
FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prorettype = 'trigger'::regtype
	AND proname LIKE 'oban\_%' ORDER BY proname \gexec
SET LOCAL ROLE regress_oban_some;
SELECT f, tools.try_trigger(f || '(''jobs'', ''{}'')')
FROM unnest('{oban_cancel_job,oban_retry_job,oban_delete_job,oban_update_job,oban_update_job_with,
	oban_guard_job}'::text[]) f;
ROLLBACK;

-- By verb. Whoever has rights on the table has them in plain SQL too; what this stops is our ways.
-- oban_manage_jobs and oban_manage_all_jobs are ways to every verb, and the triggers that are there stay.
BEGIN;
SELECT format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', objid::regprocedure) AS statement
FROM pg_depend JOIN pg_proc p ON p.oid = objid AND classid = 'pg_proc'::regclass
WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'oban_manage')
	AND proname LIKE 'oban\_delete\_%'
ORDER BY 1 \gexec
SELECT verb, code, substring(call FROM '(?:INSERT INTO |public\.)\w+\.?\w*') AS way
FROM tools.observe('regress_oban_some', 'public', '{"4,5"}', '{"{}"}')
WHERE code = '42501' OR verb = 'delete' AND code = '00000' ORDER BY n;
SAVEPOINT s;
SET ROLE regress_oban_some;
SELECT tools.try_trigger('oban_delete_job(''jobs'')'), tools.try_trigger('oban_cancel_job(''jobs'')');
ROLLBACK TO s;
REVOKE EXECUTE ON FUNCTION oban_manage_jobs, oban_manage_all_jobs FROM PUBLIC;
SELECT verb, code, count(*) FROM tools.observe('regress_oban_some', 'public', '{"4,5"}', '{"{}"}')
WHERE verb = 'delete' GROUP BY 1, 2 ORDER BY 2;
ROLLBACK;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
DROP ROLE regress_oban_some, regress_oban_owner;
