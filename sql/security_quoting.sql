-- A schema whose name is full of what must be quoted, with either kind of literals: each call does
-- there what it does in another schema. (The procedures, which commit, at the end.)
-- Seen to fail with the schema as it is between quotes, in the statements.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\set ECHO none
\set schema 'o\'b\\x"$1 %s'
\set version 14
\i :elixir
\set prefix :schema
\set entry_points :abs_srcdir '/fixtures/entry_points.sql'
\i :entry_points
\set ECHO none
\pset null -
CREATE TABLE tools.names AS SELECT :'prefix' AS odd;
CREATE FUNCTION tools.rows_of(prefix text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE format('SELECT string_agg(j::text, '' '' ORDER BY id) FROM %I.oban_jobs j', prefix) INTO result;
	RETURN result;
END $$;
-- Each call, in that schema or in another one, and what it did to the rows.
CREATE FUNCTION tools.calls(prefix text) RETURNS TABLE (n integer, code text, rows text)
LANGUAGE plpgsql AS $$
DECLARE
	call text;
BEGIN
	FOR n, call IN SELECT e.n, replace(replace(replace(replace(replace(e.call, quote_literal(odd),
				quote_literal(prefix)), quote_ident(odd), quote_ident(prefix)), 'IDS', '4,5,99'),
				'ID', '4'), 'CHANGES', '{"priority": 3, "schedule_in": 60}')
			FROM tools.entry e, tools.names WHERE e.verb <> 'guard' AND e.call !~ '^INSERT|give_row' LOOP
		BEGIN
			EXECUTE call;
			rows := tools.rows_of(prefix);
			RAISE SQLSTATE 'P0099';
		EXCEPTION
			WHEN SQLSTATE 'P0099' THEN code := '00000';
			WHEN OTHERS THEN code := SQLSTATE;
		END;
		RETURN NEXT;
	END LOOP;
END $$;
CREATE FUNCTION tools.compare(OUT many boolean, OUT codes text, OUT change bigint, OUT differ bigint)
LANGUAGE sql AS $$
	SELECT count(*) >= 40, string_agg(DISTINCT o.code, ', '),
		count(*) FILTER (WHERE o.rows <> tools.rows_of('ex14')),
		count(*) FILTER (WHERE (o.code, o.rows) IS DISTINCT FROM (x.code, x.rows))
	FROM tools.names, tools.calls(names.odd) o JOIN tools.calls('ex14') x USING (n)
$$;
CALL tools.make_jobs('ex14');
DO $$
BEGIN
	EXECUTE format('INSERT INTO %1$I.oban_jobs SELECT * FROM jsonb_populate_recordset(NULL::%1$I.oban_jobs,
		(SELECT jsonb_agg(j) FROM ex14.oban_jobs j))', (SELECT odd FROM tools.names));
END $$;
\set ECHO all
SELECT odd FROM tools.names;
BEGIN;
SELECT * FROM tools.compare();
-- PostgreSQL 19 no longer has strings that do not conform to the standard.
SELECT count(set_config(name, 'off', true)) IN (0, 2) AS done FROM pg_settings
WHERE name IN ('standard_conforming_strings', 'escape_string_warning')
	AND current_setting('server_version_num')::integer < 190000;
SELECT * FROM tools.compare();
ROLLBACK;
-- Where the name is told
SELECT (oban_get_job(4, :'prefix')).prefix;
SELECT reason FROM oban_manage_jobs('cancel', '{99}', prefix => :'prefix');
SELECT oban_update_job(99, '{}', :'prefix');
SELECT replace(replace(call, 'IDS', '4,5,99'), 'CHANGES', '{"priority": 3}') FROM tools.entry
WHERE call LIKE 'CALL%' ORDER BY n \gexec

DROP SCHEMA tools, ex9, ex11, ex14, py, :"prefix" CASCADE;
