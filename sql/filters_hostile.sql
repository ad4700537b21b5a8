-- Values are never part of a statement's text: whatever SQL, escape or odd character a filter
-- holds, it finds the jobs that hold just that, or nothing. And it may be large.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

-- Each of the texts, as queue, worker, in args and meta, as the only tag of a job, as the node that
-- ran it, and in its error.
CREATE TABLE tools.texts (id bigserial, t text);
INSERT INTO tools.texts (t) VALUES
	($$'; DROP TABLE ex14.oban_jobs; --$$), ($$' OR 'a' = 'a$$), ($$x' OR true --$$),
	($$\'; DELETE FROM ex14.oban_jobs WHERE '' = '$$), ($$'); SELECT pg_sleep(100); --$$),
	($$$1$$), ($$%s %I %1$s %%$$), ($$"$$), ($$""$$), ($$''$$), ($$'$$),
	($$\$$), ($$\\$$), ($$\n$$), (E'\n'), (E'line\nbreak'), (E'a\tb\r\fc'), (E'\x01\x1f\x7f'),
	($${$$), ($$}$$), ($${}$$), ($${a,b}$$), ($${"a","b"}$$), ($$,$$), ($$a,b$$), ($$NULL$$),
	($$\x41$$), ($$true$$), ($$0$$), ($$1e0$$), ($$[]$$), ($$["a"]$$), ($${"a": 1}$$), ($$/* $$),
	($$ */ $$), ($$--$$), ($$;$$), ($$%$$), ($$_$$), ($$%%'%%$$), ($$*$$), ($$available$$),
	($$public$$), ($$current_user$$),
	(U&'\00e9'), (U&'e\0301'), (U&'\202e\05d0'), (U&'\+01f600'), (U&'\feff'), (U&'\200b'),
	(U&'\00a0'), (U&'\2019'), (U&'\ff07'), (U&'\d55c\ae00'), (U&'\fffd'),
	(repeat('x''\"', 30)), (repeat(U&'\+01d51a', 100));

CREATE PROCEDURE tools.make_texts(prefix text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format($q$
		INSERT INTO %I.oban_jobs (id, queue, worker, args, meta, tags, attempted_by, errors)
		OVERRIDING SYSTEM VALUE
		SELECT id, t, t, jsonb_build_object('text', t, t, 'key'),
			jsonb_build_object('in', ARRAY[t]), ARRAY[t], ARRAY['node', t], %s
		FROM tools.texts,
			LATERAL (SELECT jsonb_build_object('error', format('%%s <%%s> here', id, t))) e(error)
	$q$, prefix, CASE prefix WHEN 'py' THEN 'jsonb_build_array(error)' ELSE 'ARRAY[error]' END);
END $$;
\set ECHO all
CALL tools.make_texts('ex14');
CALL tools.make_texts('py');

-- Each finds its own job and no other, in every key that takes a text.
SELECT p AS prefix, form, count(*) AS texts,
	count(*) FILTER (WHERE found = ARRAY[id]) AS found_its_own,
	string_agg(format('%s finds %s', t, found), '; ') FILTER (WHERE found <> ARRAY[id]) AS mismatch
FROM unnest('{ex14,py}'::text[]) p, (
	SELECT id, t, form, filter FROM tools.texts, LATERAL (VALUES
		('queue', jsonb_build_object('queue', t)),
		('queues', jsonb_build_object('queue', ARRAY[t, 'no'])),
		('worker', jsonb_build_object('worker', t)),
		('workers', jsonb_build_object('worker', ARRAY[t, t])),
		('args', jsonb_build_object('args', jsonb_build_object('text', t))),
		('args, key', jsonb_build_object('args', jsonb_build_object(t, 'key'))),
		('meta', jsonb_build_object('meta', jsonb_build_object('in', ARRAY[t]))),
		('tag', jsonb_build_object('tags', t)),
		('tags', jsonb_build_object('tags', ARRAY[t])),
		('attempted by', jsonb_build_object('attempted_by', t)),
		('attempted by any', jsonb_build_object('attempted_by', ARRAY[t, 'nobody'])),
		('error', jsonb_build_object('error', format('%s <%s> h', id, t))),
		('not not', jsonb_build_object('not', jsonb_build_object('not', jsonb_build_object('queue', t)))))
			f(form, filter)
	WHERE form !~ 'tag|by' OR btrim(t, E' \t\n\r\f\v') <> '') f,
	LATERAL (SELECT coalesce(array_agg(j.id), '{}') FROM oban_all_jobs(filter, NULL, p) j) a(found)
GROUP BY p, form ORDER BY p, form;
-- All of them at once.
SELECT p AS prefix, count(j.id) AS jobs, min(j.id), max(j.id)
FROM unnest('{ex14,py}'::text[]) p, (SELECT jsonb_agg(t) FROM tools.texts) a(texts),
	oban_all_jobs(jsonb_build_object('queue', texts, 'worker', texts), NULL, p) j
GROUP BY p ORDER BY p;

-- As a state, a time, a number or the name of a key they are refused, and shown as they are.
SELECT form, code, count(*),
	count(*) FILTER (WHERE message !~ '^(invalid value for|unrecognized key) ".*$') AS odd
FROM unnest('{ex14,py}'::text[]) p, tools.texts, LATERAL (VALUES
	('state', jsonb_build_object('state', t)),
	('states', jsonb_build_object('state', ARRAY['available', t])),
	('time', jsonb_build_object('inserted_at', jsonb_build_object('after', t))),
	('id', jsonb_build_object('id', t)), ('priorities', jsonb_build_object('priority', ARRAY[t])),
	('key', jsonb_build_object(t, 1)), ('key beside', jsonb_build_object(t, 1, 'id', 1)),
	('time''s key', jsonb_build_object('inserted_at', jsonb_build_object(t, '2024-01-01'))))
		f(form, filter),
	tools.try(format('SELECT count(*) FROM oban_delete_all_jobs(%L, NULL, %L)', filter, p))
WHERE t <> 'available' AND NOT (form = 'id' AND t = '0')
GROUP BY form, code ORDER BY form, code;
SELECT message FROM tools.try(
	$q$SELECT oban_all_jobs('{"state": "''; DROP TABLE oban_jobs; --"}', NULL, 'py')$q$);
SELECT message FROM tools.try($q$SELECT oban_all_jobs('{"id = 1 OR true; --": 1}', NULL, 'py')$q$);
SELECT count(*) = (SELECT count(*) FROM tools.texts) AS all_there FROM ex14.oban_jobs;
-- The same in the prefix and in what an update writes.
SELECT tools.refusal($q$SELECT oban_all_jobs('{"id": 1}', NULL, 'py.oban_jobs; --')$q$);
SELECT tools.refusal($q$SELECT oban_all_jobs('{"id": 1}', NULL, 'py"; --')$q$);
SELECT count(*) FILTER (WHERE updated = 1) AS updated, count(*) AS texts
FROM (SELECT oban_update_all_jobs(jsonb_build_object('queue', t),
	jsonb_build_object('worker', t || '''--', 'meta', jsonb_build_object(t, t)), NULL, 'py')
	FROM tools.texts) u(updated);
SELECT count(*) AS as_written FROM py.oban_jobs JOIN tools.texts USING (id)
WHERE worker = t || '''--' AND meta = jsonb_build_object(t, t) AND queue = t;
-- The verbs too: each text deletes its own job.
SELECT count(*) FILTER (WHERE deleted = 1) AS deleted, count(*) AS texts
FROM (SELECT oban_delete_all_jobs(jsonb_build_object('queue', t), NULL, 'py')
	FROM tools.texts) d(deleted);

-- A prefix that is hostile itself.
\set ECHO none
\set schema 'a "b"; DROP TABLE x; --\\'
\set version 14
\i :elixir
\set ECHO all
CALL tools.make_jobs('a "b"; DROP TABLE x; --\');
SELECT id, state, prefix FROM oban_all_jobs('{"state": ["executing", "completed"]}', NULL,
	'a "b"; DROP TABLE x; --\');
SELECT oban_cancel_all_jobs('{"all": true}', 1, 'a "b"; DROP TABLE x; --\'),
	oban_retry_all_jobs('{"all": true}', 1, 'a "b"; DROP TABLE x; --\'),
	oban_update_all_jobs('{"state": "completed"}', '{"priority": 1}', 1,
		'a "b"; DROP TABLE x; --\'),
	oban_delete_all_jobs('{"all": true}', 1, 'a "b"; DROP TABLE x; --\');
SELECT job_id, outcome FROM oban_manage_jobs('delete', '{3,4}', NULL, false,
	'a "b"; DROP TABLE x; --\');

-- A filter of 1 MB: in one value, in many, in the depth and in what is refused.
CALL tools.fill(3, 'ex14', 'py');
UPDATE py.oban_jobs SET worker = repeat('w', 1000000) WHERE id = 2;
UPDATE ex14.oban_jobs SET args = jsonb_build_object('a', repeat('a', 1000000), 'b', 1),
	tags = '{t1,t2,t3,t4,t5}', attempted_by = '{node7}',
	errors = ARRAY[jsonb_build_object('error', repeat('boom', 250001))] WHERE id = 3;
CREATE TABLE tools.large (n serial, what text, filter jsonb);
INSERT INTO tools.large (what, filter) VALUES
	('worker', jsonb_build_object('worker', repeat('w', 1000000))),
	('another worker', jsonb_build_object('worker', repeat('w', 1000001))),
	('quotes', jsonb_build_object('queue', repeat('''', 1000000))),
	('many workers', jsonb_build_object('worker', (SELECT
		jsonb_agg(repeat(chr(64 + g % 20), 100) || g) || to_jsonb(repeat('w', 1000000))
		FROM generate_series(1, 10000) g))),
	('args', jsonb_build_object('args', jsonb_build_object('a', repeat('a', 1000000)))),
	('args, many keys', jsonb_build_object('args', (SELECT
		jsonb_object_agg('key ' || g, repeat('v', 90)) FROM generate_series(1, 10000) g))),
	('deep args', jsonb_build_object('args',
		(repeat('{"a":', 1000) || '1' || repeat('}', 1000))::jsonb)),
	('tag', jsonb_build_object('tags', repeat(' ', 1000000) || 't1')),
	('tags', jsonb_build_object('tags', (SELECT
		jsonb_agg('t' || 1 + g % 5 || repeat(' ', 90)) FROM generate_series(1, 10000) g))),
	('tags it has', jsonb_build_object('tags', (SELECT
		jsonb_agg('t' || 1 + g % 5) FROM generate_series(1, 100000) g))),
	('attempted by', jsonb_build_object('attempted_by', (SELECT
		jsonb_agg('node' || g) FROM generate_series(1, 100000) g))),
	('error', jsonb_build_object('error', repeat('boom', 250000))),
	('not', jsonb_build_object('not', jsonb_build_object('worker', repeat('w', 1000000)))),
	('state', jsonb_build_object('state', repeat('available', 100000))),
	('time', jsonb_build_object('inserted_at',
		jsonb_build_object('after', repeat('2024-01-01', 100000)))),
	('key', jsonb_build_object(repeat('id', 500000), 1)),
	('many keys', (SELECT jsonb_object_agg('key ' || g, repeat('v', 90))
		FROM generate_series(1, 10000) g)),
	('digits', jsonb_build_object('id', repeat('7', 1000000))),
	('number', format('{"id": 1%s}', repeat('0', 100000))::jsonb),
	('fraction', format('{"id": 1.%s1}', repeat('0', 16000))::jsonb),
	('nested', format('{"id": %s1%s}', repeat('[', 3000), repeat(']', 3000))::jsonb),
	('nested not', format('%s{"id": 1}%s', repeat('{"not": ', 3000), repeat('}', 3000))::jsonb);
SELECT what, length(filter::text) AS length, p AS prefix, code,
	CASE code WHEN '00000' THEN message ELSE left(message, 90) END AS message,
	length(message) < 500 AS short
FROM tools.large, unnest('{ex14,py}'::text[]) p,
	tools.try(format('SELECT count(*), min(j.id) FROM tools.large, oban_all_jobs(filter, NULL, %L) j
		WHERE n = %s', p, n))
ORDER BY n, p;

-- Arrays of 100,000 elements.
CALL tools.fill(3, 'ex14', 'py');
INSERT INTO py.oban_jobs (id, worker, queue, priority, tags) OVERRIDING SYSTEM VALUE
	SELECT g * 1000, 'W' || g, 'q' || g, g, ARRAY['Tag' || g] FROM generate_series(1, 100) g;
CREATE TABLE tools.elements AS
SELECT key, jsonb_build_object(key, jsonb_agg(CASE key WHEN 'queue' THEN to_jsonb('q' || g)
	WHEN 'worker' THEN to_jsonb('W' || g) WHEN 'state' THEN '"available"'
	WHEN 'tags' THEN '"Tag7"' ELSE to_jsonb(g) END)) AS filter
FROM unnest('{id,state,queue,worker,priority,attempt,max_attempts,tags}'::text[]) key,
	generate_series(1, 100000) g
GROUP BY key;
SELECT key, count(j.id), min(j.id), max(j.id)
FROM tools.elements LEFT JOIN oban_all_jobs(filter, NULL, 'py') j ON true GROUP BY key ORDER BY key;
SELECT oban_cancel_all_jobs(filter, NULL, 'py') AS cancelled FROM tools.elements WHERE key = 'id';
SELECT oban_retry_all_jobs(filter, NULL, 'py') AS retried FROM tools.elements WHERE key = 'queue';
SELECT oban_update_all_jobs(filter, '{"priority": 9}', NULL, 'py') AS updated FROM tools.elements
WHERE key = 'worker';
SELECT oban_delete_all_jobs(filter, NULL, 'py') AS deleted FROM tools.elements WHERE key = 'state';
SELECT tools.states('py');

DROP SCHEMA tools, ex9, ex11, ex14, py, "a ""b""; DROP TABLE x; --\" CASCADE;
