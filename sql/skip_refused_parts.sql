-- How skip_refused divides: what it costs, and that nothing of a part that was undone stays: no rows,
-- no signals. What triggers do to the jobs beside the refused ones; where it is called; its arguments.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set refused :abs_srcdir '/fixtures/refused.sql'
\set ECHO none
\i :helpers
\i :refused
\pset null NULL
\pset format unaligned

-- ---- The number of statements that write. A sequence counts them, because it keeps what is undone.
-- n refused jobs among m cost about 2 n log m statements where the table refuses a row as it is written,
-- and 3 n log m where it does so at the end of a statement, which does not tell which job it
-- was.
CREATE SEQUENCE tools.statements;
CREATE FUNCTION tools.count_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nextval('tools.statements');
	RETURN NULL;
END $$;
CREATE TRIGGER count_statement BEFORE UPDATE OR DELETE ON ex14.oban_jobs
	FOR EACH STATEMENT EXECUTE FUNCTION tools.count_statement();
CREATE FUNCTION tools.cost(action text, m integer, setup text, OUT refused bigint, OUT done bigint,
	OUT statements bigint)
LANGUAGE plpgsql AS $$
BEGIN
	CALL tools.fill(m, 'ex14');
	EXECUTE replace(setup, 'P.', 'ex14.');
	PERFORM setval('tools.statements', 1, false);
	SELECT count(*) FILTER (WHERE outcome = 'refused'), count(*) FILTER (WHERE outcome <> 'refused')
		INTO refused, done
		FROM oban_manage_all_jobs(action, '{"all": true}', CASE action WHEN 'update' THEN '{"priority": 1}'::jsonb END,
			prefix => 'ex14', skip_refused => true);
	statements := nextval('tools.statements') - 1;
	RAISE EXCEPTION USING ERRCODE = 'P0098';
EXCEPTION WHEN SQLSTATE 'P0098' THEN NULL;
END $$;
SELECT bad, timing, action, r.refused, r.done,
	CASE WHEN r.statements <= most THEN 'few' ELSE format('%s > %s', r.statements, most) END AS statements
FROM unnest(ARRAY['1', '3000', '1500', '7, 8, 9, 2999', '10, 500, 501, 1500, 1505, 2000, 2500, 2998, 2999, 3000'])
		WITH ORDINALITY u(bad, o),
	unnest('{BEFORE,AFTER}'::text[]) WITH ORDINALITY t(timing, n),
	unnest('{cancel,delete,update}'::text[]) WITH ORDINALITY v(action, m),
	tools.cost(action, 3000, tools.trigger(timing, 'P0001', format('{%s}', bad))) r,
	LATERAL (SELECT 1 + r.refused * CASE timing WHEN 'BEFORE' THEN 2 + 2 * ceil(log(2, 3000))
		ELSE 3 * ceil(log(2, 3000)) END) l(most)
ORDER BY o, n, m;
-- A clean set takes one, whatever the triggers; so does one whose jobs are kept.
SELECT r.* FROM tools.cost('cancel', 3000, tools.trigger('BEFORE', 'P0001', '{}')) r;
SELECT r.* FROM tools.cost('cancel', 3000, tools.trigger('AFTER', 'P0001', '{}')) r;
-- One that is refused whole takes about two for each job.
SELECT r.refused, r.done, r.statements <= 2 * 300 + 20 AS few
FROM (SELECT array_agg(g)::text FROM generate_series(1, 300) g) b(bad),
	tools.cost('cancel', 300, tools.trigger('BEFORE', 'P0001', bad)) r;

-- ---- Triggers that do other things to the jobs beside those that are refused: keep them as they are,
-- give them another state or another id.
DROP TRIGGER count_statement ON ex14.oban_jobs;
CREATE FUNCTION tools.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	CASE NEW.id % 5
		WHEN 0 THEN RETURN NULL;
		WHEN 1 THEN NEW.state := 'suspended';
		WHEN 2 THEN NEW.id := NEW.id + 1000;
		WHEN 3 THEN RAISE EXCEPTION 'no, not job %', NEW.id;
		ELSE NULL;
	END CASE;
	RETURN NEW;
