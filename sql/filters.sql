-- What a filter matches: each key in its forms and in combination, on every dialect. A filter is
-- compared with the condition that it stands for, written by hand: oban_all_jobs gives the jobs
-- that meet it, in id order, and each verb does to them what it does to a list of their ids.
-- Seen to fail with an exclusive after, an inclusive before, tags that are lower-cased or trimmed, a
-- number that is not checked against smallint, and a "not" that leaves out the jobs with a NULL.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

-- 48 jobs that differ in everything. Columns that may be NULL in Elixir's table are, in some.
CREATE PROCEDURE tools.make_many(prefix text) LANGUAGE plpgsql AS $$
DECLARE
	labels text[];
BEGIN
	EXECUTE format('SELECT array_agg(l::text ORDER BY l::text)
		FROM unnest(enum_range(NULL::%I.oban_job_state)) l', prefix) INTO labels;
	EXECUTE format('DELETE FROM %I.oban_jobs', prefix);
	EXECUTE format($q$
		INSERT INTO %1$I.oban_jobs (id, state, queue, worker, attempt, max_attempts, priority,
			args, meta, tags, inserted_at, scheduled_at, attempted_at, completed_at, cancelled_at,
			discarded_at, attempted_by, errors)
		OVERRIDING SYSTEM VALUE
		SELECT g, ($1)[1 + g %% cardinality($1)]::%1$I.oban_job_state,
			('{default,media,Media," media",очередь}'::text[])[1 + g / 2 %% 5],
			('{App.A,App.B,App.Ä}'::text[])[1 + g / 3 %% 3], g %% 5, 5 + g %% 3 * 10, g %% 4,
			jsonb_build_object('n', g, 'user', jsonb_build_object('id', g %% 5, 'name', 'é'),
				'list', jsonb_build_array(1, g %% 3, jsonb_build_object('x', g %% 2)))
				|| CASE g %% 6 WHEN 0 THEN '{"nothing": null, "": "empty"}' ELSE '{}' END::jsonb,
			CASE WHEN g %% 7 = 0 AND $2 THEN NULL WHEN g %% 7 < 2 THEN '{}'
				ELSE jsonb_build_object('tenant', g %% 4, 'on', g %% 2 = 0) END,
			CASE WHEN g %% 8 = 0 AND $2 THEN NULL
				ELSE (ARRAY['{}', '{a}', '{a,b}', '{b,c,a}', '{"x y",1,true}', '{A}', '{ä,1.5}',
					'{b," a "}'])[1 + g %% 8]::text[] END,
			timestamp '2024-01-01' + g * interval '1 hour',
			timestamp '2024-02-01' + g * interval '1 day',
			CASE WHEN g %% 5 > 0 THEN timestamp '2024-03-01' + g * interval '1 microsecond' END,
			CASE WHEN g %% 3 = 0 THEN timestamp '2024-04-01' + g * interval '1 hour' END,
			CASE WHEN g %% 3 = 1 THEN timestamp '2024-04-01' + g * interval '1 hour' END,
			CASE WHEN g %% 3 = 2 THEN timestamp '2024-04-01' + g * interval '1 hour' END,
			CASE WHEN g %% 6 = 0 AND $2 THEN NULL ELSE (ARRAY['{}', '{}', '{node-1,one}',
				'{node-2,two}', '{node-1}', '{Node-1}'])[1 + g %% 6]::text[] END, %2$s
		FROM generate_series(1, 48) g, LATERAL (SELECT (ARRAY['[]', '[{"error": "boom"}]',
			'[{"attempt": 1, "error": "(Timeout) it took 5000 \"ms\""}, {"error": "Boom é"}]',
			'[{"reason": "boom", "attempt": 5000}]', '["boom", 5, null, [7, "boom"], {}]',
			'[{"error": null, "at": "é"}, {"error": ["boom", 1]}, {"error": 5000}]'])
				[1 + g %% 6]::jsonb) e(entries)
	$q$, prefix, CASE WHEN prefix = 'py' THEN 'entries'
		ELSE 'ARRAY(SELECT jsonb_array_elements(entries))' END) USING labels, prefix <> 'py';
	-- What neither Oban writes: no array, or an array in the array.
	IF prefix = 'py' THEN
		UPDATE py.oban_jobs SET errors = '"boom"' WHERE id = 42;
		UPDATE py.oban_jobs SET errors = '{"error": "boom"}' WHERE id = 43;
		UPDATE py.oban_jobs SET errors = 'null' WHERE id = 44;
	ELSE
		EXECUTE format('UPDATE %I.oban_jobs SET errors = ARRAY[NULL, ''"boom"'']::jsonb[]
			WHERE id = 42', prefix);
		EXECUTE format('UPDATE %I.oban_jobs SET errors = ARRAY[ARRAY[jsonb ''{"error": "boom"}'']]
			WHERE id = 43', prefix);
	END IF;
END $$;

-- What does not agree for a filter on a table; NULL when all does.
CREATE FUNCTION tools.mismatch(prefix text, filter jsonb, condition text, OUT matched bigint[],
	OUT mismatch text) LANGUAGE plpgsql AS $$
DECLARE
	found bigint[];
	verb record;
	wanted_count bigint;
	wanted jsonb;
	got_count bigint;
	got jsonb;
BEGIN
	EXECUTE format('SELECT coalesce(array_agg(id ORDER BY id), ''{}'') FROM %I.oban_jobs WHERE %s',
		prefix, condition) INTO matched;
	SELECT coalesce(array_agg(j.id ORDER BY n), '{}') INTO found
	FROM ROWS FROM (oban_all_jobs(filter, NULL, prefix)) WITH ORDINALITY
		j(id, state, queue, worker, attempt, max_attempts, priority, args, meta, tags, errors,
			attempted_by, inserted_at, scheduled_at, attempted_at, completed_at, cancelled_at,
			discarded_at, prefix, n);
	IF found <> matched THEN
		mismatch := format('all_jobs: %s, not %s', found, matched);
	END IF;
	FOR verb IN SELECT * FROM (VALUES
		('cancel', 'SELECT oban_cancel_many_jobs($1, $2)',
			'SELECT oban_cancel_all_jobs($1, NULL, $2)'),
		('retry', 'SELECT oban_retry_many_jobs($1, $2)',
			'SELECT oban_retry_all_jobs($1, NULL, $2)'),
		('delete', 'SELECT oban_delete_many_jobs($1, $2)',
			'SELECT oban_delete_all_jobs($1, NULL, $2)'),
		('update', 'SELECT count(*)
			FROM oban_update_many_jobs($1, ''{"tags": ["new"], "schedule_in": 9}'', $2)',
			'SELECT oban_update_all_jobs($1, ''{"tags": ["new"], "schedule_in": 9}'', NULL, $2)'))
		v(name, by_ids, by_filter)
	LOOP
		BEGIN
			EXECUTE verb.by_ids USING matched, prefix INTO wanted_count;
			wanted := tools.rows(prefix);
			RAISE EXCEPTION USING ERRCODE = 'P0099';	-- undo it
		EXCEPTION WHEN SQLSTATE 'P0099' THEN NULL;
		END;
		BEGIN
			EXECUTE verb.by_filter USING filter, prefix INTO got_count;
			got := tools.rows(prefix);
			RAISE EXCEPTION USING ERRCODE = 'P0099';
		EXCEPTION WHEN SQLSTATE 'P0099' THEN NULL;
		END;
		IF got_count <> wanted_count OR got <> wanted THEN
			mismatch := concat_ws('; ', mismatch, format('%s: %s, not %s', verb.name, got_count,
				wanted_count), tools.difference(got, wanted));
		END IF;
	END LOOP;
END $$;

-- The filters to check, and what was found for each of them on each of its tables.
CREATE TABLE tools.filters (n serial, key text, filter jsonb, condition text,
	prefixes text[] DEFAULT '{ex9,ex11,ex14,py}');
CREATE TABLE tools.checked (n integer, prefix text, matched bigint[], mismatch text);
CREATE PROCEDURE tools.check_filters() LANGUAGE sql AS $$
	INSERT INTO tools.checked SELECT f.n, p, m.* FROM tools.filters f, unnest(f.prefixes) p,
		tools.mismatch(p, f.filter, f.condition) m
	WHERE f.n NOT IN (SELECT n FROM tools.checked) ORDER BY f.n
$$;
CREATE VIEW tools.result AS
SELECT f.n, f.key, f.filter, string_agg(DISTINCT cardinality(matched)::text, ' or ') AS jobs,
	string_agg(c.prefix || ' ' || c.mismatch, '; ') AS mismatch
FROM tools.filters f JOIN tools.checked c USING (n) GROUP BY f.n, f.key, f.filter ORDER BY f.n;
\set ECHO all

CALL tools.make_many('ex9');
CALL tools.make_many('ex11');
CALL tools.make_many('ex14');
CALL tools.make_many('py');

-- Numbers: however a whole number is written; one that the column cannot hold matches nothing.
INSERT INTO tools.filters (key, filter, condition, prefixes)
SELECT key, format('{"%s": %s}', key, value)::jsonb, key || ' ' || wanted, '{ex14,py}'
FROM (VALUES (1, '3', '= 3'), (2, '3.0', '= 3'), (3, '30e-1', '= 3'), (4, '[3]', '= 3'),
	(5, '[3, 0, 3, 2.0, 777]', 'IN (0, 2, 3)'), (6, '0', '= 0'), (7, '-1', '= -1'),
	(8, '32767', '= 32767'), (9, '32768', 'IS NULL'), (10, '2147483648', 'IS NULL'),
	(11, '9223372036854775807', 'IS NULL'), (12, '9223372036854775808', 'IS NULL'),
	(13, '-9223372036854775809', 'IS NULL'), (14, '1e30', 'IS NULL'), (15, '-1e400', 'IS NULL'),
	(16, '[32768, 2, -2147483649, 9223372036854775808, 1, 1e30]', 'IN (1, 2)'),
	(17, '[65539, 4294967299, 18446744073709551619]', 'IS NULL'),	-- 3, were they cut off
	(18, '[1e30]', 'IS NULL')) v(n, value, wanted),
	unnest('{id,priority,attempt,max_attempts}'::text[]) WITH ORDINALITY k(key, m)
ORDER BY m, v.n;
INSERT INTO tools.filters (key, filter, condition) VALUES
	('max_attempts', '{"max_attempts": 15}', 'max_attempts = 15'),
	('max_attempts', '{"max_attempts": [15, 5]}', 'max_attempts IN (5, 15)');
CALL tools.check_filters();
SELECT key, count(*) AS filters, string_agg(format('%s: %s', filter -> key, jobs), ', ' ORDER BY n)
	FILTER (WHERE jobs <> '0' AND length(filter::text) < 80) AS that_match,
	string_agg(mismatch, '; ') AS mismatch
FROM tools.result GROUP BY key ORDER BY key;
TRUNCATE tools.filters, tools.checked;

-- Texts are compared as they are: nothing is trimmed or folded, and no pattern is one.
INSERT INTO tools.filters (key, filter, condition) VALUES
	('state', '{"state": "available"}', 'state = ''available'''),
	('state', '{"state": ["available"]}', 'state = ''available'''),
	('state', '{"state": ["retryable", "scheduled", "retryable"]}',
		'state IN (''retryable'', ''scheduled'')'),
	('state', '{"state": ["available", "scheduled", "executing", "retryable", "completed",
		"discarded", "cancelled"]}', 'state::text <> ''suspended'''),
	('queue', '{"queue": "media"}', 'queue = ''media'''),
	('queue', '{"queue": ["media", " media", "nowhere"]}', 'queue IN (''media'', '' media'')'),
	('queue', '{"queue": "MEDIA"}', 'false'),
	('queue', '{"queue": "media "}', 'false'),
	('queue', '{"queue": "%media%"}', 'false'),
	('queue', '{"queue": ""}', 'false'),
	('queue', '{"queue": ["", "очередь"]}', 'queue = ''очередь'''),
	('queue', '{"queue": "\u043e\u0447ередь"}', 'queue = ''очередь'''),
	('queue', '{"queue": "{media,default}"}', 'false'),
	('worker', '{"worker": "App.A"}', 'worker = ''App.A'''),
	('worker', '{"worker": ["App.A", "App.\u00c4", "App.A"]}', 'worker IN (''App.A'', ''App.Ä'')'),
	('worker', '{"worker": "App._"}', 'false'),
	('worker', '{"worker": "A\u0308pp"}', 'false'),
	('worker', '{"worker": "NULL"}', 'false');
INSERT INTO tools.filters (key, filter, condition, prefixes) VALUES
	('state', '{"state": "suspended"}', 'state = ''suspended''', '{ex14,py}'),
	('state', '{"state": ["suspended", "completed"]}', 'state IN (''suspended'', ''completed'')',
		'{ex14,py}');
CALL tools.check_filters();
SELECT key, filter, jobs, mismatch FROM tools.result;
TRUNCATE tools.filters, tools.checked;

-- args and meta by containment. A null in them is a value like any other.
INSERT INTO tools.filters (key, filter, condition)
SELECT key, jsonb_build_object(key, value), format('%I @> %L', key, value)
FROM (VALUES
	(1, 'args', jsonb '{"n": 3}'), (2, 'args', '{"n": 3.0}'), (3, 'args', '{"n": "3"}'),
	(4, 'args', '{"user": {"id": 2}}'), (5, 'args', '{"user": {}}'),
	(6, 'args', '{"user": {"id": 2, "name": "é"}, "n": 7}'), (7, 'args', '{"list": [1]}'),
	(8, 'args', '{"list": [{"x": 0}, 2]}'), (9, 'args', '{"list": []}'),
	(10, 'args', '{"list": 1}'), (11, 'args', '{"nothing": null}'), (12, 'args', '{"": "empty"}'),
	(13, 'args', '{"n": null}'), (14, 'args', '{"tenant": 1}'), (15, 'args', '{"no such": {}}'),
	(16, 'meta', '{"tenant": 1}'), (17, 'meta', '{"on": true}'),
	(18, 'meta', '{"tenant": 1, "on": false}'), (19, 'meta', '{"tenant": [1]}'),
	(20, 'meta', '{"tenant": null}'), (21, 'meta', '{"n": 3}')) v(n, key, value)
ORDER BY n;
INSERT INTO tools.filters (key, filter, condition) VALUES
	('both', '{"args": {"user": {"id": 2}}, "meta": {"tenant": 3}}',
		'args @> ''{"user": {"id": 2}}'' AND meta @> ''{"tenant": 3}''');
CALL tools.check_filters();
SELECT key, filter, jobs, mismatch FROM tools.result;
TRUNCATE tools.filters, tools.checked;

-- Tags are compared as they are written, and the job has all of them.
INSERT INTO tools.filters (key, filter, condition)
SELECT 'tags', jsonb_build_object('tags', value), format('tags @> %L::text[]::varchar[]', wanted)
FROM (VALUES (1, jsonb '"a"', '{a}'), (2, '["a"]', '{a}'), (3, '["b", "a"]', '{a,b}'),
	(4, '" a "', '{" a "}'), (5, '[" a ", "b"]', '{b," a "}'), (6, '" b"', '{" b"}'),
	(7, '"1"', '{1}'), (8, '["ä", "1.5"]', '{ä,1.5}'), (9, '["x  y"]', '{"x  y"}'),
	(10, '"x y"', '{"x y"}'), (11, '"X Y"', '{"X Y"}'), (12, '" ä"', '{" ä"}'),
	(13, '"Ä"', '{Ä}'), (14, '"ä"', '{ä}'), (15, '"A"', '{A}'), (16, '["a", "A"]', '{a,A}'),
	(17, '"{a,b}"', '{"{a,b}"}'), (18, '["a", "a"]', '{a}'),
	(19, '["a", "b", "c", "d"]', '{a,b,c,d}'), (20, '"null"', '{"null"}')) v(n, value, wanted)
ORDER BY n;
UPDATE tools.filters SET condition = replace(condition, 'varchar[]', 'text[]'), prefixes = '{py}';
INSERT INTO tools.filters (key, filter, condition, prefixes)
SELECT key, filter, replace(condition, '::text[]::text[]', '::varchar[]'), '{ex9,ex11,ex14}'
FROM tools.filters ORDER BY n;
CALL tools.check_filters();
SELECT filter, string_agg(DISTINCT jobs, ' or ') AS jobs, string_agg(mismatch, '; ') AS mismatch
FROM tools.result GROUP BY filter ORDER BY filter::text COLLATE "C";
TRUNCATE tools.filters, tools.checked;

-- Who ran the job: any of the names, as they are written. It is NULL before the first run.
INSERT INTO tools.filters (key, filter, condition) VALUES
	('attempted_by', '{"attempted_by": "node-1"}', $$'node-1' = ANY (attempted_by)$$),
	('attempted_by', '{"attempted_by": ["two"]}', $$'two' = ANY (attempted_by)$$),
	('attempted_by', '{"attempted_by": ["two", "one", "nobody"]}',
		$$attempted_by::text[] && '{one,two}'$$),
	('attempted_by', '{"attempted_by": "node-"}', 'false'),
	('attempted_by', '{"attempted_by": "NODE-1"}', 'false'),
	('attempted_by', '{"attempted_by": " node-1"}', 'false'),
	('attempted_by', '{"attempted_by": "{node-1}"}', 'false'),
	('attempted_by', '{"attempted_by": "node-1", "state": "executing"}',
		$$'node-1' = ANY (attempted_by) AND state = 'executing'$$);
UPDATE tools.filters SET prefixes = '{ex14,py}';
CALL tools.check_filters();
SELECT filter, jobs, mismatch FROM tools.result;
TRUNCATE tools.filters, tools.checked;

-- What an entry of the errors says: a part of it, with its case. Entries without an error are looked
-- through as a whole.
INSERT INTO tools.filters (key, filter, condition)
SELECT 'error', jsonb_build_object('error', part), format('(%s) AND id NOT IN (42, 43, 44)', wanted)
FROM (VALUES (1, 'boom', 'id % 6 IN (1, 3, 4, 5)'), (2, 'Boom', 'id % 6 = 2'),
	(3, 'BOOM', 'false'), (4, '5000 "ms"', 'id % 6 = 2'),
	(5, '(Timeout) it took 5000 "ms"', 'id % 6 = 2'), (6, '(Timeout).*', 'false'),
	(7, 'it%ms', 'false'), (8, '5000', 'id % 6 IN (2, 3, 5)'), (9, 'attempt', 'id % 6 = 3'),
	(10, '"reason": "boom"', 'id % 6 = 3'), (11, '[7, "boom"]', 'id % 6 = 4'),
	(12, '["boom", 1]', 'id % 6 = 5'), (13, '"boom"', 'id % 6 IN (3, 4, 5)'),
	(14, '"at": "é"', 'id % 6 = 5'), (15, 'é', 'id % 6 IN (2, 5)'),
	(16, U&'e\0301', 'false'), (17, ' ', 'id % 6 IN (2, 3, 4, 5)'), (18, '{}', 'id % 6 = 4'))
	v(n, part, wanted)
ORDER BY n;
UPDATE tools.filters SET filter = filter || '{"not": {"id": [42, 43, 44]}}',
	prefixes = '{ex14,py}';
CALL tools.check_filters();
SELECT filter ->> 'error' AS error, jobs, mismatch FROM tools.result;
SELECT p, array_agg(j.id ORDER BY j.id) AS odd
FROM unnest('{ex9,ex14,py}'::text[]) p,
	oban_all_jobs('{"id": [42, 43, 44], "error": "boom"}', NULL, p) j
GROUP BY p ORDER BY p;
TRUNCATE tools.filters, tools.checked;

-- Ids as JavaScript has them: strings of digits, of any length.
INSERT INTO tools.filters (key, filter, condition) VALUES
	('id', '{"id": "3"}', 'id = 3'), ('id', '{"id": ["3"]}', 'id = 3'),
	('id', '{"id": ["3", 4, "5", "3", 6.0]}', 'id IN (3, 4, 5, 6)'),
	('id', '{"id": "007"}', 'id = 7'), ('id', '{"id": "0"}', 'false'),
	('id', '{"id": "9223372036854775807"}', 'false'),
	('id', '{"id": "9223372036854775808"}', 'false'),
	('id', '{"id": ["18446744073709551619", "2"]}', 'id = 2'),	-- 3, were it cut off
	('id', '{"id": ["99999999999999999999999999999999999999999999999999", "2"]}', 'id = 2');
UPDATE tools.filters SET prefixes = '{ex14,py}';
CALL tools.check_filters();
SELECT filter, jobs, mismatch FROM tools.result;
TRUNCATE tools.filters, tools.checked;

-- not: the jobs that do not match, a NULL among them, beside keys that do; and the not of a not.
INSERT INTO tools.filters (key, filter, condition)
SELECT 'not', filter, wanted
FROM (VALUES
	(1, jsonb '{"not": {"queue": "media"}}', $$queue <> 'media'$$),
	(2, '{"not": {"queue": ["media", "Media"]}, "worker": "App.A"}',
		$$queue NOT IN ('media', 'Media') AND worker = 'App.A'$$),
	(3, '{"not": {"queue": "media", "worker": "App.A"}}',
		$$NOT (queue = 'media' AND worker = 'App.A')$$),
	(4, '{"not": {"completed_at": {"after": "2024-04-01T12:00:00Z"}}}',
		$$completed_at IS NULL OR completed_at < '2024-04-01 12:00'$$),
	(5, '{"not": {"completed_at": {"after": "1970-01-01"}}}', 'completed_at IS NULL'),
	(6, '{"not": {"tags": "a"}}', $$('a' = ANY (tags)) IS NOT TRUE$$),
	(7, '{"not": {"meta": {"tenant": 1}}}', $$(meta @> '{"tenant": 1}') IS NOT TRUE$$),
	(8, '{"not": {"attempted_by": "node-1"}}', $$('node-1' = ANY (attempted_by)) IS NOT TRUE$$),
	(9, '{"not": {"error": "no such"}}', 'true'),
	(10, '{"not": {"error": "5000 \"ms\""}}', 'id % 6 <> 2 OR id = 44 AND errors::text = ''null'''),
	(11, '{"not": {"id": ["1", 2]}, "id": [1, 2, 3]}', 'id = 3'),
	(12, '{"not": {"id": 99999999999999999999}}', 'true'),
	(13, '{"not": {"priority": 99999, "queue": "media"}}', 'true'),
	(14, '{"not": {"all": true}}', 'false'),
	(15, '{"not": {"all": true}, "queue": "media"}', 'false'),
	(16, '{"not": {"all": true, "queue": "media"}}', $$queue <> 'media'$$),
	(17, '{"all": true, "not": {"state": "available"}}', $$state <> 'available'$$),
	(18, '{"not": {"not": {"queue": "media"}}}', $$queue = 'media'$$),
	(19, '{"not": {"not": {"all": true}}}', 'true'),
	(20, '{"not": {"not": {"completed_at": {"after": "1970-01-01"}}}}', 'completed_at IS NOT NULL'),
	(21, '{"not": {"worker": "App.A", "not": {"queue": ["media", "default"], "priority": 1}},
		"attempt": [0, 1, 2], "id": [3, 4, 5, 6, 7, 8, 9, 12, 20, 24, 30, 35]}',
		$$attempt < 3 AND id IN (3, 4, 5, 6, 7, 8, 9, 12, 20, 24, 30, 35) AND NOT (worker = 'App.A'
			AND NOT (queue IN ('media', 'default') AND priority = 1))$$),
	(22, '{"queue": "media", "not": {"queue": ["default", "media"], "not": {"queue": "media"}}}',
		$$queue = 'media'$$)) v(n, filter, wanted)
