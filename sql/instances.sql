-- Job instances: rows of an oban_jobs table, of a partition of one, and oban_job are taken; a
-- record of anything else is refused, for its id may be that of something else.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
CALL tools.make_jobs('ex9', 'ex14', 'py');

-- Whole rows in the forms that SQL has for them.
SELECT oban_cancel_job(oban_jobs) FROM ex14.oban_jobs WHERE id = 1;
SELECT oban_cancel_job(j.*) FROM ex14.oban_jobs j WHERE id = 2;
SELECT oban_cancel_job(ROW(j.*)::ex14.oban_jobs) FROM ex14.oban_jobs j WHERE id = 3;
DO $$
DECLARE
	job ex14.oban_jobs;
	jobs ex14.oban_jobs[];
BEGIN
	SELECT * INTO job FROM ex14.oban_jobs WHERE id = 4;
	RAISE INFO '%', oban_cancel_job(job);
	jobs := ARRAY(SELECT j FROM ex14.oban_jobs j WHERE id IN (5, 6) ORDER BY id);
	RAISE INFO '%', (SELECT array_agg(oban_retry_job(j)) FROM unnest(jobs) j);
END $$;
WITH stopped AS (UPDATE py.oban_jobs j SET state = 'retryable' WHERE id = 3 RETURNING j)
SELECT oban_cancel_job(j) FROM stopped;
-- A row variable of a whole-row subquery over one table keeps its type.
SELECT count(*) FILTER (WHERE oban_cancel_job(j)) FROM (SELECT j FROM py.oban_jobs j) s;
SELECT tools.states('ex14');
SELECT tools.states('py');

-- An oban_job, from any function, and an anonymous record of exactly its columns.
SELECT oban_retry_job(j) FROM oban_get_job(1, 'py') j;
SELECT oban_retry_job(j) FROM (SELECT * FROM oban_get_job(2, 'py')) j;
SELECT u.id, u.priority FROM (SELECT * FROM oban_get_job(2, 'py')) j,
	oban_update_job(j, '{"priority": 7}') u;
SELECT oban_cancel_job(u) FROM oban_update_many_jobs('{1,2}', '{"priority": 3}', 'py') u;
CREATE DOMAIN tools.job AS oban_job;
SELECT oban_retry_job(oban_get_job(1, 'py')::tools.job);
SELECT tools.states('py');

-- A row of a table of its own kind: more and dropped columns, in a schema of an odd name.
CREATE SCHEMA "Odd schema";
CREATE TABLE "Odd schema".oban_jobs (extra text, LIKE ex9.oban_jobs);
ALTER TABLE "Odd schema".oban_jobs ADD more integer DEFAULT 5, DROP extra;
INSERT INTO "Odd schema".oban_jobs SELECT * FROM ex9.oban_jobs WHERE id = 1;
SELECT oban_cancel_job(j), j.more FROM "Odd schema".oban_jobs j;
SELECT u.prefix, u.state FROM "Odd schema".oban_jobs j, oban_update_job(j, '{"priority": 1}') u;

-- Partitions: a row of a part is a job of the whole, also when the part is named otherwise or lies
-- in another schema.
CREATE SCHEMA parted;
CREATE SCHEMA parts;
CREATE TABLE parted.oban_jobs (LIKE ex14.oban_jobs INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
	PRIMARY KEY (id)) PARTITION BY HASH (id);
CREATE TABLE parts.even PARTITION OF parted.oban_jobs FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parts.oban_jobs PARTITION OF parted.oban_jobs FOR VALUES WITH (MODULUS 2, REMAINDER 1)
	PARTITION BY HASH (id);
CREATE TABLE parts.deep PARTITION OF parts.oban_jobs FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO parted.oban_jobs (id, worker) SELECT g, 'W' FROM generate_series(1, 20) g;
SELECT (SELECT count(*) > 0 FROM parts.even) AS even, (SELECT count(*) > 0 FROM parts.deep) AS deep;
SELECT count(*) FILTER (WHERE oban_cancel_job(j)) = count(*) AS all FROM parts.even j;
SELECT count(*) FILTER (WHERE oban_cancel_job(j)) = count(*) AS all FROM parts.deep j;
SELECT bool_and(u.prefix = 'parted')
FROM parts.oban_jobs j, oban_update_job(j, '{"priority": 2}') u;
SELECT count(*) FILTER (WHERE oban_delete_job(j)) FROM parted.oban_jobs j;

