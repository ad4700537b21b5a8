-- Every function and procedure of the extension in a hostile place: a search_path of shadowed
-- functions, operators, types and catalogs; settings that change how text is read and written; event
-- triggers; casts of the table owner's; rules on the table; callables that change the session. Each
-- call must give to the letter what it gives elsewhere, or be refused.
-- Seen to fail with a single operator that names no schema, and with a state that is cast to text by
-- pg_cast.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\set ECHO none
\set entry_points :abs_srcdir '/fixtures/entry_points.sql'
\set prefix ex14
\i :entry_points
\set ECHO none
\set hostile :abs_srcdir '/fixtures/hostile.sql'
\i :hostile
\set ECHO none
\pset null -
\set SHOW_CONTEXT never
\set bad_path 'pg_temp, evil, pg_catalog, public'
CALL tools.make_jobs('ex14');
-- In a table, for a setting may read literals in another way.
CREATE TABLE tools.given AS SELECT '{1,"4,2,99","7,6,8"}'::text[] AS ids,
	ARRAY['{"priority": 3}', '{"schedule_in": "2 h", "tags": [" Null", "b"], "queue": "é $1"}',
		'{"max_attempts": 3, "scheduled_at": "2031-02-03T04:05:06+07:00", "args": {"a": [1.10]}}'] AS changes;
CREATE FUNCTION tools.look(path text) RETURNS SETOF record LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY SELECT o.call, o.code, o.message, o.detail, o.hint, o.odd, o.even
	FROM tools.given g, tools.observe('none', path, g.ids, g.changes) o;
END $$;
CREATE TABLE tools.usual (call text, code text, message text, detail text, hint text, odd text,
	even text);
-- How many calls differ from what they give usually; the first of them by name.
CREATE FUNCTION tools.compare(path text DEFAULT 'public', OUT calls bigint, OUT differ bigint,
	OUT of text) LANGUAGE sql AS $$
	SELECT count(*), count(*) FILTER (WHERE u IS DISTINCT FROM h),
		string_agg(DISTINCT substring(h.call FROM 'oban_[a-z_]+'), ', ')
			FILTER (WHERE u IS DISTINCT FROM h)
	FROM (SELECT DISTINCT * FROM tools.usual) u FULL JOIN (SELECT DISTINCT l.* FROM tools.look(path)
		AS l(call text, code text, message text, detail text, hint text, odd text, even text)) h
		USING (call)
$$;
\set ECHO all
SELECT * FROM tools.not_called;

-- All in one transaction, so that now() is the same; first under the hostile path, so that plans are
-- made there, then with plans of both.
BEGIN;
CREATE TEMP TABLE first_look AS
SELECT l.* FROM tools.look(:'bad_path') AS l(call text, code text, message text, detail text,
	hint text, odd text, even text);
INSERT INTO tools.usual SELECT l.* FROM tools.look('public') AS l(call text, code text, message text,
	detail text, hint text, odd text, even text);
SELECT count(*) FILTER (WHERE u IS DISTINCT FROM h) AS differ, count(*) > 200 AS many,
	string_agg(DISTINCT u.code, ', ') AS codes
FROM (SELECT DISTINCT * FROM tools.usual) u FULL JOIN (SELECT DISTINCT * FROM first_look) h
	USING (call);
SELECT differ, of FROM tools.compare(:'bad_path');
SELECT differ, of FROM tools.compare();

-- Settings of the session.
SAVEPOINT settings;
-- PostgreSQL 19 no longer has strings that do not conform to the standard.
SELECT count(set_config(name, 'off', true)) IN (0, 2) AS done FROM pg_settings
WHERE name IN ('standard_conforming_strings', 'escape_string_warning')
	AND current_setting('server_version_num')::integer < 190000;
SET LOCAL backslash_quote = on;
SET LOCAL array_nulls = off;
SET LOCAL transform_null_equals = on;
SET LOCAL quote_all_identifiers = on;
SET LOCAL check_function_bodies = off;
SET LOCAL plan_cache_mode = force_custom_plan;
SET LOCAL enable_indexscan = off;
SET LOCAL enable_sort = off;
SET LOCAL work_mem = '64kB';
SET LOCAL constraint_exclusion = on;
SELECT differ, of FROM tools.compare();
ROLLBACK TO settings;

-- Event triggers that refuse every command: nothing that we do is DDL.
CREATE FUNCTION tools.no_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
	$$BEGIN RAISE EXCEPTION 'no %', tg_tag; END$$;
