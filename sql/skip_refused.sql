-- skip_refused: jobs that the table refuses are passed over, each with its reason, and the others are
-- done, as if the refused ones had not been named. Every kind of refusal, in both dialects and on
-- partitioned tables; and what is no refusal, but concerns the whole call.
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
\set tables '''{ex9,ex14,py,by_hash,by_state}'''

-- ---- By a trigger: BEFORE, AFTER, and a constraint trigger, which fire at the end of the statement;
-- with each class of errors that is about the job. The first job, the last, some in a row, each, none.

SELECT bad, timing, r.* FROM unnest('{"{1}","{20}","{4,11,12,13}","{}"}'::text[])
		WITH ORDINALITY u(bad, o),
	unnest('{BEFORE,AFTER}'::text[]) WITH ORDINALITY v(timing, n),
	tools.skip_in(:tables, 'cancel', 20, tools.trigger(timing, 'P0001', bad)) r
ORDER BY o, n;
SELECT timing, r.* FROM unnest('{BEFORE,AFTER}'::text[]) WITH ORDINALITY v(timing, n),
	tools.skip_in(:tables, 'delete', 5, tools.trigger(timing, 'P0001', '{1,2,3,4,5}')) r
ORDER BY n;
SELECT r.* FROM tools.skip_in(:tables, 'cancel', 1, tools.trigger('BEFORE', 'P0001', '{1}')) r;
SELECT timing, code, r.*
FROM unnest('{BEFORE,AFTER,CONSTRAINT}'::text[]) WITH ORDINALITY t(timing, n),
	unnest('{P0001,P0002,P0099,22012,22P02,23505,23P99,27000,44000}'::text[]) WITH ORDINALITY u(code, m),
	tools.skip_in('{ex14,py}', 'cancel', 9, tools.trigger(timing, code, '{3,9}')) r
ORDER BY n, m;
SELECT action, timing, r.*
FROM unnest('{cancel,retry,delete,update}'::text[]) WITH ORDINALITY v(action, n),
	unnest('{BEFORE,AFTER}'::text[]) WITH ORDINALITY t(timing, m),
	tools.skip_in(:tables, action, 10, tools.trigger(timing, '22012', '{3,4,10}')) r
