-- A callable over very many jobs, and very many calls in one statement, take bounded memory: what
-- the backend holds is read before, from inside the callable as it goes, and after. It fails
-- without the reset of any one of the contexts of a job, of the changes, of the changes that a statement
-- writes, and of a trigger's contexts.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\set ECHO all
CREATE FUNCTION tools.memory() RETURNS bigint LANGUAGE sql AS
	'SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts';
-- Notes it down without writing to a table, for callables that do are called one by one.
CREATE FUNCTION tools.look() RETURNS text LANGUAGE sql AS $$
	SELECT set_config('tools.seen', concat_ws(',',
		nullif(current_setting('tools.seen', true), ''), tools.memory()), false)
$$;
-- Looks at the memory now and then, and lastly at the last job.
CREATE FUNCTION tools.watches(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id % (context -> 'every')::bigint = 0 THEN
		PERFORM tools.look();
	END IF;
	RETURN jsonb_build_object('priority', job.id % 10,
		'meta', job.meta || jsonb_build_object('n', job.id));
END $$;
CREATE FUNCTION tools.watches_row(job py.oban_jobs) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id % 2000 = 0 THEN
		PERFORM tools.look();
	END IF;
	RETURN jsonb_build_object('args', job.args || jsonb_build_object('n', job.id));
END $$;
CREATE FUNCTION tools.watches_json(job jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF (job ->> 'id')::bigint % 2000 = 0 THEN
		PERFORM tools.look();
	END IF;
	RETURN jsonb_build_object('args', job -> 'args' || jsonb_build_object('n', job -> 'id'));
END $$;
-- What each call grew by, in MB, against the limits.
CREATE FUNCTION tools.growth(before bigint, most bigint DEFAULT 32, OUT looks bigint,
	OUT during_bounded boolean, OUT after_below_4 boolean) LANGUAGE sql AS $$
	SELECT count(*), max(bytes) - before < most * 1024 * 1024,
		tools.memory() - before < 4 * 1024 * 1024
	FROM unnest(string_to_array(nullif(current_setting('tools.seen'), ''), ',')::bigint[]) bytes
$$;

-- 100,000 small jobs in one call. The first call of all, of one job, fills the caches.
CALL tools.fill(100000, 'py');
SELECT id FROM oban_update_job_with(1, 'tools.watches', '{"every": 1}', 'py');
SELECT id FROM oban_update_many_jobs_with('{1}', 'tools.watches', '{"every": 1}', 'py');
SET tools.seen = '';
SELECT array_agg(g) AS ids FROM generate_series(1, 100000) g \gset
SELECT tools.memory() AS before \gset
SELECT count(*), count(*) FILTER (WHERE priority = id % 10) AS right_ones
FROM oban_update_many_jobs_with(:'ids', 'tools.watches', '{"every": 10000}', 'py');
SELECT * FROM tools.growth(:before);
SELECT count(*) FROM py.oban_jobs WHERE priority = id % 10 AND meta = jsonb_build_object('n', id);

-- The same where the jobs name three sets of columns, so that each batch takes three statements.
CREATE FUNCTION tools.watches_some(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN tools.watches(job, context) || '{"queue": "default"}'
		- (ARRAY['priority', 'meta', 'queue'])[1 + job.id % 3];
END $$;
SELECT id FROM oban_update_many_jobs_with('{1,2,3}', 'tools.watches_some', '{"every": 1}', 'py');
SET tools.seen = '';
SELECT tools.memory() AS before \gset
SELECT count(*) FROM oban_update_many_jobs_with(:'ids', 'tools.watches_some', '{"every": 10000}', 'py');
SELECT * FROM tools.growth(:before);

-- The same for a callable that writes by itself, which is called one by one.
CREATE TABLE tools.diary (job bigint);
CREATE FUNCTION tools.watches_and_writes(job oban_job, context jsonb)
	RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tools.diary VALUES (job.id);
	RETURN tools.watches(job, context);
END $$;
SELECT array_agg(g) AS ids FROM generate_series(1, 30000) g \gset
SELECT id FROM oban_update_job_with(1, 'tools.watches_and_writes', '{"every": 1}', 'py');
SELECT id FROM oban_update_many_jobs_with('{1}', 'tools.watches_and_writes', '{"every": 1}', 'py');
SET tools.seen = '';
SELECT tools.memory() AS before \gset
SELECT count(*) FROM oban_update_many_jobs_with(:'ids', 'tools.watches_and_writes',
	'{"every": 3000}', 'py');
SELECT * FROM tools.growth(:before, 12);
SELECT count(*) FROM tools.diary;

-- 10,000 jobs with args of 4 kB, which are 40 MB: by the row, as jsonb, and by one call for each.
CALL tools.fill(10000, 'py');
UPDATE py.oban_jobs SET args = jsonb_build_object('text', repeat(md5(id::text), 128));
SELECT array_agg(g) AS ids FROM generate_series(1, 10000) g \gset
SELECT id FROM oban_update_job_with(1, 'tools.watches_row', NULL, 'py');
SELECT id FROM oban_update_many_jobs_with('{1}', 'tools.watches_row', NULL, 'py');
SELECT id FROM oban_update_job_with(1, 'tools.watches_json', NULL, 'py');
SET tools.seen = '';
SELECT tools.memory() AS before \gset
SELECT count(*) FROM oban_update_many_jobs_with(:'ids', 'tools.watches_row', NULL, 'py');
SELECT * FROM tools.growth(:before);
SET tools.seen = '';
SELECT tools.memory() AS before \gset
SELECT count(*) FROM oban_update_many_jobs_with(:'ids', 'tools.watches_json', NULL, 'py');
SELECT * FROM tools.growth(:before);
SET tools.seen = '';
SELECT tools.memory() AS before \gset
SELECT count(*) FROM generate_series(1, 10000) g,
	oban_update_job_with(g, 'tools.watches_json', NULL, 'py');
SELECT * FROM tools.growth(:before);
SELECT count(*) FROM py.oban_jobs
WHERE length(args ->> 'text') = 4096 AND (args ->> 'n')::bigint = id;

-- A statement trigger with a callable over 40,000 rows of 1 kB; each is in its context.
CALL tools.fill(40000, 'py');
CREATE TABLE tools.parents (id bigint PRIMARY KEY, job bigint, note text);
INSERT INTO tools.parents SELECT g, g, repeat('x', 1000) FROM generate_series(1, 40000) g;
CREATE FUNCTION tools.watches_parent(job oban_job, context jsonb)
	RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id % 2000 = 0 THEN
		PERFORM tools.look();
	END IF;
	RETURN jsonb_build_object('args', jsonb_build_object('note', context #> '{old,note}'));
END $$;
CREATE TRIGGER parents AFTER DELETE ON tools.parents REFERENCING OLD TABLE AS gone
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('job', 'tools.watches_parent', 'py');
DELETE FROM tools.parents WHERE id = 1;
SET tools.seen = '';
SELECT tools.memory() AS before \gset
DELETE FROM tools.parents;
SELECT * FROM tools.growth(:before);
SELECT count(*) FROM py.oban_jobs WHERE length(args ->> 'note') = 1000;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
