-- Run by verbs.sh; the variable schema has the schema of the jobs table.

SET search_path = :"schema", public;
SET oban_manage.prefix = :'schema';

CREATE TEMP SEQUENCE checks;
CREATE FUNCTION pg_temp.same(got text, expected text, name text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN got IS NOT DISTINCT FROM expected
		THEN format('ok %s - %s', nextval('checks'), name)
		ELSE format(E'not ok %s - %s\n#      got: %s\n# expected: %s', nextval('checks'), name, got,
					expected) END
$$;

INSERT INTO oban_jobs (queue, worker, state)
	SELECT 'mail', 'Mailer', 'available' FROM generate_series(1, 30);
UPDATE oban_jobs SET state = 'executing' WHERE id = 1;

-- Numbers, as literals or in variables, need no cast.
\set id 10
SELECT pg_temp.same(oban_cancel_job(:id)::text, 'true', 'cancel: a number in a variable');
SELECT pg_temp.same(oban_retry_job(10)::text, 'true', 'retry: a number');
SELECT pg_temp.same(oban_delete_job(10)::text, 'true', 'delete: a number');
SELECT pg_temp.same(oban_delete_job(10)::text, 'false', 'delete: the job is gone');

-- A quoted value has no type yet.
\set id 11
SELECT oban_cancel_job(:'id');
SELECT pg_temp.same(:'SQLSTATE', '42725', 'cancel: a quoted id is ambiguous');
SELECT oban_cancel_job(NULL);
SELECT pg_temp.same(:'SQLSTATE', '42725', 'cancel: NULL is ambiguous');
SELECT pg_temp.same(oban_cancel_job(:'id'::bigint)::text, 'true', 'cancel: with a cast it is not');
SELECT pg_temp.same(oban_cancel_job(NULL::bigint)::text, 'false', 'cancel: NULL with a cast');

\set ids '{12, 13, 13, 14, 1000}'
SELECT oban_retry_job(:'ids');
SELECT pg_temp.same(:'SQLSTATE', '42725', 'retry: a quoted array is ambiguous');
SELECT pg_temp.same(oban_cancel_job(:'ids'::bigint[])::text, '3', 'cancel: an array with a cast');
SELECT pg_temp.same(oban_retry_many_jobs(:'ids')::text, '3', 'retry_many_jobs: no cast needed');
SELECT pg_temp.same(oban_delete_job(ARRAY[12, 13, 14])::text, '3', 'delete: an array of numbers');
SELECT pg_temp.same(oban_cancel_job(array_agg(id))::text, '5', 'cancel: ids that a query finds')
	FROM oban_jobs WHERE id BETWEEN 15 AND 19;
SELECT pg_temp.same(string_agg(oban_retry_job(j)::text, ' ' ORDER BY id), 'true true',
					'retry: rows of the table')
	FROM oban_jobs j WHERE id IN (15, 16);
SELECT pg_temp.same(oban_delete_job(oban_get_job(15))::text, 'true', 'delete: an oban_job');
SELECT pg_temp.same(oban_cancel_job(20, :'schema')::text, 'true', 'cancel: with a prefix');
SELECT oban_cancel_job(20, 'nowhere');
SELECT pg_temp.same(:'SQLSTATE', '3F000', 'cancel: a missing schema gives 3F000');

-- Prepared statements: a parameter without a type is ambiguous, too.
PREPARE untyped AS SELECT oban_cancel_job($1);
SELECT pg_temp.same(:'SQLSTATE', '42725', 'prepare: a parameter without a type is ambiguous');
PREPARE typed (bigint) AS SELECT pg_temp.same(oban_cancel_job($1)::text, 'true', 'prepare: ' || $1);
EXECUTE typed (21);
EXECUTE typed (22);
EXECUTE typed (23);
EXECUTE typed (24);
EXECUTE typed (25);
EXECUTE typed (26);
EXECUTE typed (27);
PREPARE many AS SELECT oban_retry_many_jobs($1) AS changed;
EXECUTE many ('{21, 22, 23}') \gset
SELECT pg_temp.same(:'changed', '3', 'prepare: many_jobs needs no type');

-- Update.
\set changes '{"priority": 2, "tags": ["B", "a"], "args": {"to": "bob"}}'
SELECT id, state, priority, tags, args, prefix FROM oban_update_job(28, :'changes') \gset job_
SELECT pg_temp.same(:'job_id', '28', 'update: the id');
SELECT pg_temp.same(:'job_state', 'available', 'update: the state');
SELECT pg_temp.same(:'job_priority', '2', 'update: the priority');
SELECT pg_temp.same(:'job_tags', '{a,b}', 'update: the tags');
SELECT pg_temp.same(:'job_args', '{"to": "bob"}', 'update: the args');
SELECT pg_temp.same(:'job_prefix', :'schema', 'update: the prefix');
SELECT pg_temp.same(string_agg(id || ':' || priority, ' '), '28:1 29:1', 'update_many_jobs')
	FROM oban_update_many_jobs('{29, 28}', '{"priority": 1}');
SELECT oban_update_job(28, '{"priority": 10}');
SELECT pg_temp.same(:'SQLSTATE', '22023', 'update: a wrong priority gives 22023');
SELECT oban_update_job(28, '{"state": "executing"}');
SELECT pg_temp.same(:'SQLSTATE', '22023', 'update: a key that is not updatable gives 22023');
SELECT oban_update_job(ARRAY[28, 1000], '{"priority": 3}');
SELECT pg_temp.same(:'SQLSTATE', 'P0002', 'update: a missing job gives P0002');
SELECT pg_temp.same((oban_get_job(28)).priority::text, '1', 'update: and changes nothing');

-- Transactions, and what they tell; verbs.sh looks at the notifications.
SELECT format('LISTEN %I', :'schema' || '.oban_' || name)
	FROM unnest('{signal,insert}'::text[]) name
\gexec
BEGIN;
SELECT oban_cancel_job(1) AS changed, oban_retry_job(17) AS retried \gset
ROLLBACK;
SELECT pg_temp.same(:'changed', 't', 'in a transaction: changed');
SELECT pg_temp.same((oban_get_job(1)).state, 'executing', 'rolled back: as it was');
SELECT pg_temp.same(oban_job_cancelled(1)::text, 'false', 'rolled back: not cancelled');
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT oban_cancel_job(1) AS changed, oban_retry_many_jobs('{17, 18}') AS retried \gset
SELECT oban_update_job(1, '{"priority": -1}');
COMMIT;
SELECT pg_temp.same((oban_get_job(1)).state, 'cancelled', 'after an error that psql undid: kept');
SELECT pg_temp.same(oban_job_cancelled(1)::text, 'true', 'the worker may ask');
SELECT pg_temp.same(string_agg(DISTINCT state::text, ' '), 'available', 'the last check')
	FROM oban_jobs WHERE id IN (17, 18);