ORDER BY n, m;
-- Errors of expressions and types, which nobody raised by hand.
SELECT r.* FROM tools.skip_in(:tables, 'cancel', 10, $$
	CREATE FUNCTION tools.divide() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
		NEW.priority := 0 / (NEW.id - 4); NEW.meta := CASE NEW.id WHEN 6 THEN ''{'' ELSE ''{}'' END;
		RETURN NEW;
	END';
	CREATE TRIGGER divide BEFORE UPDATE ON P.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.divide()$$) r;
-- A trigger that writes to a view WITH CHECK OPTION.
SELECT r.* FROM tools.skip_in(:tables, 'cancel', 10, $$
	CREATE TABLE tools.few (id bigint);
	CREATE VIEW tools.fewer AS SELECT * FROM tools.few WHERE id NOT IN (2, 9) WITH CHECK OPTION;
	CREATE FUNCTION tools.view() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
		INSERT INTO tools.fewer VALUES (NEW.id); RETURN NEW;
	END';
	CREATE TRIGGER view BEFORE UPDATE ON P.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.view()$$) r;

-- ---- By a constraint.

SELECT r.* FROM tools.skip_in(:tables, 'cancel', 12, $$
	ALTER TABLE P.oban_jobs ADD CONSTRAINT no CHECK (id NOT IN (1, 6, 7, 12) OR state <> 'cancelled')$$) r;
SELECT r.* FROM tools.skip_in(:tables, 'update', 12, $$
	ALTER TABLE P.oban_jobs ADD CONSTRAINT no CHECK (id NOT IN (1, 6, 7, 12) OR tags <> '{new}')$$) r;
SELECT r.* FROM tools.skip_in(:tables, 'cancel', 12, $$
	CREATE FUNCTION tools.forget() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
		IF NEW.id IN (2, 3) THEN NEW.worker := NULL; END IF; RETURN NEW;
	END';
	CREATE TRIGGER forget BEFORE UPDATE ON P.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.forget()$$) r;
-- A foreign key is checked at the end of the statement, whatever it is.
SELECT what, r.* FROM unnest('{NO ACTION,RESTRICT,NO ACTION DEFERRABLE}'::text[]) WITH ORDINALITY u(what, o),
	tools.skip_in('{ex9,ex14,py,by_hash}', 'delete', 12, replace($$
	CREATE TABLE tools.invoices (job_id bigint REFERENCES P.oban_jobs ON DELETE WHAT);
	INSERT INTO tools.invoices VALUES (5), (6)$$, 'WHAT', what)) r
ORDER BY o;
SELECT action, r.* FROM unnest('{cancel,delete}'::text[]) action,
	tools.skip_in('{by_state}', action, 12, $$
	CREATE TABLE tools.invoices (job_id bigint, state py.oban_job_state DEFAULT 'available',
		FOREIGN KEY (job_id, state) REFERENCES by_state.oban_jobs);
	INSERT INTO tools.invoices VALUES (5), (6)$$) r ORDER BY action;
-- An index that lets one job wait for each key, as Oban Pro's does: job 3 collides with one that is
-- there; of 2, 9 and 11 the first is retried. An exclusion constraint likewise.
SELECT what, r.* FROM unnest(ARRAY[
	'CREATE UNIQUE INDEX ON LEAF ((args ->> ''key'')) WHERE state = ''available''',
	'ALTER TABLE LEAF ADD EXCLUDE ((args ->> ''key'') WITH =) WHERE (state = ''available'')'])
		WITH ORDINALITY u(what, o),
	tools.skip_in('{ex9,ex14,py,by_state}', 'retry', 12, format($$
	UPDATE P.oban_jobs SET args = jsonb_build_object('key',
		CASE WHEN id IN (9, 11) THEN 2 ELSE id END);
	INSERT INTO P.oban_jobs (id, worker, args) OVERRIDING SYSTEM VALUE VALUES (99, 'w', '{"key": 3}');
	SELECT tools.on_leaves(rtrim('P.', '.'), %L)$$, what)) r
ORDER BY o;

-- ---- By what the extension itself checks of one job.
CALL tools.make_jobs('ex14', 'py');
SELECT p, r.* FROM unnest('{ex14,py}'::text[]) p,
	oban_manage_jobs('update', '{1,3,4,5,6,7,99}', '{"max_attempts": 2}', prefix => p, skip_refused => true) r
ORDER BY p, job_id;
SELECT p, string_agg(id || ' ' || max_attempts, ', ' ORDER BY id)
FROM (SELECT 'ex14' AS p, id, max_attempts FROM ex14.oban_jobs
	UNION ALL SELECT 'py', id, max_attempts FROM py.oban_jobs) j
GROUP BY p ORDER BY p;

-- ---- No refusal: what concerns the whole call, whichever trigger raises it, and rights. It is raised,
-- and all is undone.
SELECT u.code, count(*) AS calls, string_agg(DISTINCT r.message, '; ') AS message,
	bool_and(r.code = u.code AND r.undone) AS raised_and_undone
FROM unnest('{BEFORE,AFTER}'::text[]) timing, unnest(:tables::text[]) p,
	unnest('{57014,57P01,53100,53200,55P03,55000,XX000,42501,42601,42P01,0A000,25006,40001,40P01,54001,
		3F000,28000,08006,38000,58030,F0000,HV000}'::text[]) WITH ORDINALITY u(code, o),
	tools.raises(p, 4, tools.trigger(timing, btrim(u.code), '{2}'),
		'SELECT count(*) FROM oban_manage_jobs(''cancel'', ''{1,2,3}'', prefix => P, skip_refused => true)') r
GROUP BY u.code, o ORDER BY o;
-- Also after jobs that were refused.
SELECT p, r.* FROM unnest(:tables::text[]) WITH ORDINALITY u(p, o),
	tools.raises(p, 12, tools.trigger('BEFORE', 'P0001', '{2,5}') || ';' ||
		replace(tools.trigger('BEFORE', '53100', '{11}'), 'refuse BEFORE', 'then_refuse BEFORE'),
		'SELECT count(*) FROM oban_manage_all_jobs(''cancel'', ''{"queue": "default"}'', prefix => P, skip_refused => true)') r
ORDER BY o;

-- ---- A policy's check refuses a job; a missing right is about the call. Both are 42501.
CALL tools.fill(6, 'ex14', 'py', 'by_state');
CREATE ROLE regress_refused;
SELECT format('GRANT USAGE ON SCHEMA %1$s TO regress_refused; GRANT SELECT, UPDATE ON %1$s.oban_jobs TO regress_refused;
	ALTER TABLE %1$s.oban_jobs ENABLE ROW LEVEL SECURITY;
	CREATE POLICY look ON %1$s.oban_jobs USING (id <> 6) WITH CHECK (id NOT IN (2, 3) OR state <> ''cancelled'')', p)
FROM unnest('{ex14,py,by_state}'::text[]) p \gexec
SET ROLE regress_refused;
SELECT p, r.* FROM unnest('{ex14,py,by_state}'::text[]) WITH ORDINALITY u(p, o),
	oban_manage_jobs('cancel', '{1,2,3,4,6}', prefix => p, skip_refused => true) r
ORDER BY o, job_id;
SELECT p, r.* FROM unnest('{ex14,py,by_state}'::text[]) WITH ORDINALITY u(p, o),
	oban_manage_all_jobs('cancel', '{"state": "available"}', prefix => p, skip_refused => true) r
ORDER BY o, job_id;
RESET ROLE;
SELECT p, tools.states(p) FROM unnest('{ex14,py,by_state}'::text[]) WITH ORDINALITY u(p, o) ORDER BY o;
REVOKE UPDATE ON ex14.oban_jobs FROM regress_refused;
GRANT UPDATE (id) ON ex14.oban_jobs TO regress_refused;
SET ROLE regress_refused;
SELECT tools.refusal('SELECT count(*) FROM oban_manage_jobs(''retry'', ''{1,4}'', prefix => ''ex14'', skip_refused => true)');
SELECT tools.refusal('SELECT count(*) FROM oban_manage_jobs(''delete'', ''{1,4}'', prefix => ''ex14'', skip_refused => true)');
SELECT tools.refusal('SELECT count(*) FROM oban_manage_all_jobs(''retry'', ''{"id": 1}'', prefix => ''ex14'', skip_refused => true)');
RESET ROLE;

DROP SCHEMA by_hash, by_state, tools, ex9, ex11, ex14, py CASCADE;
DROP ROLE regress_refused;
