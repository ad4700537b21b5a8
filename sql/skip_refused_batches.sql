-- Batches with skip_refused: each job that the table refuses is a WARNING (the first ten), all of them a
-- count at the end; the others are done, in whole batches, and a spread keeps its ranks. max_jobs, which
-- ends the walk exactly; callables; a deferred constraint, which a batch checks at once; bad arguments.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set partitions :abs_srcdir '/fixtures/partitions.sql'
\set refused :abs_srcdir '/fixtures/refused.sql'
\set ECHO none
\i :helpers
\i :partitions
\i :refused
\pset null NULL
\pset format unaligned
\set SHOW_CONTEXT never

-- A unique index, as Oban Pro's. The batches of 4 are committed whole, less the jobs refused.
CALL tools.fill(20, 'ex14');
UPDATE ex14.oban_jobs SET state = 'discarded', args = jsonb_build_object('key', id % 15);
INSERT INTO ex14.oban_jobs (id, worker, args) VALUES (99, 'App.Worker', '{"key": 7}');
CREATE UNIQUE INDEX one_waits ON ex14.oban_jobs ((args -> 'key')) WHERE state = 'available';
CALL oban_retry_in_batches('{"state": "discarded"}', 4, skip_refused => true, prefix => 'ex14');
SELECT tools.states('ex14');
SELECT string_agg(ids, '; ' ORDER BY first) AS batches
FROM (SELECT string_agg(id::text, ' ' ORDER BY id), min(id) FROM ex14.oban_jobs WHERE state = 'available'
	AND id < 99 GROUP BY xmin::text) b(ids, first);
-- Called again it meets the refused jobs only; without skip_refused it ends at the first.
CALL oban_retry_in_batches('{"state": "discarded"}', 4, skip_refused => true, prefix => 'ex14');
\set VERBOSITY terse
CALL oban_retry_in_batches('{"state": "discarded"}', 4, prefix => 'ex14');
\set VERBOSITY default
DROP INDEX ex14.one_waits;

-- Only the first ten are named. Every verb, on partitioned tables too; at the end of a statement, in
-- batches of any size.
CALL tools.fill(30, 'py', 'by_hash', 'by_state');
SELECT replace(tools.trigger('AFTER', 'P0001', '{3,4,5,6,7,8,9,10,11,12,13,14,30}'), 'P.', p || '.')
FROM unnest('{py,by_hash,by_state}'::text[]) p \gexec
CALL oban_update_in_batches('{"all": true}', '{"priority": 1}', 8, skip_refused => true, prefix => 'py');
CALL oban_cancel_in_batches('{"all": true}', 8, skip_refused => true, prefix => 'by_hash');
CALL oban_cancel_in_batches('{"all": true}', skip_refused => true, prefix => 'by_state');
CALL oban_delete_in_batches('{"id": [1,2,3]}', 1, skip_refused => true, prefix => 'py');
SELECT priority, string_agg(id::text, ' ' ORDER BY id) FROM py.oban_jobs GROUP BY 1 ORDER BY 1;
SELECT p, tools.states(p) FROM unnest('{by_hash,by_state}'::text[]) p ORDER BY 1;

-- The spread: a job that is refused keeps its rank, so that the others run when they would.
CALL tools.fill(11, 'ex9');
UPDATE ex9.oban_jobs SET state = 'discarded';
CREATE TRIGGER refuse BEFORE UPDATE ON ex9.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION tools.refuse('P0001', '{2,3,7,11}');
CALL oban_retry_in_batches('{"all": true}', 4, spread => '10 hours', skip_refused => true, prefix => 'ex9');
SELECT id, state, round(extract(epoch FROM scheduled_at - min(scheduled_at) OVER ()) / 3600, 3) AS hours
FROM ex9.oban_jobs WHERE state <> 'discarded' ORDER BY id;
DROP TRIGGER refuse ON ex9.oban_jobs;

-- Signals: of what was written, once a batch.
CALL tools.fill(6, 'ex9');
UPDATE ex9.oban_jobs SET state = 'executing';
CREATE TRIGGER refuse BEFORE UPDATE ON ex9.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION tools.refuse('P0001', '{2,5}');
LISTEN "ex9.oban_signal";
\set filter '|sed "s/ received from server process with PID [0-9]*[.]//"'
\o :filter
CALL oban_cancel_in_batches('{"all": true}', 3, skip_refused => true, prefix => 'ex9');
\o
UNLISTEN *;
DROP TRIGGER refuse ON ex9.oban_jobs;

-- A deferred constraint is checked in the batch. Without skip_refused it fails at its commit. What the
-- caller has deferred is its own matter: it is checked with the first commit.
CALL tools.fill(6, 'ex9');
CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON ex9.oban_jobs DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION tools.refuse('23514', '{4}');
CALL oban_cancel_in_batches('{"all": true}', 3, skip_refused => true, prefix => 'ex9');
SELECT tools.states('ex9');
\set VERBOSITY terse
CALL oban_cancel_in_batches('{"all": true}', 3, prefix => 'ex9');
DO $$
DECLARE
	n bigint;
BEGIN
	UPDATE ex9.oban_jobs SET priority = 1 WHERE id = 4;
	CALL oban_delete_in_batches('{"id": 1}', skip_refused => true, prefix => 'ex9', affected => n);
