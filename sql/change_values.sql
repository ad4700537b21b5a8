-- Tags are normalised, texts are kept as they are, values meet the column's type and the table's
-- constraints.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
CALL tools.make_jobs('ex9', 'ex11', 'ex14', 'py');

-- Tags: numbers and booleans become text; trimmed, lower-cased, blanks and nulls dropped, once
-- each, sorted.
SELECT c AS given, e.tags AS ex14, p.tags AS py
FROM unnest(ARRAY['["b", "a"]', '[" Urgent ", "urgent", "URGENT"]', '[]',
	'[null, "", "  ", "\t\n"]', '["\tx\n", "x"]', '["a b", "a  b"]',
	'[1, 1.50, -2e3, true, false, "1", 12345678901234567890]',
	'["b-c", "B_c", "bc", "b c", "b"]', '["NULL", "{}", "a,b", "\"q\"", "back\\slash"]',
	'["10", "9", 9, "1"]']) WITH ORDINALITY t(c, n),
	oban_update_job(1, format('{"tags": %s}', c)::jsonb, 'ex14') e,
	oban_update_job(1, format('{"tags": %s}', c)::jsonb, 'py') p
ORDER BY n;
SELECT tags FROM oban_update_job(1, '{"tags": [" "]}', 'py');
SELECT array_ndims(tags) AS dimensions, tags = '{}' AS empty FROM py.oban_jobs WHERE id = 1;
-- 10,000 tags, half of them twice.
SELECT cardinality(tags), tags[1], tags[5000]
FROM oban_update_job(1, jsonb_build_object('tags',
	(SELECT jsonb_agg('T' || lpad((g % 5000)::text, 4, '0'))
	 FROM generate_series(1, 10000) g)), 'py');
-- A tag too long for Elixir's varchar(255) is not cut off in silence.
SELECT code, message FROM tools.try(format('SELECT oban_update_job(1, %L, %L)',
	jsonb_build_object('tags', ARRAY[repeat('x', 256)]), 'ex14'));
SELECT length(tags[1]) FROM oban_update_job(1,
	jsonb_build_object('tags', ARRAY[repeat('x', 255)]), 'ex14');
SELECT length(tags[1]) FROM oban_update_job(1,
	jsonb_build_object('tags', ARRAY[repeat('x', 256)]), 'py');

-- Texts are stored as given, blanks around them included.
SELECT '"' || queue || '"' AS queue, '"' || worker || '"' AS worker
FROM oban_update_job(1, '{"queue": " a ''b'' ", "worker": "A\\B \"c\"\n"}', 'py');
SELECT queue = 'очередь ß 😀' AS queue, worker = '𝔚orker' AS worker, tags = '{ж,日本}' AS tags,
	args = '{"ключ": "значение 😀"}' AS args
FROM oban_update_job(1, '{"queue": "очередь ß 😀", "worker": "𝔚orker", "tags": ["日本", " ж "],
	"args": {"ключ": "значение 😀"}}', 'py');
SELECT length(worker), length(args ->> 'a') FROM oban_update_job(1, jsonb_build_object(
	'worker', repeat('w', 1000000), 'args', jsonb_build_object('a', repeat('a', 1000000))), 'py');

-- args and meta: any object, replaced as a whole.
SELECT args, meta
FROM oban_update_job(1, '{"args": {}, "meta": {"a": {"b": [1, {"c": null}]}}}', 'ex14');
SELECT args -> 'n' = '1e400' AS huge, args -> 'x' AS x, meta
FROM oban_update_job(1, '{"args": {"n": 1e400, "x": 0.10}, "meta": {"": ""}}', 'ex14');

-- Whole numbers, however they are written.
SELECT priority, max_attempts FROM oban_update_job(1, '{"priority": 0, "max_attempts": 1}', 'py');
SELECT priority, max_attempts
FROM oban_update_job(1, '{"priority": 9.0, "max_attempts": 1e2}', 'py');

