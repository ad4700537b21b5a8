-- Statement triggers: all five functions with a transition table, every event and way to name the
-- column, compared with a call of the same verb; one statement on the jobs, whatever the rows; what
-- a callable gets.
--
-- It fails when a transition table is not read from its beginning, when the wrong one is read, when
-- the rows of a job lose their order, and when a job is called again before it was written.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/triggers.sql'
\set ECHO none
\i :helpers
\pset null NULL
-- OLD has ids 5, 2, NULL and one that does not exist, NEW 6, 4 and NULL, in this order of the rows.
CREATE TABLE tools.columns (type text, old text[], new text[]);
INSERT INTO tools.columns VALUES
	('smallint', '{5,2,NULL,99}', '{6,4,NULL,NULL}'),
	('integer', '{5,2,NULL,99}', '{6,4,NULL,NULL}'),
	('bigint', '{5,2,NULL,99}', '{6,4,NULL,NULL}'),
	('tools.job_id', '{5,2,NULL,99}', '{6,4,NULL,NULL}'),
	('smallint[]', '{"{5,99}","{2,NULL}",NULL,"{}"}', '{"{6}","{}",NULL,"[3:3]={4}"}'),
	('integer[]', '{"{5,99}","{2,NULL}",NULL,"{}"}', '{"{6}","{}",NULL,"[3:3]={4}"}'),
	('bigint[]', '{"{{5,99},{2,-1}}","{}",NULL,"{99}"}', '{"{6,4}","{}",NULL,"{}"}');
CREATE TABLE tools.references (argument text, event text, side text, tables text);
INSERT INTO tools.references
SELECT argument, event, side, tables FROM (VALUES
	('job', 'INSERT', 'new', 'NEW TABLE AS n'), ('NEW.job', 'INSERT', 'new', 'NEW TABLE AS "N N"'),
	('job', 'UPDATE', 'new', 'NEW TABLE AS n'), ('NEW.job', 'UPDATE', 'new', 'NEW TABLE AS n'),
	('OLD.job', 'UPDATE', 'old', 'OLD TABLE AS o'),
	('new.job', 'UPDATE', 'new', 'OLD TABLE o NEW TABLE n'),
	('Old.job', 'UPDATE', 'old', 'NEW TABLE n OLD TABLE o'),
	('job', 'DELETE', 'old', 'OLD TABLE AS o'),
	('OLD.job', 'DELETE', 'old', 'OLD TABLE AS o')) r(argument,
		event, side, tables);

CREATE FUNCTION tools.check_statement_triggers(prefix text, OUT verb text, OUT event text,
	OUT argument text, OUT type text, OUT changed boolean, OUT mismatch text)
RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
	before jsonb;
	wanted record;
	got record;
	statement text;
	c record;
	f record;
