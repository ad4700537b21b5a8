-- The type oban_job: the same columns whatever table stands behind it.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

SELECT a.attname AS name, a.atttypid::regtype AS type
FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid
WHERE t.oid = 'oban_job'::regtype AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;

-- One job of each dialect; times are UTC in the table and instants in oban_job.
CALL tools.make_jobs('ex9', 'ex14', 'py');
SET TimeZone = 'America/New_York';
SET DateStyle = 'ISO, YMD';
\x on
SELECT j.* FROM oban_get_job(6, 'ex9') j;
SELECT j.* FROM oban_get_job(6, 'py') j;
\x off
SELECT p AS prefix,
	to_jsonb(oban_get_job(6, p)) - 'prefix' = to_jsonb(oban_get_job(6, 'ex14')) - 'prefix'
		AS same_as_ex14
FROM unnest('{ex9,ex14,py}'::text[]) p;

-- An update gives what a read gives then.
CREATE TABLE tools.updated AS SELECT p AS prefix, oban_update_job(6, '{"meta": {"x": 1}}', p) AS job
FROM unnest('{ex9,ex14,py}'::text[]) p;
SELECT prefix, job = oban_get_job(6, prefix) AS same, (job).meta FROM tools.updated ORDER BY prefix;

-- NULL meta and tags (Elixir) become {} and an empty array; other NULLs stay.
UPDATE ex14.oban_jobs SET meta = NULL, tags = NULL, attempted_by = NULL, errors = '{}' WHERE id = 1;
SELECT meta, tags, array_ndims(tags) AS dimensions, attempted_by, errors, completed_at
FROM oban_get_job(1, 'ex14');
SELECT meta, tags FROM oban_update_job(1, '{"priority": 1}', 'ex14');
-- To read is not to write: the NULLs stay in the table.
SELECT meta, tags, priority FROM ex14.oban_jobs WHERE id = 1;

-- errors: an array of objects from jsonb[] and from jsonb alike, in order; odd elements and shapes
-- kept.
UPDATE ex14.oban_jobs SET errors = ARRAY['{"attempt": 2}', '{"attempt": 1}', NULL]::jsonb[]
WHERE id = 2;
UPDATE ex14.oban_jobs SET errors = '[4:5]={"{\"attempt\": 2}","[1, \"e\"]"}' WHERE id = 3;
UPDATE py.oban_jobs SET errors = '[{"attempt": 2}, {"attempt": 1}, null]' WHERE id = 2;
SELECT p AS prefix, errors FROM unnest('{ex14,py}'::text[]) p, oban_get_job(2, p);
SELECT errors FROM oban_get_job(3, 'ex14');

-- Times outside of what a timestamptz can print in four digits, and infinite ones.
UPDATE py.oban_jobs SET attempted_at = '-infinity', completed_at = 'infinity',
	scheduled_at = '44000-01-01', inserted_at = '0001-01-01 BC' WHERE id = 5;
SET TimeZone = 'UTC';
SELECT attempted_at, completed_at, scheduled_at, inserted_at FROM oban_get_job(5, 'py');
-- An hour that is skipped or doubled by the session's daylight saving is none in UTC.
UPDATE py.oban_jobs SET attempted_at = '2024-03-10 02:30', completed_at = '2024-11-03 05:30',
	cancelled_at = '2024-11-03 06:30' WHERE id = 6;
SET TimeZone = 'America/New_York';
SELECT attempted_at, completed_at, cancelled_at FROM oban_get_job(6, 'py');

-- A smallint of Python is an integer here.
UPDATE py.oban_jobs SET priority = 32767, max_attempts = 32767, attempt = 32767 WHERE id = 4;
SELECT priority, max_attempts, attempt, pg_typeof(priority) FROM oban_get_job(4, 'py');

-- A table that has more columns, a shorter enum, or another order, is read by name.
CREATE SCHEMA odd;
CREATE TYPE odd.oban_job_state AS ENUM ('available', 'cancelled', 'executing', 'completed',
	'discarded');
