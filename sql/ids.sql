-- Odd ids and odd arrays: NULL is nothing to do, what does not exist is passed over, a job that is
-- named twice counts once.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

-- NULL: nothing to do.
CALL tools.make_jobs('ex14');
SET oban_manage.prefix = 'ex14';
SELECT oban_cancel_job(NULL::bigint) AS cancel, oban_retry_job(NULL::bigint) AS retry,
	oban_delete_job(NULL::bigint) AS delete;
SELECT oban_cancel_job(NULL::bigint[]) AS cancel, oban_retry_job(NULL::bigint[]) AS retry,
	oban_delete_job(NULL::bigint[]) AS delete;
SELECT oban_cancel_many_jobs(NULL) AS cancel, oban_retry_many_jobs(NULL) AS retry,
	oban_delete_many_jobs(NULL) AS delete;
SELECT oban_cancel_job(NULL::oban_job) AS cancel, oban_retry_job(NULL::ex14.oban_jobs) AS retry,
	oban_delete_job(NULL::oban_job) AS delete;
SELECT oban_update_job(NULL::bigint, '{"priority": 1}') IS NULL AS no_id,
	oban_update_job(NULL::oban_job, '{"priority": 1}') IS NULL AS no_job,
	oban_get_job(NULL) IS NULL AS get, oban_job_cancelled(NULL) AS cancelled;
SELECT count(*) AS updated FROM oban_update_job(NULL::bigint[], '{"priority": 1}');
SELECT count(*) AS updated FROM oban_update_many_jobs(NULL, '{"priority": 1}');
-- A job instance without an id is no job either.
SELECT oban_cancel_job(jsonb_populate_record(NULL::oban_job, '{"prefix": "ex14"}')) AS cancel,
	oban_delete_job(jsonb_populate_record(NULL::ex14.oban_jobs, '{"state": "available"}'))
		AS delete;
SELECT tools.states('ex14');

-- Empty arrays, and arrays of NULLs only.
SELECT oban_cancel_many_jobs('{}') AS cancel, oban_retry_many_jobs('{}') AS retry,
	oban_delete_many_jobs('{}') AS delete;
SELECT oban_cancel_many_jobs('{NULL,NULL}') AS cancel, oban_retry_many_jobs('{NULL}') AS retry,
	oban_delete_many_jobs('{NULL}') AS delete;
SELECT count(*) AS updated FROM oban_update_many_jobs('{}', '{"priority": 1}');
SELECT tools.states('ex14');

-- NULL elements among ids, several dimensions, other lower bounds, duplicates, any order.
CALL tools.fill(12, 'ex14');
SELECT oban_cancel_many_jobs('{NULL,2,NULL,1}') AS with_nulls;
SELECT oban_cancel_many_jobs('{{3,4},{NULL,4}}') AS two_dimensions;
SELECT oban_cancel_job('{{{5},{6}}}'::bigint[]) AS three_dimensions;
SELECT oban_cancel_many_jobs('[5:7]={7,8,1}') AS lower_bound_5;
SELECT oban_cancel_many_jobs('[-1:0][2:3]={{9,10},{10,9}}') AS lower_bound_negative;
SELECT oban_cancel_many_jobs('{12,11,12,11,12}') AS duplicates;
SELECT tools.states('ex14');
SELECT oban_retry_many_jobs('[0:2]={1,1,NULL}') AS retry,
	oban_delete_many_jobs('{{2,2},{NULL,2}}') AS delete;
SELECT id, priority FROM oban_update_many_jobs('[3:3][0:3]={{12,3,12,11}}', '{"priority": 3}');
SELECT tools.states('ex14');

-- Ids that do not exist, negative, zero, the largest and the smallest.
CALL tools.fill(2, 'ex14');
SELECT oban_cancel_job(0) AS zero, oban_retry_job(-1) AS negative,
	oban_delete_job(9223372036854775807) AS largest, oban_cancel_job(99) AS missing;
SELECT oban_cancel_many_jobs(
	'{9223372036854775807,-9223372036854775808,-1,0,1,9223372036854775806}') AS one;
