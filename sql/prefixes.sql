-- Which table a call is about: the prefix argument, the row's own schema, the setting; odd schema
-- names; what is refused.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\set ECHO none
\set schema 'My "App".x'
\set version 14
\i :elixir
\set sixty a23456789_b23456789_c23456789_d23456789_e23456789_f23456789_
\set schema :sixty
\i :elixir
\set schema :sixty '789'
\set longest :schema
\i :python
\set schema public
\i :elixir
\set ECHO all
\pset null NULL

-- Each kind of name, as an argument, from a row, and from an oban_job.
CREATE FUNCTION tools.each_way(p text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	row_result boolean;
	job oban_job;
BEGIN
	CALL tools.make_jobs(p);
	EXECUTE format('SELECT oban_cancel_job(j) FROM %I.oban_jobs j WHERE id = 1', p) INTO row_result;
	job := oban_get_job(2, p);
	ASSERT job.prefix = p;
	ASSERT (oban_update_job(job, '{"priority": 9}')).prefix = p;
	RETURN concat_ws(' ', row_result, oban_cancel_job(job), oban_cancel_job(4, p),
		oban_delete_many_jobs('{4,5}', p), oban_retry_job('{6,7}'::bigint[], p), tools.states(p));
END $$;
SELECT left(p, 12) AS prefix, length(p), tools.each_way(p)
FROM unnest(ARRAY['public', 'My "App".x', :'sixty', :'longest', 'ex9', 'py']) p;

-- A channel name that is too long does not break the verb; a warning says that nobody was told. No
-- signal, no warning.
CALL tools.make_jobs(:'sixty');
SELECT oban_cancel_job(1, :'sixty') AS no_signal;
SELECT oban_cancel_job(3, :'sixty') AS kill;
SELECT oban_retry_job(5, :'sixty') AS wake;
SELECT state FROM oban_update_job(2, '{"schedule_in": 0}', :'sixty');
SELECT tools.states(:'sixty');
-- One warning a call.
CALL tools.make_jobs(:'sixty');
SELECT oban_retry_many_jobs('{4,5,6,7}', :'sixty') AS wakes_two_queues;
UPDATE :"sixty".oban_jobs SET state = 'executing';
SELECT oban_cancel_many_jobs('{1,2,3,4}', :'sixty') AS kills;
SET oban_manage.notify = off;
UPDATE :"sixty".oban_jobs SET state = 'executing';
SELECT oban_cancel_many_jobs('{1,2,3,4}', :'sixty') AS kills_nobody;
RESET oban_manage.notify;
-- 51 bytes leave room for ".oban_signal", 52 do not.
\set ECHO none
\set fits a23456789_b23456789_c23456789_d23456789_e23456789_f
\set schema :fits
\i :python
\set over :fits 'x'
\set schema :over
\i :python
\set ECHO all
CALL tools.make_jobs(:'fits', :'over');
SELECT length(:'fits') AS fits, oban_cancel_job(3, :'fits'), oban_retry_job(3, :'fits');
SELECT length(:'over') AS over, oban_cancel_job(3, :'over'), oban_retry_job(3, :'over');
-- And whether a worker is told is a reason's to say.
CALL tools.make_jobs(:'fits', :'over');
SELECT right(p, 2) AS prefix, reason
FROM unnest(ARRAY[:'fits', :'over']) p, oban_manage_jobs('cancel', '{3}', dry_run => true, prefix => p);

-- The setting. The default is public; an explicit prefix wins, and so does a row's own schema.
SHOW oban_manage.prefix;
CALL tools.make_jobs('public', 'ex14', 'py');
SELECT oban_delete_job(1);
SET oban_manage.prefix = 'ex14';
SELECT oban_delete_job(2), oban_delete_job(2, NULL) AS again, oban_delete_job(4, 'py') AS explicit,
	oban_delete_many_jobs('{5,6}');
SELECT oban_delete_job(j) FROM py.oban_jobs j WHERE id = 7;
SELECT oban_delete_job(oban_get_job(8, 'public'));
-- An oban_job of no prefix is one of the setting's.
SELECT oban_delete_job(jsonb_populate_record(NULL::oban_job, '{"id": 7}'));
BEGIN;
SET LOCAL oban_manage.prefix = 'My "App".x';
SELECT oban_delete_job(8), prefix FROM oban_get_job(2);
COMMIT;
SELECT prefix FROM oban_get_job(1);
SELECT p AS prefix, tools.states(p) FROM unnest('{public,ex14,py,"My \"App\".x"}'::text[]) p;
-- Per role: a new session starts with it, before the library is loaded.
SELECT current_user AS me, current_database() AS here \gset
ALTER ROLE :"me" IN DATABASE :"here" SET oban_manage.prefix = 'py';
\c -
SET client_min_messages = warning;
SELECT prefix FROM oban_get_job(1);
ALTER ROLE :"me" IN DATABASE :"here" RESET oban_manage.prefix;
RESET oban_manage.prefix;
SET oban_manage.prefix = 'ex9';
SELECT prefix FROM oban_get_job(1);
-- Per function.
CREATE FUNCTION tools.in_ex14(bigint) RETURNS text LANGUAGE sql SET oban_manage.prefix = 'ex14'
	AS 'SELECT prefix FROM oban_get_job($1)';
SELECT tools.in_ex14(1), prefix FROM oban_get_job(1);
-- There is no setting of another name, and notify is on or off.
SET oban_manage.prefx = 'py';
SET oban_manage.notify = 'sometimes';
RESET oban_manage.prefix;

-- A missing schema, a missing table, a name that is cut off nowhere.
\pset format unaligned
\pset tuples_only on
CREATE SCHEMA empty;
SELECT q, tools.refusal('SELECT ' || q) FROM unnest(ARRAY[
	'oban_cancel_job(1, ''nowhere'')', 'oban_cancel_many_jobs(''{1}'', ''nowhere'')',
	'oban_update_job(1, ''{}'', ''nowhere'')', 'oban_get_job(1, ''nowhere'')',
	'oban_job_cancelled(1, ''nowhere'')', 'oban_delete_job(1, ''empty'')',
	'oban_retry_job(1, '''')', 'oban_retry_job(1, ''My "App"'')',
	'oban_retry_job(1, ''"ex14"'')', 'oban_retry_job(1, ''EX14'')',
	'oban_retry_job(1, ''postgres.ex14'')', 'oban_cancel_job(1, ''pg_catalog'')',
	'oban_cancel_job(jsonb_populate_record(NULL::oban_job, ''{"id": 1, "prefix": "nowhere"}''))'])
	WITH ORDINALITY u(q, n) ORDER BY n;
SELECT code, message = format('schema "%s" does not exist', :'longest' || 'x') AS whole_name
FROM tools.try(format('SELECT oban_cancel_job(1, %L)', :'longest' || 'x'));
SET oban_manage.prefix = 'nowhere';
SELECT tools.refusal('SELECT oban_cancel_job(1)');
RESET oban_manage.prefix;
-- Named are at most ten schemas, which the caller may use; no views, partitions, temporary tables.
\set ECHO none
SELECT format('CREATE SCHEMA many%s; CREATE TABLE many%1$s.oban_jobs (id bigint)', n)
FROM generate_series(1, 4) n \gexec
CREATE SCHEMA part;
CREATE TABLE tools.root (id bigint) PARTITION BY RANGE (id);
CREATE TABLE part.oban_jobs PARTITION OF tools.root DEFAULT;
CREATE SCHEMA viewed;
CREATE VIEW viewed.oban_jobs AS SELECT * FROM ex14.oban_jobs;
CREATE TEMPORARY TABLE oban_jobs (id bigint);
CREATE ROLE regress_oban_some;
GRANT USAGE ON SCHEMA many2, many4, viewed, part TO regress_oban_some;
\set ECHO all
SELECT detail FROM tools.try('SELECT oban_cancel_job(1, ''nowhere'')');
SET ROLE regress_oban_some;
SELECT detail FROM tools.try('SELECT oban_cancel_job(1, ''nowhere'')');
RESET ROLE;
REVOKE USAGE ON SCHEMA many2, many4 FROM regress_oban_some;
SET ROLE regress_oban_some;
SELECT detail FROM tools.try('SELECT oban_cancel_job(1, ''nowhere'')');
RESET ROLE;
ALTER TABLE public.oban_jobs RENAME TO hidden;
SET ROLE regress_oban_some;
SELECT message, detail FROM tools.try('SELECT oban_cancel_job(1, ''public'')');
RESET ROLE;
\set ECHO none
ALTER TABLE public.hidden RENAME TO oban_jobs;
DROP SCHEMA many1, many2, many3, many4, part, viewed CASCADE;
DROP TABLE pg_temp.oban_jobs, tools.root;
DROP OWNED BY regress_oban_some;
DROP ROLE regress_oban_some;
\set ECHO all

-- Tables that will not do: columns missing, tags as jsonb (Python before 0.6), a view, a sequence.
CREATE TABLE empty.oban_jobs (id bigint, state ex14.oban_job_state, queue text);
SELECT tools.refusal('SELECT oban_cancel_job(1, ''empty'')');
SELECT tools.refusal('SELECT oban_get_job(1, ''empty'')');
SELECT tools.refusal(
	'SELECT oban_cancel_job(jsonb_populate_record(NULL::empty.oban_jobs, ''{"id": 1}''))');
ALTER TABLE py.oban_jobs ALTER tags DROP DEFAULT, ALTER tags TYPE jsonb USING '[]';
SELECT q, tools.refusal('SELECT ' || q)
FROM unnest(ARRAY['oban_update_job(1, ''{"tags": ["a"]}'', ''py'')',
	'oban_get_job(1, ''py'')']) u(q);
DROP TABLE empty.oban_jobs;
CREATE VIEW empty.oban_jobs AS SELECT * FROM ex14.oban_jobs;
SELECT q, tools.refusal('SELECT ' || q) FROM unnest(ARRAY['oban_cancel_job(1, ''empty'')',
	'oban_delete_many_jobs(''{1}'', ''empty'')', 'oban_update_job(1, ''{}'', ''empty'')',
	'oban_cancel_job(j) FROM empty.oban_jobs j WHERE id = 1']) WITH ORDINALITY u(q, n) ORDER BY n;
DROP VIEW empty.oban_jobs;
CREATE SEQUENCE empty.oban_jobs;
SELECT tools.refusal('SELECT oban_cancel_job(1, ''empty'')');
\pset format aligned
\pset tuples_only off

\set ECHO none
DROP TABLE oban_jobs, oban_peers;
DROP TYPE oban_job_state;
DROP SCHEMA "My ""App"".x", :"sixty", :"longest", :"fits", :"over" CASCADE;
\set ECHO all
DROP SCHEMA tools, ex9, ex11, ex14, py, empty CASCADE;
