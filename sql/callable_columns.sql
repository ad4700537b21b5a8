-- Each job of a callable's batch gets the columns that its own callable named, and no others.
-- Seen to fail with one statement for all (om_pending_take takes every job), and where a
-- trigger's writes between two statements are not looked for (write_by_columns).
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
CREATE TABLE tools.written (p text, id bigint, name text);
CREATE FUNCTION tools.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tools.written VALUES (TG_TABLE_SCHEMA, NEW.id, TG_ARGV[0]);
	RETURN NULL;
END $$;
CREATE TABLE tools.bits (bit integer, name text, value jsonb);
INSERT INTO tools.bits VALUES (0, 'args', '{"new": true}'), (1, 'max_attempts', '31'),
	(2, 'meta', '{"new": 1}'), (3, 'priority', '3'), (4, 'queue', '"new"'),
	(5, 'scheduled_at', '"2099-05-06T07:08:09"'), (6, 'tags', '["new"]'), (7, 'worker', '"New"');
-- Names the columns whose bits are set in the job's id.
CREATE FUNCTION tools.by_bits(job oban_job) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_object_agg(name, value) FROM tools.bits WHERE job.id >> bit & 1 = 1
$$;
CREATE FUNCTION tools.by_id(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT context -> job.id::text$$;
\set ECHO all

-- All 255 sets of columns in one call: UPDATE OF triggers fire for the columns that were named, and
-- the jobs come back in id order.
CALL tools.fill(300, 'ex14', 'py');
\set ECHO none
SELECT format('CREATE TRIGGER of_%s AFTER UPDATE OF %1$I ON %I.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION tools.note(%1$L)', name, p)
FROM unnest('{ex14,py}'::text[]) p, tools.bits ORDER BY p, bit
\gexec
\set ECHO all
SELECT tools.rows('ex14') AS ex14, tools.rows('py') AS py \gset before_
SELECT p AS prefix, count(*), bool_and(lag < id) AS in_id_order,
	count(*) FILTER (WHERE priority = CASE WHEN id >> 3 & 1 = 1 THEN 3 ELSE 0 END) AS priorities
FROM unnest('{ex14,py}'::text[]) p, LATERAL (SELECT id, priority, lag(id, 1, 0::bigint) OVER ()
	FROM oban_update_many_jobs_with((SELECT array_agg(g) FROM generate_series(1, 300) g),
		'tools.by_bits', NULL, p)) j
GROUP BY p ORDER BY p;
SELECT p AS prefix, count(*) AS fired, count(*) FILTER (WHERE id >> bit & 1 = 0) AS not_named
FROM tools.written JOIN tools.bits USING (name) GROUP BY p ORDER BY p;
SELECT sum(1) AS named FROM generate_series(1, 300) id, tools.bits WHERE id >> bit & 1 = 1;
SELECT p AS prefix, bit, name, count(*) FILTER (WHERE id >> bit & 1 = 1) AS named,
	count(*) FILTER (WHERE changed) AS changed,
	count(*) FILTER (WHERE changed <> (id >> bit & 1 = 1)) AS wrong
FROM (VALUES ('ex14', :'before_ex14'::jsonb), ('py', :'before_py')) v(p, before), tools.bits,
	jsonb_each(before) b, LATERAL (SELECT b.key::bigint AS id,
		b.value -> name IS DISTINCT FROM tools.rows(p) -> b.key -> name AS changed) c
WHERE b.key::bigint IN (1, 2, 4, 8, 16, 32, 64, 128, 255, 85, 170, 256, 300)
GROUP BY p, bit, name ORDER BY p, bit;
-- Those without a name in their bits (256) are handed out, and not written.
SELECT count(*) AS written FROM tools.written WHERE id = 256;

-- An error names the jobs that are not done: those of its own statement first.
CALL tools.fill(6, 'ex14');
TRUNCATE tools.written;
SELECT code, message, regexp_replace(context, ' / .*', '') AS context
FROM tools.try($$SELECT oban_update_many_jobs_with('{1,2,3,4,5,6}',
	'tools.by_id', '{"1": {"tags": ["t"]}, "2": {"queue": "q"}, "3": {"tags": ["t"]},
	"4": {"queue": "q"}, "5": {"worker": ""}, "6": {"worker": "w"}}', 'ex14')$$);
ALTER TABLE ex14.oban_jobs ADD CONSTRAINT no_q CHECK (id <> 4 OR queue <> 'q');
SELECT code, message, regexp_replace(context, ' / .*', '') AS context
FROM tools.try($$SELECT oban_update_many_jobs_with('{1,2,3,4,5,6}',
	'tools.by_id', '{"1": {"tags": ["t"]}, "2": {"queue": "q"}, "3": {"worker": "w"},
	"4": {"queue": "q"}, "5": {"queue": "q"}, "6": {"worker": "w"}}', 'ex14')$$);
SELECT count(*) AS nothing_written FROM ex14.oban_jobs WHERE tags <> '{}' OR queue <> 'default';
ALTER TABLE ex14.oban_jobs DROP CONSTRAINT no_q;

-- A trigger of one statement that writes to a column that a later one is to write: that job's change
-- is older than what the trigger wrote. One that writes to another job, to another column of the
-- job, or to a job that is written already, may.
CREATE FUNCTION tools.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE ex14.oban_jobs SET meta = meta || '{"seen": true}' WHERE id = TG_ARGV[0]::bigint;
	RETURN NULL;
END $$;
CREATE TRIGGER meddle AFTER UPDATE OF queue ON ex14.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION tools.meddle(3);
SELECT code, message, hint FROM tools.try($$SELECT oban_update_many_jobs_with('{1,2,3}',
	'tools.by_id', '{"1": {"queue": "q"}, "2": {"tags": ["t"]}, "3": {"meta": {"n": 1}}}', 'ex14')$$);
SELECT id, queue, tags, meta FROM oban_update_many_jobs_with('{1,2,4}',
	'tools.by_id', '{"1": {"queue": "q"}, "2": {"tags": ["t"]}, "4": {"meta": {"n": 1}}}', 'ex14');
SELECT id, queue, tags, meta FROM oban_update_many_jobs_with('{1,3}',
	'tools.by_id', '{"1": {"queue": "q"}, "3": {"tags": ["t"]}}', 'ex14');
SELECT id, queue, tags, meta FROM oban_update_many_jobs_with('{3,4,5}',
	'tools.by_id', '{"3": {"meta": {"n": 3}}, "4": {"queue": "q"}, "5": {"tags": ["t"]}}', 'ex14');
SELECT id, queue, meta FROM ex14.oban_jobs ORDER BY id;

-- What counts is the value, not how it is stored: job 3's meta, 1.5 kB, is not compressed. When the
-- trigger makes the row longer than 2 kB, PostgreSQL compresses it, with the same value. Shown to
-- fail where om_hash_columns hashes the bytes of the row.
UPDATE ex14.oban_jobs SET meta = jsonb_build_object('long', repeat('x', 1500)) WHERE id = 3;
CREATE OR REPLACE FUNCTION tools.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE ex14.oban_jobs SET args = jsonb_build_object('long', repeat('y', 1000))
	WHERE id = TG_ARGV[0]::bigint;
	RETURN NULL;
END $$;
SELECT pg_column_size(meta) < 1500 AS compressed FROM ex14.oban_jobs WHERE id = 3;
SELECT id, queue, meta FROM oban_update_many_jobs_with('{1,3,5}', 'tools.by_id',
	'{"1": {"queue": "p"}, "3": {"meta": {"short": true}}, "5": {"tags": ["u"]}}', 'ex14');
-- With the longer args, PostgreSQL does compress that meta.
UPDATE ex14.oban_jobs SET meta = jsonb_build_object('long', repeat('x', 1500)) WHERE id = 3;
SELECT pg_column_size(meta) < 1500 AS compressed FROM ex14.oban_jobs WHERE id = 3;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
