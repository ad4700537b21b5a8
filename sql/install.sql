-- The extension's objects, as installed; its schemas; coming and going without touching the jobs.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

-- Every function: what it takes and gives, and how it is marked.
SELECT format('%s(%s)', p.proname, pg_get_function_arguments(p.oid)) AS function,
	pg_get_function_result(p.oid) AS result,
	CASE provolatile WHEN 'v' THEN 'volatile' WHEN 's' THEN 'stable' ELSE 'immutable' END
		AS volatility,
	CASE proparallel WHEN 'u' THEN 'unsafe' WHEN 's' THEN 'safe' ELSE 'restricted' END AS parallel,
	proisstrict AS strict
FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'oban_manage')
ORDER BY p.proname, pg_get_function_arguments(p.oid) COLLATE "C";
-- C without SET clauses, as the caller, to be had by all.
SELECT l.lanname, prosecdef AS security_definer, proconfig AS settings, proacl AS acl, probin
FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
	JOIN pg_language l ON l.oid = p.prolang
WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'oban_manage')
GROUP BY 1, 2, 3, 4, 5;
-- Nothing but functions and the type, and a comment on each of them and on the extension.
SELECT d.classid::regclass AS catalog, count(*) > 0 AS some,
	count(c.description) = count(*) AS commented
FROM pg_depend d LEFT JOIN pg_description c
	ON c.classoid = d.classid AND c.objoid = d.objid AND c.objsubid = 0
WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'oban_manage')
	AND (d.classid, d.objid) <> ('pg_type'::regclass, 'oban_job[]'::regtype)
GROUP BY 1 ORDER BY 1;
SELECT obj_description('oban_job'::regtype) IS NOT NULL AS type_commented;
SELECT obj_description(oid) IS NOT NULL AS commented, extversion, extrelocatable, extconfig
FROM pg_extension WHERE extname = 'oban_manage';
SELECT relocatable, superuser, trusted, requires, comment IS NOT NULL AS commented
FROM pg_available_extension_versions WHERE name = 'oban_manage' AND version = '1.0';

