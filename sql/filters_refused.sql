-- What a filter refuses: SQLSTATE, message, detail and hint of each, the same from every function,
-- whether there are jobs or not; nothing is changed, and no row is locked.
-- Seen to fail with an empty filter taken for all, elements of arrays or states not checked, "all":
-- false and empty args let through, and a negative max_jobs.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\set ECHO none
CALL tools.make_jobs('ex14', 'py', 'ex9');
SELECT tools.rows('ex14') AS ex14, tools.rows('py') AS py \gset
-- Refused in the same way by every function, on the other dialect, on a table without jobs (ex11),
-- and for no jobs at all.
CREATE FUNCTION tools.refused(VARIADIC filters text[]) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT tools.refusals('count(*) FROM oban_all_jobs(%L, NULL, ''ex14'')',
		ARRAY['oban_all_jobs(%L, NULL, ''py'')', 'oban_all_jobs(%L, 0, ''ex11'')',
			'oban_cancel_all_jobs(%L, NULL, ''ex14'')', 'oban_cancel_all_jobs(%L, 0, ''py'')',
			'oban_retry_all_jobs(%L, 5, ''ex14'')', 'oban_retry_all_jobs(%L, 0, ''ex11'')',
			'oban_delete_all_jobs(%L, 1, ''py'')', 'oban_delete_all_jobs(%L, 0, ''ex14'')',
			'oban_update_all_jobs(%L, ''{"priority": 1}'', NULL, ''ex14'')',
			'oban_update_all_jobs(%L, ''{}'', 0, ''ex14'')'],
		filters)
$$;
\pset format unaligned
\pset tuples_only on
\set ECHO all

-- Filters that are no object, or name nothing.
SELECT tools.refused(NULL, 'null', '1', '"id"', 'true', '[]', '[{"id": 1}]', '[["id", 1]]', '{}');

-- The text of an object in place of the object.
SELECT tools.refused('"{\"id\": 1}"', '" \n{}"', '"[1]"', '" "');

-- Unknown keys: the hint names one that is like it, or says where those of the arguments belong. Then
-- it lists those that are allowed.
SELECT tools.refused('{"tenant_id": 7}', '{"quue": "mail"}', '{"attemptedby": "node-1"}',
	'{"Not": {"id": 1}}', '{"not": {"idd": 1}}', '{"not": {"not": {"user_id": 1}}}',
	'{"scheduled": {"before": "2024-01-01"}}', '{"i": 1}', '{"al": true}',
	'{"not": {"inserted_at": {"befor": "2024-01-01"}}}');
SELECT tools.refused('{"ids": [1]}', '{"args->>''n''": 1}', '{"": 1}', '{"State": "available"}',
	'{"errors": []}', '{"node": "node-1"}', '{"prefix": "py"}', '{"limit": 1}',
	'{"after": "2024-01-01"}', '{"inserted_at.after": "2024-01-01"}',
	'{"id": 1, "schedule_in": 0}', '{"all": true, "everything": true}', '{"id\u0022; --": 1}');

-- JSON null for any key, and in any array.
SELECT tools.refused('{"attempted_by": null}', '{"error": null}', '{"not": null}',
	'{"not": {"error": null}}', '{"tags": ["a", null]}', '{"attempted_by": [null, "a"]}');
SELECT tools.refused('{"id": null}', '{"state": null}', '{"queue": null}', '{"worker": null}',
	'{"priority": null}', '{"attempt": null}', '{"max_attempts": null}', '{"args": null}',
	'{"meta": null}', '{"tags": null}', '{"inserted_at": null}', '{"scheduled_at": null}',
	'{"attempted_at": null}', '{"completed_at": null}', '{"cancelled_at": null}',
	'{"discarded_at": null}', '{"all": null}');
SELECT tools.refused('{"id": [1, null]}', '{"state": [null]}', '{"queue": [null, "a"]}',
	'{"worker": ["a", null]}', '{"inserted_at": {"after": null}}',
	'{"inserted_at": {"after": "2024-01-01", "before": null}}');

-- Empty arrays and objects.
SELECT tools.refused('{"id": []}', '{"state": []}', '{"queue": []}', '{"worker": []}',
	'{"priority": []}', '{"attempt": []}', '{"max_attempts": []}', '{"args": {}}', '{"meta": {}}',
	'{"tags": []}', '{"inserted_at": {}}', '{"discarded_at": {}}', '{"all": {}}',
	'{"id": 1, "queue": []}', '{"attempted_by": []}', '{"not": {}}', '{"id": 1, "not": {}}',
	'{"not": {"not": {}}}');

-- Numbers: whole ones, in an array beside others too. Of an id, the digits may be a string.
SELECT tools.refused('{"id": "x"}', '{"id": ""}', '{"id": " 1"}', '{"id": "1.0"}', '{"id": "-1"}',
	'{"id": "+1"}', '{"id": "1e3"}', '{"id": "0x1"}', '{"id": "١"}', '{"id": [1, "2", "three"]}',
	'{"not": {"id": "6f1c2a9e-4d1b-4c53-8a2f-0b7d3c9e5f10"}}', '{"priority": "3"}',
	'{"priority": "-3"}', '{"priority": "-"}', '{"attempt": [1, "2"]}', '{"max_attempts": ""}');