END $$;
\set VERBOSITY default
SELECT tools.states('ex9');
DROP TRIGGER refuse ON ex9.oban_jobs;

-- What is no refusal ends the call, and undoes its batch whole.
CALL tools.fill(9, 'ex9');
CREATE TRIGGER refuse BEFORE UPDATE ON ex9.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION tools.refuse('P0001', '{1,5}');
CREATE TRIGGER then_refuse BEFORE UPDATE ON ex9.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION tools.refuse('53100', '{6}');
\set VERBOSITY terse
CALL oban_cancel_in_batches('{"all": true}', 4, skip_refused => true, prefix => 'ex9');
\set VERBOSITY default
SELECT tools.states('ex9');
DROP TRIGGER refuse ON ex9.oban_jobs;
DROP TRIGGER then_refuse ON ex9.oban_jobs;

-- ---- max_jobs: so many changed jobs, not one more, whatever the batches; the jobs that were refused or
-- kept do not count. A loop of CALLs does all.
CREATE FUNCTION tools.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER keep BEFORE UPDATE ON ex9.oban_jobs FOR EACH ROW WHEN (OLD.id IN (2, 9))
	EXECUTE FUNCTION tools.keep();
CREATE TRIGGER refuse BEFORE UPDATE ON ex9.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION tools.refuse('P0001', '{3,4}');
CALL tools.fill(12, 'ex9');
CALL oban_cancel_in_batches('{"all": true}', 4, max_jobs => 5, skip_refused => true, prefix => 'ex9');
SELECT tools.states('ex9');
CALL oban_update_in_batches('{"all": true}', '{"priority": 3}', 100, max_jobs => 1, prefix => 'ex9');
CALL oban_update_in_batches('{"all": true}', '{}', 5, max_jobs => 7, prefix => 'ex9');
SELECT string_agg(id::text, ' ') AS updated FROM ex9.oban_jobs WHERE priority = 3;
DO $$
DECLARE
	n bigint;
	counts text;
BEGIN
	SET client_min_messages = error;
	LOOP
		CALL oban_cancel_in_batches('{"all": true}', 2, max_jobs => 2, skip_refused => true, prefix => 'ex9',
			affected => n);
		EXIT WHEN n = 0;
		counts := concat_ws(' ', counts, n);
	END LOOP;
	RAISE EXCEPTION 'CALLs changed %', counts;
END $$;
SET client_min_messages = warning;
SELECT tools.states('ex9');
DROP TRIGGER keep ON ex9.oban_jobs;
DROP TRIGGER refuse ON ex9.oban_jobs;

-- ---- Callables.
CREATE FUNCTION tools.raise_priority(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF context ? 'fails' AND job.id = ANY (ARRAY(SELECT jsonb_array_elements(context -> 'fails')::bigint)) THEN
		RAISE EXCEPTION 'no changes for job %', job.id;
	END IF;
	IF job.id % 4 = 0 THEN
		RETURN NULL;
	END IF;
	RETURN jsonb_build_object('priority', job.priority + 1);
END $$;
CALL tools.fill(10, 'ex9');
CALL oban_update_in_batches_with('{"all": true}', 'tools.raise_priority', batch_size => 3, prefix => 'ex9');
CALL oban_update_in_batches_with('{"all": true}', 'tools.raise_priority', '{"fails": [2, 8, 9]}', 4,
	skip_refused => true, prefix => 'ex9');
SELECT priority, string_agg(id::text, ' ' ORDER BY id) FROM ex9.oban_jobs GROUP BY 1 ORDER BY 1;
CALL oban_update_in_batches_with('{"all": true}', 'tools.raise_priority', batch_size => 3, max_jobs => 4,
	prefix => 'ex9');
SELECT priority, string_agg(id::text, ' ' ORDER BY id) FROM ex9.oban_jobs GROUP BY 1 ORDER BY 1;
\set VERBOSITY terse
CALL oban_update_in_batches_with('{"all": true}', 'tools.raise_priority', '{"fails": [5]}', 4, prefix => 'ex9');
\set VERBOSITY default
SELECT priority, string_agg(id::text, ' ' ORDER BY id) FROM ex9.oban_jobs GROUP BY 1 ORDER BY 1;

-- ---- What is refused, whether there is any job or not.
CALL oban_cancel_in_batches('{"id": 99}', max_jobs => 0, prefix => 'ex9');
CALL oban_cancel_in_batches('{"id": 99}', max_jobs => -1, prefix => 'ex9');
CALL oban_retry_in_batches('{"id": 99}', skip_refused => NULL, prefix => 'ex9');
CALL oban_delete_in_batches('{"id": 99}', skip_locked => NULL, prefix => 'ex9');
CALL oban_update_in_batches('{"id": 99}', '{}', max_jobs => 0, prefix => 'ex9');
CALL oban_update_in_batches_with('{"id": 99}', NULL, prefix => 'ex9');
CALL oban_update_in_batches_with('{"id": 99}', 'tools.nobody', prefix => 'ex9');
CALL oban_update_in_batches_with('{"id": 99}', 'tools.keep', prefix => 'ex9');
CALL oban_update_in_batches_with('{"id": 99}', 'tools.raise_priority', batch_size => 0, prefix => 'ex9');
CALL oban_update_in_batches_with('{}', 'tools.raise_priority', prefix => 'ex9');

DROP SCHEMA by_hash, by_state, tools, ex9, ex11, ex14, py CASCADE;
