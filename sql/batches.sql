-- The procedures in one session: what they change and count, their batches, the spread of a retry,
-- where they may be called, and what they refuse.
-- Seen to fail with the spread's ends taken from jobs that retry ignores, retried jobs available
-- ahead of their time, a walk beyond the highest id at the start, affected as the jobs found, 25001
-- after other errors, and an error that leaves its subtransaction open.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

-- The context of an error would show statements of the extension's own.
\set SHOW_CONTEXT never

-- How many transactions wrote the rows, and how many rows each did, in the order of their ids. A
-- batch is a transaction, so that this tells the batches.
CREATE FUNCTION tools.batches(prefix text, condition text DEFAULT 'true') RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	found text;
BEGIN
	EXECUTE format($q$
		SELECT string_agg(format('%%s of %%s to %%s', n, first, last), ', ' ORDER BY first)
		FROM (SELECT count(*), min(id), max(id) FROM %I.oban_jobs WHERE %s GROUP BY xmin::text)
			b(n, first, last)
	$q$, prefix, condition) INTO found;
	RETURN found;
END $$;
-- Deletes leave no rows, so they are recorded.
CREATE TABLE tools.deleted (id bigint, xid text);
CREATE FUNCTION tools.record_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tools.deleted VALUES (OLD.id, pg_current_xact_id()::text);
	RETURN NULL;
END $$;
CREATE TRIGGER record_delete AFTER DELETE ON py.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION tools.record_delete();
-- Calls the procedure of a verb.
CREATE PROCEDURE tools.in_batches(verb text, filter jsonb, p text, size integer,
	INOUT affected bigint)
LANGUAGE plpgsql AS $$
BEGIN
	IF verb = 'cancel' THEN
		CALL oban_cancel_in_batches(filter, size, '0', prefix => p, affected => affected);
	ELSIF verb = 'retry' THEN
		CALL oban_retry_in_batches(filter, size, '0', '0', prefix => p, affected => affected);
	ELSIF verb = 'delete' THEN
		CALL oban_delete_in_batches(filter, size, '0', prefix => p, affected => affected);
	ELSE
		CALL oban_update_in_batches(filter, '{"schedule_in": 60, "tags": ["new"]}', size, '0', prefix => p,
			affected => affected);
	END IF;
END $$;
-- What the function of the verb gives, and the rows that it leaves; undone.
CREATE FUNCTION tools.at_once(verb text, filter jsonb, p text, OUT affected bigint, OUT rows jsonb)
LANGUAGE plpgsql AS $$
BEGIN
	IF verb = 'update' THEN
		affected := oban_update_all_jobs(filter, '{"schedule_in": 60, "tags": ["new"]}', NULL, p);
	ELSE
		EXECUTE format('SELECT oban_%s_all_jobs($1, NULL, $2)', verb) USING filter, p INTO affected;
	END IF;
	rows := tools.rows(p);
	RAISE EXCEPTION USING ERRCODE = 'P0099';