SELECT tools.refused('{"id": 1.5}', '{"id": true}', '{"id": {}}', '{"id": {"a": 1}}',
	'{"id": [[1]]}', '{"id": [1, "two"]}', '{"id": [1, 2.25]}', '{"id": [1, {}]}', '{"id": [[]]}',
	'{"id": [false]}', '{"id": 1e-400}', '{"priority": "0"}', '{"priority": 0.5}',
	'{"priority": [0, 0.1]}', '{"attempt": "many"}', '{"attempt": -0.5}', '{"max_attempts": "20"}',
	'{"max_attempts": [20, 20.5]}', '{"max_attempts": 99999999999999999999.5}');

-- Texts.
SELECT tools.refused('{"queue": 1}', '{"queue": true}', '{"queue": {}}', '{"queue": {"a": "b"}}',
	'{"queue": [["a"]]}', '{"queue": ["a", 1]}', '{"queue": ["a", {}]}', '{"worker": 1.5}',
	'{"worker": false}', '{"worker": {"like": "App%"}}', '{"worker": [[]]}',
	'{"worker": ["App.A", ["App.B"]]}');

-- States: those of the table's own enum, as they are written there.
SELECT tools.refused('{"state": "Available"}', '{"state": ""}', '{"state": " available"}',
	'{"state": "running"}', '{"state": 1}', '{"state": true}', '{"state": {}}',
	'{"state": ["available", "runnable", "running"]}', '{"state": [["available"]]}',
	'{"state": ["available", 1]}', '{"state": "available,scheduled"}',
	'{"state": "{available}"}', '{"state": "suspended\n"}', '{"state": "0"}');
-- Migrations before v14 know no suspended. A state that the enum has and no job is in is no error.
SELECT code, message, hint
FROM tools.try('SELECT oban_all_jobs(''{"state": "suspended"}'', NULL, ''ex9'')');
SELECT code, message
FROM tools.try('SELECT oban_all_jobs(''{"state": ["executing", "suspended"]}'', 1, ''ex11'')');
SELECT code, message
FROM tools.try('SELECT oban_delete_all_jobs(''{"state": "suspended"}'', NULL, ''ex9'')');
SELECT oban_delete_all_jobs('{"state": "suspended", "queue": "nowhere"}', NULL, 'ex14');

-- args and meta: an object.
SELECT tools.refused('{"args": []}', '{"args": [{"n": 1}]}', '{"args": "{}"}', '{"args": 1}',
	'{"args": true}', '{"meta": [1]}', '{"meta": "x"}', '{"meta": false}', '{"meta": 0}');

-- Tags: a string, or an array of strings, numbers and booleans of which something is left.
SELECT tools.refused('{"tags": ""}', '{"tags": "  "}', '{"tags": "\t\r\n"}', '{"tags": 1}',
	'{"tags": true}', '{"tags": {}}', '{"tags": {"a": 1}}', '{"tags": [null]}',
	'{"tags": ["", " ", null]}', '{"tags": [["a"]]}', '{"tags": ["a", {}]}', '{"tags": ["a", []]}',
	'{"tags": ["a", 1]}', '{"tags": ["a", true]}', '{"tags": ["a", " "]}');

-- Who ran the job, and what its errors say: strings.
SELECT tools.refused('{"attempted_by": ""}', '{"attempted_by": " "}', '{"attempted_by": 1}',
	'{"attempted_by": ["node-1", ""]}', '{"attempted_by": {"node": 1}}', '{"error": ""}',
	'{"error": ["boom"]}', '{"error": {"error": "boom"}}', '{"error": 1}', '{"error": true}');

-- not: a filter, in which the same is refused; and two of them, one in the other, but no more.
SELECT tools.refused('{"not": "id"}', '{"not": [{"id": 1}]}', '{"not": true}', '{"not": 1}',
	'{"not": {"id": 1.5}}', '{"not": {"all": false}}', '{"not": {"state": "gone"}}',
	'{"not": {"inserted_at": {"after": "2024-02-30"}}}',
	'{"not": {"not": {"inserted_at": {"after": "soon"}}}}',
	'{"not": {"not": {"not": {"id": 1}}}}', '{"id": 1, "not": {"not": {"id": 1, "not": {}}}}');

