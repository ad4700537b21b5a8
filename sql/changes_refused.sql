-- What an update refuses: SQLSTATE, message, detail and hint of each; nothing is changed.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
CALL tools.make_jobs('ex14', 'py');
SELECT tools.rows('ex14') AS ex14, tools.rows('py') AS py \gset

-- Refused for an id, and in the same way for an array, a row and on the other dialect.
CREATE FUNCTION tools.refused(VARIADIC changes text[]) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT tools.refusals('oban_update_job(1, %L, ''ex14'')',
		ARRAY['oban_update_many_jobs(''{1,2}'', %L, ''ex14'')',
			'oban_update_job(''{1}''::bigint[], %L, ''ex14'')',
			'oban_update_job(oban_get_job(1, ''ex14''), %L)', 'oban_update_job(1, %L, ''py'')'],
		changes)
$$;
\pset format unaligned
\pset tuples_only on
\set ECHO all

-- Changes that are no object.
SELECT tools.refused(NULL, 'null', '1', '"text"', 'true', '[]', '[{"priority": 1}]',
	'[["priority", 1]]', '"{\"priority\": 1}"', '"[1]"');

-- Unknown keys: the hint names one that is like it, and lists those that are allowed.
SELECT tools.refused('{"scheduled_in": 5}', '{"works": "W"}', '{"arg": {}}', '{"prio": 1}',
	'{"id": 1}', '{"state": "available"}', '{"errors": []}',
	'{"": 1}', '{"Priority": 1}', '{"priority": 1, "attempt": 1}', '{"cancelled_at": null}',
	'{"prefix": "py"}', '{"queue\u0022; --": 1}');

-- JSON null for any key.
SELECT tools.refused('{"args": null}', '{"max_attempts": null}', '{"meta": null}',
	'{"priority": null}', '{"queue": null}', '{"schedule_in": null}', '{"scheduled_at": null}',
	'{"tags": null}', '{"worker": null}');

-- args, meta: an object.
SELECT tools.refused('{"args": []}', '{"args": "{}"}', '{"args": 1}', '{"args": [{}]}',
	'{"meta": true}', '{"meta": [1]}', '{"meta": "x"}');

-- max_attempts: a whole number, at least 1. What its column can hold is in change_values.sql.
SELECT tools.refused('{"max_attempts": 0}', '{"max_attempts": -1}', '{"max_attempts": 2.5}',
	'{"max_attempts": "5"}', '{"max_attempts": true}', '{"max_attempts": [5]}',
	'{"max_attempts": {}}', '{"max_attempts": 1e-1}');

-- priority: a whole number from 0 to 9.
SELECT tools.refused('{"priority": -1}', '{"priority": 10}', '{"priority": 0.5}',
	'{"priority": "1"}', '{"priority": false}', '{"priority": []}', '{"priority": 1e400}',
	'{"priority": -1e400}', '{"priority": 4294967297}', '{"priority": 18446744073709551617}');

-- queue, worker: a string with a non-blank character.
SELECT tools.refused('{"queue": ""}', '{"queue": "  "}', '{"queue": "\t\r\n"}', '{"queue": 1}',
	'{"queue": ["a"]}', '{"queue": {}}', '{"worker": ""}', '{"worker": " \t"}', '{"worker": true}',
	'{"worker": ["App.Worker"]}');

