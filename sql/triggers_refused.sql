-- What trigger functions refuse: SQLSTATE and message of each, whether the error names the trigger,
-- and that nothing happens. It fails without any one of the checks, and without the context.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
DROP ROLE IF EXISTS regress_oban_app;
CREATE ROLE regress_oban_app;
CREATE TABLE tools.app (gone integer, job bigint, "Job" integer, "my job" bigint[],
	"old.job" bigint,
	"OLD." bigint, n numeric, t text, u uuid, o oid, j jsonb, b boolean, ts text[], ns numeric[],
	made bigint GENERATED ALWAYS AS (job + 1) STORED);
ALTER TABLE tools.app DROP gone;
CREATE VIEW tools.app_view AS SELECT job, t FROM tools.app;
CREATE FUNCTION tools.tag(job oban_job)
	RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb '{"tags": []}'$$;
CREATE FUNCTION pg_temp.tag(job oban_job)
	RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb '{"tags": []}'$$;
CREATE FUNCTION tools.two(job oban_job) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb '{}'$$;
CREATE FUNCTION tools.two(job jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb '{}'$$;
CREATE FUNCTION tools.wrong(job text) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb '{}'$$;
CREATE FUNCTION tools.bad_result(job oban_job)
	RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb '{"x": 1}'$$;
CREATE FUNCTION tools.fails(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS
	$$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'AB001'; END$$;
CREATE PROCEDURE tools.a_procedure(job oban_job) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION tools.secret(job oban_job) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb '{}'$$;
REVOKE EXECUTE ON FUNCTION tools.secret FROM PUBLIC;
GRANT ALL ON tools.app TO regress_oban_app;
GRANT USAGE ON SCHEMA py TO regress_oban_app;
GRANT ALL ON py.oban_jobs TO regress_oban_app;

-- How each trigger is refused when it fires, for a row that names a job; does the error name it,
-- and is all as it was?
CREATE FUNCTION tools.fired(definition text, statement text, OUT code text, OUT message text,
	OUT rest text, OUT named boolean, OUT unchanged boolean) LANGUAGE plpgsql AS $$
DECLARE
	r record;
	rows text;
	jobs jsonb;
BEGIN
	DELETE FROM tools.app;
	INSERT INTO tools.app (job, "Job", "my job", t) VALUES (1, 2, '{3,4}', '1');
	CALL tools.make_jobs('py');
	jobs := tools.rows('py');
	rows := (SELECT string_agg(a::text, ' ') FROM tools.app a);
	EXECUTE 'CREATE TRIGGER the_trigger ' || definition;
	r := tools.try(statement);
	EXECUTE 'DROP TRIGGER the_trigger ON tools.'
		|| CASE WHEN definition ~ 'app_view' THEN 'app_view' ELSE 'app' END;
	code := r.code;
	message := r.message;
	rest := concat_ws(' / ', r.detail, r.hint);
	named := concat(r.message, r.context) ~ 'trigger "the_trigger"';
	unchanged := rows IS NOT DISTINCT FROM (SELECT string_agg(a::text, ' ') FROM tools.app a)
		AND jobs = tools.rows('py');
END $$;
\set insert '\'INSERT INTO tools.app (job, "Job", t) VALUES (5, 6, 5) RETURNING 1\''
\set update '\'UPDATE tools.app SET job = 5, "Job" = 2, "old.job" = 1, "OLD." = 8 RETURNING 1\''
\set delete '\'DELETE FROM tools.app RETURNING 1\''
\set ECHO all
\pset format unaligned

-- Not as a trigger.
SELECT f, code, message FROM unnest('{oban_cancel_job,oban_retry_job,oban_delete_job,
	oban_update_job,oban_update_job_with,oban_guard_job}'::text[]) WITH ORDINALITY u(f, n),
	tools.try(format('SELECT %s()', f)) ORDER BY n;

-- TRUNCATE; statement triggers without a transition table, or without the one that is needed.
SELECT r.* FROM tools.fired('BEFORE TRUNCATE ON tools.app
	EXECUTE FUNCTION oban_cancel_job(''job'', ''py'')', 'TRUNCATE tools.app') r;
SELECT r.* FROM tools.fired('AFTER TRUNCATE ON tools.app
	EXECUTE FUNCTION oban_update_job(''OLD.job'', ''{}'', ''py'')', 'TRUNCATE tools.app') r;
SELECT f, d.time, r.code, r.message, r.rest, r.named, r.unchanged
FROM (VALUES ('oban_cancel_job(''job'', ''py'')'), ('oban_retry_job(''job'', ''py'')'),
		('oban_delete_job(''job'', ''py'')'), ('oban_update_job(''job'', ''{}'', ''py'')'),
		('oban_update_job_with(''job'', ''tools.tag'', ''py'')')) f(f),
	(VALUES ('BEFORE DELETE', :delete), ('AFTER DELETE', :delete), ('BEFORE INSERT', :insert),
		('AFTER UPDATE', :update)) d(time, statement),
	tools.fired(format('%s ON tools.app FOR EACH STATEMENT EXECUTE FUNCTION %s', d.time, f),
	statement) r
ORDER BY f COLLATE "C", time;
SELECT d.time, c, r.code, r.message, r.rest, r.named, r.unchanged
FROM (VALUES ('AFTER UPDATE', 'OLD TABLE AS o', 'job', :update),
		('AFTER UPDATE', 'OLD TABLE AS o', 'NEW.job', :update),
		('AFTER UPDATE', 'NEW TABLE AS n', 'OLD.job', :update),
		('AFTER INSERT', 'NEW TABLE AS n', 'OLD.job', :insert),
		('AFTER DELETE', 'OLD TABLE AS o', 'NEW.job', :delete)) d(time, tables, c, statement),
	tools.fired(format('%s ON tools.app REFERENCING %s FOR EACH STATEMENT
		EXECUTE FUNCTION oban_cancel_job(%L, ''py'')', d.time, tables, c), statement) r;

-- A version of the row that there is not.
SELECT d.time, c, r.*
FROM (VALUES ('BEFORE INSERT', 'tools.app', 'OLD.job', :insert),
		('AFTER INSERT', 'tools.app', 'old.job', :insert),
		('BEFORE DELETE', 'tools.app', 'NEW.job', :delete),
		('AFTER DELETE', 'tools.app', 'new.job', :delete),
		('INSTEAD OF INSERT', 'tools.app_view', 'OLD.job',
			'INSERT INTO tools.app_view VALUES (1) RETURNING 1'),
		('INSTEAD OF DELETE', 'tools.app_view', 'NEW.job',
			'DELETE FROM tools.app_view RETURNING 1')) d(time, target, c, statement),
	tools.fired(format('%s ON %s FOR EACH ROW EXECUTE FUNCTION oban_cancel_job(%L, ''py'')', d.time,
		target, c), statement) r;
-- A trigger for several events is refused for the one that does not fit only.
SELECT code, message FROM tools.fired('AFTER INSERT OR UPDATE OR DELETE ON tools.app FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job(''OLD.job'', ''py'')', :insert) r;
SELECT code, message FROM tools.fired('AFTER INSERT OR UPDATE OR DELETE ON tools.app FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job(''OLD.job'', ''py'')', :update) r;

-- Columns that are not there: names are exact.
SELECT c AS column, r.* FROM unnest(ARRAY['no', 'JOB', 'jOB', '"Job"', 'job ', ' job', '', 'NEW.',
	'NEW. job',
		'tools.app.job', 'app.job', 'gone', '........pg.dropped.1........', 'ctid', 'tableoid',
		'xmin',
		'NEW.NEW.job', 'my', repeat('x', 100)]) WITH ORDINALITY c(c, n),
	tools.fired(format('AFTER UPDATE ON tools.app FOR EACH ROW
		EXECUTE FUNCTION oban_cancel_job(%L, ''py'')', c), :update) r ORDER BY n;
-- Odd names that are there.
SELECT c AS column, r.code, tools.states('py')
FROM unnest('{Job,my job,NEW.old.job,NEW.OLD.}'::text[])
	WITH ORDINALITY c(c, n),
	tools.fired(format('AFTER UPDATE ON tools.app FOR EACH ROW
		EXECUTE FUNCTION oban_cancel_job(%L, ''py'')', c), :update) r ORDER BY n;

-- Columns of other types, also when they are NULL.
SELECT c AS column, r.* FROM unnest('{n,t,u,o,j,b,ts,ns}'::text[]) WITH ORDINALITY c(c, n),
	tools.fired(format('BEFORE UPDATE ON tools.app FOR EACH ROW
		EXECUTE FUNCTION oban_delete_job(%L, ''py'')', c), :update) r ORDER BY n;
-- A generated column has a value after, and before only where it is the old one.
SELECT c AS column, d.time, r.code, r.message, r.rest, tools.states('py')
FROM unnest('{made,OLD.made}'::text[]) c, unnest('{BEFORE,AFTER}'::text[]) d(time),
	tools.fired(format('%s UPDATE ON tools.app FOR EACH ROW
		EXECUTE FUNCTION oban_retry_job(%L, ''py'')', d.time, c), :update) r;

-- A virtual one, which PostgreSQL 18 has, has none in any trigger.
DO $$
BEGIN
	EXECUTE 'ALTER TABLE tools.app ADD COLUMN virtual bigint GENERATED ALWAYS AS (job + 1) '
		|| CASE WHEN current_setting('server_version_num')::integer < 180000 THEN 'STORED'
			ELSE 'VIRTUAL' END;
END $$;
SELECT c AS column, d.time, r.code = CASE
	WHEN current_setting('server_version_num')::integer < 180000 AND (c, time) <> ('virtual', 'BEFORE')
		THEN '00000' ELSE '39P01' END AS as_it_should_be
FROM unnest('{virtual,OLD.virtual}'::text[]) c, unnest('{BEFORE,AFTER}'::text[]) d(time),
	tools.fired(format('%s UPDATE ON tools.app FOR EACH ROW
		EXECUTE FUNCTION oban_retry_job(%L, ''py'')', d.time, c), :update) r;
ALTER TABLE tools.app DROP COLUMN virtual;

-- The number of arguments.
SELECT f, r.* FROM unnest(ARRAY['oban_cancel_job()', 'oban_cancel_job(''job'', ''py'', ''x'')',
		'oban_retry_job()', 'oban_retry_job(''job'', ''py'', ''x'')',
		'oban_delete_job()', 'oban_delete_job(''job'', ''py'', ''x'')',
		'oban_update_job()', 'oban_update_job(''job'')',
		'oban_update_job(''job'', ''{}'', ''py'', ''x'')',
		'oban_update_job_with()', 'oban_update_job_with(''job'')',
		'oban_update_job_with(''job'', ''tools.tag'', ''py'', ''x'')']) WITH ORDINALITY f(f, n),
	tools.fired(format('AFTER UPDATE ON tools.app FOR EACH ROW EXECUTE FUNCTION %s', f), :update) r
ORDER BY n;

-- Changes that are refused, and the prefix.
SELECT c AS changes, r.* FROM unnest(ARRAY['', 'priority', '[]', 'null', '{"prio": 1}',
	'{"priority": 10}',
		'{"schedule_in": "soon"}', '{"max_attempts": 1}']) WITH ORDINALITY c(c, n),
	tools.fired(format('AFTER UPDATE ON tools.app FOR EACH ROW
		EXECUTE FUNCTION oban_update_job(''my job'', %L, ''py'')', c), :update) r ORDER BY n;
SELECT p AS prefix, r.* FROM unnest('{nowhere,tools}'::text[]) WITH ORDINALITY c(p, n),
	tools.fired(format('AFTER UPDATE ON tools.app FOR EACH ROW
		EXECUTE FUNCTION oban_retry_job(''job'', %L)', p), :update) r ORDER BY n;

-- Callables that are refused, that return what is refused, that fail.
SELECT c AS callable, r.* FROM unnest(ARRAY['', 'no_such', 'tag(oban_job)', '1', '"tools.tag"',
		'pg_temp.tag', '"pg_temp".tag(oban_job)',
		'tools."t(a"(oban_job)', 'tools."t(a', 'tools.no_such', 'tools.no_such(oban_job)',
		'tools.two', 'tools.tag(', 'tools.tag()', 'tools.tag(jsonb)', 'tools.tag(no_type)',
		'tools.a_procedure', 'tools.wrong', 'tools.wrong(text)', '-', 'tools.bad_result',
		'tools.fails'])
		WITH ORDINALITY c(c, n),
	tools.fired(format('AFTER UPDATE ON tools.app FOR EACH ROW
		EXECUTE FUNCTION oban_update_job_with(''job'', %L, ''py'')', c), :update) r ORDER BY n;
-- In the schema of temporary objects, which is each session's own, however it is named
SELECT n, r.code, replace(r.message, c, '…') AS message, r.unchanged
FROM unnest(ARRAY[current_database() || '.pg_temp.tag', pg_my_temp_schema()::regnamespace || '.tag',
		current_database() || '.' || pg_my_temp_schema()::regnamespace || '.tag(oban_job)'])
		WITH ORDINALITY c(c, n),
	tools.fired(format('AFTER UPDATE ON tools.app FOR EACH ROW
		EXECUTE FUNCTION oban_update_job_with(''job'', %L, ''py'')', c), :update) r ORDER BY n;
-- Whoever fires it needs EXECUTE on the callable, and rights on the jobs.
CREATE TRIGGER the_trigger AFTER UPDATE ON tools.app FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.secret', 'py');
SET ROLE regress_oban_app;
SELECT code, message FROM tools.try('UPDATE tools.app SET job = 5 RETURNING 1');
RESET ROLE;
GRANT EXECUTE ON FUNCTION tools.secret TO regress_oban_app;
REVOKE SELECT ON py.oban_jobs FROM regress_oban_app;
SET ROLE regress_oban_app;
SELECT code, message FROM tools.try('UPDATE tools.app SET job = 5 RETURNING 1');
RESET ROLE;
DROP TRIGGER the_trigger ON tools.app;

-- The context of an error says what went wrong where, as psql shows it.
CREATE TRIGGER the_trigger AFTER UPDATE ON tools.app FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('my job', 'tools.fails', 'py');
UPDATE tools.app SET job = 5;
DROP TRIGGER the_trigger ON tools.app;
CREATE TRIGGER the_trigger AFTER UPDATE ON tools.app FOR EACH ROW
	EXECUTE FUNCTION oban_update_job('job', '{"queue": ""}', 'py');
UPDATE tools.app SET job = 5;
DROP TRIGGER the_trigger ON tools.app;
ALTER TABLE py.oban_jobs ADD CONSTRAINT no_vip CHECK (queue <> 'vip');
CREATE TRIGGER the_trigger AFTER UPDATE ON tools.app FOR EACH ROW
	EXECUTE FUNCTION oban_update_job('job', '{"queue": "vip"}', 'py');
SELECT code, message, context FROM tools.try('UPDATE tools.app SET job = 5 RETURNING 1');

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
DROP ROLE regress_oban_app;