END $$;
CREATE FUNCTION tools.meddled(action text, p text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
BEGIN
	CALL tools.fill(13, p);
	IF action = 'retry' THEN
		SET LOCAL session_replication_role = replica;
		EXECUTE format('UPDATE %I.oban_jobs SET state = ''completed''', p);
		SET LOCAL session_replication_role = origin;
	END IF;
	SELECT string_agg(concat_ws(' ', job_id, outcome, old_state, new_state), ', ' ORDER BY job_id)
		INTO found
		FROM oban_manage_jobs(action, ARRAY(SELECT generate_series(1, 14)),
			CASE action WHEN 'update' THEN '{"priority": 1}'::jsonb END, prefix => p, skip_refused => true);
	RETURN found || ' in the table: ' || tools.states(p);
END $$;
CREATE TRIGGER meddle BEFORE UPDATE ON ex14.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.meddle();
CREATE TRIGGER meddle BEFORE UPDATE ON py.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.meddle();
SELECT action, string_agg(p, ', ') AS tables, outcomes
FROM unnest('{cancel,retry,update}'::text[]) WITH ORDINALITY v(action, n),
	unnest('{ex14,py}'::text[]) p, LATERAL (SELECT tools.meddled(action, p)) o(outcomes)
GROUP BY action, n, outcomes ORDER BY n;
DROP TRIGGER meddle ON ex14.oban_jobs;
DROP TRIGGER meddle ON py.oban_jobs;

-- ---- Signals: of what was written, once each; none of what was undone with a part.
CREATE TRIGGER refuse BEFORE UPDATE ON ex14.oban_jobs
	FOR EACH ROW EXECUTE FUNCTION tools.refuse('P0001', '{3,4,8}');
CALL tools.fill(9, 'ex14');
SET session_replication_role = replica;
UPDATE ex14.oban_jobs SET queue = 'q' || id % 3,
	state = CASE WHEN id < 5 THEN 'executing' ELSE 'scheduled' END::ex14.oban_job_state;
RESET session_replication_role;
LISTEN "ex14.oban_signal";
LISTEN "ex14.oban_insert";
\set filter '|sed "s/ received from server process with PID [0-9]*[.]//"'
\pset tuples_only on
\o :filter
\qecho retry:
SELECT job_id, outcome FROM oban_manage_jobs('retry', '{1,2,3,4,5,6,7,8,9}', prefix => 'ex14',
	skip_refused => true);
\qecho cancel:
SELECT job_id, outcome FROM oban_manage_all_jobs('cancel', '{"id": [1,2,3,4,5,6]}', prefix => 'ex14',
	skip_refused => true);
\qecho all undone:
BEGIN;
SELECT job_id, outcome FROM oban_manage_all_jobs('cancel', '{"id": [7,8,9]}', prefix => 'ex14',
	skip_refused => true);
ROLLBACK;
\o
\pset tuples_only off
UNLISTEN *;
DROP TRIGGER refuse ON ex14.oban_jobs;

-- ---- Where it is called: in a transaction that goes on, in a savepoint that does not, in a function
-- with EXCEPTION, in one that is SECURITY DEFINER, for several sets in a statement, in a trigger.
CREATE TRIGGER refuse BEFORE UPDATE ON ex14.oban_jobs
	FOR EACH ROW EXECUTE FUNCTION tools.refuse('23514', '{2,5}');
CALL tools.fill(8, 'ex14');
TRUNCATE tools.log;
BEGIN;
INSERT INTO tools.log VALUES (101);
SELECT job_id, outcome FROM oban_manage_jobs('cancel', '{1,2}', prefix => 'ex14', skip_refused => true);
SAVEPOINT s;
SELECT job_id, outcome FROM oban_manage_jobs('cancel', '{3,5}', prefix => 'ex14', skip_refused => true);
ROLLBACK TO s;
SELECT job_id, outcome FROM oban_manage_jobs('cancel', '{4,5}', prefix => 'ex14', skip_refused => true);
INSERT INTO tools.log VALUES (102);
COMMIT;
SELECT tools.states('ex14'),
	(SELECT string_agg(job_id::text, ' ' ORDER BY job_id) FROM tools.log) AS log;
CREATE FUNCTION tools.tries(ids bigint[]) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found text;
BEGIN
	BEGIN
		SELECT string_agg(job_id || ' ' || outcome, ', ' ORDER BY job_id) INTO found
			FROM public.oban_manage_jobs('cancel', ids, prefix => 'ex14', skip_refused => true);
		IF array_length(ids, 1) = 3 THEN
			RAISE division_by_zero;
		END IF;
	EXCEPTION WHEN division_by_zero THEN
		found := found || ' undone';
	END;
	RETURN found;
END $$;
SELECT tools.tries('{5,6}'), tools.tries('{2,7,8}');
SELECT tools.states('ex14');
SELECT n, string_agg(job_id || ' ' || outcome, ', ' ORDER BY job_id) AS outcomes
FROM (VALUES (1, '{2,7}'), (2, '{7,8}')) v(n, ids),
	oban_manage_jobs('cancel', ids::bigint[], prefix => 'ex14', skip_refused => true)
GROUP BY n ORDER BY n;
CREATE TABLE tools.app (ids bigint[]);
CREATE FUNCTION tools.on_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.ids := ARRAY(SELECT job_id FROM oban_manage_jobs('retry', NEW.ids, prefix => 'ex14',
		skip_refused => true) WHERE outcome = 'refused');
	RETURN NEW;
END $$;
CREATE TRIGGER on_insert BEFORE INSERT ON tools.app FOR EACH ROW EXECUTE FUNCTION tools.on_insert();
SET session_replication_role = replica;
UPDATE ex14.oban_jobs SET state = 'cancelled';
RESET session_replication_role;
INSERT INTO tools.app VALUES ('{1,2,3}'), ('{4,5}') RETURNING ids;
SELECT tools.states('ex14');
-- A deferred constraint refuses at COMMIT, where no job can be passed over any more.
DROP TRIGGER refuse ON ex14.oban_jobs;
CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON ex14.oban_jobs DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION tools.refuse('23514', '{7}');
CALL tools.fill(8, 'ex14');
\set VERBOSITY terse
BEGIN;
SELECT job_id, outcome FROM oban_manage_jobs('cancel', '{6,7}', prefix => 'ex14', skip_refused => true);
COMMIT;
BEGIN;
SET CONSTRAINTS ALL IMMEDIATE;
SELECT job_id, outcome FROM oban_manage_jobs('cancel', '{6,7}', prefix => 'ex14', skip_refused => true);
COMMIT;
\set VERBOSITY default
SELECT tools.states('ex14');
DROP TRIGGER refuse ON ex14.oban_jobs;

-- ---- In a dry run, whose jobs no table refuses; without jobs; and the arguments.
CREATE TRIGGER refuse BEFORE UPDATE ON ex14.oban_jobs
	FOR EACH ROW EXECUTE FUNCTION tools.refuse('P0001', '{2}');
CALL tools.fill(3, 'ex14');
SELECT job_id, outcome FROM oban_manage_jobs('cancel', '{1,2,9}', NULL, true, 'ex14', true, true);
SELECT job_id, outcome
FROM oban_manage_all_jobs('cancel', '{"id": [1,2,9]}', NULL, NULL, true, true, true, 'ex14');
SELECT job_id, outcome FROM oban_manage_jobs('update', '{1,2,9}', '{}', false, 'ex14', true, true);
SELECT count(*) FROM oban_manage_jobs('cancel', NULL, prefix => 'ex14', skip_refused => true);
SELECT count(*) FROM oban_manage_jobs('cancel', '{NULL}', prefix => 'ex14', skip_refused => true,
	skip_locked => true);
SELECT count(*) FROM oban_manage_all_jobs('cancel', '{"id": 9}', prefix => 'ex14', skip_refused => true);
SELECT job_id, outcome FROM oban_manage_jobs('cancel', '{9,8}', prefix => 'ex14', skip_refused => true,
	skip_locked => true);
SELECT tools.refusal(format('SELECT oban_manage_jobs(''cancel'', ''{1}'', prefix => ''ex14'', %s)', a))
FROM unnest('{skip_refused => NULL,skip_locked => NULL}'::text[]) a;
SELECT tools.refusal(format('SELECT oban_manage_all_jobs(''cancel'', ''{"id": 1}'', prefix => ''ex14'',
	%s)', a))
FROM unnest('{skip_refused => NULL,skip_locked => NULL,dry_run => NULL}'::text[]) a;
SELECT tools.states('ex14');

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
