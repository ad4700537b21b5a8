-- The operations role of docs/operations_role.md, which manages jobs and does not read their args,
-- errors and attempted_by: it tries every function and procedure, with changes that a CHECK refuses
-- too, and nothing that it gets, in a result or in any field of an error, is from these columns.
-- Seen to fail with SELECT (args) granted by the page, and with statements run as the table's owner.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\set ECHO none
\set entry_points :abs_srcdir '/fixtures/entry_points.sql'
\set prefix ex11
\i :entry_points
\pset null -
\set SHOW_CONTEXT never
DROP ROLE IF EXISTS regress_oban_operations;
CREATE ROLE regress_oban_operations;
-- The grants of the page, word by word, for another table and role.
\set page :abs_srcdir '/docs/operations_role.md'
SELECT regexp_replace(pg_read_file(:'page'), '.*\n(GRANT USAGE ON SCHEMA public.*?ON public.oban_jobs TO operations;).*',
	'\1') AS grants \gset
SELECT replace(replace(replace(:'grants', 'TO operations', 'TO regress_oban_operations'),
	'SCHEMA public', 'SCHEMA ex11'), 'public.oban_jobs', 'ex11.oban_jobs') AS grants \gset
\set ECHO all
:grants
SELECT privilege, string_agg(attname, ', ' ORDER BY attname) AS not_granted
FROM pg_attribute, unnest('{SELECT,UPDATE}'::text[]) privilege
WHERE attrelid = 'ex11.oban_jobs'::regclass AND attnum > 0
	AND NOT has_column_privilege('regress_oban_operations', attrelid, attnum, privilege)
GROUP BY 1 ORDER BY 1;
CALL tools.make_jobs('ex11');
UPDATE ex11.oban_jobs SET args = '{"n": "canary"}', errors = ARRAY[jsonb '"canary"'],
	attempted_by = '{canary}';

-- What it can do: all but update by id, callables, and to read whole jobs.
SELECT verb, code, string_agg(DISTINCT substring(call FROM '(?:tools\.|oban_)\w+'), ', ') AS by
FROM tools.observe('regress_oban_operations', 'public', '{"4,5"}', '{"{\"priority\": 3}"}')
WHERE call NOT LIKE 'CALL%' AND call NOT LIKE '%"args"%'
GROUP BY 1, 2 ORDER BY 1, 2;
-- With args in the filter, or as a change that is no dry run, none.
SELECT DISTINCT code, message
FROM tools.observe('regress_oban_operations', 'public', '{"4,5"}', '{"{\"args\": {}}"}')
WHERE call NOT LIKE 'CALL%' AND call ~ '"args"' AND call NOT LIKE '%, ''t'', %';
-- And what it is told: nothing of them, also where a CHECK shows the row that failed.
CREATE TABLE tools.told AS
SELECT * FROM tools.observe('regress_oban_operations', 'public', '{1,3,"4,5,2","6,7,99"}',
	ARRAY['{"priority": 3}', '{"priority": 9}', '{"max_attempts": 2}', '{"worker": "W"}', '{"queue": "q"}',
		'{"meta": {"a": 1}, "schedule_in": 60}', '{"args": {}}', '{"prio": 1}',
		jsonb_build_object('queue', repeat('q', 128))::text]);
SELECT count(*) > 300 AS many, string_agg(DISTINCT code, ', ') AS codes,
	count(*) FILTER (WHERE concat_ws(' ', message, detail, hint, context) ~ 'canary') AS tell
FROM tools.told;
SELECT DISTINCT detail FROM tools.told WHERE code = '23514' AND call ~ 'manage_jobs'
	AND call ~ '"priority": 9' ORDER BY 1 LIMIT 1;
-- The control: to its owner such an error shows them.
SELECT count(*) > 0 AS tells FROM tools.observe('none', 'public', '{1}', '{"{\"priority\": 9}"}')
WHERE code = '23514' AND detail ~ 'canary';

-- The procedures.
SET ROLE regress_oban_operations;
CALL oban_update_in_batches('{"all": true}', '{"priority": 9}', prefix => 'ex11');
CALL oban_update_in_batches('{"queue": "mail"}', '{"priority": 1}', prefix => 'ex11');
CALL oban_cancel_in_batches('{"args": {"n": "canary"}}', prefix => 'ex11');
CALL oban_retry_in_batches('{"state": "cancelled"}', prefix => 'ex11');
CALL oban_delete_in_batches('{"id": 4}', prefix => 'ex11');
CALL oban_update_in_batches('{"id": 5}', '{"args": {}}', prefix => 'ex11');
CALL oban_update_in_batches('{"id": 5}', '{"worker": "W"}', prefix => 'ex11');
RESET ROLE;
REVOKE DELETE ON ex11.oban_jobs FROM regress_oban_operations;
SET ROLE regress_oban_operations;
CALL oban_delete_in_batches('{"id": 5}', prefix => 'ex11');
RESET ROLE;
SELECT tools.states('ex11');

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
DROP ROLE regress_oban_operations;