-- scheduled_at: an ISO 8601 time.
SELECT tools.refused('{"scheduled_at": ""}', '{"scheduled_at": "soon"}', '{"scheduled_at": "now"}',
	'{"scheduled_at": "infinity"}', '{"scheduled_at": "-infinity"}', '{"scheduled_at": "tomorrow"}',
	'{"scheduled_at": "epoch"}', '{"scheduled_at": "03/02/2031"}', '{"scheduled_at": "3 Feb 2031"}',
	'{"scheduled_at": "2031-02-03 04:05 Europe/Paris"}', '{"scheduled_at": "2031-02-30T00:00:00Z"}',
	'{"scheduled_at": "2031-01-01T25:00:00Z"}', '{"scheduled_at": "999999-01-01T00:00:00Z"}',
	'{"scheduled_at": "2031-13-01T00:00:00Z"}', '{"scheduled_at": "2031-01-01T00:00:00+99:00"}',
	'{"scheduled_at": 1924905600}', '{"scheduled_at": true}', '{"scheduled_at": ["2031-01-01"]}',
	'{"scheduled_at": "2031-01-01T23:30.5Z"}', '{"scheduled_at": "20310101T2330.5"}',
	'{"scheduled_at": "2031-01-01T23.5Z"}', '{"scheduled_at": "2031-01-01T23:30:5Z"}',
	'{"scheduled_at": {}}', '{"scheduled_at": "202401-01-02"}', '{"scheduled_at": "999-01-01"}',
	'{"scheduled_at": "10000-01-01T00:00:00Z"}', '{"scheduled_at": "0000-12-31T23:59:59Z"}',
	'{"scheduled_at": "0044-03-15 BC"}', '{"scheduled_at": "0001-01-01T00:00:00+00:01"}',
	'{"scheduled_at": "9999-12-31T23:59:00-00:01"}', '{"scheduled_at": "9999-12-31T24:00:00"}',
	'{"scheduled_at": "9999-12-31T23:59:59.9999999Z"}',
	'{"scheduled_at": "2031-01-01T00:00:00Z", "schedule_in": 60}');

-- schedule_in: seconds, or an interval as text.
SELECT tools.refused('{"schedule_in": ""}', '{"schedule_in": "later"}',
	'{"schedule_in": "5 parsecs"}', '{"schedule_in": "NaN"}',
	'{"schedule_in": true}', '{"schedule_in": [60]}', '{"schedule_in": {}}',
	'{"schedule_in": 1e13}', '{"schedule_in": -1e13}', '{"schedule_in": 1e18}',
	'{"schedule_in": 1e400}', '{"schedule_in": -1e400}', '{"schedule_in": "999999 years"}',
	'{"schedule_in": "-999999 years"}', '{"schedule_in": -95000000000}',
	'{"schedule_in": 260000000000}', '{"schedule_in": "-2100 years"}',
	'{"schedule_in": "8000 years"}', '{"schedule_in": "99999999999 years"}');
-- An interval that never ends is one since PostgreSQL 17, and refused all the same.
SELECT i, string_agg(refused, ' ') LIKE '%=> ' || CASE
	WHEN current_setting('server_version_num')::integer < 170000
		THEN '22007 invalid input syntax for type interval: '
	ELSE '22023 invalid value for "schedule_in": ' END || format('"%s"%%', i)
FROM unnest('{infinity,-infinity}'::text[]) i,
	tools.refused(jsonb_build_object('schedule_in', i)::text) refused
GROUP BY i ORDER BY i DESC;

-- tags: an array of scalars.
SELECT tools.refused('{"tags": "a"}', '{"tags": {}}', '{"tags": 1}', '{"tags": true}',
	'{"tags": [["a"]]}', '{"tags": [[]]}', '{"tags": ["a", {"b": 1}]}');

-- One fault spoils the rest.
SELECT tools.refused('{"args": {}, "meta": {}, "priority": 1, "queue": "q", "tags": 1}');
-- A value that is refused is not shown in full.
SELECT tools.refused(format('{"tags": "%s"}', repeat('x', 1000)));

-- Nothing of all that was written.
\pset tuples_only off
\pset format aligned
SELECT tools.rows('ex14') = :'ex14' AS ex14_unchanged, tools.rows('py') = :'py' AS py_unchanged;

-- How such an error looks in psql.
SELECT oban_update_job(1, '{"prio": 1, "queue": "a"}', 'ex14');

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