ORDER BY n;
UPDATE tools.filters SET prefixes = '{ex14,py}';
CALL tools.check_filters();
SELECT filter, jobs, mismatch FROM tools.result;
TRUNCATE tools.filters, tools.checked;

-- Times: after is inclusive, before exclusive; in UTC without an offset; a NULL never matches.
INSERT INTO tools.filters (key, filter, condition)
SELECT key, jsonb_build_object(key, value), replace(wanted, '#', key)
FROM (VALUES
	(1, 'inserted_at', jsonb '{"after": "2024-01-02T00:00:00Z"}', '# >= ''2024-01-02'''),
	(2, 'inserted_at', '{"before": "2024-01-02T00:00:00Z"}', '# < ''2024-01-02'''),
	(3, 'inserted_at', '{"after": "2024-01-01T05:00:00", "before": "2024-01-01 09:00"}',
		'# >= ''2024-01-01 05:00'' AND # < ''2024-01-01 09:00'''),
	(4, 'inserted_at', '{"after": "2024-01-01T05:00:00+02:00", "before": "20240101T090000-0130"}',
		'# >= ''2024-01-01 03:00'' AND # < ''2024-01-01 10:30'''),
	(5, 'inserted_at', '{"after": "2024-01-02", "before": "2024-01-02"}', 'false'),
	(6, 'inserted_at', '{"after": "2024-01-03", "before": "2024-01-02"}', 'false'),
	(7, 'inserted_at', '{"after": "2024-01-02", "before": "2024-01-02T00:00:00.000001Z"}',
		'# = ''2024-01-02'''),
	(8, 'scheduled_at', '{"after": "2024-02-10", "before": "2024-02-20"}',
		'# >= ''2024-02-10'' AND # < ''2024-02-20'''),
	(9, 'attempted_at', '{"after": "2024-03-01T00:00:00.000007Z"}',
		'# >= ''2024-03-01 00:00:00.000007'''),
	(10, 'attempted_at', '{"before": "2024-03-01T00:00:00.000007Z"}',
		'# < ''2024-03-01 00:00:00.000007'''),
	(11, 'attempted_at', '{"before": "9999-12-31"}', '# IS NOT NULL'),
	(12, 'completed_at', '{"after": "1970-01-01"}', '# IS NOT NULL'),
	(13, 'completed_at', '{"before": "2024-04-01T12:00:00Z"}', '# < ''2024-04-01 12:00'''),
	(14, 'cancelled_at', '{"after": "2024-04-01T13:00:00Z"}', '# >= ''2024-04-01 13:00'''),
	(15, 'discarded_at', '{"after": "2024-04-01T14:00:00Z", "before": "2024-04-02T00:00:00+01:00"}',
		'# >= ''2024-04-01 14:00'' AND # < ''2024-04-01 23:00'''),
	(16, 'scheduled_at', '{"before": "1583-01-01"}', 'false'),
	(17, 'inserted_at', '{"before": "9999-12-31T23:59:59Z"}', 'true')) v(n, key, value, wanted)
