-- Every state × verb × form of call on every dialect, against the table in the contract. Whole rows
-- are compared, so that a column that must not change is seen when it does.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers

-- The contract: what becomes of a job in each state; NULL means that it is ignored.
CREATE TABLE tools.contract (state text, cancel text, retry text, delete text);
INSERT INTO tools.contract VALUES
	('available', 'cancelled', NULL, 'deleted'),
	('scheduled', 'cancelled', 'available', 'deleted'),
	('suspended', 'cancelled', 'available', 'deleted'),
	('retryable', 'cancelled', 'available', 'deleted'),
	('executing', 'cancelled', NULL, NULL),
	('completed', NULL, 'available', 'deleted'),
	('discarded', NULL, 'available', 'deleted'),
	('cancelled', NULL, 'available', 'deleted');

-- Ways to call a verb for one job; P is the prefix, N the id.
CREATE TABLE tools.forms (form text, many boolean, call text);
INSERT INTO tools.forms VALUES
	('id', false, 'SELECT oban_VERB_job(N, %L)'),
	('row', false, 'SELECT oban_VERB_job(j) FROM P.oban_jobs j WHERE id = N'),
	('oban_job', false, 'SELECT oban_VERB_job(oban_get_job(N, %L))'),
	('array', true, 'SELECT oban_VERB_job(ARRAY[N]::bigint[], %L)'),
	('many_jobs', true, 'SELECT oban_VERB_many_jobs(''{N}'', %L)'),
	-- All jobs in one call: the number of those changed, and each as the contract says.
	('all', true, 'SELECT oban_VERB_many_jobs(''{8,7,6,5,4,3,2,1,3,99,null}'', %L)');