-- Times: an object of after and before, each ISO 8601.
SELECT tools.refused('{"inserted_at": "2024-01-01"}', '{"inserted_at": 1704067200}',
	'{"inserted_at": ["2024-01-01"]}', '{"inserted_at": true}', '{"inserted_at": []}',
	'{"inserted_at": {"since": "2024-01-01"}}', '{"inserted_at": {"After": "2024-01-01"}}',
	'{"inserted_at": {"after": "2024-01-01", "until": "2024-01-02"}}',
	'{"inserted_at": {"after": 1704067200}}', '{"inserted_at": {"before": ["2024-01-01"]}}',
	'{"inserted_at": {"before": {}}}', '{"inserted_at": {"after": true}}',
	'{"inserted_at": {"after": ""}}', '{"inserted_at": {"after": "yesterday"}}',
	'{"inserted_at": {"after": "now"}}', '{"inserted_at": {"after": "infinity"}}',
	'{"inserted_at": {"before": "-infinity"}}', '{"inserted_at": {"before": "epoch"}}',
	'{"inserted_at": {"before": "31.12.2024"}}', '{"inserted_at": {"before": "12/31/2024"}}',
	'{"inserted_at": {"before": "2024-1-1"}}', '{"inserted_at": {"before": "2024-01-01T"}}',
	'{"inserted_at": {"before": "2024-01-01 00:00:00 Europe/Paris"}}',
	'{"inserted_at": {"before": " 2024-01-01"}}', '{"inserted_at": {"before": "2024-01-01 BC"}}',
	'{"inserted_at": {"after": "2024-13-01"}}', '{"inserted_at": {"after": "2024-02-30"}}',
	'{"inserted_at": {"after": "2024-01-01T25:00:00Z"}}',
	'{"inserted_at": {"after": "999999-01-01"}}', '{"inserted_at": {"before": "202401-01-02"}}',
	'{"inserted_at": {"after": "0000-01-01"}}', '{"inserted_at": {"after": "0044-03-15 BC"}}',
	'{"inserted_at": {"before": "294276-12-31T23:59:59Z"}}',
	'{"inserted_at": {"after": "2024-01-01T00:00+99"}}');
SELECT tools.refused('{"scheduled_at": {"after": "soon"}}', '{"attempted_at": {"after": "soon"}}',
	'{"completed_at": {"after": "soon"}}', '{"cancelled_at": {"after": "soon"}}',
	'{"discarded_at": {"after": "soon"}}');

-- all: nothing but true.
SELECT tools.refused('{"all": false}', '{"all": "true"}', '{"all": 1}', '{"all": []}',
	'{"all": [true]}', '{"all": false, "id": 1}');

-- Long values are not repeated in full.
SELECT left(message, 100), length(message) < 200 AS short, hint
FROM tools.try(format('SELECT oban_all_jobs(%L, NULL, ''ex14'')',
	jsonb_build_object('id', repeat('long ', 1000)))) WHERE code = '22023';
SELECT message, hint
FROM tools.try(format('SELECT oban_all_jobs(%L, NULL, ''py'')',
	jsonb_build_object('id', (SELECT jsonb_agg(g) || '"here"' FROM generate_series(1, 9999) g))))
WHERE code = '22023';
SELECT code, length(message) < 500 AS short
FROM tools.try(format('SELECT oban_all_jobs(%L, NULL, ''py'')',
	jsonb_build_object(repeat('key', 10000), 1)));

-- max_jobs.
SELECT tools.refusal('SELECT oban_' || call) FROM unnest(ARRAY[
	'all_jobs(''{"id": 1}'', -1, ''py'')', 'cancel_all_jobs(''{"id": 1}'', -1, ''py'')',
	'retry_all_jobs(''{"id": 1}'', -2147483648, ''py'')',
	'delete_all_jobs(''{"id": 1}'', -1, ''ex11'')',
	'update_all_jobs(''{"id": 1}'', ''{}'', -1, ''py'')']) call;

-- Changes that an update refuses, whether there is any job or not. (What they are is in
-- changes_refused.sql.)
SELECT f, c, tools.refusal(format('SELECT oban_update_all_jobs(%L, %L, %L, ''ex14'')', f, c, m))
FROM (VALUES ('{"id": 1}', 0), ('{"all": true}', NULL), ('{"id": 99}', 1)) f(f, m),
	unnest(ARRAY[NULL, '[]', '{"prio": 1}', '{"priority": 10}',
		'{"schedule_in": 1, "scheduled_at": "2024-01-01"}']) c;

-- A table that is not there.
SELECT tools.refusal('SELECT oban_' || call) FROM unnest(ARRAY[
	'all_jobs(''{"id": 1}'', prefix => ''no such'')', 'cancel_all_jobs(''{"id": 1}'')',
	'update_all_jobs(''{"id": 1}'', ''{}'', NULL, ''tools'')']) call;

-- Nothing was changed or locked.
\pset format aligned
\pset tuples_only off
SELECT tools.difference(tools.rows('ex14'), :'ex14') IS NULL AS ex14_kept,
	tools.difference(tools.rows('py'), :'py') IS NULL AS py_kept;
SELECT count(*) AS locked
FROM (SELECT xmax FROM ex14.oban_jobs UNION ALL SELECT xmax FROM py.oban_jobs) j
WHERE xmax <> 0;
-- The test is one: a refusal that comes after the lock leaves its mark.
SELECT code FROM tools.try(
	'SELECT oban_update_all_jobs(''{"id": 6}'', ''{"max_attempts": 2}'', NULL, ''py'')');
SELECT id FROM py.oban_jobs WHERE xmax <> 0;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
