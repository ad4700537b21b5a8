-- Triggers where rows come and go in other ways: partitioned tables, inheritance, views, deferred
-- triggers, foreign keys, COPY, MERGE, replication, temporary tables; and tables that are altered.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
SET oban_manage.prefix = 'py';
CREATE TABLE tools.noted (n serial, job bigint, context jsonb);
CREATE FUNCTION tools.note(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tools.noted (job, context) VALUES (job.id, context);
	RETURN NULL;
END $$;
CREATE PROCEDURE tools.start() LANGUAGE plpgsql AS $$
BEGIN
	CALL tools.make_jobs('py');
	TRUNCATE tools.noted RESTART IDENTITY;
END $$;
\set ECHO all

-- A partitioned table, whose partitions have the columns at other places. A row trigger is cloned
-- to each; a row that moves fires UPDATE before, then DELETE and INSERT. The context names the
-- partition.
CREATE TABLE tools.parted (region text, id integer, job bigint) PARTITION BY LIST (region);
CREATE TABLE tools.part_a PARTITION OF tools.parted FOR VALUES IN ('a');
CREATE TABLE tools.part_b (gone text, more integer, job bigint, id integer, region text);
ALTER TABLE tools.part_b DROP gone, DROP more;
ALTER TABLE tools.parted ATTACH PARTITION tools.part_b FOR VALUES IN ('b');
CREATE TRIGGER before BEFORE UPDATE ON tools.parted FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note');
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON tools.parted FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note');
CREATE TRIGGER stop AFTER DELETE ON tools.parted FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('job');
CALL tools.start();
INSERT INTO tools.parted VALUES ('a', 1, 1), ('b', 2, 2), ('b', 3, 3), ('a', 4, 4);
UPDATE tools.parted SET id = id + 10 WHERE region = 'b' AND job = 2;
UPDATE tools.parted SET region = 'b' WHERE id = 1;
SELECT tools.states('py');
DELETE FROM tools.parted WHERE id = 3;
DELETE FROM tools.part_b WHERE id = 12;
SELECT n, job, context FROM tools.noted ORDER BY n;
SELECT tools.states('py');
SELECT tableoid::regclass AS part, id, job FROM tools.parted ORDER BY id;
-- A statement trigger is fired for the table that the statement names, and gets its columns; a row
-- that moves is updated, not deleted.
DROP TRIGGER before ON tools.parted;
DROP TRIGGER note ON tools.parted;
DROP TRIGGER stop ON tools.parted;
CREATE TRIGGER i AFTER INSERT ON tools.parted REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note');
CREATE TRIGGER u AFTER UPDATE ON tools.parted REFERENCING OLD TABLE AS o NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('OLD.job', 'tools.note');
CREATE TRIGGER d AFTER DELETE ON tools.parted REFERENCING OLD TABLE AS o FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note');
CREATE TRIGGER stop AFTER DELETE ON tools.parted REFERENCING OLD TABLE AS o FOR EACH STATEMENT
	EXECUTE FUNCTION oban_cancel_job('job');
CREATE TRIGGER part AFTER DELETE ON tools.part_b REFERENCING OLD TABLE AS o FOR EACH STATEMENT
	EXECUTE FUNCTION oban_delete_job('job');
CALL tools.start();
TRUNCATE tools.parted;
INSERT INTO tools.parted VALUES ('a', 1, 1), ('b', 2, 2), ('b', 3, 4), ('a', 4, 8);
UPDATE tools.parted SET region = CASE region WHEN 'a' THEN 'b' ELSE 'a' END, id = id + 10
	WHERE id < 3;
DELETE FROM tools.parted WHERE id IN (11, 12);
DELETE FROM tools.part_b WHERE id = 3;
SELECT n, job, context FROM tools.noted ORDER BY n;
SELECT tools.states('py');

-- Inheritance: a row trigger is the parent's alone, a statement trigger gets the children's rows as
-- the parent has them.
CREATE TABLE tools.parent (id integer, job bigint);
CREATE TABLE tools.child (extra text, job bigint, id integer);
ALTER TABLE tools.child INHERIT tools.parent;
CREATE TRIGGER row AFTER DELETE ON tools.parent FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('job');
CREATE TRIGGER note AFTER DELETE ON tools.parent REFERENCING OLD TABLE AS o FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note');
CALL tools.start();
INSERT INTO tools.parent VALUES (1, 1), (2, 2);
INSERT INTO tools.child VALUES ('x', 4, 3), ('y', 8, 4);
DELETE FROM tools.parent WHERE id IN (1, 3);
DELETE FROM tools.child;
SELECT n, job, context FROM tools.noted ORDER BY n;
SELECT tools.states('py');

-- A view that PostgreSQL updates by itself fires what is on its table.
CREATE VIEW tools.parent_view AS SELECT job AS j, id AS i FROM tools.parent;
CALL tools.start();
DELETE FROM tools.parent_view WHERE i = 2;
SELECT n, job, context FROM tools.noted ORDER BY n;
SELECT tools.states('py');

-- A deferred constraint trigger: at the end of the transaction, or when it is asked for, with the
-- prefix as it is then; not for what was rolled back.
CREATE TABLE tools.orders (id integer PRIMARY KEY, job bigint, jobs bigint[]);
CREATE CONSTRAINT TRIGGER later AFTER INSERT OR DELETE ON tools.orders DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION oban_cancel_job('job');
CALL tools.start();
BEGIN;
INSERT INTO tools.orders VALUES (1, 1), (2, 2);
SAVEPOINT s;
INSERT INTO tools.orders VALUES (4, 4);
ROLLBACK TO s;
SELECT tools.states('py') AS not_yet;
SET CONSTRAINTS ALL IMMEDIATE;
SELECT tools.states('py') AS at_once;
SET CONSTRAINTS ALL DEFERRED;
DELETE FROM tools.orders WHERE id = 1;
INSERT INTO tools.orders VALUES (8, 8);
SET LOCAL oban_manage.prefix = 'ex14';
INSERT INTO ex14.oban_jobs (id, worker) VALUES (8, 'W');
COMMIT;
SELECT tools.states('py') AS py, tools.states('ex14') AS ex14;
-- An error at the commit: nothing of the transaction stays.
DROP TRIGGER later ON tools.orders;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON tools.orders DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION oban_update_job('job', '{"max_attempts": 1}');
BEGIN;
INSERT INTO tools.orders VALUES (11, 8), (12, 4);
\set VERBOSITY terse
COMMIT;
\set VERBOSITY default
SELECT id FROM tools.orders ORDER BY id;
SELECT id, max_attempts FROM py.oban_jobs WHERE id IN (4, 8) ORDER BY id;
DROP TRIGGER later ON tools.orders;

-- A foreign key's ON DELETE CASCADE, ON DELETE SET NULL and ON UPDATE CASCADE, by row and by
-- statement.
CREATE TABLE tools.cascaded (job integer,
	order_id integer REFERENCES tools.orders ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE tools.set_null (order_id integer REFERENCES tools.orders ON DELETE SET NULL
	ON UPDATE CASCADE, job bigint);
CREATE TRIGGER row AFTER DELETE ON tools.cascaded FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('job');
CREATE TRIGGER statement AFTER DELETE ON tools.cascaded REFERENCING OLD TABLE AS o
	FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job('job', '{"tags": ["cascaded"]}');
CREATE TRIGGER nulled AFTER UPDATE ON tools.set_null FOR EACH ROW
	WHEN (NEW.order_id IS NULL) EXECUTE FUNCTION oban_retry_job('job');
CREATE TRIGGER moved AFTER UPDATE ON tools.cascaded REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job('job', '{"priority": 7}');
CALL tools.start();
TRUNCATE tools.orders CASCADE;
INSERT INTO tools.orders VALUES (1), (2), (3);
INSERT INTO tools.cascaded VALUES (1, 1), (3, 1), (2, 2), (8, 3);
INSERT INTO tools.set_null VALUES (1, 5), (2, 6), (3, 4);
UPDATE tools.orders SET id = 30 WHERE id = 3;
DELETE FROM tools.orders WHERE id < 3;
SELECT id, state, tags, priority FROM py.oban_jobs ORDER BY id;

-- COPY, by row and by statement.
CREATE TABLE tools.copied (id integer, job bigint, note text);
CREATE TRIGGER before BEFORE INSERT ON tools.copied FOR EACH ROW
	EXECUTE FUNCTION oban_retry_job('job');
CREATE TRIGGER statement AFTER INSERT ON tools.copied REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job('job', '{"priority": 6}');
CALL tools.start();
COPY tools.copied FROM stdin;
1	5	five
2	\N	none
3	6	six
4	99	missing
\.
SELECT id, state, priority FROM py.oban_jobs ORDER BY id;
COPY tools.copied (job) FROM stdin;
7
no
\.
SELECT state FROM py.oban_jobs WHERE id = 7;
-- More rows than COPY keeps in one batch.
DROP TRIGGER before ON tools.copied;
CREATE TRIGGER after AFTER INSERT ON tools.copied FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('job');
CALL tools.fill(2500, 'py');
\copy tools.copied (job) FROM PROGRAM 'seq 1 2500'
SELECT state, priority, count(*) FROM py.oban_jobs GROUP BY 1, 2;

-- MERGE with all three actions.
CREATE TABLE tools.merged (id integer PRIMARY KEY, job bigint);
CREATE TRIGGER row_i AFTER INSERT ON tools.merged FOR EACH ROW
	EXECUTE FUNCTION oban_retry_job('job');
CREATE TRIGGER row_u BEFORE UPDATE ON tools.merged FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('OLD.job');
CREATE TRIGGER row_d AFTER DELETE ON tools.merged FOR EACH ROW
	EXECUTE FUNCTION oban_delete_job('job');
CREATE TRIGGER i AFTER INSERT ON tools.merged REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note');
CREATE TRIGGER u AFTER UPDATE ON tools.merged REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note');
CREATE TRIGGER d AFTER DELETE ON tools.merged REFERENCING OLD TABLE AS o FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note');
INSERT INTO tools.merged VALUES (1, 1), (2, 2), (3, 3);
CALL tools.start();
MERGE INTO tools.merged m USING (VALUES (1, 4), (2, NULL), (4, 5), (5, 6)) s(id, job) ON s.id = m.id
WHEN MATCHED AND s.job IS NULL THEN DELETE
WHEN MATCHED THEN UPDATE SET job = s.job
WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.job);
SELECT job, context FROM tools.noted ORDER BY context ->> 'op', n;
SELECT tools.states('py');
SELECT id, job FROM tools.merged ORDER BY id;

-- session_replication_role: what a subscriber applies fires what is enabled for it only.
CREATE TABLE tools.replicated (job bigint);
CREATE TRIGGER as_default AFTER INSERT ON tools.replicated FOR EACH ROW
	EXECUTE FUNCTION oban_update_job('job', '{"priority": 1}');
CREATE TRIGGER on_replica AFTER INSERT ON tools.replicated FOR EACH ROW
	EXECUTE FUNCTION oban_update_job('job', '{"queue": "replica"}');
CREATE TRIGGER always AFTER INSERT ON tools.replicated FOR EACH ROW
	EXECUTE FUNCTION oban_update_job('job', '{"tags": ["always"]}');
CREATE TRIGGER disabled AFTER INSERT ON tools.replicated FOR EACH ROW
	EXECUTE FUNCTION oban_update_job('job', '{"worker": "Disabled"}');
ALTER TABLE tools.replicated ENABLE REPLICA TRIGGER on_replica, ENABLE ALWAYS TRIGGER always,
	DISABLE TRIGGER disabled;
CALL tools.start();
INSERT INTO tools.replicated VALUES (1);
SET session_replication_role = replica;
INSERT INTO tools.replicated VALUES (2);
-- A call works there too.
SELECT oban_cancel_job(8);
RESET session_replication_role;
SELECT id, state, priority, queue, tags, worker FROM py.oban_jobs WHERE id IN (1, 2, 8) ORDER BY id;

-- The table is altered between two firings in one session: columns move, change their type and
-- their name.
CREATE TABLE tools.altered (a integer, job integer, b text);
CREATE TRIGGER row AFTER INSERT ON tools.altered FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('job');
CREATE TRIGGER statement AFTER INSERT ON tools.altered REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note');
CALL tools.start();
INSERT INTO py.oban_jobs (id, worker) OVERRIDING SYSTEM VALUE VALUES (5000000000, 'W');
INSERT INTO tools.altered VALUES (1, 1, 'x');
ALTER TABLE tools.altered DROP a;
INSERT INTO tools.altered VALUES (2, 'y');
ALTER TABLE tools.altered ALTER job TYPE bigint, ADD c integer DEFAULT 3;
INSERT INTO tools.altered VALUES (5000000000, 'z');
ALTER TABLE tools.altered RENAME job TO job_id;
INSERT INTO tools.altered VALUES (4);
ALTER TABLE tools.altered RENAME b TO job;
INSERT INTO tools.altered VALUES (4);
ALTER TABLE tools.altered DROP job, ADD job smallint[];
INSERT INTO tools.altered VALUES (3, 3, '{4,8}');
ALTER TABLE tools.altered RENAME TO "Altered";
ALTER TABLE tools."Altered" SET SCHEMA ex9;
INSERT INTO ex9."Altered" (job) VALUES ('{3}');
SELECT n, job, context FROM tools.noted ORDER BY n;
SELECT tools.states('py');

-- What is rolled back: the row, and what its trigger did.
CALL tools.start();
CREATE TABLE tools.undone (id integer CHECK (id < 10), job bigint);
CREATE TRIGGER before BEFORE INSERT ON tools.undone FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('job');
BEGIN;
INSERT INTO tools.undone VALUES (1, 1);
SAVEPOINT s;
INSERT INTO tools.undone VALUES (2, 2);
SELECT tools.states('py');
ROLLBACK TO s;
SELECT tools.states('py');
COMMIT;
INSERT INTO tools.undone VALUES (10, 3);
DO $$
BEGIN
	FOR i IN 3..8 LOOP
		BEGIN
			INSERT INTO tools.undone VALUES (i, i);
			IF i % 2 = 0 THEN
				RAISE EXCEPTION USING ERRCODE = 'P0099';
			END IF;
		EXCEPTION WHEN SQLSTATE 'P0099' THEN
			NULL;
		END;
	END LOOP;
END $$;
SELECT tools.states('py');

-- Beside other triggers of the row: each sees what the one before it made of it, and what is
-- returned is that.
CREATE FUNCTION tools.next_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.job := NEW.job + 1;
	NEW.jobs := NEW.jobs || NEW.job;
	RETURN NEW;
END $$;
CREATE FUNCTION tools.suppress() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER a BEFORE INSERT OR UPDATE ON tools.orders FOR EACH ROW
	EXECUTE FUNCTION tools.next_job();
CREATE TRIGGER b BEFORE INSERT OR UPDATE ON tools.orders FOR EACH ROW
	EXECUTE FUNCTION oban_retry_job('jobs');
CREATE TRIGGER c BEFORE INSERT OR UPDATE ON tools.orders FOR EACH ROW
	EXECUTE FUNCTION tools.next_job();
CALL tools.start();
INSERT INTO tools.orders VALUES (41, 3, '{5}') RETURNING job, jobs;
SELECT tools.states('py');
UPDATE tools.orders SET job = 6 WHERE id = 41 RETURNING job, jobs;
SELECT tools.states('py');
-- A row that is suppressed before it comes to ours names no job.
CREATE TRIGGER aa BEFORE INSERT ON tools.orders FOR EACH ROW EXECUTE FUNCTION tools.suppress();
INSERT INTO tools.orders VALUES (42, 1, '{8}');
SELECT state FROM py.oban_jobs WHERE id = 8;

-- An array that is so long that it lies elsewhere (TOAST).
CREATE TABLE tools.long (id integer, jobs bigint[]);
ALTER TABLE tools.long ALTER jobs SET STORAGE EXTERNAL;
CALL tools.fill(300, 'py');
CREATE TRIGGER before BEFORE DELETE ON tools.long FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('jobs');
CREATE TRIGGER statement AFTER DELETE ON tools.long REFERENCING OLD TABLE AS o FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('jobs', 'tools.note');
INSERT INTO tools.long SELECT 1, array_agg(g) FROM generate_series(1, 300) g;
INSERT INTO tools.long SELECT 2, array_agg(g % 100 + 1) FROM generate_series(1, 400) g;
SELECT count(*) FROM tools.long
WHERE pg_relation_size((SELECT reltoastrelid FROM pg_class WHERE oid = 'tools.long'::regclass)) > 0;
TRUNCATE tools.noted;
DELETE FROM tools.long;
SELECT state, count(*) FROM py.oban_jobs GROUP BY 1;
SELECT count(*), count(DISTINCT job), min(jsonb_array_length(context #> '{old,jobs}'))
FROM tools.noted;

-- A temporary table; one that is gone at the end of the transaction.
CREATE TEMP TABLE temp_orders (job bigint) ON COMMIT DELETE ROWS;
CREATE TRIGGER row AFTER INSERT ON temp_orders FOR EACH ROW EXECUTE FUNCTION oban_cancel_job('job');
CREATE TRIGGER note AFTER INSERT ON temp_orders REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note');
CALL tools.start();
INSERT INTO temp_orders VALUES (1), (2);
SELECT tools.states('py');
SELECT job, jsonb_set(context, '{schema}',
	to_jsonb(regexp_replace(context ->> 'schema', '\d+', 'N')))
FROM tools.noted ORDER BY n;
DROP TABLE temp_orders;

-- One trigger function, many tables and triggers, in one session.
CREATE FUNCTION tools.many_tables() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CALL tools.fill(40, 'py');
	FOR i IN 1..40 LOOP
		EXECUTE format('CREATE TABLE tools.t%s (%s job bigint)', i,
			(SELECT string_agg(format('c%s integer,', c), ' ') FROM generate_series(1, i) c));
		EXECUTE format('CREATE TRIGGER t AFTER INSERT ON tools.t%s FOR EACH ROW
			EXECUTE FUNCTION oban_cancel_job(''job'')', i);
		EXECUTE format('INSERT INTO tools.t%s (job) VALUES (%s)', i, i);
		EXECUTE format('DROP TABLE tools.t%s', i);
	END LOOP;
	RETURN (SELECT count(*) || ' cancelled' FROM py.oban_jobs WHERE state = 'cancelled');
END $$;
SELECT tools.many_tables();

RESET oban_manage.prefix;
DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