-- The row that the contract promises, from the row before.
CREATE FUNCTION tools.promised(job jsonb, verb text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT CASE to_jsonb(c) ->> verb
		WHEN 'cancelled' THEN
			job || jsonb_build_object('state', 'cancelled', 'cancelled_at', timezone('UTC', now()))
		WHEN 'available' THEN
			job || jsonb_build_object('state', 'available', 'scheduled_at', timezone('UTC', now()),
				'max_attempts',
				greatest((job ->> 'max_attempts')::int, (job ->> 'attempt')::int + 1),
				'completed_at', NULL, 'cancelled_at', NULL, 'discarded_at', NULL)
			|| CASE WHEN job #> '{meta,uniq_bmp}' IS NOT NULL
				THEN jsonb_build_object('meta', job -> 'meta' || '{"uniq_bmp": []}') ELSE '{}' END
		WHEN 'deleted' THEN NULL
		ELSE job
	END
	FROM tools.contract c WHERE c.state = job ->> 'state'
$$;

-- Calls a verb in every form for every job of a table, each call undone afterwards, and says what
-- differs from the contract; a NULL mismatch is as promised.
CREATE FUNCTION tools.check_calls(prefix text, variant text, OUT verb text, OUT form text,
	OUT state text, OUT mismatch text) RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
	before jsonb;
	wanted jsonb;
	changed bigint;
	result text;
	f record;
BEGIN
	CALL tools.make_jobs(prefix);
	EXECUTE format('UPDATE %I.oban_jobs SET ' || CASE variant
		WHEN 'plain' THEN 'priority = 3'
		WHEN 'exhausted' THEN 'max_attempts = 4, attempt = 4'
		WHEN 'unique' THEN 'meta = ''{"uniq": true, "uniq_bmp": [1, 2]}'''
		WHEN 'unique_null' THEN 'meta = ''{"uniq_bmp": null}'''
		WHEN 'stamped' THEN 'completed_at = ''2024-02-01'', cancelled_at = ''2024-02-02'',
			discarded_at = ''2024-02-03'', attempted_at = ''2024-02-04'''
		WHEN 'array_meta' THEN 'meta = ''["uniq_bmp"]'''
		WHEN 'no_meta' THEN 'meta = NULL'
		END, prefix);
	before := tools.rows(prefix);

	FOR f IN
		SELECT v AS verb, c.form, c.many, j.state, j.id, replace(replace(replace(c.call, 'VERB', v),
			'N', j.id::text), 'P.', quote_ident(prefix) || '.') AS call
		FROM unnest('{cancel,retry,delete}'::text[]) v, tools.forms c, tools.model j
		WHERE before ? j.id::text AND (c.form <> 'all' OR j.id = 1)
	LOOP
		-- A row that is gone has no key.
		SELECT coalesce(jsonb_object_agg(id, promised) FILTER (WHERE promised IS NOT NULL), '{}'),
			count(*) FILTER (WHERE promised IS DISTINCT FROM job)
		INTO wanted, changed
		FROM (SELECT id, job, CASE WHEN f.form = 'all' OR id::bigint = f.id
				THEN tools.promised(job, f.verb) ELSE job END
			FROM jsonb_each(before) b(id, job)) p(id, job, promised);
		BEGIN
			EXECUTE 'SELECT r::text FROM (' || format(f.call, prefix) || ') AS q(r)' INTO result;
			mismatch := nullif(concat_ws('; ',
				CASE WHEN result IS DISTINCT FROM
						CASE WHEN f.many THEN changed::text ELSE (changed = 1)::text END
					THEN format('gave %s for %s changed', result, changed) END,
				tools.difference(tools.rows(prefix), wanted)), '');
			RAISE EXCEPTION USING ERRCODE = 'P0099';
		EXCEPTION WHEN SQLSTATE 'P0099' THEN
			NULL;
		END;
		verb := f.verb;
		form := f.form;
		state := CASE WHEN f.form = 'all' THEN 'all' ELSE f.state END;
		RETURN NEXT;
	END LOOP;
END $$;
\set ECHO all

CREATE TABLE tools.cells AS
SELECT prefix, variant, c.*
FROM unnest('{ex9,ex11,ex14,py}'::text[]) prefix,
	unnest('{plain,exhausted,unique,unique_null,stamped,array_meta,no_meta}'::text[]) variant,
	tools.check_calls(prefix, variant) c
WHERE variant <> 'no_meta' OR prefix <> 'py';	-- meta is NOT NULL there

SELECT prefix, verb, count(*) AS cells, count(mismatch) AS mismatches
FROM tools.cells GROUP BY prefix, verb ORDER BY prefix, verb;
SELECT * FROM tools.cells WHERE mismatch IS NOT NULL
ORDER BY prefix, verb, form, state, variant LIMIT 20;

-- The same for the eye: what one call for all jobs leaves.
CALL tools.make_jobs('ex14');
SELECT tools.states('ex14');
SELECT oban_cancel_many_jobs('{1,2,3,4,5,6,7,8}', 'ex14');
SELECT tools.states('ex14');
CALL tools.make_jobs('py');
SELECT oban_retry_many_jobs('{1,2,3,4,5,6,7,8}', 'py');
SELECT tools.states('py');
CALL tools.make_jobs('ex9');
SELECT oban_delete_many_jobs('{1,2,3,4,5,6,7,8}', 'ex9');
SELECT tools.states('ex9');

-- A verb a second time: nothing left to do for cancel and delete; retry leaves an available job be.
CALL tools.make_jobs('ex14');
SELECT oban_cancel_job(1, 'ex14') AS first, oban_cancel_job(1, 'ex14') AS second;
SELECT oban_retry_job(7, 'ex14') AS first, oban_retry_job(7, 'ex14') AS second;
SELECT oban_delete_job(5, 'ex14') AS first, oban_delete_job(5, 'ex14') AS second;
-- An executing job is deleted in two steps, as managing-jobs.md says.
SELECT oban_delete_job(3, 'ex14'), oban_cancel_job(3, 'ex14'), oban_delete_job(3, 'ex14');

-- Oban Pro's unique jobs: a generated column with a unique index. A retry takes the retried job out
-- of the running for its key, and leaves the job that has the key now alone.
ALTER TABLE py.oban_jobs ADD uniq_key text GENERATED ALWAYS AS (CASE WHEN meta -> 'uniq_bmp' @>
	CASE state WHEN 'available' THEN '1' WHEN 'cancelled' THEN '6' ELSE '0' END::jsonb
	THEN meta ->> 'uniq_key' END) STORED UNIQUE;
CALL tools.make_jobs('py');
UPDATE py.oban_jobs SET meta = '{"uniq_key": "k", "uniq_bmp": [0, 1, 2]}' WHERE id IN (1, 7);
SELECT oban_retry_many_jobs('{7}', 'py');
SELECT id, state, meta, uniq_key FROM py.oban_jobs WHERE id IN (1, 7) ORDER BY id;

-- The time is that of the transaction, as with now(), not of the call.
BEGIN;
SELECT pg_sleep(0.01);
SELECT oban_cancel_job(2, 'ex14');
SELECT cancelled_at = timezone('UTC', now()) AS at_start_of_transaction FROM ex14.oban_jobs
WHERE id = 2;
COMMIT;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