EXCEPTION WHEN SQLSTATE 'P0099' THEN NULL;
END $$;
-- The rows without the times that the call itself writes.
CREATE FUNCTION tools.timeless(rows jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_object_agg(k, CASE WHEN v ->> 'cancelled_at' > '2025' THEN v - 'cancelled_at'
		WHEN v ->> 'scheduled_at' BETWEEN '2025' AND '2090' THEN v - 'scheduled_at' ELSE v END)
	FROM jsonb_each(rows) e(k, v)
$$;
\set ECHO all

-- Each procedure does what its function does, in batches of any size.
CREATE TABLE tools.done (verb text, p text, size integer, affected bigint, mismatch text);
DO $$
DECLARE
	verb text;
	p text;
	size integer;
	wanted record;
	n bigint;
BEGIN
	FOREACH verb IN ARRAY '{cancel,retry,delete,update}'::text[] LOOP
		FOREACH p IN ARRAY '{ex9,ex14,py}'::text[] LOOP
			FOREACH size IN ARRAY '{1,2,3,6,100,2147483647}'::integer[] LOOP
				CALL tools.make_jobs(p);
				wanted := tools.at_once(verb, '{"queue": ["default", "media"]}', p);
				CALL tools.in_batches(verb, '{"queue": ["default", "media"]}', p, size, n);
				INSERT INTO tools.done VALUES (verb, p, size, n, concat_ws('; ',
					CASE WHEN n <> wanted.affected THEN 'not ' || wanted.affected END,
					tools.difference(tools.timeless(tools.rows(p)), tools.timeless(wanted.rows))));
			END LOOP;
		END LOOP;
	END LOOP;
END $$;
SELECT verb, p AS prefix, count(*) AS sizes, min(affected) AS least, max(affected) AS most,
	string_agg(nullif(mismatch, ''), '; ') AS mismatch
FROM tools.done GROUP BY verb, p ORDER BY verb, p;

-- A batch is a transaction: its size, from the lowest id on; the last may be smaller.
CALL tools.fill(10, 'py');
CALL oban_cancel_in_batches('{"all": true}', 3, prefix => 'py');
SELECT tools.batches('py');
CALL oban_retry_in_batches('{"all": true}', 5, prefix => 'py');
SELECT tools.batches('py');
CALL oban_cancel_in_batches('{"all": true}', 1, prefix => 'py');
SELECT tools.batches('py');
CALL oban_retry_in_batches('{"all": true}', 11, prefix => 'py');
SELECT tools.batches('py');
CALL oban_update_in_batches('{"all": true}', '{"priority": 1}', 4, prefix => 'py');
SELECT tools.batches('py');
-- Jobs that the verb ignores do not count for a batch, nor those that the filter does not match.
UPDATE py.oban_jobs SET state = 'completed' WHERE id IN (2, 3, 4, 6);
UPDATE py.oban_jobs SET queue = 'other' WHERE id = 7;
CALL oban_cancel_in_batches('{"queue": "default"}', 2, prefix => 'py');
SELECT tools.states('py');
SELECT tools.batches('py', 'state = ''cancelled''');
CALL oban_delete_in_batches('{"state": ["completed", "available"]}', 2, prefix => 'py');
SELECT tools.states('py');
CALL tools.fill(7, 'py');
TRUNCATE tools.deleted;
CALL oban_delete_in_batches('{"all": true}', 3, prefix => 'py');
SELECT string_agg(ids, '; ' ORDER BY first) AS deleted
FROM (SELECT string_agg(id::text, ' ' ORDER BY id), min(id) FROM tools.deleted GROUP BY xid)
	b(ids, first);

-- affected, however the call is written; what is passed in for it does not matter.
CALL tools.fill(5, 'py');
CALL oban_cancel_in_batches('{"id": 99}', prefix => 'py');
CALL oban_cancel_in_batches('{"id": [1, 2]}', affected => 77, prefix => 'py');
CALL oban_cancel_in_batches('{"id": 3}', 5, '0', prefix => 'py', affected => NULL);
CALL oban_retry_in_batches('{"id": [1, 2]}', 5, '0', '0', prefix => 'py', affected => 10);
CALL oban_update_in_batches('{"queue": "nowhere"}', '{"priority": 1}', prefix => 'py');
CALL oban_update_in_batches(filter => '{"id": 1}', changes => '{"priority": 1}', prefix => 'py',
	pause => '0 s');
CALL oban_delete_in_batches('{"id": [1, 2, 3, 99]}', prefix => 'py');
SET oban_manage.prefix = 'py';
CALL oban_delete_in_batches('{"all": true}');
RESET oban_manage.prefix;
SELECT tools.states('py');

-- Ids up to the ends of their type, in gaps, and a table whose rows are in another order.
CALL tools.fill(4, 'ex14');
UPDATE ex14.oban_jobs SET id = CASE id WHEN 1 THEN 9223372036854775807
	WHEN 2 THEN -9223372036854775808 WHEN 3 THEN 0 ELSE 5000000000 END;
CALL oban_cancel_in_batches('{"all": true}', 1, prefix => 'ex14');
SELECT tools.batches('ex14');
CALL oban_retry_in_batches('{"all": true}', 3, prefix => 'ex14');
SELECT tools.batches('ex14');

-- Jobs that come while it runs are left alone, so that it ends; so is one that a trigger keeps as
-- it is, though it could be changed still.
CALL tools.fill(4, 'py');
ALTER TABLE py.oban_jobs ALTER id RESTART 101;
CREATE FUNCTION tools.another() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.id = 2 THEN
		RETURN NULL;
	END IF;
	INSERT INTO py.oban_jobs (worker) VALUES ('App.Worker');
	RETURN NEW;
END $$;
CREATE TRIGGER another BEFORE UPDATE ON py.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.another();
CALL oban_cancel_in_batches('{"worker": "App.Worker"}', 1, prefix => 'py');
SELECT tools.states('py');
CALL oban_update_in_batches('{"all": true}', '{"priority": 1}', 4, prefix => 'py');
SELECT string_agg(id || ' ' || priority, ', ' ORDER BY id) AS priorities FROM py.oban_jobs;
DROP TRIGGER another ON py.oban_jobs;

-- An update is of every job that matches, once, though it matches still afterwards, or no more;
-- each batch has its own now. {} counts and writes nothing.
CALL tools.fill(6, 'py');
CALL oban_update_in_batches('{"priority": 0}', '{"priority": 0, "tags": ["seen"]}', 2,
	prefix => 'py');
CALL oban_update_in_batches('{"queue": "default"}', '{"queue": "later", "schedule_in": "1 hour"}',
	2, prefix => 'py');
SELECT tools.batches('py'), count(DISTINCT scheduled_at) AS times, min(queue), max(queue),
	min(state::text) AS state
FROM py.oban_jobs;
SELECT array_agg(concat_ws(' ', ctid, xmin, xmax) ORDER BY id) AS tuples FROM py.oban_jobs \gset
CALL oban_update_in_batches('{"queue": "later"}', '{}', 4, prefix => 'py');
SELECT array_agg(concat_ws(' ', ctid, xmin, xmax) ORDER BY id) = :'tuples'
	AS neither_written_nor_locked FROM py.oban_jobs;

-- An error ends the call: the batches before it are kept, its own is not.
CALL tools.fill(9, 'py');
UPDATE py.oban_jobs SET attempt = 5 WHERE id = 6;
CALL oban_update_in_batches('{"all": true}', '{"max_attempts": 4}', 2, prefix => 'py');
SELECT max_attempts, string_agg(id::text, ' ' ORDER BY id) AS ids FROM py.oban_jobs
GROUP BY 1 ORDER BY 1;
ALTER TABLE py.oban_jobs ADD CONSTRAINT not_five CHECK (id <> 5 OR state <> 'cancelled');
\set VERBOSITY terse
CALL oban_cancel_in_batches('{"all": true}', 3, prefix => 'py');
\set VERBOSITY default
SELECT tools.states('py');
ALTER TABLE py.oban_jobs DROP CONSTRAINT not_five;
-- Called again, it goes on where it stopped.
CALL oban_cancel_in_batches('{"all": true}', 3, prefix => 'py');

-- The spread of a retry: each job's time by its rank in id order among those that are retried, from
-- now on, whatever the batches; those in the future are scheduled, and wake nobody.
CALL tools.fill(14, 'ex14', 'py');
UPDATE py.oban_jobs SET state =
		CASE WHEN id IN (1, 14) THEN 'available' ELSE 'discarded' END::py.oban_job_state,
	queue = 'q' || id, discarded_at = '2024-01-01', attempt = 20;
DELETE FROM py.oban_jobs WHERE id IN (5, 6);
UPDATE py.oban_jobs SET state = 'executing' WHERE id = 13;
SELECT clock_timestamp() AS before \gset
LISTEN "py.oban_insert";
\set filter '|sed "s/ received from server process with PID [0-9]*[.]//"'
\o :filter
CALL oban_retry_in_batches('{"all": true}', 4, '0', '10 hours', prefix => 'py');
\o
UNLISTEN *;
SELECT id, state, date_trunc('second', scheduled_at - min(scheduled_at) OVER ()) AS after_the_first,
	attempt, max_attempts, discarded_at
FROM py.oban_jobs WHERE id BETWEEN 2 AND 12 ORDER BY id;
SELECT min(scheduled_at) AT TIME ZONE 'UTC' BETWEEN :'before' AND clock_timestamp() AS first_is_now,
	max(scheduled_at) - min(scheduled_at) AS spread
FROM py.oban_jobs WHERE id BETWEEN 2 AND 12;
SELECT id, state FROM py.oban_jobs WHERE id NOT BETWEEN 2 AND 12 ORDER BY id;
-- One job; no spread; a span in months; ids at the ends of their type.
UPDATE ex14.oban_jobs SET state = 'completed';
CALL oban_retry_in_batches('{"id": 7}', 10, '0', '1 day', prefix => 'ex14');
SELECT state, scheduled_at AT TIME ZONE 'UTC' BETWEEN :'before' AND clock_timestamp() AS now
FROM ex14.oban_jobs WHERE id = 7;
CALL oban_retry_in_batches('{"id": [1, 2, 3]}', 1, '0', '0', prefix => 'ex14');
SELECT state, count(*) FROM ex14.oban_jobs WHERE id <= 3 GROUP BY state;
CALL oban_retry_in_batches('{"id": [4, 5, 6]}', 2, '0', '1 month', prefix => 'ex14');
SELECT id, state, scheduled_at >= timezone('UTC', now()) + interval '13 days' AS half,
	scheduled_at >= timezone('UTC', now()) + interval '27 days' AS full
FROM ex14.oban_jobs WHERE id BETWEEN 4 AND 6 ORDER BY id;
UPDATE ex14.oban_jobs SET state = 'completed', id = CASE id WHEN 1 THEN 9223372036854775807
	WHEN 2 THEN -9223372036854775808 ELSE 0 END WHERE id <= 3;
CALL oban_retry_in_batches(
	'{"state": "completed", "id": [9223372036854775807, -9223372036854775808, 0]}', 2, '0',
	'10 hours', prefix => 'ex14');
SELECT id, state,
	round(extract(epoch FROM scheduled_at - min(scheduled_at) OVER ()) / 3600, 3) AS hours
FROM ex14.oban_jobs WHERE id NOT BETWEEN 1 AND 100 ORDER BY id;
-- However the ids lie: three old jobs, and a thousand of later ids.
DELETE FROM ex14.oban_jobs;
INSERT INTO ex14.oban_jobs (id, state, worker)
SELECT g, 'discarded'::ex14.oban_job_state, 'App.Worker' FROM generate_series(1, 3) g
UNION ALL SELECT g, 'discarded', 'App.Worker' FROM generate_series(1000001, 1001000) g;
CALL oban_retry_in_batches('{"all": true}', 250, '0', '1 hour', prefix => 'ex14');
SELECT count(*), min(state::text) FILTER (WHERE rank > 1) AS later,
	bool_and(after BETWEEN 3600 * (rank - 1) / 1002.0 - 0.001 AND 3600 * (rank - 1) / 1002.0 + 0.001)
		AS evenly, round(max(after)) AS longest
FROM (SELECT state, row_number() OVER (ORDER BY id) AS rank,
	extract(epoch FROM scheduled_at - min(scheduled_at) OVER ()) AS after FROM ex14.oban_jobs) j;
-- Jobs that a trigger keeps have their rank too; more jobs than at the start run at the end.
UPDATE ex14.oban_jobs SET state = 'discarded';
DELETE FROM ex14.oban_jobs WHERE id NOT BETWEEN 1000001 AND 1000006;
UPDATE ex14.oban_jobs SET state = 'available' WHERE id > 1000004;
CREATE FUNCTION tools.keep_or_free() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.id = 1000002 THEN
		NEW.state := OLD.state;
	ELSIF NEW.id = 1000001 THEN
		UPDATE ex14.oban_jobs SET state = 'discarded' WHERE id > 1000004;
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER keep_or_free BEFORE UPDATE ON ex14.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION tools.keep_or_free();
CALL oban_retry_in_batches('{"all": true}', 1, '0', '3 hours', prefix => 'ex14');
DROP TRIGGER keep_or_free ON ex14.oban_jobs;
SELECT id, state,
	round(extract(epoch FROM scheduled_at - min(scheduled_at) OVER ()) / 3600, 3) AS hours
FROM ex14.oban_jobs ORDER BY id;
-- A batch that is tried again, because its commit failed, has the same times.
UPDATE ex14.oban_jobs SET state = 'discarded';
CREATE SEQUENCE tools.spread_tries;
CREATE FUNCTION tools.lose_spread() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF nextval('tools.spread_tries') = 1 THEN
		RAISE serialization_failure;
	END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER lose_spread AFTER UPDATE ON ex14.oban_jobs DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (OLD.id = 1000004) EXECUTE FUNCTION tools.lose_spread();
CALL oban_retry_in_batches('{"all": true}', 2, '0', '5 hours', prefix => 'ex14');
DROP TRIGGER lose_spread ON ex14.oban_jobs;
SELECT id, state,
	round(extract(epoch FROM scheduled_at - min(scheduled_at) OVER ()) / 3600, 3) AS hours
FROM ex14.oban_jobs ORDER BY id;
SELECT last_value AS tries FROM tools.spread_tries;
-- A job that the filter picks but that retry ignores has no place in the spread.
CALL tools.fill(100, 'ex14');
UPDATE ex14.oban_jobs SET state = 'completed' WHERE id IN (50, 51, 60);
CALL oban_retry_in_batches('{"worker": "App.Worker"}', 2, '0', '10 hours', prefix => 'ex14');
SELECT id, state,
	round(extract(epoch FROM scheduled_at - min(scheduled_at) OVER ()) / 3600, 3) AS hours
FROM ex14.oban_jobs WHERE id IN (50, 51, 60) ORDER BY id;

-- The signals of each batch; none when they are turned off.
CALL tools.make_jobs('py');
UPDATE py.oban_jobs SET state = 'executing' WHERE id IN (1, 8);
LISTEN "py.oban_signal";
LISTEN "py.oban_insert";
\o :filter
\qecho cancel:
CALL oban_cancel_in_batches('{"all": true}', 2, prefix => 'py');
\qecho retry, in batches of four:
CALL oban_retry_in_batches('{"all": true}', 4, prefix => 'py');
\qecho update, in batches of three:
CALL oban_update_in_batches('{"all": true}', '{"schedule_in": 60}', 3, prefix => 'py');
CALL oban_update_in_batches('{"all": true}', '{"schedule_in": 0, "queue": "q"}', 3, prefix => 'py');
\qecho off:
SET oban_manage.notify = off;
CALL oban_cancel_in_batches('{"all": true}', 2, prefix => 'py');
RESET oban_manage.notify;
\o
UNLISTEN *;

-- The pause between batches; and a statement_timeout that ends it: whole batches are kept.
CALL tools.fill(3, 'py');
SELECT clock_timestamp() AS before \gset
CALL oban_cancel_in_batches('{"all": true}', 1, '0.2 s', prefix => 'py');
SELECT clock_timestamp() - :'before' BETWEEN '0.4 s' AND '1 hour' AS paused;
SET statement_timeout = '2s';
CALL oban_retry_in_batches('{"all": true}', 1, '1 hour', prefix => 'py');
RESET statement_timeout;
SELECT tools.states('py');

-- Where it may be called: where a transaction may end. Not in a transaction block, a function, a
-- block that handles exceptions, or several statements in one string; that is looked at first.
CALL tools.fill(4, 'py');
CREATE PROCEDURE tools.wrapped(INOUT n bigint) LANGUAGE plpgsql AS $$
BEGIN
	CALL oban_cancel_in_batches('{"all": true}', 3, '0', prefix => 'py', affected => n);
END $$;
CREATE PROCEDURE tools.handles(INOUT n bigint) LANGUAGE plpgsql AS $$
BEGIN
	CALL oban_cancel_in_batches('{"all": true}', 3, '0', prefix => 'py', affected => n);
EXCEPTION WHEN division_by_zero THEN
	NULL;
END $$;
CREATE PROCEDURE tools.with_set(INOUT n bigint) LANGUAGE plpgsql SET work_mem = '1MB' AS $$
BEGIN
	CALL oban_cancel_in_batches('{"all": true}', 3, '0', prefix => 'py', affected => n);
END $$;
CREATE PROCEDURE tools.as_definer(INOUT n bigint) LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	CALL oban_cancel_in_batches('{"all": true}', 3, '0', prefix => 'py', affected => n);
END $$;
CREATE FUNCTION tools.in_function() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	CALL oban_cancel_in_batches('{"all": true}', 3, '0', prefix => 'py', affected => n);
	RETURN n;
END $$;
CREATE FUNCTION tools.in_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	CALL oban_cancel_in_batches('{"all": true}', 3, '0', prefix => 'py', affected => n);
	RETURN NULL;
END $$;
CREATE TABLE tools.app (id integer);
CREATE TRIGGER cancel AFTER INSERT ON tools.app FOR EACH ROW EXECUTE FUNCTION tools.in_trigger();
\set VERBOSITY sqlstate
BEGIN;
CALL oban_cancel_in_batches('{"all": true}', prefix => 'py');
ROLLBACK;
BEGIN;
CALL oban_delete_in_batches('{"all": true}', prefix => 'py');
ROLLBACK;
BEGIN;
CALL oban_retry_in_batches('{"all": true}', prefix => 'py');
ROLLBACK;
BEGIN;
CALL oban_update_in_batches('{"all": true}', '{"priority": 1}', prefix => 'py');
ROLLBACK;
BEGIN;
CALL oban_cancel_in_batches('{"id": 99}', prefix => 'py');
ROLLBACK;
BEGIN;
CALL oban_cancel_in_batches(NULL, -1, NULL, prefix => 'no such');
ROLLBACK;
BEGIN;
CALL oban_update_in_batches('{}', NULL, 0);
ROLLBACK;
BEGIN;
CALL tools.wrapped(NULL);
ROLLBACK;
CALL tools.handles(NULL);
CALL tools.with_set(NULL);
CALL tools.as_definer(NULL);
SELECT tools.in_function();
INSERT INTO tools.app VALUES (1);
DO $$
BEGIN
	PERFORM tools.in_function();
END $$;
DO $$
DECLARE
	n bigint;
BEGIN
	BEGIN
		CALL oban_cancel_in_batches('{"all": true}', prefix => 'py', affected => n);
	EXCEPTION WHEN division_by_zero THEN
		NULL;
	END;
END $$;
SELECT 1 AS several \; CALL oban_cancel_in_batches('{"all": true}', prefix => 'py');
CALL oban_cancel_in_batches('{"all": true}', prefix => 'py') \; SELECT 1 AS several;
\set AUTOCOMMIT off
CALL oban_cancel_in_batches('{"all": true}', prefix => 'py');
ROLLBACK;
\set AUTOCOMMIT on
\set VERBOSITY default
BEGIN;
CALL oban_cancel_in_batches('{"all": true}', prefix => 'py');
ROLLBACK;
SELECT tools.states('py');
-- It works from a procedure, and from a DO block: what was written before is committed with it, and
-- a cursor that is held, the variables and what follows are as they were.
BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT id FROM py.oban_jobs ORDER BY id;
COMMIT;
CALL tools.wrapped(NULL);
SELECT tools.batches('py');
FETCH 2 FROM held;
CLOSE held;
CREATE TABLE tools.log (step text);
DO $$
DECLARE
	n bigint;
	filter jsonb := jsonb_build_object('worker', 'App.' || 'Worker');
	prefix text := repeat('p', 1) || 'y';
BEGIN
	INSERT INTO tools.log VALUES ('before');
	FOR i IN 1..3 LOOP
		CALL oban_retry_in_batches(filter, i, '0', '0', prefix => prefix, affected => n);
		INSERT INTO tools.log VALUES (format('retried %s', n));
		CALL oban_cancel_in_batches(filter, batch_size => i, prefix => prefix, affected => n);
		INSERT INTO tools.log VALUES (format('cancelled %s with %s in %s', n, filter, prefix));
	END LOOP;
	ROLLBACK;	-- the last line of the log
	INSERT INTO tools.log VALUES ('after');
END $$;
SELECT * FROM tools.log;
-- With other isolation levels, and not where nothing may be written.
SET default_transaction_isolation = 'serializable';
CALL oban_retry_in_batches('{"all": true}', 3, prefix => 'py');
SET default_transaction_isolation = 'repeatable read';
CALL oban_cancel_in_batches('{"all": true}', 3, prefix => 'py');
RESET default_transaction_isolation;
SELECT tools.batches('py');
SET default_transaction_read_only = on;
CALL oban_retry_in_batches('{"all": true}', 3, prefix => 'py');
RESET default_transaction_read_only;
DO $$
DECLARE
	n bigint;
BEGIN
	SET TRANSACTION READ ONLY;
	CALL oban_update_in_batches('{"all": true}', '{"priority": 7}', prefix => 'py', affected => n);
END $$;

-- What SET LOCAL has set ends with the first commit, but for what says who acts, on which table and who
-- is told: that holds for the whole CALL. It takes the jobs of its own queue, of the table in ex14.
\set ECHO none
DROP ROLE IF EXISTS regress_oban_batches, regress_oban_tenant;
CREATE ROLE regress_oban_batches SUPERUSER;
CREATE ROLE regress_oban_tenant;
GRANT USAGE ON SCHEMA tools, ex14 TO regress_oban_tenant;
GRANT ALL ON ALL TABLES IN SCHEMA tools, ex14 TO regress_oban_tenant;
CREATE TABLE tools.acted (session_role text, role text, prefix text, notify text,
	jobs bigint);
GRANT INSERT ON tools.acted TO regress_oban_tenant;
CREATE FUNCTION tools.note_who() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tools.acted SELECT session_user, current_user,
		current_setting('oban_manage.prefix'), current_setting('oban_manage.notify'), count(*)
	FROM changed HAVING count(*) > 0;
	RETURN NULL;
END $$;
CREATE TRIGGER note_who AFTER UPDATE ON ex14.oban_jobs REFERENCING NEW TABLE AS changed
	FOR EACH STATEMENT EXECUTE FUNCTION tools.note_who();
CREATE TRIGGER note_who AFTER UPDATE ON py.oban_jobs REFERENCING NEW TABLE AS changed
	FOR EACH STATEMENT EXECUTE FUNCTION tools.note_who();
CALL tools.fill(12, 'ex14');
CALL tools.fill(12, 'py');
UPDATE ex14.oban_jobs SET queue = 'tenant' WHERE id % 2 = 0;
ALTER TABLE ex14.oban_jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON ex14.oban_jobs TO regress_oban_tenant USING (queue = 'tenant');
TRUNCATE tools.acted;
\set ECHO all
SET oban_manage.prefix = 'py';
DO $$
DECLARE
	n bigint;
BEGIN
	SET LOCAL SESSION AUTHORIZATION regress_oban_batches;
	SET LOCAL ROLE regress_oban_tenant;
	SET LOCAL oban_manage.prefix = 'ex14';
	SET LOCAL oban_manage.notify = off;
	CALL oban_update_in_batches('{"all": true}', '{"priority": 4}', 2, affected => n);
	INSERT INTO tools.acted SELECT 'then', current_user = session_user,
		current_setting('oban_manage.prefix'), current_setting('oban_manage.notify'), n;
END $$;
SELECT *, count(*) AS batches FROM tools.acted GROUP BY 1, 2, 3, 4, 5 ORDER BY 1;
SELECT string_agg(id::text, ' ' ORDER BY id) AS updated FROM ex14.oban_jobs WHERE priority = 4;
SELECT count(*) AS of_the_other_table FROM py.oban_jobs WHERE priority = 4;
RESET oban_manage.prefix;
\set ECHO none
DROP TRIGGER note_who ON ex14.oban_jobs;
DROP TRIGGER note_who ON py.oban_jobs;
DROP POLICY own ON ex14.oban_jobs;
ALTER TABLE ex14.oban_jobs DISABLE ROW LEVEL SECURITY;
\set ECHO all

-- The first transaction is the caller's: when it is lost, so is what the caller wrote, and that is said.
CREATE TABLE tools.orders (id integer);
CREATE SEQUENCE tools.tries;
CREATE FUNCTION tools.lose_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF nextval('tools.tries') = 1 THEN
		RAISE 'lost' USING ERRCODE = 'serialization_failure';
	END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER lose AFTER INSERT ON tools.orders DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION tools.lose_once();
CREATE PROCEDURE tools.order_and_update(INOUT n bigint) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tools.orders VALUES (1);
	CALL oban_update_in_batches('{"all": true}', '{"priority": 6}', 5, prefix => 'py', affected => n);
END $$;
\set VERBOSITY terse
CALL tools.order_and_update(NULL);
SELECT (SELECT count(*) FROM tools.orders) AS orders, count(*) FILTER (WHERE priority = 6) AS updated
FROM py.oban_jobs;
CALL tools.order_and_update(NULL);
SELECT (SELECT count(*) FROM tools.orders) AS orders, count(*) FILTER (WHERE priority = 6) AS updated
FROM py.oban_jobs;
\set VERBOSITY default

-- What is refused, whether there is any job or not.
\set ECHO none
CREATE TABLE tools.refused (n serial, call text);
INSERT INTO tools.refused (call) VALUES
	('cancel_in_batches(NULL, prefix => ''py'')'), ('cancel_in_batches(''{}'', prefix => ''py'')'),
	('retry_in_batches(''{"ids": 1}'', prefix => ''py'')'),
	('delete_in_batches(''{"state": "gone"}'', prefix => ''ex9'')'),
	('update_in_batches(''{"id": []}'', ''{}'', prefix => ''ex9'')'),
	('update_in_batches(''{"all": true}'', NULL, prefix => ''ex9'')'),
	('update_in_batches(''{"all": true}'', ''{"prio": 1}'', prefix => ''py'')'),
	('update_in_batches(''{"all": true}'', ''{"priority": 10}'', prefix => ''ex9'')'),
	('cancel_in_batches(''{"all": true}'', 0, prefix => ''py'')'),
	('retry_in_batches(''{"all": true}'', -1, prefix => ''py'')'),
	('delete_in_batches(''{"all": true}'', -2147483648, prefix => ''ex9'')'),
	('update_in_batches(''{"all": true}'', ''{}'', 0, prefix => ''py'')'),
	('cancel_in_batches(''{"all": true}'', NULL, prefix => ''py'')'),
	('update_in_batches(''{"all": true}'', ''{}'', NULL, prefix => ''py'')'),
	('cancel_in_batches(''{"all": true}'', 1, NULL, prefix => ''py'')'),
	('retry_in_batches(''{"all": true}'', 1, ''-1 second'', prefix => ''py'')'),
	('delete_in_batches(''{"all": true}'', 1, ''-0.000001 s'', prefix => ''ex9'')'),
	('update_in_batches(''{"all": true}'', ''{}'', 1, ''-1 day'', prefix => ''py'')'),
	('retry_in_batches(''{"all": true}'', 1, ''0'', NULL, prefix => ''py'')'),
	('retry_in_batches(''{"all": true}'', 1, ''0'', ''-1 hour'', prefix => ''ex9'')'),
	('retry_in_batches(''{"all": true}'', 1, ''0'', ''-1 month'', prefix => ''py'')'),
	('cancel_in_batches(''{"all": true}'', prefix => ''no such'')'),
	('delete_in_batches(''{"all": true}'')');
DELETE FROM ex9.oban_jobs;
CALL tools.make_jobs('py');
SELECT tools.rows('py') AS py \gset
\set ECHO queries
SELECT 'CALL oban_' || call FROM tools.refused ORDER BY n \gexec
\set VERBOSITY sqlstate
SELECT 'CALL oban_' || call FROM tools.refused ORDER BY n \gexec
\set VERBOSITY default
\set ECHO all
SELECT tools.difference(tools.rows('py'), :'py') IS NULL AS kept;

-- The now() of a batch comes after the pause before it.
CALL tools.fill(2, 'py');
CALL oban_cancel_in_batches('{"all": true}', 1, '0.3 s', prefix => 'py');
SELECT max(cancelled_at) - min(cancelled_at) >= '0.3 s' AS later FROM py.oban_jobs;

-- An id that stands twice, here in a child table, does not end the walk.
CALL tools.fill(60, 'py');
CREATE TABLE py.archive () INHERITS (py.oban_jobs);
INSERT INTO py.archive SELECT * FROM ONLY py.oban_jobs WHERE id IN (3, 5);
CALL oban_cancel_in_batches('{"all": true}', 5, prefix => 'py');
SELECT tableoid::regclass AS in_table, state, count(*) FROM py.oban_jobs GROUP BY 1, 2 ORDER BY 1, 2;

-- A spread that ends beyond the end of time
CALL tools.make_jobs('ex14');
CALL oban_retry_in_batches('{"all": true}', spread => '300000 years', prefix => 'ex14');

-- Batches all of whose jobs a trigger keeps
CREATE FUNCTION tools.keeps() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER keeps BEFORE UPDATE ON ex14.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.keeps();
SET client_min_messages = notice;
CALL oban_cancel_in_batches('{"state": ["available", "scheduled"]}', 10, prefix => 'ex14');
SET client_min_messages = warning;
DROP TRIGGER keeps ON ex14.oban_jobs;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
DROP ROLE regress_oban_batches, regress_oban_tenant;