CREATE EVENT TRIGGER regress_oban_drop ON sql_drop EXECUTE FUNCTION tools.no_ddl();
CREATE EVENT TRIGGER regress_oban_rewrite ON table_rewrite EXECUTE FUNCTION tools.no_ddl();
CREATE EVENT TRIGGER regress_oban_end ON ddl_command_end EXECUTE FUNCTION tools.no_ddl();
SELECT differ, of FROM tools.compare();
SAVEPOINT ddl;
CREATE TABLE tools.refused ();
ROLLBACK TO ddl;
DROP EVENT TRIGGER regress_oban_end;
DROP EVENT TRIGGER regress_oban_drop;
DROP EVENT TRIGGER regress_oban_rewrite;

-- Casts of the enum and of the row, by the table's owner: none is called.
SAVEPOINT casts;
CREATE FUNCTION evil.captured(ex14.oban_job_state) RETURNS text LANGUAGE plpgsql AS
	$$BEGIN RETURN 'captured by a cast'; END$$;
CREATE FUNCTION evil.captured_row(ex14.oban_jobs) RETURNS jsonb LANGUAGE plpgsql AS
	$$BEGIN RETURN '{"captured": true}'; END$$;
CREATE CAST (ex14.oban_job_state AS text) WITH FUNCTION evil.captured(ex14.oban_job_state);
CREATE CAST (ex14.oban_jobs AS jsonb) WITH FUNCTION evil.captured_row(ex14.oban_jobs) AS IMPLICIT;
-- A cast does not put a plan out of date by itself.
ALTER TABLE ex14.oban_jobs SET (fillfactor = 90);
SELECT differ, of FROM tools.compare();
SELECT DISTINCT state::text FROM ex14.oban_jobs;
ROLLBACK TO casts;
-- Those that some clients want, which say the same in another type.
SAVEPOINT casts;
CREATE CAST (ex14.oban_job_state AS text) WITH INOUT AS IMPLICIT;
CREATE CAST (text AS ex14.oban_job_state) WITH INOUT AS IMPLICIT;
CREATE CAST (ex14.oban_job_state AS varchar) WITH INOUT AS IMPLICIT;
CREATE CAST (varchar AS ex14.oban_job_state) WITH INOUT AS IMPLICIT;
ALTER TABLE ex14.oban_jobs SET (fillfactor = 90);
SELECT differ, of FROM tools.compare();
ROLLBACK TO casts;
COMMIT;

