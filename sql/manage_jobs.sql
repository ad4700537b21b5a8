-- oban_manage_jobs: an outcome and a reason for every id, the same from a dry run, which writes and
-- locks nothing.
-- Seen to fail with a dry run that locks, a real run that locks only what it changes, and the new
-- state of a job that was kept as it is.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

-- Everything about the rows of a table that a write or a lock would change.
CREATE FUNCTION tools.tuples(prefix text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
BEGIN
	EXECUTE format('SELECT string_agg(concat_ws('' '', tableoid, ctid, xmin, xmax, j), ''; ''
		ORDER BY id) FROM %I.oban_jobs j', prefix) INTO found;
	RETURN found;
END $$;
-- A dry run, then the real run, which is undone. Says where the dry run wrote or locked, where the
-- two differ, and where the rows do not become what the verb by ids makes of them.
CREATE FUNCTION tools.run(action text, ids bigint[], changes jsonb, prefix text, OUT outcomes text,
	OUT mismatch text) LANGUAGE plpgsql AS $$
DECLARE
	call text := format('SELECT coalesce(array_agg(concat_ws('' '', job_id, outcome, old_state,
		''>'', coalesce(new_state, ''-''), ''because'', reason)), ''{}'')
		FROM oban_manage_jobs(%L, %L, %L, $1, %L)', action, ids, changes, prefix);
	before text := tools.tuples(prefix);
	dry text[];
	wet text[];
	got jsonb;
	wanted jsonb;
BEGIN
	EXECUTE call INTO dry USING true;
	IF tools.tuples(prefix) IS DISTINCT FROM before THEN
		mismatch := 'the dry run left its mark';
	END IF;
	BEGIN
		EXECUTE call INTO wet USING false;
		got := tools.rows(prefix);
		RAISE EXCEPTION USING ERRCODE = 'P0099';
	EXCEPTION WHEN SQLSTATE 'P0099' THEN NULL;
	END;
	BEGIN
		IF action = 'update' THEN
			EXECUTE format('SELECT count(*) FROM oban_update_many_jobs(
				(SELECT array_agg(id) FROM %I.oban_jobs WHERE id = ANY (%L)), %L, %L)',
				prefix, ids, changes, prefix);
		ELSE
			EXECUTE format('SELECT oban_%s_many_jobs(%L, %L)', action, ids, prefix);
		END IF;
		wanted := tools.rows(prefix);
		RAISE EXCEPTION USING ERRCODE = 'P0099';
	EXCEPTION WHEN SQLSTATE 'P0099' THEN NULL;
	END;
	IF dry <> wet THEN
		mismatch := concat_ws('; ', mismatch, format('dry %s, not %s', dry, wet));
	END IF;
	mismatch := nullif(concat_ws('; ', mismatch, tools.difference(got, wanted)), '');
	outcomes := (SELECT string_agg(regexp_replace(o, ' because .*', ''), ', ' ORDER BY n)
		FROM unnest(wet) WITH ORDINALITY u(o, n));
END $$;
\set ECHO all

-- Each action in each state, and for a job that does not exist.
CALL tools.make_jobs('ex9', 'ex11', 'ex14', 'py');
SELECT a AS action, r.* FROM unnest('{cancel,retry,delete,update}'::text[]) WITH ORDINALITY u(a, n),
	oban_manage_jobs(a, '{1,2,3,4,5,6,7,8,99}',
		CASE a WHEN 'update' THEN jsonb '{"priority": 1}' END, true, 'ex14') r
ORDER BY n, job_id;
-- The real run says the same and does what the verb by ids does, on every dialect; the dry run left
-- no trace of itself.
SELECT a AS action, p AS prefix, r.*
FROM unnest('{cancel,retry,delete,update}'::text[]) WITH ORDINALITY u(a, n),
	unnest('{ex9,ex11,ex14,py}'::text[]) WITH ORDINALITY w(p, m),
	tools.run(a, '{1,2,3,4,5,6,7,8,99}', CASE a WHEN 'update' THEN jsonb '{"priority": 1}' END, p) r
ORDER BY n, m;
-- Each job alone, as the plan for one id may differ.
SELECT count(*) AS calls,
	string_agg(format('%s %s on %s: ', a, i, p) || mismatch, '; ') AS mismatch
