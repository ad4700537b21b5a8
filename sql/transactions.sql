-- Isolation levels, read-only transactions, savepoints; what only one session can show. Two
-- sessions are in specs/.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
CALL tools.make_jobs('ex14', 'py');
SET oban_manage.prefix = 'py';

-- Every level does the same work.
CREATE FUNCTION tools.work() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CALL tools.make_jobs('py');
	RETURN concat_ws(' ', current_setting('transaction_isolation') || ':', oban_cancel_job(1),
		oban_cancel_many_jobs('{2,3,4}'), oban_retry_job(5), oban_retry_many_jobs('{1,6,7}'),
		oban_delete_job(2), oban_delete_many_jobs('{3,4}'),
		(SELECT string_agg(id || ' ' || priority, ',')
		 FROM oban_update_many_jobs('{6,5}', '{"priority": 4, "schedule_in": 9}')),
		oban_job_cancelled(2), tools.states('py'));
END $$;
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT tools.work();
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT tools.work();
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT tools.work();
COMMIT;

-- Read-only: reads work, all that writes is refused, as is what would find nothing.
BEGIN READ ONLY;
SELECT state FROM oban_get_job(5);
SELECT oban_job_cancelled(5);
SELECT q, code, message FROM unnest(ARRAY['oban_cancel_job(5)', 'oban_cancel_job(99)',
	'oban_cancel_many_jobs(''{5}'')', 'oban_retry_job(8)', 'oban_retry_many_jobs(''{8}'')',
	'oban_delete_job(5)', 'oban_delete_many_jobs(''{99}'')',
	'oban_update_job(5, ''{"priority": 1}'')',
	'oban_update_many_jobs(''{5}'', ''{"priority": 1}'')']) WITH ORDINALITY u(q, n),
	tools.try('SELECT ' || q) ORDER BY n;
-- Nothing to do is nothing written.
SELECT oban_cancel_job(NULL::bigint), oban_delete_many_jobs(NULL);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT state FROM oban_get_job(5);
COMMIT;
-- Each function says whether it writes: a STABLE SQL function may hold the reads only.
CREATE FUNCTION tools.reads(bigint) RETURNS text STABLE LANGUAGE sql
	AS $$SELECT (oban_get_job($1)).state || ' ' || oban_job_cancelled($1)$$;
SELECT tools.reads(5), tools.reads(99);

-- Savepoints: what is rolled back did not happen, and the plans survive.
CALL tools.make_jobs('py');
BEGIN;
SELECT oban_cancel_job(1) AS kept;
SAVEPOINT a;
SELECT oban_cancel_many_jobs('{2,3}') AS undone, oban_delete_job(4) AS undone;
SAVEPOINT b;
SELECT oban_update_job(99, '{"priority": 1}');
ROLLBACK TO b;
SELECT oban_cancel_job(5) AS ignored, oban_job_cancelled(2) AS still;
ROLLBACK TO a;
SELECT oban_job_cancelled(2) AS undone, oban_retry_job(2) AS kept;
COMMIT;
SELECT tools.states('py');
-- An exception block is one.
DO $$
BEGIN
	FOR i IN 1..7 LOOP
		BEGIN
			PERFORM oban_cancel_many_jobs('{1,2,8}');
			PERFORM oban_update_many_jobs('{1,99}', '{"priority": 1}');
		EXCEPTION WHEN no_data_found THEN
			NULL;
		END;
	END LOOP;
END $$;
SELECT tools.states('py');
-- The transaction is aborted after an error, and nothing of it stays.
BEGIN;
SELECT oban_cancel_job(8);
SELECT oban_update_job(8, '{"prio": 1}');
SELECT oban_cancel_job(2);
COMMIT;
SELECT tools.states('py');

-- The table's lock is that of any writing statement, and is held until the end of the transaction.
BEGIN;
SELECT oban_cancel_many_jobs('{2,5,99}');
SELECT mode FROM pg_locks
WHERE pid = pg_backend_pid() AND relation = 'py.oban_jobs'::regclass ORDER BY mode;
COMMIT;

-- Inside a cursor, a procedure that commits, and a view.
BEGIN;
DECLARE c CURSOR FOR SELECT id, oban_retry_job(id) FROM py.oban_jobs WHERE id > 5 ORDER BY id;
FETCH 2 FROM c;
SELECT tools.states('py');
COMMIT;
CREATE PROCEDURE tools.one_by_one() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..8 LOOP
		PERFORM oban_cancel_job(i);
		COMMIT;
	END LOOP;
	PERFORM oban_delete_many_jobs('{1,2}');
	ROLLBACK;
END $$;
CALL tools.one_by_one();
SELECT tools.states('py');
CREATE VIEW tools.stopped AS SELECT m.id FROM tools.model m WHERE oban_job_cancelled(m.id, 'py');
SELECT string_agg(id::text, ',' ORDER BY id) FROM tools.stopped;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
