-- A jobs table on another server that answers with jobs that were not asked for: PostgreSQL does not
-- test again what the other server's WHERE let through, and whoever may name a server may name one of
-- their own. No call may fail over it but by an error, nor take such a job for one that it was asked
-- for. Here the ids on the other server compare as one number and are sent as another.
-- Seen to fail (the server crashed) with the outcome of a job looked up and not found.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\set ECHO none
\set foreign :abs_srcdir '/fixtures/foreign.sql'
\i :foreign
\set ECHO none
\set entry_points :abs_srcdir '/fixtures/entry_points.sql'
\set prefix far
\i :entry_points
\pset null -
\set SHOW_CONTEXT never
CALL tools.make_jobs('py');
CREATE TYPE tools.liar;
\set QUIET on
SET client_min_messages = error;
CREATE FUNCTION tools.liar_in(cstring) RETURNS tools.liar LANGUAGE internal STRICT IMMUTABLE
	AS 'int8in';
CREATE FUNCTION tools.liar_out(tools.liar) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE
	AS 'int8out';
CREATE TYPE tools.liar (INPUT = tools.liar_in, OUTPUT = tools.liar_out, LIKE = bigint);
CREATE FUNCTION tools.truth(tools.liar) RETURNS bigint LANGUAGE internal STRICT IMMUTABLE
	AS 'int8um';
SET client_min_messages = warning;
CREATE CAST (tools.liar AS bigint) WITH FUNCTION tools.truth(tools.liar) AS IMPLICIT;
ALTER TABLE py.oban_jobs ALTER id DROP IDENTITY;
ALTER TABLE py.oban_jobs DROP CONSTRAINT oban_jobs_pkey;
DROP INDEX py.oban_jobs_state_queue_priority_scheduled_at_id_idx, py.oban_jobs_scheduled_at_id_idx;
ALTER TABLE py.oban_jobs ALTER id TYPE tools.liar USING (('-' || id)::tools.liar);
\set ECHO all
SELECT * FROM tools.not_called;
SELECT id AS asked_for, (SELECT array_agg(j.id) FROM far.oban_jobs j WHERE j.id = u.id) AS got
FROM unnest('{1,2}'::bigint[]) u(id);

SELECT function, string_agg(DISTINCT code, ', ') AS codes,
	string_agg(DISTINCT message, '; ') FILTER (WHERE code <> '00000') AS errors
FROM tools.observe('none', 'public', '{"4,5"}', '{"{\"priority\": 3}","{\"schedule_in\": 0}"}')
GROUP BY function ORDER BY function COLLATE "C";
SELECT r.* FROM oban_manage_jobs('cancel', '{4,5}', prefix => 'far') r;
SELECT r.* FROM oban_manage_jobs('update', '{4,5}', '{"priority": 3}', prefix => 'far') r;
SELECT count(*) FROM py.oban_jobs WHERE priority = 3 OR state = 'cancelled';
CREATE FUNCTION tools.writes(job jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tools.tally VALUES (1);
	RETURN '{"priority": 4}';
END $$;
CREATE TABLE tools.tally (n integer);
SELECT code, message FROM tools.try(
	'SELECT oban_update_many_jobs_with(''{4,5}'', ''tools.writes'', NULL, ''far'')');

SET client_min_messages = warning;
DROP EXTENSION postgres_fdw CASCADE;
DROP SCHEMA far, ex9, ex11, ex14, py, tools CASCADE;