FROM unnest('{cancel,retry,delete,update}'::text[]) a, unnest('{ex9,ex11,ex14,py}'::text[]) p,
	generate_series(1, 9) i,
	tools.run(a, ARRAY[i]::bigint[], CASE a WHEN 'update' THEN jsonb '{"tags": ["x"]}' END, p) r;
-- Other jobs are left alone.
SELECT * FROM tools.run('cancel', '{4,2}', NULL, 'py');

-- Updates: a changed schedule's new state, every key at once, no change at all.
SELECT c AS changes, r.* FROM unnest(ARRAY['{"schedule_in": 60}', '{"schedule_in": -60}',
	'{"schedule_in": "1 day"}', '{"scheduled_at": "2024-01-01T00:00:00Z"}',
	'{"scheduled_at": "2099-01-01"}', '{"queue": "q"}', '{}', '{"args": {}, "meta": {},
	"queue": "q", "worker": "w", "priority": 0, "max_attempts": 40, "tags": [], "schedule_in": 0}'])
	WITH ORDINALITY u(c, n), tools.run('update', '{8,7,6,5,4,3,2,1,0}', c::jsonb, 'py') r
ORDER BY n;
SELECT * FROM oban_manage_jobs('update', '{2,1}', '{"schedule_in": 0}', false, 'py');
SELECT * FROM oban_manage_jobs('update', '{1,2}', '{"schedule_in": 60}', false, 'py');
SELECT id, state FROM py.oban_jobs WHERE id < 3 ORDER BY id;

-- Ids: any order, named twice, NULL, in several dimensions, missing, none at all.
CALL tools.make_jobs('ex14', 'py');
SELECT i AS ids, r.* FROM unnest(ARRAY['{3,1,2}', '{1,1,NULL,1}', '{NULL}', '{}', NULL,
	'{{4,5},{NULL,4}}', '[7:9]={6,9,6}',
	'{0,-1,9223372036854775807,-9223372036854775808,7}']) WITH ORDINALITY u(i, n),
	tools.run('cancel', i::bigint[], NULL, 'ex14') r
ORDER BY n;
SELECT count(*) AS rows FROM oban_manage_jobs('delete', NULL, prefix => 'py');
-- 40,000 of them, of which 20,000 exist, in disorder and each twice: in id order for all that.
CREATE TABLE tools.many AS SELECT array_agg(g ORDER BY g * 7919 % 40009) AS ids
FROM generate_series(1, 40000) g, generate_series(1, 2);
CALL tools.fill(20000, 'py');
SELECT dry_run, outcome, old_state, new_state, count(*), count(DISTINCT reason) AS reasons,
	min(job_id), max(job_id), bool_and(lag < job_id) AS in_id_order
FROM unnest('{true,false}'::boolean[]) dry_run, tools.many,
	LATERAL (SELECT *, lag(job_id, 1, 0::bigint) OVER ()
		FROM oban_manage_jobs('delete', ids, NULL, dry_run, 'py')) r
GROUP BY 1, 2, 3, 4 ORDER BY 1 DESC, 2;
SELECT tools.states('py');

-- Named arguments, defaults, the setting; as a driver sends it, untyped.
CALL tools.make_jobs('ex14', 'py');
SET oban_manage.prefix = 'py';
SELECT * FROM oban_manage_jobs(action => 'retry', job_ids => '{1,6}');
SELECT * FROM oban_manage_jobs('retry', '{1,6}');
PREPARE manage AS SELECT job_id, outcome, old_state, new_state
	FROM oban_manage_jobs($1, $2, $3, $4, $5);
SELECT parameter_types FROM pg_prepared_statements WHERE name = 'manage';
\set ECHO none
EXECUTE manage('cancel', '{1}', NULL, true, 'ex14') \g /dev/null
EXECUTE manage('retry', '{1}', NULL, true, 'ex14') \g /dev/null
EXECUTE manage('delete', '{1}', NULL, true, 'py') \g /dev/null
EXECUTE manage('update', '{1}', '{"priority": 1}', true, 'ex14') \g /dev/null
EXECUTE manage('cancel', '{1}', NULL, false, 'ex14') \g /dev/null
EXECUTE manage('cancel', '{1}', NULL, true, 'ex14') \g /dev/null
\set ECHO all
EXECUTE manage('cancel', '{3,1}', NULL, false, 'ex14');
EXECUTE manage('cancel', '{3,1}', NULL, true, 'ex14');
DEALLOCATE manage;
RESET oban_manage.prefix;
-- Joined to what is known of the jobs, and in one statement with other calls.
SELECT a, string_agg(format('%s %s', job_id, outcome), ', ' ORDER BY job_id) AS outcomes
FROM (VALUES (1, 'cancel'), (2, 'retry'), (3, 'delete')) v(n, a),
	oban_manage_jobs(a, '{2,5}', NULL, false, 'ex14')
GROUP BY n, a ORDER BY n;

-- The running Obans are told by the real run only.
CALL tools.make_jobs('ex14');
LISTEN "ex14.oban_signal";
LISTEN "ex14.oban_insert";
\set filter '|sed "s/ received from server process with PID [0-9]*[.]//"'
\pset tuples_only on
\pset format unaligned
\o :filter
\qecho dry runs:
SELECT count(*) FROM unnest('{cancel,retry,delete}'::text[]) a,
	oban_manage_jobs(a, '{1,2,3,4,5,6,7,8}', NULL, true, 'ex14');
SELECT count(*) FROM oban_manage_jobs('update', '{2}', '{"schedule_in": 0}', true, 'ex14');
\qecho update:
SELECT count(*) FROM oban_manage_jobs('update', '{2,99}', '{"schedule_in": 0}', false, 'ex14');
\qecho cancel:
SELECT count(*) FROM oban_manage_jobs('cancel', '{99,3,1,3}', NULL, false, 'ex14');
\qecho retry:
SELECT count(*) FROM oban_manage_jobs('retry', '{7,6,5,3,2}', NULL, false, 'ex14');
\qecho delete:
SELECT count(*) FROM oban_manage_jobs('delete', '{1,2,3,4,5}', NULL, false, 'ex14');
\o
\pset tuples_only off
\pset format aligned
UNLISTEN *;
SELECT tools.states('ex14');

-- Locks: a dry run takes none, so that a transaction that may not write can do it; the real run
-- locks each job that exists, those that it ignores too.
CALL tools.make_jobs('py');
BEGIN READ ONLY;
SELECT count(*) FROM unnest('{cancel,retry,delete}'::text[]) a,
	oban_manage_jobs(a, '{1,2,3,99}', NULL, true, 'py');
SELECT job_id, outcome FROM oban_manage_jobs('update', '{1}', '{"priority": 1}', true, 'py');
SELECT DISTINCT mode FROM pg_locks WHERE relation = 'py.oban_jobs'::regclass;
SELECT code FROM unnest('{cancel,retry,delete}'::text[]) a,
	tools.try(format('SELECT oban_manage_jobs(%L, ''{1}'', NULL, false, ''py'')', a));
COMMIT;
SELECT job_id, outcome FROM oban_manage_jobs('cancel', '{5,6}', NULL, false, 'py');
SELECT id FROM py.oban_jobs WHERE xmax <> 0 ORDER BY id;

-- A trigger that suppresses the change: the job is as it was.
CALL tools.make_jobs('ex14');
CREATE FUNCTION tools.veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER veto BEFORE UPDATE OR DELETE ON ex14.oban_jobs FOR EACH ROW
	WHEN (OLD.id IN (1, 3, 5)) EXECUTE FUNCTION tools.veto();
LISTEN "ex14.oban_signal";
SELECT a AS action, r.* FROM unnest('{cancel,retry,delete,update}'::text[]) WITH ORDINALITY u(a, n),
	oban_manage_jobs(a, '{1,2,3,5,6}', CASE a WHEN 'update' THEN jsonb '{"schedule_in": 60}' END,
		false, 'ex14') r
ORDER BY n, job_id;
UNLISTEN *;
SELECT tools.states('ex14');
-- A trigger that writes another state than was asked for: the job was not retried, and the new state
-- is what the row has.
DROP TRIGGER veto ON ex14.oban_jobs;
CALL tools.make_jobs('ex14');
CREATE FUNCTION tools.suspend() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.state := 'suspended';
	RETURN NEW;
END $$;
CREATE TRIGGER suspend BEFORE UPDATE ON ex14.oban_jobs FOR EACH ROW WHEN (OLD.id = 6)
	EXECUTE FUNCTION tools.suspend();
SELECT * FROM oban_manage_jobs('retry', '{5,6}', NULL, false, 'ex14');
SELECT id, state FROM ex14.oban_jobs WHERE id IN (5, 6) ORDER BY id;

-- What is refused, by the dry run too, whether there is any job or not.
CALL tools.make_jobs('ex14', 'py');
\pset format unaligned
\pset tuples_only on
SELECT tools.refusal('SELECT oban_manage_jobs(' || a || ')') FROM unnest(ARRAY[
	'NULL, ''{1}'', NULL, false, ''py''', 'NULL, NULL, NULL, true, ''py''',
	'''destroy'', ''{1}'', NULL, false, ''py''',
	''''', ''{}'', NULL, true, ''py''', '''Cancel'', ''{1}'', NULL, true, ''py''',
	''' cancel'', ''{1}'', NULL, true, ''py''',
	'''cancel''''; DROP TABLE x; --'', ''{1}'', NULL, true, ''py''',
	'''update'', ''{1}'', NULL, false, ''py''', '''update'', NULL, NULL, true, ''py''',
	'''cancel'', ''{1}'', ''{"priority": 1}'', false, ''py''',
	'''retry'', ''{}'', ''{}'', true, ''py''',
	'''delete'', NULL, ''{"priority": 1}'', true, ''py''',
	'''cancel'', ''{1}'', NULL, NULL, ''py''', '''update'', ''{}'', ''{}'', NULL, ''py''',
	'''update'', ''{}'', ''[]'', true, ''py''', '''update'', NULL, ''{"prio": 1}'', false, ''py''',
	'''update'', ''{99}'', ''{"priority": 10}'', true, ''py''',
	'''update'', ''{1,6,4}'', ''{"max_attempts": 1}'', true, ''py''',
	'''update'', ''{1,6,4}'', ''{"max_attempts": 1}'', false, ''py''',
	'''update'', ''{1}'', ''{"max_attempts": 40000}'', true, ''py''',
	'''cancel'', ''{1}'', NULL, true, ''no such''', '''cancel'', NULL, NULL, true, ''tools''']) a;
\pset format aligned
\pset tuples_only off
SELECT oban_manage_jobs('cancel', '{9223372036854775808}', NULL, true, 'py');
-- The dry run reads no constraint of the table, the real run meets it.
SELECT outcome FROM oban_manage_jobs('update', '{1}', jsonb_build_object('queue', repeat('q', 128)),
	true, 'ex14');
SELECT code, message, context FROM tools.try('SELECT oban_manage_jobs(''update'', ''{2,1}'',
	jsonb_build_object(''queue'', repeat(''q'', 128)), false, ''ex14'')');
SELECT tools.states('py'), tools.states('ex14');

-- Oban Pro's unique jobs, exhausted attempts: as by ids.
UPDATE py.oban_jobs SET meta = '{"uniq_bmp": [1]}', max_attempts = greatest(attempt, 1);
SELECT r.* FROM tools.run('retry', '{1,2,3,4,5,6,7,8}', NULL, 'py') r;

-- An id that stands twice, here in child tables: what was done to one of them is told.
CALL tools.make_jobs('py');
CREATE TABLE py.archive () INHERITS (py.oban_jobs);
CREATE TABLE py.older () INHERITS (py.oban_jobs);
INSERT INTO py.archive SELECT * FROM ONLY py.oban_jobs WHERE id = 5;
INSERT INTO py.older SELECT * FROM ONLY py.oban_jobs WHERE id = 5;
UPDATE py.archive SET state = 'available';
SELECT job_id, outcome, old_state, new_state FROM oban_manage_jobs('cancel', '{5}', NULL, true, 'py');
SELECT job_id, outcome, old_state, new_state FROM oban_manage_jobs('cancel', '{5}', prefix => 'py');
SELECT tableoid::regclass AS in_table, state FROM py.oban_jobs WHERE id = 5 ORDER BY 1;

-- The reason, where nobody is told
CALL tools.make_jobs('ex14');
SET oban_manage.notify = off;
SELECT outcome, reason FROM oban_manage_jobs('cancel', '{3}', prefix => 'ex14');
RESET oban_manage.notify;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
