-- The table changes while its plans are kept: in one session, each query more than five times
-- before, so that the generic plan is met as well.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

-- Runs every function on the jobs of a schema, several times each, and checks what it gives.
CREATE FUNCTION tools.exercise(p text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	id bigint;
BEGIN
	CALL tools.fill(8, p);
	FOR id IN 1..7 LOOP
		ASSERT oban_cancel_job(id, p), 'cancel';
		ASSERT oban_job_cancelled(id, p), 'cancelled';
		ASSERT NOT oban_cancel_job(id, p), 'cancel again';
		ASSERT oban_retry_job(id, p), 'retry';
		ASSERT (oban_update_job(id, '{"priority": 1}', p)).priority = 1, 'update';
		ASSERT (oban_update_job(id, '{"queue": "q", "schedule_in": 60}', p)).state = 'scheduled',
			'schedule';
		ASSERT (oban_get_job(id, p)).queue = 'q', 'get';
		ASSERT oban_cancel_many_jobs(ARRAY[8, id], p) = 2, 'cancel many';
		ASSERT oban_retry_many_jobs(ARRAY[8, id], p) = 2, 'retry many';
		ASSERT (SELECT count(*) = 2 FROM oban_update_many_jobs(ARRAY[8, id], '{"tags": ["t"]}', p)),
			'update many';
		ASSERT CASE id % 2 WHEN 1 THEN oban_delete_job(id, p) ELSE
			oban_delete_many_jobs(ARRAY[id, id], p) = 1 END, 'delete';
	END LOOP;
	RETURN tools.states(p);
END $$;
SELECT p, tools.exercise(p) FROM unnest('{ex9,ex11,ex14,py}'::text[]) p;
SELECT p, tools.exercise(p) FROM unnest('{ex9,ex11,ex14,py}'::text[]) p;

-- More than five times as prepared statements, whose parameter is the id.
PREPARE cancel(bigint) AS SELECT oban_cancel_job($1, 'py');
PREPARE retry(bigint[]) AS SELECT oban_retry_many_jobs($1, 'py');
CALL tools.fill(3, 'py');
\set ECHO none
EXECUTE cancel(1) \g /dev/null
EXECUTE retry('{1}') \g /dev/null
EXECUTE cancel(1) \g /dev/null
EXECUTE retry('{1}') \g /dev/null
EXECUTE cancel(1) \g /dev/null
EXECUTE retry('{1}') \g /dev/null
EXECUTE cancel(1) \g /dev/null
EXECUTE retry('{1}') \g /dev/null
EXECUTE cancel(1) \g /dev/null
EXECUTE retry('{1}') \g /dev/null
EXECUTE cancel(1) \g /dev/null
EXECUTE retry('{1}') \g /dev/null
\set ECHO all
EXECUTE cancel(2);
EXECUTE retry('{3,2,1}');
SELECT tools.states('py');

-- Dropped, and made again: as another dialect's, too.
DROP TABLE ex9.oban_jobs CASCADE;
SELECT oban_cancel_job(1, 'ex9');
SELECT oban_cancel_many_jobs('{1}', 'ex9');
CREATE TABLE ex9.oban_jobs (LIKE ex14.oban_jobs INCLUDING ALL);
CALL tools.fill(1, 'ex9');
SELECT oban_cancel_job(1, 'ex9');
SELECT state FROM oban_update_job(1, '{}', 'ex9');
DROP SCHEMA ex9 CASCADE;
SELECT oban_cancel_job(1, 'ex9');
\set ECHO none
\set schema ex9
\i :python
\set ECHO all
SELECT tools.exercise('ex9');
SELECT errors FROM oban_get_job(8, 'ex9');
-- In one transaction, and rolled back.
BEGIN;
DROP SCHEMA ex9 CASCADE;
SELECT tools.refusal('SELECT oban_cancel_job(1, ''ex9'')');
ROLLBACK;
SELECT tools.exercise('ex9');

-- A column renamed and renamed back; the error in between names it.
ALTER TABLE py.oban_jobs RENAME scheduled_at TO run_at;
\pset format unaligned
\pset tuples_only on
SELECT q, tools.refusal('SELECT ' || q) FROM unnest(ARRAY['oban_retry_job(1, ''py'')',
	'oban_retry_many_jobs(''{1}'', ''py'')', 'oban_update_job(1, ''{"schedule_in": 1}'', ''py'')',
	'oban_get_job(1, ''py'')']) u(q);
\pset format aligned
\pset tuples_only off
ALTER TABLE py.oban_jobs RENAME run_at TO scheduled_at;
SELECT tools.exercise('py');
-- Two columns swap their names.
CALL tools.fill(2, 'py');
ALTER TABLE py.oban_jobs RENAME queue TO q;
ALTER TABLE py.oban_jobs RENAME worker TO queue;
ALTER TABLE py.oban_jobs RENAME q TO worker;
SELECT queue, worker FROM oban_update_job(1, '{"queue": "new"}', 'py');
ALTER TABLE py.oban_jobs RENAME queue TO q;
ALTER TABLE py.oban_jobs RENAME worker TO queue;
ALTER TABLE py.oban_jobs RENAME q TO worker;
SELECT queue, worker FROM oban_update_job(1, '{"worker": "New.Worker"}', 'py');

-- An enum value added: the migration from v9 to v14, and one that nobody knows, with plans kept.
SELECT tools.exercise('ex11');
ALTER TYPE ex11.oban_job_state ADD VALUE 'suspended' BEFORE 'scheduled';
ALTER TYPE ex11.oban_job_state ADD VALUE 'paused';
UPDATE ex11.oban_jobs SET state = 'suspended';
SELECT oban_cancel_job(8, 'ex11'), oban_retry_job(8, 'ex11');
UPDATE ex11.oban_jobs SET state = 'paused';
SELECT state FROM oban_update_job(8, '{"schedule_in": 5}', 'ex11');
SELECT oban_retry_many_jobs('{8}', 'ex11'), tools.exercise('ex11');
-- Types of columns change: to smallint and back, errors to jsonb and back.
ALTER TABLE ex14.oban_jobs ALTER attempt TYPE smallint, ALTER max_attempts TYPE smallint,
	ALTER priority TYPE smallint;
SELECT tools.exercise('ex14');
SELECT tools.refusal('SELECT oban_update_job(8, ''{"max_attempts": 40000}'', ''ex14'')');
ALTER TABLE ex14.oban_jobs ALTER errors DROP DEFAULT,
	ALTER errors TYPE jsonb USING to_jsonb(errors),
	ALTER errors SET DEFAULT '[]', ALTER max_attempts TYPE integer, ALTER id TYPE integer;
SELECT tools.exercise('ex14');
SELECT max_attempts, errors FROM oban_update_job(8, '{"max_attempts": 40000}', 'ex14');
ALTER TABLE ex14.oban_jobs ALTER tags TYPE text[], ALTER queue TYPE varchar(20),
	ALTER id TYPE bigint;
SELECT tools.exercise('ex14');

-- Columns come and go.
ALTER TABLE ex14.oban_jobs ADD note text DEFAULT 'n', DROP args, ADD more integer;
SELECT oban_get_job(8, 'ex14');
ALTER TABLE ex14.oban_jobs ADD args jsonb NOT NULL DEFAULT '{}', DROP more;
SELECT tools.exercise('ex14');
SELECT args FROM oban_get_job(8, 'ex14');

-- The primary key dropped: slower, not wrong.
ALTER TABLE ex14.oban_jobs DROP CONSTRAINT oban_jobs_pkey;
SELECT tools.exercise('ex14');
ALTER TABLE ex14.oban_jobs ADD PRIMARY KEY (id);

-- The schema renamed, and another made under the old name; tables that swap schemas.
ALTER SCHEMA py RENAME TO py_old;
SELECT oban_cancel_job(1, 'py');
SELECT tools.exercise('py_old');
SELECT prefix FROM oban_get_job(8, 'py_old');
CREATE SCHEMA py;
CREATE TABLE py.oban_jobs (LIKE py_old.oban_jobs INCLUDING DEFAULTS);
ALTER TABLE py.oban_jobs ADD CONSTRAINT another_pkey PRIMARY KEY (id);
CALL tools.fill(3, 'py_old', 'py');
SELECT oban_cancel_job(1, 'py'), oban_cancel_many_jobs('{2,3}', 'py_old');
SELECT tools.states('py'), tools.states('py_old');
ALTER TABLE py.oban_jobs RENAME TO parked;
ALTER TABLE py.parked SET SCHEMA py_old;
ALTER TABLE py_old.oban_jobs SET SCHEMA py;
ALTER TABLE py_old.parked RENAME TO oban_jobs;
SELECT oban_retry_many_jobs('{1,2,3}', 'py') AS two,
	oban_retry_many_jobs('{1,2,3}', 'py_old') AS one;
SELECT prefix FROM oban_get_job(2, 'py');
-- A table that is renamed is an oban_jobs table no more.
ALTER TABLE py_old.oban_jobs RENAME TO jobs;
SELECT oban_cancel_job(1, 'py_old');

-- A table made after the plans of a failed call: nothing of the failure is kept.
CREATE SCHEMA later;
DO $$
BEGIN
	FOR i IN 1..7 LOOP
		BEGIN
			PERFORM oban_cancel_job(1, 'later');
		EXCEPTION WHEN undefined_table THEN NULL;
		END;
	END LOOP;
END $$;
CREATE TABLE later.oban_jobs (LIKE ex14.oban_jobs INCLUDING ALL);
SELECT tools.exercise('later');

-- A trigger of the table calls the same function for another job: the plan is in use twice, and
-- while the table changes under it.
CREATE FUNCTION tools.chain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM oban_cancel_job(NEW.id + 1, TG_TABLE_SCHEMA);
	RETURN NULL;
END $$;
CREATE TRIGGER chain AFTER UPDATE ON later.oban_jobs FOR EACH ROW WHEN (NEW.state = 'cancelled')
	EXECUTE FUNCTION tools.chain();
CALL tools.fill(6, 'later');
SELECT oban_cancel_job(3, 'later'), tools.states('later');
CALL tools.fill(4, 'later');
SELECT oban_cancel_many_jobs('{2}', 'later'), tools.states('later');
CREATE OR REPLACE FUNCTION tools.chain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	CREATE INDEX ON ex14.oban_jobs (queue);
	ALTER TABLE ex14.oban_jobs SET (fillfactor = 90);
	ANALYZE later.oban_jobs;
	PERFORM oban_cancel_job(NEW.id + 1, 'ex14');
	RETURN NULL;
END $$;
CALL tools.fill(2, 'later');
CALL tools.fill(3, 'ex14');
SELECT oban_cancel_job(1, 'later'), tools.states('later'), tools.states('ex14');

DROP SCHEMA tools, ex9, ex11, ex14, py, py_old, later CASCADE;
