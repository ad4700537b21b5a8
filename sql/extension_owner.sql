-- Whose the extension is, and its objects, when the owner of a database creates it: what the owner may do
-- with them, what only a superuser may, and what the owner does instead.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set python :abs_srcdir '/fixtures/python.sql'
\set ECHO none
\i :helpers
\pset null NULL
-- PostgreSQL's own messages differ between the versions.
\set VERBOSITY sqlstate

DROP EXTENSION oban_manage;
SELECT current_database() AS here \gset
CREATE ROLE regress_oban_owner;
CREATE ROLE regress_oban_clerk;
GRANT CREATE ON DATABASE :"here" TO regress_oban_owner;
SET ROLE regress_oban_owner;
CREATE SCHEMA theirs;
CREATE SCHEMA other;
CREATE EXTENSION oban_manage SCHEMA theirs;

-- The extension is theirs. Its type and its functions are the first superuser's, whose OID is 10.
SELECT extowner::regrole FROM pg_extension WHERE extname = 'oban_manage';
SELECT proowner = 10 AS first_superuser, count(*) > 40 AS all
FROM pg_proc WHERE pronamespace = 'theirs'::regnamespace GROUP BY 1;
SELECT typowner = 10 AS first_superuser FROM pg_type WHERE oid = 'theirs.oban_job'::regtype;

-- What they may: what an application needs, and a dump of it
\set schema theirs
\set ECHO none
\i :python
\set ECHO all
INSERT INTO theirs.oban_jobs (id, state, worker) OVERRIDING SYSTEM VALUE
VALUES (1, 'available', 'W'), (2, 'available', 'W');
CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON theirs.oban_jobs
	FOR EACH ROW EXECUTE FUNCTION theirs.oban_guard_job();
CREATE TABLE theirs.kept (job theirs.oban_job);
INSERT INTO theirs.kept SELECT theirs.oban_get_job(1, 'theirs');
SELECT theirs.oban_cancel_job(job) FROM theirs.kept;
COMMENT ON EXTENSION oban_manage IS 'theirs';
SET client_min_messages = error;
ALTER EXTENSION oban_manage UPDATE;
RESET client_min_messages;

-- What only a superuser may
ALTER EXTENSION oban_manage SET SCHEMA other;
ALTER FUNCTION theirs.oban_job_cancelled PARALLEL RESTRICTED;
ALTER FUNCTION theirs.oban_job_cancelled COST 1000;
COMMENT ON FUNCTION theirs.oban_job_cancelled IS 'theirs';
ALTER TYPE theirs.oban_job ADD ATTRIBUTE note text;
DROP FUNCTION theirs.oban_delete_many_jobs;
-- WARNING: no privileges could be granted, or revoked
GRANT EXECUTE ON FUNCTION theirs.oban_job_cancelled TO regress_oban_clerk;
REVOKE EXECUTE ON FUNCTION theirs.oban_job_cancelled FROM PUBLIC;
SELECT proacl::text LIKE '%regress_oban%' AS granted, proacl::text LIKE '{=X/%' AS to_all FROM pg_proc
WHERE oid = 'theirs.oban_job_cancelled'::regproc;

-- Instead of another marking: a function of theirs that has it. Not one in SQL, which would be inlined.
CREATE FUNCTION theirs.is_cancelled(job_id bigint) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS 'BEGIN RETURN theirs.oban_job_cancelled(job_id, ''theirs''); END';
SELECT theirs.is_cancelled(1), theirs.is_cancelled(3);

-- Instead of grants on the function: a function of theirs with their rights, and none on the table or on the
-- schema of the extension.
CREATE FUNCTION other.cancel(job_id bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER
BEGIN ATOMIC SELECT theirs.oban_cancel_job(job_id, 'theirs'); END;
REVOKE EXECUTE ON FUNCTION other.cancel FROM PUBLIC;
GRANT USAGE ON SCHEMA other TO regress_oban_clerk;
GRANT EXECUTE ON FUNCTION other.cancel TO regress_oban_clerk;
RESET ROLE;
SET ROLE regress_oban_clerk;
SELECT theirs.oban_cancel_job(2, 'theirs');
SELECT other.cancel(2);

-- Instead of the move: the extension made again, in the other schema, with all that was built upon it. The
-- column of jobs is kept as JSON meanwhile.
RESET ROLE;
SET ROLE regress_oban_owner;
DROP EXTENSION oban_manage;
BEGIN;
ALTER TABLE theirs.kept ALTER job TYPE jsonb USING to_jsonb(job);
DROP TRIGGER oban_guard ON theirs.oban_jobs;
DROP FUNCTION other.cancel;
DROP EXTENSION oban_manage;
CREATE EXTENSION oban_manage SCHEMA other;
CREATE FUNCTION other.oban_job(jsonb) RETURNS other.oban_job LANGUAGE sql STABLE
RETURN jsonb_populate_record(NULL::other.oban_job, $1);
ALTER TABLE theirs.kept ALTER job TYPE other.oban_job USING other.oban_job(job);
CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON theirs.oban_jobs
	FOR EACH ROW EXECUTE FUNCTION other.oban_guard_job();
COMMIT;
SELECT other.oban_retry_job(job) FROM theirs.kept;
SELECT id, state FROM theirs.oban_jobs ORDER BY id;

-- A superuser moves it back.
RESET ROLE;
ALTER EXTENSION oban_manage SET SCHEMA theirs;
ALTER FUNCTION theirs.oban_job_cancelled PARALLEL RESTRICTED;
REVOKE EXECUTE ON FUNCTION theirs.oban_job_cancelled FROM PUBLIC;
GRANT EXECUTE ON FUNCTION theirs.oban_job_cancelled TO regress_oban_clerk;
SELECT proparallel, has_function_privilege('regress_oban_clerk', oid, 'EXECUTE') AS clerk,
	has_function_privilege('regress_oban_owner', oid, 'EXECUTE') AS owner
FROM pg_proc WHERE oid = 'theirs.oban_job_cancelled'::regproc;

SET client_min_messages = warning;
DROP SCHEMA theirs, other, tools, ex9, ex11, ex14, py CASCADE;
DROP OWNED BY regress_oban_owner, regress_oban_clerk;
DROP ROLE regress_oban_owner, regress_oban_clerk;
-- The other tests want the extension in public.
CREATE EXTENSION oban_manage SCHEMA public;