-- Refused: other tables, views, types, and anonymous records, with a clear error.
\pset format unaligned
\pset tuples_only on
CREATE TABLE tools.users AS SELECT 1::bigint AS id, 'executing' AS state;
CREATE TABLE tools.oban_jobs_old (LIKE ex14.oban_jobs);
INSERT INTO tools.oban_jobs_old SELECT * FROM ex14.oban_jobs WHERE id = 7;
CREATE VIEW tools.jobs AS SELECT * FROM ex14.oban_jobs;
CREATE TYPE tools.thing AS (id bigint);
SELECT q, tools.refusal('SELECT ' || q) FROM unnest(ARRAY[
	'oban_cancel_job(u) FROM tools.users u', 'oban_cancel_job(j) FROM tools.oban_jobs_old j',
	'oban_cancel_job(j) FROM tools.jobs j WHERE id = 7', 'oban_cancel_job(ROW(7)::tools.thing)',
	'oban_cancel_job(ROW(7))', 'oban_cancel_job(ROW(7::bigint, ''ex14''))',
	'oban_retry_job(j) FROM (SELECT * FROM ex14.oban_jobs WHERE id = 7) j',
	'oban_delete_job(j) FROM (SELECT 7::bigint AS id) j',
	'oban_retry_job(j) FROM (SELECT g.*, 1 AS extra FROM oban_get_job(7, ''ex14'') g) j',
	'oban_retry_job(j) FROM (SELECT id, queue, state FROM oban_get_job(7, ''ex14'') g) j',
	'oban_update_job(u, ''{"priority": 1}'') FROM tools.users u',
	'oban_update_job(ROW(7), ''{"priority": 1}'')'])
	WITH ORDINALITY u(q, n) ORDER BY n;
DO $$
DECLARE
	r record;
BEGIN
	SELECT * INTO r FROM ex14.oban_jobs WHERE id = 7;
	PERFORM oban_retry_job(r);
EXCEPTION WHEN datatype_mismatch THEN
	RAISE INFO 'refused: %', SQLERRM;
END $$;
\pset format aligned
\pset tuples_only off
-- The same columns in another type than oban_job's are not exactly its columns.
SELECT code, message FROM tools.try($$SELECT oban_retry_job(j) FROM (
	SELECT id, state, queue, worker, attempt, max_attempts, priority, args, meta, tags, errors,
		attempted_by, inserted_at, scheduled_at, attempted_at, completed_at, cancelled_at,
		discarded_at::text, prefix
	FROM oban_get_job(7, 'ex14')) j$$);
SELECT tools.states('ex14');

-- Without an id there is nothing to do, whatever the prefix.
SELECT oban_cancel_job(j), oban_retry_job(j), oban_delete_job(j), oban_update_job(j, '{"priority": 1}')
FROM jsonb_populate_record(NULL::oban_job, '{"state": "available", "prefix": "nowhere"}') j;
SELECT oban_cancel_job(jsonb_populate_record(NULL::ex14.oban_jobs, '{}')),
	oban_update_job_with(jsonb_populate_record(NULL::oban_job, '{"prefix": "nowhere"}'),
		'jsonb_concat', '{}');

-- A copy whose table was dropped, or made anew, in the meantime.
CREATE TABLE tools.kept AS SELECT oban_get_job(1, 'ex9') AS job;
DROP TABLE ex9.oban_jobs CASCADE;
SELECT oban_cancel_job(job) FROM tools.kept;
DROP SCHEMA ex9 CASCADE;
SELECT oban_cancel_job(job) FROM tools.kept;

-- Rows that are no job: an id that is no number; a type that is like oban_job but for a name, a type
CREATE SCHEMA odd;
CALL tools.make_jobs('ex14');
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

DROP SCHEMA tools, ex11, ex14, py, parted, parts, "Odd schema", odd CASCADE;
