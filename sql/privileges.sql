-- Grants decide: roles without rights, exactly which columns each call needs, schemas, functions.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
DROP ROLE IF EXISTS regress_oban_none, regress_oban_some, regress_oban_owner;
CREATE ROLE regress_oban_none;
CREATE ROLE regress_oban_some;
CREATE ROLE regress_oban_owner;
CALL tools.make_jobs('ex14', 'py');

-- A role with no rights on the schema, then with none on the table.
CREATE FUNCTION tools.raise(job oban_job) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('priority', job.priority + 1)$$;
CREATE FUNCTION tools.tag_row(job ex14.oban_jobs) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb '{"tags": []}'$$;
CREATE FUNCTION tools.mixed(job jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT CASE job -> 'id' WHEN '1' THEN jsonb '{"queue": "q"}' WHEN '2' THEN '{"schedule_in": 0}'
		ELSE '{"meta": {}}' END
$$;
CREATE FUNCTION tools.nothing(job oban_job) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE TABLE tools.calls (n serial, name text, call text);
INSERT INTO tools.calls (name, call) VALUES
	('cancel', 'oban_cancel_job(1, ''ex14'')'),
	('cancel executing', 'oban_cancel_job(3, ''ex14'')'),
	('cancel none', 'oban_cancel_job(99, ''ex14'')'),
	('cancel many', 'oban_cancel_many_jobs(''{1,2,3}'', ''ex14'')'),
	('cancel row', 'oban_cancel_job(jsonb_populate_record(NULL::ex14.oban_jobs, ''{"id": 1}''))'),
	('retry', 'oban_retry_job(5, ''ex14'')'),
	('retry many', 'oban_retry_many_jobs(''{5,6}'', ''ex14'')'),
	('delete', 'oban_delete_job(5, ''ex14'')'),
	('delete many', 'oban_delete_many_jobs(''{5,6}'', ''ex14'')'),
	('update priority', 'oban_update_job(1, ''{"priority": 1}'', ''ex14'')'),
	('update many', 'oban_update_many_jobs(''{1,2}'', ''{"tags": []}'', ''ex14'')'),
	('update schedule', 'oban_update_job(1, ''{"schedule_in": 1}'', ''ex14'')'),
	('update limit', 'oban_update_job(1, ''{"max_attempts": 9}'', ''ex14'')'),
	('update nothing', 'oban_update_job(1, ''{}'', ''ex14'')'),
	('update with', 'oban_update_job_with(1, ''tools.raise'', NULL, ''ex14'')'),
	('update many with', 'oban_update_many_jobs_with(''{1,2}'', ''tools.raise'', NULL, ''ex14'')'),
	('update with row', 'oban_update_job_with(1, ''tools.tag_row'', NULL, ''ex14'')'),
	('update mixed', 'oban_update_many_jobs_with(''{1,2,3}'', ''tools.mixed'', NULL, ''ex14'')'),
	('update with nothing', 'oban_update_job_with(1, ''tools.nothing'', NULL, ''ex14'')'),
	('get', 'oban_get_job(1, ''ex14'')'),
	('cancelled', 'oban_job_cancelled(1, ''ex14'')');
GRANT SELECT ON tools.calls TO PUBLIC;
SET ROLE regress_oban_none;
SELECT name, code, message FROM tools.calls, tools.try('SELECT ' || call) ORDER BY n;
RESET ROLE;
GRANT USAGE ON SCHEMA ex14 TO regress_oban_none, regress_oban_some;
SET ROLE regress_oban_none;
SELECT name, code, message FROM tools.calls, tools.try('SELECT ' || call) ORDER BY n;
-- Nothing to do asks for no rights.
SELECT oban_cancel_job(NULL::bigint, 'ex14');
RESET ROLE;
GRANT SELECT ON ex14.oban_jobs TO regress_oban_none;
SET ROLE regress_oban_none;
SELECT name, code FROM tools.calls, tools.try('SELECT ' || call) ORDER BY n;
RESET ROLE;
SELECT tools.states('ex14');

-- The rights that each call needs: all column rights are granted, and one at a time is taken away.
CREATE FUNCTION tools.needs(call text, OUT reads text, OUT writes text) LANGUAGE plpgsql AS $$
DECLARE
	privilege text;
	col text;
BEGIN
	FOR privilege, col IN
		SELECT p, attname FROM pg_attribute, unnest('{SELECT,UPDATE}'::text[]) p
		WHERE attrelid = 'ex14.oban_jobs'::regclass AND attnum > 0 ORDER BY p, attname
	LOOP
		BEGIN
			EXECUTE format('REVOKE %s (%I) ON ex14.oban_jobs FROM regress_oban_some',
				privilege, col);
			SET LOCAL ROLE regress_oban_some;
			EXECUTE 'SELECT ' || call;
			RAISE EXCEPTION USING ERRCODE = 'P0099';	-- undo the call and the REVOKE
		EXCEPTION
			WHEN SQLSTATE 'P0099' THEN NULL;
			WHEN insufficient_privilege THEN
				IF privilege = 'SELECT' THEN
					reads := concat_ws(', ', reads, col);
				ELSE
					writes := concat_ws(', ', writes, col);
				END IF;
		END;
	END LOOP;
	BEGIN
		REVOKE DELETE ON ex14.oban_jobs FROM regress_oban_some;
		SET LOCAL ROLE regress_oban_some;
		EXECUTE 'SELECT ' || call;
		RAISE EXCEPTION USING ERRCODE = 'P0099';
	EXCEPTION
		WHEN SQLSTATE 'P0099' THEN NULL;
		WHEN insufficient_privilege THEN writes := concat_ws(', ', writes, 'DELETE');
	END;
	IF cardinality(string_to_array(reads, ', ')) = 18 THEN
		reads := 'all';
	END IF;
END $$;
\set ECHO none
SELECT format('GRANT SELECT (%1$I), UPDATE (%1$I) ON ex14.oban_jobs TO regress_oban_some', attname)
FROM pg_attribute WHERE attrelid = 'ex14.oban_jobs'::regclass AND attnum > 0 \gexec
\set ECHO all
GRANT DELETE ON ex14.oban_jobs TO regress_oban_some;
SELECT name, r.* FROM tools.calls, tools.needs(call) r ORDER BY n;

-- With just those, each call works.
REVOKE ALL ON ex14.oban_jobs FROM regress_oban_some;
GRANT SELECT (id, state), UPDATE (state, cancelled_at) ON ex14.oban_jobs TO regress_oban_some;
SET ROLE regress_oban_some;
SELECT oban_cancel_job(1, 'ex14'), oban_cancel_job(3, 'ex14'),
	oban_cancel_many_jobs('{2,4}', 'ex14');
SELECT oban_job_cancelled(2, 'ex14');
SELECT code FROM tools.try('SELECT oban_retry_job(1, ''ex14'')');
SELECT code FROM tools.try('SELECT oban_delete_job(1, ''ex14'')');
RESET ROLE;
REVOKE ALL ON ex14.oban_jobs FROM regress_oban_some;
GRANT SELECT (id, state, attempt, attempted_at, max_attempts, meta, queue),
	UPDATE (state, scheduled_at, max_attempts,
	completed_at, cancelled_at, discarded_at, meta) ON ex14.oban_jobs TO regress_oban_some;
SET ROLE regress_oban_some;
SELECT oban_retry_job(1, 'ex14'), oban_retry_many_jobs('{2,3,4}', 'ex14');
RESET ROLE;
-- To lock before a DELETE, as is done for a filter, takes UPDATE on some column, whichever.
REVOKE ALL ON ex14.oban_jobs FROM regress_oban_some;
GRANT SELECT (id, state), DELETE ON ex14.oban_jobs TO regress_oban_some;
SET ROLE regress_oban_some;
SELECT oban_delete_job(1, 'ex14'), oban_delete_many_jobs('{2}', 'ex14');
SELECT code FROM tools.try('SELECT oban_delete_all_jobs(''{"id": 3}'', NULL, ''ex14'')');
RESET ROLE;
GRANT UPDATE (tags) ON ex14.oban_jobs TO regress_oban_some;
SET ROLE regress_oban_some;
SELECT oban_delete_all_jobs('{"id": 3}', NULL, 'ex14');
RESET ROLE;
-- An update returns the whole job, so it reads every column; it writes what was named.
REVOKE ALL ON ex14.oban_jobs FROM regress_oban_some;
GRANT SELECT, UPDATE (priority, tags) ON ex14.oban_jobs TO regress_oban_some;
SET ROLE regress_oban_some;
SELECT priority, tags FROM oban_update_job(4, '{"priority": 0, "tags": ["x"]}', 'ex14');
SELECT id, priority FROM oban_update_many_jobs('{5,4}', '{"priority": 1}', 'ex14');
SELECT code, message FROM tools.try(
	'SELECT oban_update_job(4, ''{"priority": 0, "queue": "q"}'', ''ex14'')');
SELECT id, priority FROM oban_update_many_jobs_with('{5,4}', 'tools.raise', NULL, 'ex14');
SELECT id FROM oban_update_many_jobs_with('{4,5}', 'tools.nothing', NULL, 'ex14');
SELECT code, message FROM tools.try(
	'SELECT oban_update_many_jobs_with(''{4,5,7}'', ''tools.mixed'', NULL, ''ex14'')');
RESET ROLE;
-- A callable locks the jobs that it is called for, which takes UPDATE on some column.
REVOKE UPDATE (priority, tags) ON ex14.oban_jobs FROM regress_oban_some;
SET ROLE regress_oban_some;
SELECT code, message
FROM tools.try('SELECT oban_update_job_with(4, ''tools.nothing'', NULL, ''ex14'')');
RESET ROLE;
GRANT UPDATE (priority, tags) ON ex14.oban_jobs TO regress_oban_some;

-- The same plans under roles that take turns.
CREATE FUNCTION tools.take_turns() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
BEGIN
	FOR i IN 1..8 LOOP
		SET LOCAL ROLE regress_oban_owner;
		found := concat_ws(' ', found,
			(tools.try('SELECT oban_cancel_many_jobs(''{5}'', ''ex14'')')).code);
		SET LOCAL ROLE regress_oban_none;
		found := concat_ws(' ', found,
			(tools.try('SELECT oban_cancel_many_jobs(''{5}'', ''ex14'')')).code);
	END LOOP;
	RESET ROLE;
	RETURN found;
END $$;
GRANT USAGE ON SCHEMA ex14 TO regress_oban_owner;
GRANT ALL ON ex14.oban_jobs TO regress_oban_owner;
SELECT tools.take_turns();

-- SECURITY DEFINER lends the rights of its owner, to this function only.
GRANT ALL ON SCHEMA tools TO regress_oban_owner;
SET ROLE regress_oban_owner;
CREATE FUNCTION tools.stop_job(bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER
	SET search_path = public AS $$SELECT oban_cancel_job($1, 'ex14')$$;
RESET ROLE;
REVOKE ALL ON ex14.oban_jobs FROM regress_oban_none;
SET ROLE regress_oban_none;
SELECT tools.stop_job(8);
SELECT code, message FROM tools.try('SELECT oban_cancel_job(8, ''ex14'')');
RESET ROLE;

-- A trigger does with the jobs what the role may that fires it: the owner of the table and of the
-- trigger lends nothing.
CREATE TABLE tools.app (job bigint);
CREATE TRIGGER cancel BEFORE INSERT ON tools.app FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('job', 'ex14');
GRANT INSERT ON tools.app TO regress_oban_none;
SET ROLE regress_oban_none;
SELECT code, message FROM tools.try('INSERT INTO tools.app VALUES (7) RETURNING 1');
SELECT code, message FROM tools.try('INSERT INTO tools.app VALUES (4)');
INSERT INTO tools.app VALUES (NULL);
RESET ROLE;
SELECT count(*) FROM tools.app;

-- EXECUTE may be taken away, function by function.
BEGIN;
REVOKE EXECUTE ON FUNCTION oban_delete_job(bigint, text) FROM PUBLIC;
SET ROLE regress_oban_owner;
SELECT code, message FROM tools.try('SELECT oban_delete_job(8, ''ex14'')');
SELECT oban_delete_many_jobs('{8}', 'ex14');
ROLLBACK;

-- A job from another schema, whose USAGE the caller lacks: the row does not open the schema.
CREATE TABLE tools.lent AS SELECT oban_get_job(1, 'py') AS job;
GRANT SELECT ON tools.lent TO PUBLIC;
GRANT ALL ON py.oban_jobs TO regress_oban_none;
SET ROLE regress_oban_none;
SELECT oban_cancel_job(job) FROM tools.lent;
SELECT oban_cancel_job(1, 'py');
-- A schema without USAGE looks the same whether it has a table or not.
RESET ROLE;
CREATE SCHEMA empty;
SET ROLE regress_oban_none;
SELECT oban_cancel_job(1, 'empty');
RESET ROLE;
GRANT USAGE ON SCHEMA py TO regress_oban_none;
SET ROLE regress_oban_none;
SELECT oban_cancel_job(job) FROM tools.lent;
RESET ROLE;

-- The table's owner needs no grants; a member of a role has its rights.
ALTER TABLE ex11.oban_jobs OWNER TO regress_oban_owner;
GRANT USAGE ON SCHEMA ex11 TO regress_oban_owner, regress_oban_none;
GRANT regress_oban_owner TO regress_oban_none;
CALL tools.make_jobs('ex11');
SET ROLE regress_oban_none;
SELECT oban_cancel_many_jobs('{1,2}', 'ex11'), oban_delete_many_jobs('{1,2}', 'ex11');
RESET ROLE;

-- The type of the states may be in a schema that the caller has no USAGE on.
CREATE SCHEMA types;
CALL tools.make_jobs('ex11');
ALTER TYPE ex11.oban_job_state SET SCHEMA types;
SET ROLE regress_oban_none;
SELECT id, state FROM oban_update_many_jobs('{1,2}', '{"schedule_in": 3600}', 'ex11');
SELECT outcome, new_state FROM oban_manage_jobs('update', '{1,2}', '{"schedule_in": 0}', prefix => 'ex11');
CALL oban_retry_in_batches('{"state": ["cancelled", "discarded"]}', spread => '1 hour', prefix => 'ex11');
RESET ROLE;
SELECT tools.states('ex11');

DROP SCHEMA tools, ex9, ex11, ex14, py, empty, types CASCADE;
DROP ROLE regress_oban_none, regress_oban_some, regress_oban_owner;