SELECT oban_retry_many_jobs('{9223372036854775807,-9223372036854775808}') AS none,
	oban_delete_many_jobs('{-9223372036854775808,77}') AS none;
SELECT oban_cancel_many_jobs('{9223372036854775808}');
-- Jobs may well have such ids.
UPDATE ex14.oban_jobs SET id = CASE id WHEN 1 THEN 9223372036854775807
	ELSE -9223372036854775808 END;
SELECT oban_retry_many_jobs('{9223372036854775807}') AS retried,
	oban_delete_many_jobs('{-9223372036854775808,9223372036854775807}') AS deleted;
SELECT tools.states('ex14');

-- Narrower ids and arrays of them.
CALL tools.fill(8, 'ex14');
SELECT oban_cancel_job(1::smallint) AS int2, oban_cancel_job(2::integer) AS int4,
	oban_cancel_job('{3}'::smallint[]) AS int2s, oban_cancel_job('{4,5}'::integer[]) AS int4s,
	oban_cancel_many_jobs('{6}'::integer[]) AS many,
	oban_delete_job(ARRAY[7, NULL]) AS literal;
SELECT id FROM oban_update_job(8::smallint, '{}');
SELECT id FROM oban_update_job(ARRAY[8, 1], '{}');
SELECT tools.states('ex14');

-- An array that comes from a table, out of line.
CREATE TABLE tools.sets AS SELECT array_agg(g ORDER BY g DESC) AS ids
FROM generate_series(1, 9000) g;
CALL tools.fill(9001, 'ex14');
SELECT oban_cancel_job(ids) FROM tools.sets;

-- Some 130 million NULLs, which take 16 MB: passed over, and no room is made for them.
SELECT count(*) FROM oban_update_many_jobs(array_fill(NULL::bigint, ARRAY[134217727]), '{"priority": 1}');

-- 20,000 ids that all exist: each verb, on each kind of table.
CREATE FUNCTION tools.all_exist(prefix text, OUT cancelled integer, OUT again integer,
	OUT retried integer, OUT updated bigint, OUT in_order boolean, OUT deleted integer)
LANGUAGE plpgsql AS $$
DECLARE
	-- In disorder, each twice.
	ids bigint[] := (SELECT array_agg(g ORDER BY g * 7919 % 20011)
		FROM generate_series(1, 20000) g, generate_series(1, 2));
BEGIN
	CALL tools.fill(20001, prefix);
	cancelled := oban_cancel_many_jobs(ids, prefix);
	again := oban_cancel_many_jobs(ids, prefix);
	retried := oban_retry_many_jobs(ids, prefix);
	SELECT count(*), array_agg(u.id) = array_agg(u.id ORDER BY u.id) INTO updated, in_order
	FROM oban_update_many_jobs(ids, '{"priority": 1}', prefix) u;
	deleted := oban_delete_many_jobs(ids, prefix);
END $$;
SELECT prefix, a.* FROM unnest('{ex9,ex14,py}'::text[]) prefix, tools.all_exist(prefix) a;
SELECT tools.states('ex9'), tools.states('ex14'), tools.states('py');

-- A million ids of which a few exist.
CALL tools.fill(5, 'py');
INSERT INTO py.oban_jobs (id, worker) OVERRIDING SYSTEM VALUE
	SELECT g, 'App.Worker' FROM unnest('{500000,1000000,1000001}'::bigint[]) g;
CREATE TABLE tools.million AS SELECT array_agg(g) AS ids FROM generate_series(1, 1000000) g;
SELECT oban_cancel_many_jobs(ids, 'py') FROM tools.million;
SELECT oban_retry_many_jobs(ids, 'py') FROM tools.million;
SELECT tools.states('py');
-- The error for update stays short, though it names ids.
SELECT code, length(concat(message, detail, hint)) < 1000 AS short
FROM tools.try('SELECT oban_update_many_jobs(ids, ''{"priority": 1}'', ''py'') FROM tools.million');
SELECT oban_delete_many_jobs(ids, 'py') FROM tools.million;
SELECT tools.states('py');

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