-- Rules on the table: what writes is refused where a rule takes its place, or does as the rule says;
-- what reads, and what has nothing to do, goes on. No crash, and no other error.
CREATE TABLE tools.log (id bigint, what text);
CREATE FUNCTION tools.by_rule(rule text) RETURNS TABLE (verb text, codes text, messages text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'CREATE RULE hostile AS ON ' || rule;
	RETURN QUERY SELECT o.verb, string_agg(DISTINCT o.code, ', '),
		string_agg(DISTINCT o.message, '; ') FILTER (WHERE o.code <> '00000')
	FROM tools.observe('none', 'public', '{"4,5"}', '{"{\"priority\": 3}"}') o
	WHERE o.code <> '25001' GROUP BY 1 ORDER BY 1;
	DROP RULE hostile ON ex14.oban_jobs;
END $$;
SELECT r.* FROM tools.by_rule('UPDATE TO ex14.oban_jobs DO INSTEAD NOTHING') r;
SELECT r.* FROM tools.by_rule('DELETE TO ex14.oban_jobs DO INSTEAD NOTHING') r;
SELECT r.* FROM tools.by_rule('UPDATE TO ex14.oban_jobs WHERE OLD.id = 4 DO INSTEAD NOTHING') r;
SELECT r.* FROM tools.by_rule('UPDATE TO ex14.oban_jobs DO ALSO SELECT * FROM tools.log') r;
SELECT r.* FROM tools.by_rule('UPDATE TO ex14.oban_jobs DO ALSO
	INSERT INTO tools.log VALUES (OLD.id, ''log'')') r;
SELECT r.* FROM tools.by_rule('DELETE TO ex14.oban_jobs DO INSTEAD
	UPDATE ex14.oban_jobs SET queue = ''kept'' WHERE id = OLD.id') r;
SELECT r.* FROM tools.by_rule('DELETE TO ex14.oban_jobs DO INSTEAD (SELECT 1; NOTIFY hostile)') r;
-- One that returns other rows than were asked for, all of them NULL.
SELECT string_agg('NULL::' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) AS nulls
FROM pg_attribute WHERE attrelid = 'ex14.oban_jobs'::regclass AND attnum > 0 \gset
CREATE TABLE tools.elsewhere AS SELECT * FROM ex14.oban_jobs;
SELECT r.* FROM tools.by_rule('UPDATE TO ex14.oban_jobs DO INSTEAD UPDATE tools.elsewhere e
	SET state = NEW.state WHERE e.id = OLD.id RETURNING ' || :'nulls') r;
SELECT tools.states('ex14');
-- The procedures too
\set ECHO queries
CREATE RULE hostile AS ON UPDATE TO ex14.oban_jobs DO INSTEAD NOTHING;
CREATE RULE hostile_delete AS ON DELETE TO ex14.oban_jobs DO INSTEAD NOTHING;
SELECT replace(replace(call, 'IDS', '4,5'), 'CHANGES', '{"priority": 3}') FROM tools.entry
WHERE call LIKE 'CALL%' ORDER BY n \gexec
DROP RULE hostile ON ex14.oban_jobs;
DROP RULE hostile_delete ON ex14.oban_jobs;
-- and the owner's casts, and event triggers that refuse every command
CREATE FUNCTION evil.captured(ex14.oban_job_state) RETURNS text LANGUAGE plpgsql AS
	$$BEGIN RETURN 'captured by a cast'; END$$;
CREATE CAST (ex14.oban_job_state AS text) WITH FUNCTION evil.captured(ex14.oban_job_state) AS IMPLICIT;
CREATE EVENT TRIGGER regress_oban_end ON ddl_command_end EXECUTE FUNCTION tools.no_ddl();
CREATE EVENT TRIGGER regress_oban_start ON ddl_command_start EXECUTE FUNCTION tools.no_ddl();
SET search_path = :bad_path;
SELECT pg_catalog.replace(pg_catalog.replace(call, 'IDS', '1,2,4,5'), 'CHANGES', '{"priority": 3}')
FROM tools.entry WHERE call OPERATOR(pg_catalog.~~) 'CALL%' ORDER BY n \gexec
RESET search_path;
\set ECHO all
DROP EVENT TRIGGER regress_oban_start;
DROP EVENT TRIGGER regress_oban_end;
DROP CAST (ex14.oban_job_state AS text);
DROP FUNCTION evil.captured;
SELECT tools.states('ex14');

-- Callables that change the session: the call goes on with the table that it began with, and as
-- the role that there is by then.
DROP ROLE IF EXISTS regress_oban_a, regress_oban_b;
CREATE ROLE regress_oban_a;
CREATE ROLE regress_oban_b ROLE regress_oban_a;
GRANT USAGE ON SCHEMA ex14, py TO regress_oban_a, regress_oban_b;
GRANT SELECT, UPDATE ON ex14.oban_jobs, py.oban_jobs TO regress_oban_a;
CREATE FUNCTION tools.sets(job jsonb, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	name text;
	value text;
BEGIN
	FOR name, value IN SELECT * FROM jsonb_each_text(context) LOOP
		PERFORM set_config(name, value, true);
	END LOOP;
	RETURN '{"priority": 5, "tags": ["set"]}';
END $$;
CALL tools.fill(3, 'py');
CALL tools.make_jobs('ex14');
SET oban_manage.prefix = 'ex14';
SET ROLE regress_oban_a;
SELECT id, priority, prefix FROM oban_update_many_jobs_with('{1,2,3}', 'tools.sets',
	'{"oban_manage.prefix": "py", "search_path": "evil", "DateStyle": "SQL"}');
SELECT code, message FROM tools.try('SELECT oban_update_many_jobs_with(''{1,2,3}'', ''tools.sets'',
	''{"role": "regress_oban_b"}'')');
SELECT code, message FROM tools.try('SELECT oban_update_many_jobs_with(''{1,2,3}'', ''tools.sets'',
	''{"session_replication_role": "replica"}'')');
RESET ROLE;
RESET oban_manage.prefix;
SELECT DISTINCT priority FROM py.oban_jobs;

DROP TABLE pg_temp.oban_jobs, pg_temp.pg_class, pg_temp.pg_enum, pg_temp.first_look;
DROP SCHEMA tools, ex9, ex11, ex14, py, twin CASCADE;
-- In parts, for each object takes a lock.
\set ECHO none
SELECT format('DROP FUNCTION %s CASCADE', string_agg(f::text, ', '))
FROM (SELECT oid::regprocedure, row_number() OVER () / 300 FROM pg_proc
	WHERE pronamespace = 'evil'::regnamespace) p(f, part)
GROUP BY part \gexec
\set ECHO all
DROP SCHEMA evil CASCADE;
DROP ROLE regress_oban_a, regress_oban_b;