ORDER BY n;
CALL tools.check_filters();
SELECT key, filter, jobs, mismatch FROM tools.result;
-- The session's zone and style, which are far from UTC and ISO already, do not matter.
SET TimeZone = 'America/New_York';
SET DateStyle = 'SQL, MDY';
TRUNCATE tools.checked;
CALL tools.check_filters();
SELECT count(*) AS filters, string_agg(mismatch, '; ') AS mismatch FROM tools.result;
TRUNCATE tools.filters, tools.checked;

-- all, alone or beside others; and keys together: a job meets every one of them.
INSERT INTO tools.filters (key, filter, condition) VALUES
	('all', '{"all": true}', 'true'),
	('all', '{"all": true, "queue": "media"}', 'queue = ''media'''),
	('two', '{"state": "available", "queue": "media"}',
		'state = ''available'' AND queue = ''media'''),
	('two', '{"state": ["available", "completed"], "queue": ["media", "default"]}',
		'state IN (''available'', ''completed'') AND queue IN (''media'', ''default'')'),
	('two', '{"id": [1, 2, 3, 4, 5, 6], "worker": "App.A"}', 'id <= 6 AND worker = ''App.A'''),
	('two', '{"id": 1, "all": true}', 'id = 1'),
	('two', '{"priority": 1, "attempt": [1, 2]}', 'priority = 1 AND attempt IN (1, 2)'),
	('two', '{"priority": 99999, "attempt": [1, 2]}', 'false'),
	('two', '{"args": {"list": [2]}, "inserted_at": {"after": "2024-01-02"}}',
		'args @> ''{"list": [2]}'' AND inserted_at >= ''2024-01-02'''),
	('two', '{"inserted_at": {"after": "2024-01-02"}, "scheduled_at": {"before": "2024-03-01"}}',
		'inserted_at >= ''2024-01-02'' AND scheduled_at < ''2024-03-01'''),
	('two', '{"completed_at": {"after": "2024-01-01"}, "cancelled_at": {"after": "2024-01-01"}}',
		'false'),
	('many', '{"state": ["available", "cancelled", "completed", "discarded", "retryable",
		"scheduled", "executing"], "queue": ["default", "media", "Media", "очередь"],
		"worker": ["App.A", "App.B"], "priority": [0, 1, 2], "attempt": [0, 1, 2, 3],
		"max_attempts": [5, 15, 25, 99], "args": {"list": [1]}, "all": true,
		"inserted_at": {"after": "2024-01-01", "before": "2024-01-02T20:00:00Z"}}',
		'state::text <> ''suspended'' AND queue <> '' media'' AND worker IN (''App.A'', ''App.B'')
		AND priority < 3 AND attempt < 4 AND inserted_at < ''2024-01-02 20:00''');
-- Every key at once, with values of one job that has them all.
INSERT INTO tools.filters (key, filter, condition)
SELECT 'every', jsonb_build_object('id', id, 'state', state, 'queue', queue, 'worker', worker,
	'priority', priority, 'attempt', attempt, 'max_attempts', max_attempts, 'args', args,
	'meta', meta, 'tags', tags, 'attempted_by', attempted_by, 'error', 'ms', 'all', true,
	'not', '{"id": [4, 19], "not": {"worker": "discarded"}}'::jsonb)
	|| jsonb_object_agg(t.key, jsonb_build_object('after', t.value, 'before', '2025-01-01')),
	'id = ' || id
FROM py.oban_jobs j, jsonb_each(to_jsonb(j)) t
WHERE id = 26 AND t.key ~ '_at$' AND t.value <> 'null'
GROUP BY j.id;
UPDATE tools.filters SET prefixes = '{py}' WHERE key = 'every';
CALL tools.check_filters();
SELECT key, CASE key WHEN 'every' THEN (SELECT count(*) || ' keys' FROM jsonb_object_keys(filter))
	ELSE left(filter::text, 100) END AS filter, jobs, mismatch FROM tools.result;
-- Each of the keys of that last filter counts: with another value for it nothing matches.
SELECT k AS key, (SELECT count(*) FROM oban_all_jobs(filter || jsonb_build_object(k,
		CASE WHEN k IN ('state', 'queue', 'worker') THEN '["discarded"]'
			WHEN k IN ('args', 'meta') THEN '{"no": "such"}' WHEN k = 'tags' THEN '"no such"'
			WHEN k = 'attempted_by' THEN '["no such"]' WHEN k = 'error' THEN '"no such"'
			WHEN k = 'not' THEN '{"id": 26}'
			WHEN k ~ '_at$' THEN '{"after": "2025-01-01"}' ELSE '[4, 19]' END::jsonb), NULL, 'py'))
	AS jobs
FROM tools.filters, jsonb_object_keys(filter) k
WHERE key = 'every' AND k <> 'all' ORDER BY k;

-- A row in which everything is NULL that may be comes back as from oban_get_job, and so do all.
SELECT p AS prefix, count(*) AS jobs,
	count(*) FILTER (WHERE j IS DISTINCT FROM oban_get_job(j.id, p)) AS different
FROM unnest('{ex9,ex11,ex14,py}'::text[]) p, oban_all_jobs('{"all": true}', NULL, p) j
GROUP BY p ORDER BY p;

-- The same query more often than five times, with other values each time.
SELECT string_agg((SELECT string_agg(id || ' ' || prefix, ',')
	FROM oban_all_jobs(jsonb_build_object('id', g, 'inserted_at', '{"after": "2024-01-01"}'::jsonb),
		NULL, p)), '; ' ORDER BY g, p) AS found
FROM generate_series(1, 12) g, unnest('{ex9,py}'::text[]) p;
PREPARE by_queue AS SELECT count(*)
	FROM oban_all_jobs(jsonb_build_object('queue', $1::text), NULL, 'py');
SELECT format('EXECUTE by_queue(%L)', q)
FROM generate_series(1, 3), unnest('{media,nowhere,default}'::text[]) q \gexec

-- The column's type counts: an id beyond integer matches nothing where ids are integers; columns of
-- other lengths and of domains serve too.
CREATE DOMAIN tools.short_text AS varchar(60);
CREATE DOMAIN tools.tag_list AS text[];
ALTER TABLE ex14.oban_jobs ALTER id TYPE integer, ALTER queue TYPE varchar(40),
	ALTER worker TYPE tools.short_text, ALTER tags TYPE text[];
INSERT INTO tools.filters (key, filter, condition, prefixes)
SELECT 'types', filter::jsonb, condition, '{ex14}' FROM (VALUES
	('{"id": 3000000000}', 'false'), ('{"id": [3000000000, 3]}', 'id = 3'),
	('{"id": 4294967299}', 'false'), ('{"queue": "media"}', 'queue = ''media'''),
	('{"queue": "media    "}', 'false'),
	('{"worker": ["App.A", "App.B"]}', 'worker::text IN (''App.A'', ''App.B'')'),
	('{"tags": ["a"]}', 'tags @> ''{a}''')) v(filter, condition);
ALTER TABLE py.oban_jobs ALTER tags TYPE tools.tag_list;
INSERT INTO tools.filters (key, filter, condition, prefixes)
VALUES ('types', '{"tags": ["b", "a"]}', 'tags::text[] @> ''{a,b}''', '{py}');
TRUNCATE tools.checked;
CALL tools.check_filters();
SELECT key, filter, jobs, mismatch FROM tools.result WHERE key = 'types';
SELECT count(*) AS others, string_agg(mismatch, '; ') AS mismatch FROM tools.result
	WHERE key <> 'types';

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