-- The column's type: smallint in Python's table, integer in Elixir's.
SELECT max_attempts FROM oban_update_job(1, '{"max_attempts": 32767}', 'py');
SELECT tools.refusal('SELECT oban_update_job(1, ''{"max_attempts": 32768}'', ''py'')');
SELECT max_attempts FROM oban_update_job(1, '{"max_attempts": 2147483647}', 'ex14');
SELECT tools.refusal('SELECT oban_update_job(1, ''{"max_attempts": 2147483648}'', ''ex14'')');
SELECT tools.refusal('SELECT oban_update_job(1, ''{"max_attempts": 4294967297}'', ''py'')');
SELECT tools.refusal(
	'SELECT oban_update_job(1, ''{"max_attempts": 18446744073709551617}'', ''py'')');
SELECT tools.refusal('SELECT oban_update_job(1, ''{"max_attempts": 1e400}'', ''ex14'')');

-- max_attempts: at least the attempts already made, of every job named; more in max_attempts.sql.
SELECT max_attempts FROM oban_update_job(7, '{"max_attempts": 3}', 'ex14');
SELECT tools.refusal('SELECT oban_update_job(7, ''{"max_attempts": 2}'', ''ex14'')');
SELECT tools.refusal('SELECT oban_update_job(7, ''{"max_attempts": 2}'', ''py'')');
SELECT tools.refusal(
	'SELECT oban_update_many_jobs(''{1,2,4,6,7}'', ''{"max_attempts": 2}'', ''py'')');
SELECT string_agg(id || ' ' || max_attempts, ', ' ORDER BY id) AS max_attempts
FROM ex14.oban_jobs WHERE id > 1;

-- A CHECK of the table is raised as the table raises it, with the job's id in the context: the
-- priority of v10 and v11, the length of a queue and of a worker.
SELECT code, message, context
FROM tools.try('SELECT oban_update_job(4, ''{"priority": 4}'', ''ex11'')');
SELECT code, context
FROM tools.try('SELECT oban_update_many_jobs(''{5,4}'', ''{"priority": 4}'', ''ex11'')');
SELECT code, context FROM tools.try(
	'SELECT j.id FROM ex11.oban_jobs j, oban_update_job(j, ''{"priority": 9}'') WHERE j.id = 7');
SELECT priority FROM oban_update_job(4, '{"priority": 3}', 'ex11');
SELECT priority FROM oban_update_job(4, '{"priority": 9}', 'ex9');
SELECT code, message, context FROM tools.try(format('SELECT oban_update_job(2, %L, %L)',
	jsonb_build_object('queue', repeat('q', 128)), 'ex14'));
SELECT code, message, context FROM tools.try(format('SELECT oban_update_job(2, %L, %L)',
	jsonb_build_object('worker', repeat('w', 128)), 'ex9'));
SELECT length(queue) FROM oban_update_job(2, jsonb_build_object('queue', repeat('q', 127)), 'ex14');
SELECT length(queue) FROM oban_update_job(2, jsonb_build_object('queue', repeat('q', 128)), 'py');
-- Any job of many.
ALTER TABLE py.oban_jobs ADD CONSTRAINT not_both CHECK (queue <> 'vip' OR priority < 5);
CALL tools.fill(30, 'py');
UPDATE py.oban_jobs SET priority = 6 WHERE id = 27;
SELECT code, message FROM tools.try('SELECT oban_update_many_jobs(array_agg(g),
	''{"queue": "vip"}'', ''py'') FROM generate_series(1, 30) g');
SELECT context ~ '^update of jobs? .*\m27\M' AS names_the_job
FROM tools.try('SELECT oban_update_many_jobs(
	array_agg(g), ''{"queue": "vip"}'', ''py'') FROM generate_series(1, 30) g');
SELECT count(*) FROM py.oban_jobs WHERE queue = 'vip';

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