-- An untyped parameter cannot choose between the forms of a name; the _many_jobs names can. (Details
-- and hints of PostgreSQL's own errors differ between the versions.)
\set VERBOSITY terse
PREPARE ambiguous AS SELECT oban_cancel_job($1);
\set VERBOSITY default
PREPARE many AS SELECT oban_cancel_many_jobs($1, $2), oban_retry_many_jobs($1, $2),
	oban_delete_many_jobs($1, $2);
PREPARE update_many AS SELECT oban_update_many_jobs($1, $2, $3);
PREPARE update_many_with AS SELECT oban_update_many_jobs_with($1, $2, $3, $4);
SELECT name, parameter_types FROM pg_prepared_statements ORDER BY name;
DEALLOCATE ALL;

-- Relocated: the type goes along, and everything works from where it is.
CALL tools.make_jobs('ex14', 'py');
SELECT oban_cancel_job(1, 'py'), (oban_update_job(1, '{"priority": 1}', 'py')).priority;
CREATE FUNCTION tools.tag(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('tags', job.tags || (context ->> 'op'))$$;
CREATE TABLE tools.app (job bigint);
CREATE TRIGGER tag AFTER INSERT ON tools.app FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.tag', 'py');
CREATE SCHEMA "Some where";
ALTER EXTENSION oban_manage SET SCHEMA "Some where";
SELECT "Some where".oban_cancel_job(2, 'py'), "Some where".oban_cancel_many_jobs('{3,4}', 'py'),
	"Some where".oban_retry_job("Some where".oban_get_job(2, 'py')) AS retried;
SELECT id, priority FROM "Some where".oban_update_many_jobs('{2,1}', '{"priority": 3}', 'py');
SELECT pg_typeof("Some where".oban_update_job(1, '{}', 'py'));
-- Callables and triggers too, those that were there and new ones.
SELECT tags FROM "Some where".oban_update_job_with(1, 'tools.tag', '{"op": "call"}', 'py');
INSERT INTO tools.app VALUES (1);
CREATE TRIGGER cancel AFTER DELETE ON tools.app FOR EACH ROW
	EXECUTE FUNCTION "Some where".oban_cancel_job('job', 'py');
DELETE FROM tools.app;
SELECT state, tags FROM py.oban_jobs WHERE id = 1;
\set VERBOSITY terse
SELECT oban_cancel_job(2, 'py');
\set VERBOSITY default
ALTER EXTENSION oban_manage SET SCHEMA public;
SELECT oban_cancel_job(oban_get_job(2, 'py'));
INSERT INTO tools.app VALUES (4);
DELETE FROM tools.app;
SELECT state, tags FROM py.oban_jobs WHERE id = 4;

-- What is built upon it holds it; DROP ... CASCADE takes that along, and leaves the jobs.
CREATE VIEW tools.job AS SELECT oban_get_job(1, 'py') AS job;
CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON py.oban_jobs
	FOR EACH ROW EXECUTE FUNCTION oban_guard_job();
DROP EXTENSION oban_manage;
SELECT tools.rows('ex14') AS ex14, tools.rows('py') AS py \gset
DROP EXTENSION oban_manage CASCADE;
SELECT tools.rows('ex14') = :'ex14' AS ex14_kept, tools.rows('py') = :'py' AS py_kept;
\set VERBOSITY terse
SELECT oban_cancel_job(1, 'py');
\set VERBOSITY default
INSERT INTO tools.app VALUES (1);
SELECT count(*) AS triggers FROM pg_trigger
WHERE tgrelid IN ('tools.app'::regclass, 'py.oban_jobs'::regclass) AND NOT tgisinternal;
SELECT count(*) AS left_behind FROM pg_proc
WHERE proname LIKE 'oban\_%' AND proname <> 'oban_jobs_notify';

-- Into another schema, in the same session; jobs tables made before and after.
CREATE EXTENSION oban_manage SCHEMA "Some where";
CALL tools.make_jobs('ex14');
SELECT "Some where".oban_cancel_many_jobs('{1,2,3}', 'ex14'), tools.states('ex14');
\set ECHO none
\set schema after
\set version 14
\i :elixir
\set ECHO all
CALL tools.make_jobs('after');
SELECT "Some where".oban_cancel_many_jobs('{1,2,3}', 'after'), tools.states('after');
DROP EXTENSION oban_manage;

-- Into a schema that is made for it; rolled back.
BEGIN;
CREATE SCHEMA mine;
CREATE EXTENSION oban_manage SCHEMA mine VERSION '1.0';
SELECT mine.oban_retry_job(5, 'py');
ROLLBACK;
SELECT tools.states('py');

-- Trusted: who may create in the database may create the extension, with no superuser-only object.
SELECT current_database() AS here \gset
DROP ROLE IF EXISTS regress_oban_creator;
CREATE ROLE regress_oban_creator;
GRANT CREATE ON DATABASE :"here" TO regress_oban_creator;
SET ROLE regress_oban_creator;
CREATE SCHEMA theirs;
CREATE EXTENSION oban_manage SCHEMA theirs;
SELECT theirs.oban_cancel_job(NULL::bigint);
SELECT theirs.oban_cancel_job(1, 'py');
-- Its functions are not theirs: nor is it to take them away from all.
REVOKE EXECUTE ON FUNCTION theirs.oban_delete_many_jobs FROM PUBLIC;
SELECT has_function_privilege('public', 'theirs.oban_delete_many_jobs(bigint[],text)', 'EXECUTE');
DROP EXTENSION oban_manage;
DROP SCHEMA theirs;
RESET ROLE;
REVOKE CREATE ON DATABASE :"here" FROM regress_oban_creator;
DROP ROLE regress_oban_creator;

-- The other tests want the extension in public.
CREATE EXTENSION oban_manage SCHEMA public;
SELECT oban_cancel_job(8, 'py');

DROP SCHEMA tools, ex9, ex11, ex14, py, after, "Some where" CASCADE;
