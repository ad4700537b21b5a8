-- What a function with SECURITY DEFINER, or a trigger, must settle by itself, because the caller can
-- set it: the schema of the jobs, whether workers are told, which function is meant by a callable's
-- name, which jobs. SECURITY.md says how; here is what happens with it and without it.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null -
\set SHOW_CONTEXT never
DROP ROLE IF EXISTS regress_oban_evil, regress_oban_owner;
CREATE ROLE regress_oban_evil;
CREATE ROLE regress_oban_owner;
GRANT ALL ON SCHEMA ex14, tools TO regress_oban_owner;
GRANT ALL ON ex14.oban_jobs TO regress_oban_owner;
CALL tools.make_jobs('ex14');

-- The attacker has a schema with an oban_jobs of its own, whose trigger runs as whoever writes to
-- it, and a callable that keeps what it is given.
CREATE SCHEMA evil AUTHORIZATION regress_oban_evil;
SET ROLE regress_oban_evil;
CREATE TABLE evil.taken (what text);
GRANT INSERT ON evil.taken TO PUBLIC;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
RESET ROLE;
\set ECHO none
\set schema evil
\i :elixir
ALTER TYPE evil.oban_job_state OWNER TO regress_oban_evil;
ALTER TABLE evil.oban_jobs OWNER TO regress_oban_evil;
\set ECHO all
SET ROLE regress_oban_evil;
INSERT INTO evil.oban_jobs (id, worker) VALUES (1, 'Evil');
GRANT ALL ON evil.oban_jobs TO PUBLIC;
CREATE FUNCTION evil.take() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO evil.taken VALUES (format('the rights of %s', current_user));
	RETURN NEW;
