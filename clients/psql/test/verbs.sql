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

-- Update with a callable.
CREATE FUNCTION merge(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('meta', job.meta || context, 'tags', job.tags || 'seen'::text)
$$;
CREATE FUNCTION twin(job oban_job) RETURNS jsonb LANGUAGE sql AS $$
	SELECT '{"queue": "oban_job"}'::jsonb
$$;
CREATE FUNCTION twin(job jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT '{"queue": "jsonb"}'::jsonb
$$;
CREATE FUNCTION complain(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id = (context ->> 'about')::bigint THEN
		RAISE 'job % will not do', job.id USING ERRCODE = 'UE001';
	END IF;
	RETURN '{"priority": 9}';
END $$;

-- A callable's name needs no cast, as a literal or quoted.
\set callable merge
SELECT id, meta, tags FROM oban_update_job_with(28, 'merge', '{"batch": 7}') \gset job_
SELECT pg_temp.same(:'job_id', '28', 'callable: the job comes back');
SELECT pg_temp.same(:'job_meta', '{"batch": 7}', 'callable: with what the context brought');
SELECT pg_temp.same(:'job_tags', '{a,b,seen}', 'callable: and what the job had');
SELECT pg_temp.same(string_agg(id || ' ' || meta, ', '), '28 {"b": 1, "batch": 7}, 29 {"b": 1}',
					'callable, many jobs: a row a job, in id order')
	FROM oban_update_many_jobs_with('{29, 28, 29}', :'callable', '{"b": 1}');
SELECT pg_temp.same(u.meta::text, '{"b": 2}', 'callable: a row of the table')
	FROM oban_jobs j, oban_update_job_with(j, 'merge', '{"b": 2}') u WHERE j.id = 30;
SELECT oban_update_job_with('28', 'merge', '{}');
SELECT pg_temp.same(:'SQLSTATE', '42725', 'callable: a quoted id is ambiguous');
SELECT oban_update_job_with(28, 'merge'::text, '{}');
SELECT pg_temp.same(:'SQLSTATE', '42883', 'callable: text is no regproc');
SELECT pg_temp.same((oban_update_job_with(28, 'merge'::text::regproc, '{}')).tags::text,
					'{a,b,seen}', 'callable: text with a cast to regproc');
SELECT oban_update_job_with(28, 'twin');
SELECT pg_temp.same(:'SQLSTATE', '42725', 'callable: a name of two functions is ambiguous');
SELECT pg_temp.same((oban_update_job_with(28, 'twin(jsonb)'::regprocedure)).queue, 'jsonb',
					'callable: a signature with a cast to regprocedure');
PREPARE with_callable AS SELECT meta FROM oban_update_job_with($1::bigint, $2, $3);
EXECUTE with_callable (27, 'merge', '{"n": 1}') \gset
EXECUTE with_callable (27, 'merge', '{"m": 2}') \gset
SELECT pg_temp.same(:'meta', '{"m": 2, "n": 1}', 'callable, prepared: only the id needs a type');
SELECT id FROM oban_update_many_jobs_with('{28, 29}', 'complain', '{"about": 29}');
SELECT pg_temp.same(:'SQLSTATE', 'UE001', 'callable: its error has its own SQLSTATE');
SELECT pg_temp.same(:'LAST_ERROR_MESSAGE', 'job 29 will not do', 'callable: and its own message');
SELECT pg_temp.same((oban_get_job(28)).priority::text, '1', 'callable: nothing was changed');
SELECT oban_update_job_with(28, 'nowhere');
SELECT pg_temp.same(:'SQLSTATE', '42883', 'callable: a function that is not there gives 42883');
SELECT oban_update_job_with(28, NULL);
SELECT pg_temp.same(:'SQLSTATE', '22004', 'callable: NULL gives 22004');
SELECT oban_update_many_jobs_with('{28, 1000}', 'merge', '{}');
SELECT pg_temp.same(:'SQLSTATE', 'P0002', 'callable: a missing job gives P0002');

-- Filters: no cast, as a literal, quoted or built.
INSERT INTO oban_jobs (id, queue, worker, state)
	SELECT id, 'bulk', 'Mailer', 'scheduled' FROM generate_series(101, 110) id;
\set filter '{"queue": "bulk", "state": "scheduled"}'
SELECT pg_temp.same(string_agg(id::text, ' '), '101 102 103', 'filter: the jobs that match')
	FROM oban_all_jobs(:'filter', 3);
SELECT pg_temp.same(oban_cancel_all_jobs(:'filter', 4)::text, '4', 'filter: cancel, at most four');
SELECT pg_temp.same(oban_cancel_all_jobs(jsonb_build_object('id', ARRAY[104, 105, 106]))::text,
					'2', 'filter: cancel, as a query builds it');
SELECT pg_temp.same(oban_retry_all_jobs('{"queue": "bulk", "state": "cancelled"}')::text, '6',
					'filter: retry');
SELECT pg_temp.same(oban_update_all_jobs('{"queue": "bulk"}', '{"priority": 3}')::text, '10',
					'filter: update');
SELECT pg_temp.same(oban_delete_all_jobs('{"id": [109, 110]}', prefix => :'schema')::text, '2',
					'filter: delete, with a prefix');
\set worker 'O''Mailer"; DROP TABLE oban_jobs; --'
UPDATE oban_jobs SET worker = :'worker' WHERE id = 108;
SELECT pg_temp.same(string_agg(id::text, ' '), '108', 'filter: quotes are no matter')
	FROM oban_all_jobs(jsonb_build_object('worker', :'worker'));
SELECT oban_delete_all_jobs('{}');
SELECT pg_temp.same(:'SQLSTATE', '22023', 'filter: an empty one is refused');
SELECT oban_delete_all_jobs('{"colour": "red"}');
SELECT pg_temp.same(:'SQLSTATE', '22023', 'filter: an unknown key is refused');
SELECT oban_delete_all_jobs(NULL);
SELECT pg_temp.same(:'SQLSTATE', '22004', 'filter: NULL is refused');

-- Outcomes.
SELECT pg_temp.same(string_agg(concat_ws(' ', job_id, outcome, old_state, new_state), ', '),
					'101 ignored available available, 107 retried scheduled available, 999 '
					|| 'not_found', 'outcomes: the dry run')
	FROM oban_manage_jobs('retry', '{107, 999, 101, 107}', dry_run => true);
SELECT pg_temp.same((oban_get_job(107)).state, 'scheduled', 'outcomes: and nothing is changed');
SELECT pg_temp.same(string_agg(concat_ws(' ', job_id, outcome, old_state, new_state), ', '),
					'107 deleted scheduled', 'outcomes: delete')
	FROM oban_manage_jobs('delete', '{107}');
SELECT oban_manage_jobs('explode', '{107}');
SELECT pg_temp.same(:'SQLSTATE', '22023', 'outcomes: an unknown action is refused');

-- Batches, which need psql's AUTOCOMMIT.
CALL oban_cancel_in_batches('{"queue": "bulk"}', 3) \gset
SELECT pg_temp.same(:'affected', '7', 'batches: affected as a variable');
CALL oban_retry_in_batches(:'filter', spread => '1 hour') \gset
SELECT pg_temp.same(:'affected', '0', 'batches: nothing to do');
CALL oban_update_in_batches('{"queue": "bulk"}', '{"tags": ["done"]}', prefix => :'schema') \gset
SELECT pg_temp.same(:'affected', '7', 'batches: with a prefix');
BEGIN;
CALL oban_delete_in_batches('{"queue": "bulk"}');
SELECT pg_temp.same(:'SQLSTATE', '25001', 'batches: not in a transaction block');
ROLLBACK;
SELECT 1 WHERE false \; CALL oban_delete_in_batches('{"queue": "bulk"}');
SELECT pg_temp.same(:'SQLSTATE', '25001', 'batches: not among several statements');
\set AUTOCOMMIT off
CALL oban_delete_in_batches('{"queue": "bulk"}');
\set sqlstate :SQLSTATE
ROLLBACK;
\set AUTOCOMMIT on
SELECT pg_temp.same(:'sqlstate', '25001', 'batches: not with AUTOCOMMIT off');
CALL oban_delete_in_batches('{"queue": "bulk"}', pause => '1 millisecond') \gset
SELECT pg_temp.same(:'affected', '7', 'batches: on their own');

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
SELECT pg_temp.same(oban_job_cancelled(1, attempt => 99)::text, 'true', 'another run is not its own');
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT oban_cancel_job(1) AS changed, oban_retry_many_jobs('{17, 18}') AS retried \gset
SELECT oban_update_job(1, '{"priority": -1}');
COMMIT;
SELECT pg_temp.same((oban_get_job(1)).state, 'cancelled', 'after an error that psql undid: kept');
SELECT pg_temp.same(oban_job_cancelled(1)::text, 'true', 'the worker may ask');
SELECT pg_temp.same(string_agg(DISTINCT state::text, ' '), 'available', 'the last check')
	FROM oban_jobs WHERE id IN (17, 18);