CREATE TABLE odd.oban_jobs (
	note text DEFAULT 'extra', meta jsonb, tags text[], cancelled_at timestamp, gone integer,
	discarded_at timestamp, completed_at timestamp, attempted_at timestamp,
	scheduled_at timestamp DEFAULT '2024-01-01', inserted_at timestamp DEFAULT '2024-01-01',
	attempted_by text[], errors jsonb[], args jsonb, priority smallint DEFAULT 0,
	max_attempts bigint DEFAULT 20, attempt integer DEFAULT 0, worker text, queue varchar,
	state odd.oban_job_state DEFAULT 'available', id integer PRIMARY KEY
);
ALTER TABLE odd.oban_jobs DROP COLUMN gone;
INSERT INTO odd.oban_jobs (id, worker, queue, args, errors, attempted_by)
	SELECT g, 'W', 'q', '{}', '{}', '{}' FROM generate_series(1, 2) g;
SET DateStyle = 'ISO, YMD';
SELECT j.* FROM oban_get_job(1, 'odd') j \gx
SELECT oban_cancel_job(1, 'odd'), oban_retry_job(j) AS retried, oban_delete_many_jobs('{2}', 'odd')
FROM odd.oban_jobs j WHERE id = 1;
SELECT priority, max_attempts FROM oban_update_job(1, '{"priority": 2, "max_attempts": 9}', 'odd');
SELECT id, state, note FROM odd.oban_jobs;

-- An oban_job handed back finds its table, also when another prefix is set.
SET oban_manage.prefix = 'ex14';
SELECT oban_cancel_job(oban_get_job(2, 'py'));
SELECT tools.states('ex14'), tools.states('py');

-- A column that a later version has added to oban_job is NULL, also in a job of a column from before,
-- and with one that is dropped.
CREATE FUNCTION tools.look(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN jsonb_build_object('meta', jsonb_build_object('more', to_jsonb(job) -> 'more'),
		'tags', job.tags || (job.prefix || job.id));
END $$;
SELECT id, tags FROM oban_update_job_with(2, 'tools.look', NULL, 'ex14');
BEGIN;
ALTER TYPE oban_job ADD ATTRIBUTE gone text, ADD ATTRIBUTE more integer, ADD ATTRIBUTE even text;
ALTER TYPE oban_job DROP ATTRIBUTE gone;
SELECT id, tags, prefix, more, even FROM oban_get_job(2, 'ex14');
SELECT (j).id, (j).prefix, (j).more FROM oban_get_job(2, 'ex14') j;
SELECT id, prefix, more, even FROM oban_all_jobs('{"id": [1, 2]}', NULL, 'py');
SELECT (job).id, (job).priority, (job).more FROM (SELECT oban_update_job(1, '{"priority": 3}', 'py') job) j;
-- Found in another order than that of the ids, which they are returned in
ALTER TABLE ex14.oban_jobs DROP CONSTRAINT oban_jobs_pkey;
CREATE INDEX ON ex14.oban_jobs (id DESC);
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
SELECT id, prefix, more, even FROM oban_update_many_jobs('{3,1,2}', '{"priority": 3}', 'ex14');
-- To a callable, and back as an argument
SELECT id, tags, meta, more FROM oban_update_many_jobs_with('{2,1}', 'tools.look', NULL, 'ex14');
SELECT oban_cancel_job(oban_get_job(4, 'ex14')), oban_cancel_job(job)
FROM tools.updated WHERE prefix = 'ex14';
SELECT (job).id, (job).more, (job).even FROM tools.updated ORDER BY prefix LIMIT 1;
ROLLBACK;

-- Not as the extension made it: of oban_job another column, another type
DROP TABLE tools.updated;
\set VERBOSITY terse
BEGIN;
ALTER TYPE oban_job DROP ATTRIBUTE prefix, ADD ATTRIBUTE prefix text;
SELECT oban_get_job(1, 'ex14');
ROLLBACK;
BEGIN;
ALTER TYPE oban_job ALTER ATTRIBUTE queue TYPE "char";
SELECT id, queue FROM oban_all_jobs('{"id": 1}', NULL, 'ex14');
ROLLBACK;

DROP SCHEMA tools, ex9, ex11, ex14, py, odd CASCADE;
