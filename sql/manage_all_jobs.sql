-- oban_manage_all_jobs gives the rows of oban_manage_jobs over the ids that oban_all_jobs finds, and does
-- the same to them, dry and real. oban_update_all_jobs_with does what oban_update_many_jobs_with does to
-- those ids.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set partitions :abs_srcdir '/fixtures/partitions.sql'
\set ECHO none
\i :helpers
\i :partitions
\pset null NULL

-- What a call gives and leaves, undone.
CREATE FUNCTION tools.done(call text, p text, OUT rows jsonb, OUT leaves jsonb) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT coalesce(jsonb_agg(r ORDER BY r), ''[]'') FROM %s r', call) INTO rows;
	leaves := tools.rows(p);
	RAISE EXCEPTION USING ERRCODE = 'P0099';
EXCEPTION WHEN SQLSTATE 'P0099' THEN NULL;
END $$;
CREATE FUNCTION tools.compare(action text, filter jsonb, most integer, dry boolean, p text, OUT jobs integer,
	OUT outcomes text, OUT mismatch text)
LANGUAGE plpgsql AS $$
DECLARE
	changes jsonb := CASE action WHEN 'update' THEN '{"schedule_in": 60, "tags": ["x"]}' END;
	got record;
	wanted record;
BEGIN
	got := tools.done(format('oban_manage_all_jobs(%L, %L, %L, %L, %L, prefix => %L)', action, filter,
		changes, most, dry, p), p);
	wanted := tools.done(format('oban_manage_jobs(%L, ARRAY(SELECT id FROM oban_all_jobs(%L, %L, %L)), %L, %L,
		%L)', action, filter, most, p, changes, dry, p), p);
	jobs := jsonb_array_length(got.rows);
	outcomes := (SELECT string_agg(DISTINCT r ->> 'outcome', ' ') FROM jsonb_array_elements(got.rows) r);
	mismatch := nullif(concat_ws('; ', CASE WHEN got.rows <> wanted.rows THEN format('%s, not %s', got.rows,
		wanted.rows) END, tools.difference(got.leaves, wanted.leaves)), '');
END $$;
CALL tools.make_jobs('ex9', 'ex14', 'py');
INSERT INTO by_hash.oban_jobs SELECT * FROM ex14.oban_jobs;
INSERT INTO by_state.oban_jobs SELECT * FROM py.oban_jobs;
\set ECHO all

SELECT action, filter, count(*) AS calls, string_agg(DISTINCT jobs::text, ' ') AS jobs,
	string_agg(DISTINCT outcomes, '; ') AS outcomes, string_agg(mismatch, '; ') AS mismatch
FROM unnest('{cancel,retry,delete,update}'::text[]) WITH ORDINALITY a(action, n),
	unnest(ARRAY['{"all": true}', '{"queue": "default"}', '{"state": ["executing", "completed"]}',
		'{"id": [1, 3, 5, 99]}', '{"queue": "nowhere"}', '{"args": {"n": 3}}', '{"tags": "a", "attempt": 0}']
		::jsonb[]) WITH ORDINALITY f(filter, m),
	unnest('{NULL,0,1,3,100}'::integer[]) most, unnest('{false,true}'::boolean[]) dry,
	unnest('{ex9,ex14,py,by_hash,by_state}'::text[]) p, tools.compare(action, filter, most, dry, p)
GROUP BY action, n, filter, m ORDER BY n, m;
-- max_jobs bounds the jobs looked at, those that the action leaves alone among them.
SELECT job_id, outcome FROM oban_manage_all_jobs('retry', '{"all": true}', max_jobs => 3, prefix => 'ex14');
-- A dry run writes and locks nothing.
BEGIN READ ONLY;
SELECT count(*) FROM oban_manage_all_jobs('cancel', '{"all": true}', dry_run => true, prefix => 'py');
SELECT DISTINCT mode FROM pg_locks WHERE relation = 'py.oban_jobs'::regclass;
COMMIT;

-- What is refused.
SET oban_manage.prefix = 'py';
\pset format unaligned
\pset tuples_only on
SELECT tools.refusal('SELECT oban_manage_all_jobs(' || a || ')') FROM unnest(ARRAY[
	'NULL, ''{"id": 1}''', '''destroy'', ''{"id": 1}''', '''cancel'', NULL', '''cancel'', ''{}''',
	'''cancel'', ''{"idd": 1}''', '''cancel'', ''{"id": 1}'', ''{"priority": 1}''', '''update'', ''{"id": 1}''',
	'''update'', ''{"id": 1}'', ''{"prio": 1}''', '''cancel'', ''{"id": 1}'', NULL, -1',
	'''cancel'', ''{"id": 1}'', dry_run => NULL', '''cancel'', ''{"id": 1}'', prefix => ''no such''']) a;
\pset format aligned
\pset tuples_only off
RESET oban_manage.prefix;

-- ---- By a callable.
CREATE FUNCTION tools.raised(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id = (context ->> 'fails')::bigint THEN
		RAISE EXCEPTION 'no changes for job %', job.id;
	END IF;
	RETURN CASE WHEN job.id % 3 > 0 THEN jsonb_build_object('tags', job.tags || coalesce(context ->> 'tag', 'new')) END;
END $$;
CREATE FUNCTION tools.compare_with(filter jsonb, most integer, p text, OUT counted bigint, OUT mismatch text)
LANGUAGE plpgsql AS $$
DECLARE
	got record;
	wanted record;
BEGIN
	got := tools.done(format('oban_update_all_jobs_with(%L, ''tools.raised'', NULL, %L, %L)', filter, most, p), p);
	wanted := tools.done(format('oban_update_many_jobs_with(ARRAY(SELECT id FROM oban_all_jobs(%L, %L, %L)),
		''tools.raised'', prefix => %L)', filter, most, p, p), p);
	counted := got.rows ->> 0;
	mismatch := tools.difference(got.leaves, wanted.leaves);
	IF counted <> (SELECT count(*) FROM jsonb_array_elements(wanted.rows) r WHERE (r ->> 'id')::bigint % 3 > 0) THEN
		mismatch := concat_ws('; ', mismatch, 'not ' || wanted.rows);
	END IF;
END $$;
SELECT filter, count(*) AS calls, min(counted), max(counted), string_agg(mismatch, '; ') AS mismatch
FROM unnest(ARRAY['{"all": true}', '{"queue": "default"}', '{"state": "executing"}', '{"id": 99}']::jsonb[])
		WITH ORDINALITY f(filter, m),
	unnest('{NULL,0,1,3,100}'::integer[]) most, unnest('{ex9,ex14,py,by_hash,by_state}'::text[]) p,
	tools.compare_with(filter, most, p)
GROUP BY filter, m ORDER BY m;
SELECT oban_update_all_jobs_with('{"all": true}', 'tools.raised', '{"tag": "seen"}', prefix => 'ex14');
SELECT string_agg(id || ' ' || tags::text, ', ' ORDER BY id) FROM ex14.oban_jobs;
-- An error in it undoes the call, and names the job. Thousands of jobs.
SELECT code, message, context
FROM tools.try('SELECT oban_update_all_jobs_with(''{"all": true}'', ''tools.raised'', ''{"fails": 4}'', prefix => ''py'')');
SELECT string_agg(DISTINCT tags::text, ' ') FROM py.oban_jobs;
CALL tools.fill(5000, 'ex14');
SELECT oban_update_all_jobs_with('{"all": true}', 'tools.raised', prefix => 'ex14', max_jobs => 4500);
SELECT tags, count(*), max(id) FROM ex14.oban_jobs GROUP BY 1 ORDER BY 1;
-- A callable that lost to another transaction is not called again.
CREATE SEQUENCE tools.called;
CREATE FUNCTION tools.loses(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'lost by call %', nextval('tools.called') USING ERRCODE = 'deadlock_detected';
END $$;
SELECT code, message
FROM tools.try('SELECT oban_update_all_jobs_with(''{"all": true}'', ''tools.loses'', prefix => ''ex14'')');

DROP SCHEMA by_hash, by_state CASCADE;
DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