END $$;
CREATE TRIGGER take BEFORE UPDATE ON evil.oban_jobs FOR EACH ROW EXECUTE FUNCTION evil.take();
CREATE FUNCTION evil.tag(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO evil.taken VALUES (format('the row %s, as %s', context -> 'old', current_user));
	RETURN NULL;
END $$;
RESET ROLE;

-- A function that leaves the prefix to the setting: the caller chooses the table. (To store a setting
-- with a function, the session must know it, by a call before.)
SET ROLE regress_oban_owner;
SELECT oban_job_cancelled(1, 'ex14');
CREATE FUNCTION tools.careless(bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER
	SET search_path = public, pg_temp RETURN oban_cancel_job($1);
CREATE FUNCTION tools.careful(bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER
	SET search_path = public, pg_temp RETURN oban_cancel_job($1, prefix => 'ex14');
CREATE FUNCTION tools.settled(bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER
	SET search_path = public, pg_temp SET oban_manage.prefix = 'ex14' SET oban_manage.notify = on
	RETURN oban_cancel_job($1);
RESET ROLE;
SET ROLE regress_oban_evil;
SET oban_manage.prefix = 'evil';
SET oban_manage.notify = off;
SELECT tools.careless(1);
SELECT tools.careful(1), tools.settled(2);
SELECT * FROM evil.taken;
SELECT oban_cancel_job(2, 'ex14');
RESET oban_manage.prefix;
RESET oban_manage.notify;
TRUNCATE evil.taken;
RESET ROLE;
SELECT id, state FROM ex14.oban_jobs WHERE id < 3 ORDER BY id;

-- With the setting off nobody is told: as with a function's own SET, which the caller cannot undo.
CREATE FUNCTION tools.is_on() RETURNS text LANGUAGE sql SET oban_manage.notify = on
	RETURN current_setting('oban_manage.notify');
SET ROLE regress_oban_evil;
SET oban_manage.notify = off;
SELECT current_setting('oban_manage.notify'), tools.is_on();
RESET oban_manage.notify;
RESET ROLE;

-- A trigger on a table of the application, whose callable has no schema in its name: the search_path
-- of who fires it would give a row that it may not read to a function of its own. So it is refused.
CREATE FUNCTION public.tag(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN jsonb_build_object('tags', ARRAY['by the owner']);
CREATE TABLE tools.orders (id integer, secret text, job bigint);
CREATE TRIGGER by_name AFTER DELETE ON tools.orders FOR EACH ROW WHEN (OLD.id = 1)
	EXECUTE FUNCTION oban_update_job_with('job', 'tag', 'ex14');
CREATE TRIGGER by_full_name AFTER DELETE ON tools.orders FOR EACH ROW WHEN (OLD.id = 2)
	EXECUTE FUNCTION oban_update_job_with('job', 'public.tag', 'ex14');
CREATE TRIGGER by_signature AFTER DELETE ON tools.orders FOR EACH ROW WHEN (OLD.id = 3)
	EXECUTE FUNCTION oban_update_job_with('job', 'public.tag(public.oban_job, pg_catalog.jsonb)', 'ex14');
INSERT INTO tools.orders VALUES (1, 'secret 1', 4), (2, 'secret 2', 5), (3, 'secret 3', 6);
GRANT DELETE, SELECT (id) ON tools.orders TO regress_oban_evil;
GRANT USAGE ON SCHEMA ex14 TO regress_oban_evil;
GRANT SELECT, UPDATE ON ex14.oban_jobs TO regress_oban_evil;
SET ROLE regress_oban_evil;
SELECT secret FROM tools.orders;
SET search_path = evil, public;
DELETE FROM tools.orders WHERE id = 1;
DELETE FROM tools.orders WHERE id = 2;
DELETE FROM tools.orders WHERE id = 3;
RESET search_path;
SELECT * FROM evil.taken;
TRUNCATE evil.taken;
RESET ROLE;
SELECT id, tags FROM ex14.oban_jobs WHERE id BETWEEN 4 AND 6 ORDER BY id;

-- Who may create in the callable's schema may put a function beside it there, for a type of their own:
-- the types of a signature are not those of the search_path either.
SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum) AS columns
FROM pg_attribute WHERE attrelid = 'public.oban_job'::regclass \gset
CREATE FUNCTION public.mark(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN jsonb_build_object('tags', ARRAY['by the owner']);
CREATE TRIGGER by_types AFTER DELETE ON tools.orders FOR EACH ROW WHEN (OLD.id = 4)
	EXECUTE FUNCTION oban_update_job_with('job', 'public.mark(oban_job, jsonb)', 'ex14');
INSERT INTO tools.orders VALUES (4, 'secret 4', 7);
GRANT CREATE ON SCHEMA public TO regress_oban_evil;
SET ROLE regress_oban_evil;
CREATE TYPE evil.oban_job AS (:columns);
CREATE FUNCTION public.mark(job evil.oban_job, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN evil.tag(jsonb_populate_record(NULL::public.oban_job, to_jsonb(job)), context);
SET search_path = evil, public;
DELETE FROM tools.orders WHERE id = 4;
RESET search_path;
SELECT * FROM evil.taken;
RESET ROLE;
REVOKE CREATE ON SCHEMA public FROM regress_oban_evil;
SELECT id, tags FROM ex14.oban_jobs WHERE id = 7;
DROP FUNCTION public.mark(evil.oban_job, jsonb), public.mark(oban_job, jsonb);
DROP TYPE evil.oban_job;

-- In a cascade of a foreign key a BEFORE trigger has the rights of the table's owner: a callable without
-- a schema would lend them, were it not refused. An AFTER trigger has those of who began the cascade,
-- since PostgreSQL 18 those of the owner.
CREATE TABLE tools.customers (id integer PRIMARY KEY);
CREATE TABLE tools.visits (id integer, customer integer REFERENCES tools.customers ON DELETE CASCADE,
	job bigint);
ALTER TABLE tools.visits OWNER TO regress_oban_owner;
CREATE TRIGGER before_by_name BEFORE DELETE ON tools.visits FOR EACH ROW WHEN (OLD.id = 1)
	EXECUTE FUNCTION oban_update_job_with('job', 'tag', 'ex14');
CREATE TRIGGER before_by_full_name BEFORE DELETE ON tools.visits FOR EACH ROW WHEN (OLD.id = 2)
	EXECUTE FUNCTION oban_update_job_with('job', 'public.tag', 'ex14');
CREATE TRIGGER after_delete AFTER DELETE ON tools.visits FOR EACH ROW WHEN (OLD.id = 3)
	EXECUTE FUNCTION oban_cancel_job('job', 'ex14');
INSERT INTO tools.customers VALUES (1), (2), (3);
INSERT INTO tools.visits VALUES (1, 1, 8), (2, 2, 8), (3, 3, 8);
REVOKE ALL ON ex14.oban_jobs FROM regress_oban_evil;
GRANT DELETE, SELECT ON tools.customers TO regress_oban_evil;
SET ROLE regress_oban_evil;
SET search_path = evil, public;
DELETE FROM tools.customers WHERE id = 1;
SELECT * FROM evil.taken;
TRUNCATE evil.taken;
DELETE FROM tools.customers WHERE id = 2;
DO $$
BEGIN
	DELETE FROM tools.customers WHERE id = 3;
	ASSERT current_setting('server_version_num')::integer >= 180000, 'deleted with the owner''s rights';
EXCEPTION WHEN insufficient_privilege THEN
	ASSERT current_setting('server_version_num')::integer < 180000, SQLERRM;
END $$;
SELECT * FROM evil.taken;
RESET search_path;
RESET ROLE;
SELECT state::text = CASE WHEN current_setting('server_version_num')::integer < 180000 THEN 'suspended'
		ELSE 'cancelled' END AS as_it_should_be, tags
FROM ex14.oban_jobs WHERE id = 8;
-- A deferred trigger has those of who is current when it fires, since PostgreSQL 18 when it is queued.
CREATE TABLE tools.left (job bigint);
ALTER TABLE tools.left OWNER TO regress_oban_owner;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON tools.left DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION oban_delete_job('job', 'ex14');
SET ROLE regress_oban_owner;
CREATE FUNCTION tools.leave(bigint) RETURNS void LANGUAGE sql SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp BEGIN ATOMIC INSERT INTO tools.left VALUES ($1); END;
SET ROLE regress_oban_evil;
DO $$
BEGIN
	PERFORM tools.leave(8);
	SET CONSTRAINTS ALL IMMEDIATE;
	ASSERT current_setting('server_version_num')::integer >= 180000, 'deleted with the owner''s rights';
EXCEPTION WHEN insufficient_privilege THEN
	ASSERT current_setting('server_version_num')::integer < 180000, SQLERRM;
END $$;
RESET ROLE;
SELECT (count(*) = 0) = (current_setting('server_version_num')::integer >= 180000) AS as_it_should_be
FROM ex14.oban_jobs WHERE id = 8;

-- An instance says which table it is from: one that a caller made up leads where the caller likes,
-- so a function that lends rights takes ids.
SET ROLE regress_oban_owner;
CREATE FUNCTION tools.takes_instance(oban_job) RETURNS boolean LANGUAGE sql SECURITY DEFINER
	SET search_path = public, pg_temp SET oban_manage.prefix = 'ex14' RETURN oban_retry_job($1);
RESET ROLE;
SET ROLE regress_oban_evil;
INSERT INTO evil.oban_jobs (id, worker, state) VALUES (2, 'Evil', 'cancelled');
SELECT tools.takes_instance(jsonb_populate_record(NULL::oban_job, '{"id": 2, "prefix": "evil"}'));
SELECT * FROM evil.taken;
RESET ROLE;

-- A callable's name, taken from a caller, is code that runs as the owner.
SET ROLE regress_oban_owner;
CREATE FUNCTION tools.takes_callable(regproc) RETURNS oban_job LANGUAGE sql SECURITY DEFINER
	SET search_path = public, pg_temp RETURN oban_update_job_with(3, $1, NULL, 'ex14');
RESET ROLE;
SET ROLE regress_oban_evil;
TRUNCATE evil.taken;
SELECT (tools.takes_callable('evil.tag')).id;
SELECT * FROM evil.taken;
RESET ROLE;

DROP SCHEMA tools, ex9, ex11, ex14, py, evil CASCADE;
DROP FUNCTION public.tag;
DROP ROLE regress_oban_evil, regress_oban_owner;