BEGIN
	CALL tools.make_jobs(prefix);
	before := tools.rows(prefix);
	FOR c IN SELECT * FROM tools.columns LOOP
		EXECUTE format('CREATE TABLE tools.app (gone text, n integer, job %s, note text);
			ALTER TABLE tools.app DROP gone;
			INSERT INTO tools.app SELECT n, o::%1$s, repeat(''x'', 3000)
			FROM unnest(%2$L::text[]) WITH ORDINALITY u(o, n)', c.type, c.old);
		FOR f IN SELECT v.*, r.* FROM tools.verbs v, tools.references r LOOP
			statement := CASE f.event
				WHEN 'INSERT' THEN 'INSERT INTO tools.app (n, job) SELECT n + 10, o::%1$s
					FROM unnest(%2$L::text[]) WITH ORDINALITY u(o, n)'
				WHEN 'UPDATE' THEN 'UPDATE tools.app SET n = n + 20, job = (%2$L::text[])[n]::%1$s'
				ELSE 'DELETE FROM tools.app' END;
			statement := format(statement, c.type, c.new);
			wanted := tools.outcome('SELECT ' || format(f.call,
				CASE f.side WHEN 'new' THEN '{6,4}' ELSE '{5,2}' END, prefix), prefix);
			got := tools.outcome(statement, prefix);
			wanted.app := got.app;
			EXECUTE format('CREATE TRIGGER t AFTER %s ON tools.app REFERENCING %s FOR EACH STATEMENT
				EXECUTE FUNCTION %s(%s)', f.event, f.tables, f.verb,
				format(f.arguments, f.argument, prefix));
			got := tools.outcome(statement, prefix);
			EXECUTE 'DROP TRIGGER t ON tools.app';
			verb := f.verb;
			event := f.event;
			argument := f.argument;
			type := c.type;
			changed := got.jobs <> before;
			mismatch := nullif(concat_ws('; ', tools.difference(got.jobs, wanted.jobs),
				CASE WHEN got.app IS DISTINCT FROM wanted.app
					THEN concat('rows are ', got.app, ', not ', wanted.app) END), '');
			RETURN NEXT;
		END LOOP;
		DROP TABLE tools.app;
	END LOOP;
END $$;
\set ECHO all

CREATE TABLE tools.cells AS
SELECT prefix, c.* FROM unnest('{ex14,py}'::text[]) prefix,
	tools.check_statement_triggers(prefix) c;
SELECT prefix, verb, event, count(*) AS cells, count(*) FILTER (WHERE changed) AS changed,
	count(mismatch) AS mismatches
FROM tools.cells GROUP BY prefix, verb, event ORDER BY prefix, verb, event;
SELECT * FROM tools.cells WHERE mismatch IS NOT NULL
ORDER BY prefix, verb, event, argument, type LIMIT 20;

-- One call for all rows: 1,500 rows that name 1,000 jobs, a few of them several times, in no order.
-- A row trigger makes a call for each. How often the jobs were written, by statements and by rows:
CREATE TABLE tools.written (op text, rows bigint);
CREATE FUNCTION tools.count_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tools.written SELECT TG_OP, count(*) FROM o;
	RETURN NULL;
END $$;
CREATE TRIGGER count_updates AFTER UPDATE ON py.oban_jobs REFERENCING OLD TABLE AS o
	FOR EACH STATEMENT EXECUTE FUNCTION tools.count_rows();
CREATE TRIGGER count_deletes AFTER DELETE ON py.oban_jobs REFERENCING OLD TABLE AS o
	FOR EACH STATEMENT EXECUTE FUNCTION tools.count_rows();
CREATE TABLE tools.parents (id integer PRIMARY KEY, job bigint, jobs integer[]);
CREATE FUNCTION tools.bulk(verb text, arguments text, per text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CALL tools.fill(1001, 'py');
	UPDATE py.oban_jobs SET state = 'scheduled', scheduled_at = '2099-01-01';
	TRUNCATE tools.parents;
	INSERT INTO tools.parents SELECT g, g % 1000 + 1, ARRAY[g % 1000 + 1, 5, 2000]
	FROM generate_series(1, 1500) g;
	TRUNCATE tools.written;
	EXECUTE format('CREATE TRIGGER t AFTER DELETE ON tools.parents %s FOR EACH %s
		EXECUTE FUNCTION %s(%s)',
		CASE per WHEN 'ROW' THEN '' ELSE 'REFERENCING OLD TABLE AS gone' END,
		per, verb, arguments);
	DELETE FROM tools.parents;
	DROP TRIGGER t ON tools.parents;
	RETURN (SELECT format('%s statements, %s rows; left: %s', count(*), sum(rows),
		(SELECT string_agg(format('%s %s', count, state), ', ' ORDER BY state)
			FROM (SELECT state::text, count(*) FROM py.oban_jobs GROUP BY 1) s))
		FROM tools.written);
END $$;
SELECT verb, c AS column, per, tools.bulk(verb, format(arguments, c, 'py'), per)
FROM tools.verbs, unnest('{job,jobs}'::text[]) c, unnest('{STATEMENT,ROW}'::text[]) per
WHERE verb <> 'oban_update_job_with' AND (per = 'STATEMENT'
	OR (verb IN ('oban_cancel_job', 'oban_delete_job') AND c = 'job'))
ORDER BY verb, c, per;
-- A callable too, where no two rows name the same job.
CREATE TRIGGER t AFTER DELETE ON tools.parents REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.tag', 'py');
INSERT INTO tools.parents SELECT g, 1000 - g FROM generate_series(1, 900) g;
TRUNCATE tools.written;
DELETE FROM tools.parents;
SELECT count(*) AS statements, sum(rows) AS rows FROM tools.written;
DROP TRIGGER t ON tools.parents;
DROP TRIGGER count_updates ON py.oban_jobs;
DROP TRIGGER count_deletes ON py.oban_jobs;

-- No rows, no call: not even the table need be there. Nor for rows that name no job.
CREATE TRIGGER t AFTER DELETE ON tools.parents REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
	EXECUTE FUNCTION oban_cancel_job('job', 'nowhere');
DELETE FROM tools.parents;
INSERT INTO tools.parents VALUES (1, NULL);
DELETE FROM tools.parents;
INSERT INTO tools.parents VALUES (1, 1);
DELETE FROM tools.parents;
DROP TRIGGER t ON tools.parents;

-- A callable runs once for each row and job, in job-id order; of two rows that name one job the
-- second is called on what the first made of it. The context holds the version of the row that the
-- column was read from; the other is null.
CREATE TABLE tools.noted (n serial, job bigint, context jsonb);
CREATE FUNCTION tools.note(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tools.noted (job, context) VALUES (job.id, context);
	RETURN jsonb_build_object('args', jsonb_build_object('rows', coalesce(job.args -> 'rows', '[]')
		|| coalesce(context #> '{old,id}', context #> '{new,id}')));
END $$;
CALL tools.fill(5, 'py');
TRUNCATE tools.parents;
CREATE TRIGGER i AFTER INSERT ON tools.parents REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note', 'py');
CREATE TRIGGER u_new AFTER UPDATE ON tools.parents REFERENCING NEW TABLE AS n OLD TABLE AS o
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('jobs', 'tools.note', 'py');
CREATE TRIGGER u_old AFTER UPDATE ON tools.parents REFERENCING NEW TABLE AS n OLD TABLE AS o
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('OLD.job', 'tools.note', 'py');
CREATE TRIGGER d AFTER DELETE ON tools.parents REFERENCING OLD TABLE AS o FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('jobs', 'tools.note', 'py');
INSERT INTO tools.parents VALUES (14, 4), (13, 3), (23, 3), (10, NULL), (11, 1), (24, 4), (19, 99);
SELECT n, job, context FROM tools.noted ORDER BY n;
TRUNCATE tools.noted RESTART IDENTITY;
UPDATE tools.parents SET job = 5, jobs = ARRAY[job, 2, 2, NULL] WHERE id IN (13, 14);
SELECT n, job, context FROM tools.noted ORDER BY n;
TRUNCATE tools.noted RESTART IDENTITY;
DELETE FROM tools.parents;
SELECT n, job, context FROM tools.noted ORDER BY n;
SELECT id, args FROM py.oban_jobs ORDER BY id;
-- Very many rows that name the same few jobs, in their order, in contexts of 10 kB.
ALTER TABLE tools.parents ADD note text;
CREATE FUNCTION tools.note_length(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('args', jsonb_build_object('last', context #> '{new,id}', 'in order',
		coalesce((job.args -> 'in order')::boolean, true)
			AND coalesce((job.args -> 'last')::bigint, 0) < (context #> '{new,id}')::bigint,
		'rows', coalesce((job.args -> 'rows')::bigint, 0) + 1, 'length',
		coalesce((job.args -> 'length')::bigint, 0) + length(context #>> '{new,note}')))
$$;
DROP TRIGGER i ON tools.parents;
CREATE TRIGGER i AFTER INSERT ON tools.parents REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('jobs', 'tools.note_length', 'py');
CALL tools.fill(5, 'py');
INSERT INTO tools.parents
SELECT g, NULL, ARRAY[g % 4 + 1, 5, 1], repeat('x', 10000) FROM generate_series(1, 400) g;
SELECT id, args FROM py.oban_jobs ORDER BY id;
DELETE FROM tools.parents;
-- One row that names very many jobs: its context is kept once. Not so, 5,000 times 35 kB would be
-- over the limit.
DROP TRIGGER d ON tools.parents;
CALL tools.fill(5000, 'py');
SET temp_file_limit = '10MB';
SET work_mem = '64kB';
INSERT INTO tools.parents SELECT 1, NULL, array_agg(g), 'x' FROM generate_series(1, 5000) g;
RESET work_mem;
RESET temp_file_limit;
SELECT args, count(*) FROM py.oban_jobs GROUP BY 1;
DELETE FROM tools.parents;
CALL tools.fill(5, 'py');
DROP TRIGGER i ON tools.parents;

-- An error in it: nothing of the statement happens; the context has the job, the callable and the
-- trigger.
CREATE FUNCTION tools.refuses(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT CASE job.id WHEN 3 THEN jsonb '{"prio": 1}' ELSE jsonb '{"priority": 9}' END$$;
CREATE TRIGGER i AFTER INSERT ON tools.parents REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.refuses', 'py');
INSERT INTO tools.parents VALUES (1, 1), (2, 2), (3, 3), (4, 4);
SELECT (SELECT count(*) FROM tools.parents) AS rows,
	(SELECT count(*) FROM py.oban_jobs WHERE priority = 9) AS jobs;
DROP TRIGGER i ON tools.parents;

-- Two statement triggers of one statement read the same transition table, each from its beginning.
CREATE TRIGGER one AFTER INSERT ON tools.parents REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job('job', '{"priority": 1}', 'py');
CREATE TRIGGER two AFTER INSERT ON tools.parents REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job('job', '{"queue": "two"}', 'py');
CREATE FUNCTION tools.reads() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING '% sees % rows', TG_NAME, (SELECT count(*) FROM n);
	RETURN NULL;
END $$;
CREATE TRIGGER a_reads AFTER INSERT ON tools.parents REFERENCING NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION tools.reads();
CREATE TRIGGER z_reads AFTER INSERT ON tools.parents REFERENCING NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION tools.reads();
INSERT INTO tools.parents VALUES (1, 1), (2, 2), (3, 3);
SELECT id, priority, queue FROM py.oban_jobs ORDER BY id;
-- One statement after the other, more than five.
DO $$
BEGIN
	FOR i IN 4..10 LOOP
		INSERT INTO tools.parents VALUES (i, 4), (i + 100, 5);
		UPDATE py.oban_jobs SET priority = priority + i;
	END LOOP;
END $$;
SELECT id, priority, queue FROM py.oban_jobs ORDER BY id;

-- Data-modifying CTEs and ON CONFLICT: each event has its own tables.
DROP TRIGGER a_reads ON tools.parents;
DROP TRIGGER z_reads ON tools.parents;
TRUNCATE tools.parents;
CALL tools.fill(5, 'py');
DROP TRIGGER u_new ON tools.parents;
DROP TRIGGER u_old ON tools.parents;
CREATE TRIGGER u AFTER UPDATE ON tools.parents REFERENCING OLD TABLE AS o
	FOR EACH STATEMENT EXECUTE FUNCTION oban_cancel_job('OLD.job', 'py');
CREATE TRIGGER d AFTER DELETE ON tools.parents REFERENCING OLD TABLE AS o
	FOR EACH STATEMENT EXECUTE FUNCTION oban_delete_job('job', 'py');
INSERT INTO tools.parents VALUES (1, 1), (2, 2);
INSERT INTO tools.parents VALUES (1, 3), (3, 3) ON CONFLICT (id) DO UPDATE SET job = 4;
SELECT id, state, queue FROM py.oban_jobs ORDER BY id;
WITH gone AS (DELETE FROM tools.parents WHERE id = 2 RETURNING *)
INSERT INTO tools.parents SELECT id, 5 FROM gone;
SELECT id, state, queue FROM py.oban_jobs ORDER BY id;

-- Rows that name many jobs each, which lie between each other, and whose contexts together are more
-- than work_mem: each job gets the row that names it.
CREATE TABLE tools.campaigns (n bigint, note text, jobs bigint[]);
CREATE FUNCTION tools.notes_campaign(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('meta', jsonb_build_object('campaign', context #> '{old,n}',
		'length', length(context #>> '{old,note}')))
$$;
CREATE TRIGGER d AFTER DELETE ON tools.campaigns REFERENCING OLD TABLE AS gone
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('jobs', 'tools.notes_campaign', 'py');
CALL tools.fill(6000, 'py');
INSERT INTO tools.campaigns
SELECT n, repeat('x', 20000), (SELECT array_agg(g) FROM generate_series(n, 6000, 6) g)
FROM generate_series(1, 6) n;
SET work_mem = '64kB';
DELETE FROM tools.campaigns;
RESET work_mem;
SELECT meta, count(*), min(id), max(id), count(DISTINCT id % 6) AS rests
FROM py.oban_jobs GROUP BY meta ORDER BY min(id);

-- A statement trigger with a callable, and rows that name no job
CALL tools.make_jobs('ex14');
CREATE FUNCTION tools.keep(job oban_job) RETURNS jsonb LANGUAGE sql RETURN NULL::jsonb;
CREATE TABLE tools.appointments (id int, job_id bigint);
CREATE TRIGGER keep AFTER INSERT ON tools.appointments REFERENCING NEW TABLE AS made
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('job_id', 'tools.keep', 'ex14');
INSERT INTO tools.appointments VALUES (1, NULL), (2, NULL);
INSERT INTO tools.appointments SELECT 1, 1 WHERE false;

-- Rows whose contexts are more than is held in memory, and come again for many jobs
CREATE TABLE tools.notes (id int, job_ids bigint[], note text);
CREATE FUNCTION tools.reads_note(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN jsonb_build_object('tags', ARRAY[length(context #>> '{new,note}')::text]);
CREATE TRIGGER reads_note AFTER INSERT ON tools.notes REFERENCING NEW TABLE AS made
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('job_ids', 'tools.reads_note', 'ex14');
SET work_mem = '64kB';
INSERT INTO tools.notes SELECT n, ARRAY[n % 3 + 1, n % 5 + 3], repeat('x', 900000 + n)
FROM generate_series(1, 90) n;
RESET work_mem;
SELECT id, tags FROM ex14.oban_jobs WHERE id < 8 ORDER BY id;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
