-- Row triggers: all five functions, before, after and instead of each event, with every type of
-- column and each way to name one, compared with a call of the same verb; what a callable gets.
--
-- It fails when the wrong version of the row is read or returned, in the context too, when domains
-- or NULLs are not looked at, when the prefix is not, and when a missing job is an error.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/triggers.sql'
\set ECHO none
\i :helpers
\pset null NULL
CREATE DOMAIN tools.job_id_of_domain AS tools.job_id;

-- The jobs are those of tools.make_jobs: OLD names jobs 2 and 5, NEW 4 and 6, which every verb
-- changes.
CREATE TABLE tools.columns (type text, old text, new text, old_ids text, new_ids text);
INSERT INTO tools.columns VALUES
	('smallint', '2', '4', '{2}', '{4}'),
	('integer', '2', '4', '{2}', '{4}'),
	('bigint', '2', '4', '{2}', '{4}'),
	('tools.job_id', '2', '4', '{2}', '{4}'),
	('tools.job_id_of_domain', '2', '4', '{2}', '{4}'),
	('smallint[]', '{2,5}', '{6,4}', '{2,5}', '{6,4}'),
	('integer[]', '{5,2}', '{6,4}', '{5,2}', '{6,4}'),
	('bigint[]', '{5,NULL,2,5}', '[7:8]={6,4}', '{5,2}', '{6,4}'),
	('bigint[]', '{{5},{2}}', '{NULL,NULL}', '{5,2}', '{}'),
	('integer[]', '{}', NULL, '{}', '{}'),
	('bigint', NULL, NULL, '{}', '{}');
CREATE TABLE tools.times (timing text, event text, target text);
INSERT INTO tools.times
SELECT t, e, 'app' FROM unnest('{BEFORE,AFTER}'::text[]) t,
	unnest('{INSERT,UPDATE,DELETE}'::text[]) e
UNION ALL SELECT 'INSTEAD OF', e, 'app_view' FROM unnest('{INSERT,UPDATE,DELETE}'::text[]) e;
-- Which row the argument chooses.
CREATE TABLE tools.references (argument text, event text, side text);
INSERT INTO tools.references VALUES
	('job', 'INSERT', 'new'), ('NEW.job', 'INSERT', 'new'),
	('job', 'UPDATE', 'new'), ('NEW.job', 'UPDATE', 'new'), ('OLD.job', 'UPDATE', 'old'),
	('old.job', 'UPDATE', 'old'), ('New.job', 'UPDATE', 'new'),
	('job', 'DELETE', 'old'), ('OLD.job', 'DELETE', 'old');

CREATE FUNCTION tools.check_row_triggers(prefix text, OUT verb text, OUT timing text,
	OUT event text,
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
			CREATE VIEW tools.app_view AS SELECT note, job, n FROM tools.app;
			INSERT INTO tools.app VALUES (1, %L, ''x'')', c.type, c.old);
		FOR f IN SELECT v.*, t.*, r.argument, r.side
		FROM tools.verbs v, tools.times t, tools.references r
			WHERE r.event = t.event
		LOOP
			statement := CASE f.event
				WHEN 'INSERT' THEN 'INSERT INTO tools.%1$s (n, job) VALUES (2, %2$L)'
				WHEN 'UPDATE' THEN 'UPDATE tools.%1$s SET n = 3, job = %2$L WHERE n = 1'
				ELSE 'DELETE FROM tools.%1$s WHERE n = 1' END;
			statement := format(statement, f.target, c.new);
			-- What the statement does without a trigger; an INSTEAD OF trigger leaves all as it is.
			wanted := tools.outcome('SELECT ' || format(f.call,
				CASE f.side WHEN 'new' THEN c.new_ids ELSE c.old_ids END, prefix), prefix);
			IF f.timing <> 'INSTEAD OF' THEN
				got := tools.outcome(statement, prefix);
				wanted.app := got.app;
			END IF;
			EXECUTE format(
				'CREATE TRIGGER t %s %s ON tools.%s FOR EACH ROW EXECUTE FUNCTION %s(%s)',
				f.timing, f.event, f.target, f.verb, format(f.arguments, f.argument, prefix));
			got := tools.outcome(statement, prefix);
			EXECUTE format('DROP TRIGGER t ON tools.%s', f.target);
			verb := f.verb;
			timing := f.timing;
			event := f.event;
			argument := f.argument;
			type := c.type;
			changed := got.jobs <> before;
			mismatch := nullif(concat_ws('; ', tools.difference(got.jobs, wanted.jobs),
				CASE WHEN got.app IS DISTINCT FROM wanted.app
					THEN concat('rows are ', got.app, ', not ', wanted.app) END), '');
			RETURN NEXT;
		END LOOP;
		DROP TABLE tools.app CASCADE;
	END LOOP;
END $$;
\set ECHO all

CREATE TABLE tools.cells AS
SELECT prefix, c.* FROM unnest('{ex9,py}'::text[]) prefix, tools.check_row_triggers(prefix) c;
SELECT prefix, verb, timing, count(*) AS cells, count(*) FILTER (WHERE changed) AS changed,
	count(mismatch) AS mismatches
FROM tools.cells GROUP BY prefix, verb, timing ORDER BY prefix, verb, timing;
SELECT * FROM tools.cells WHERE mismatch IS NOT NULL
ORDER BY prefix, verb, timing, event, argument, type LIMIT 20;

-- The example of the contract, and one trigger for several events.
CALL tools.make_jobs('py');
SET oban_manage.prefix = 'py';
CREATE TABLE tools.appointments (id integer PRIMARY KEY, at timestamptz, reminder_job_id bigint);
INSERT INTO tools.appointments VALUES (1, '2030-01-01', 1), (2, '2030-01-01', 2),
	(3, '2030-01-01', NULL), (4, '2030-01-01', 99), (5, '2030-01-01', 5), (6, '2030-01-01', 8);
CREATE TRIGGER drop_reminder AFTER DELETE ON tools.appointments
	FOR EACH ROW EXECUTE FUNCTION oban_cancel_job('reminder_job_id');
DELETE FROM tools.appointments WHERE id < 6;
SELECT tools.states('py');
DROP TRIGGER drop_reminder ON tools.appointments;
CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON tools.appointments
	FOR EACH ROW EXECUTE FUNCTION oban_retry_job('reminder_job_id');
INSERT INTO tools.appointments VALUES (7, now(), 2);
UPDATE tools.appointments SET reminder_job_id = 4 WHERE id = 7;
DELETE FROM tools.appointments WHERE id = 6;
SELECT tools.states('py');
DROP TRIGGER follow ON tools.appointments;
-- With a condition, and only of some columns.
CREATE TRIGGER follow BEFORE UPDATE OF reminder_job_id ON tools.appointments FOR EACH ROW
	WHEN (OLD.reminder_job_id IS DISTINCT FROM NEW.reminder_job_id)
	EXECUTE FUNCTION oban_delete_job('OLD.reminder_job_id');
UPDATE tools.appointments SET at = now();
UPDATE tools.appointments SET reminder_job_id = 4;
UPDATE tools.appointments SET reminder_job_id = 1;
SELECT tools.states('py');

-- The prefix: the setting as it is when the trigger fires, unless the trigger has its own.
DROP TRIGGER follow ON tools.appointments;
CALL tools.make_jobs('ex9', 'ex14', 'py');
CREATE TRIGGER a BEFORE INSERT ON tools.appointments FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('reminder_job_id');
CREATE TRIGGER b BEFORE INSERT ON tools.appointments FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('reminder_job_id', 'ex14');
INSERT INTO tools.appointments VALUES (11, now(), 1);
SET oban_manage.prefix = 'ex9';
INSERT INTO tools.appointments VALUES (12, now(), 2);
RESET oban_manage.prefix;
INSERT INTO tools.appointments VALUES (13, now(), 3);
SELECT p, tools.states(p) FROM unnest('{ex9,ex14,py}'::text[]) p;
DROP TRIGGER a ON tools.appointments;
DROP TRIGGER b ON tools.appointments;

-- A callable's context, for each event and timing, whole; every kind of argument; by signature.
CREATE TABLE tools.noted (n serial, job bigint, context jsonb);
CREATE FUNCTION tools.note(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tools.noted (job, context) VALUES (job.id, context);
	RETURN jsonb_build_object('meta', job.meta || jsonb_build_object('last', context -> 'op'));
END $$;
CREATE FUNCTION tools.note(job jsonb, context jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT tools.note(jsonb_populate_record(NULL::oban_job, job), context || '{"as": "jsonb"}')$$;
CREATE FUNCTION tools.note(job py.oban_jobs, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS
	$$BEGIN RETURN tools.note(to_jsonb(job), context || '{"as": "row"}'); END$$;
CREATE SCHEMA "My App";
CREATE TABLE "My App"."Orders" ("Id" integer, gone text, "The Jobs" integer[], at timestamptz,
	doubled integer GENERATED ALWAYS AS ("Id" * 2) STORED);
ALTER TABLE "My App"."Orders" DROP gone;
CREATE VIEW "My App".seen AS SELECT "Id", "The Jobs" FROM "My App"."Orders";
CREATE TRIGGER before BEFORE INSERT OR UPDATE OR DELETE ON "My App"."Orders" FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('The Jobs', 'tools.note(oban_job,jsonb)', 'py');
CREATE TRIGGER after AFTER INSERT OR UPDATE OR DELETE ON "My App"."Orders" FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('The Jobs', 'tools.note(jsonb, jsonb)', 'py');
CREATE TRIGGER old AFTER UPDATE ON "My App"."Orders" FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('OLD.The Jobs', 'tools.note(py.oban_jobs, jsonb)', 'py');
CREATE TRIGGER instead INSTEAD OF INSERT OR UPDATE OR DELETE ON "My App".seen FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('The Jobs', 'tools.note(oban_job, jsonb)', 'py');
INSERT INTO "My App"."Orders" VALUES (1, '{1,2}', '2030-01-02 03:04:05+00');
UPDATE "My App"."Orders" SET "Id" = 2, "The Jobs" = '{3}';
DELETE FROM "My App"."Orders";
SELECT n, job, context FROM tools.noted ORDER BY n;
SELECT id, meta FROM py.oban_jobs WHERE id < 5 ORDER BY id;
-- What a generated column holds is not known before.
TRUNCATE tools.noted RESTART IDENTITY;
ALTER TABLE "My App"."Orders" DISABLE TRIGGER USER;
INSERT INTO "My App"."Orders" VALUES (5, '{1}');
INSERT INTO "My App".seen VALUES (6, '{2}');
UPDATE "My App".seen SET "The Jobs" = '{3}' RETURNING *;
DELETE FROM "My App".seen;
SELECT n, job, context FROM tools.noted ORDER BY n;
SELECT "Id", "The Jobs" FROM "My App"."Orders";
-- An overloaded name has no plain form; one that is not may have either.
CREATE FUNCTION tools.count_up(job oban_job) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('args', jsonb_build_object('n', (job.args -> 'n')::integer + 1))$$;
CREATE TRIGGER plain AFTER INSERT ON tools.appointments FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('reminder_job_id', 'tools.count_up', 'py');
CREATE TRIGGER signature AFTER INSERT ON tools.appointments FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('reminder_job_id', 'tools.count_up(public.oban_job)',
		'py');
INSERT INTO tools.appointments VALUES (21, now(), 8), (22, now(), 8);
SELECT args FROM py.oban_jobs WHERE id = 8;

-- Rows that come from another table are shown as those of the trigger's table.
TRUNCATE tools.noted RESTART IDENTITY;
CREATE TABLE tools.source (a text, b bigint, c timestamptz);
INSERT INTO tools.source VALUES ('one', 1, '2030-01-01'), ('none', NULL, NULL);
CREATE TABLE tools.target (title text, job bigint, at timestamptz);
CREATE TRIGGER before BEFORE INSERT ON tools.target FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note(oban_job, jsonb)', 'py');
CREATE TRIGGER after AFTER INSERT ON tools.target FOR EACH ROW
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note(oban_job, jsonb)', 'py');
CREATE TRIGGER statement AFTER INSERT ON tools.target REFERENCING NEW TABLE AS n FOR EACH STATEMENT
	EXECUTE FUNCTION oban_update_job_with('job', 'tools.note(oban_job, jsonb)', 'py');
INSERT INTO tools.target SELECT * FROM tools.source;
SELECT n, job, context FROM tools.noted ORDER BY n;

-- The changes of an update, checked and applied anew each time; now is when it fires.
DROP TRIGGER plain ON tools.appointments;
DROP TRIGGER signature ON tools.appointments;
CALL tools.make_jobs('py');
CREATE TRIGGER reschedule AFTER INSERT ON tools.appointments FOR EACH ROW
	EXECUTE FUNCTION oban_update_job('reminder_job_id',
		'{"schedule_in": "1 hour", "tags": ["B ", "a"], "queue": "q"}', 'py');
INSERT INTO tools.appointments VALUES (31, now(), 1), (32, now(), 2), (33, now(), 99),
	(34, now(), NULL);
SELECT id, state, queue, tags, scheduled_at > timezone('UTC', now()) AS future
FROM py.oban_jobs WHERE id < 4 ORDER BY id;
BEGIN;
UPDATE py.oban_jobs SET state = 'scheduled';
INSERT INTO tools.appointments VALUES (35, now(), 3);
SELECT id FROM py.oban_jobs WHERE scheduled_at = timezone('UTC', now()) + interval '1 hour';
COMMIT;

-- A job that is not there is passed over by each of them, and the others are done; more than five
-- times.
DROP TRIGGER reschedule ON tools.appointments;
CREATE TABLE tools.lists (jobs bigint[]);
CREATE FUNCTION tools.with_missing(verb text, arguments text, call text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	found text;
BEGIN
	CALL tools.make_jobs('py');
	EXECUTE format('CREATE TRIGGER t AFTER INSERT ON tools.lists FOR EACH ROW
		EXECUTE FUNCTION %s(%s)', verb, format(arguments, 'jobs', 'py'));
	FOR i IN 1..7 LOOP
		INSERT INTO tools.lists VALUES (ARRAY[99, i, -1, 98, NULL]);
	END LOOP;
	found := tools.states('py') || (SELECT format(', priority: %s, tags: %s',
	string_agg(priority::text, ' '
		ORDER BY id), string_agg(tags::text, ' ' ORDER BY id)) FROM py.oban_jobs);
	DROP TRIGGER t ON tools.lists;
	RETURN found;
END $$;
\pset format unaligned
SELECT verb, tools.with_missing(verb, arguments, call) FROM tools.verbs ORDER BY verb;
\pset format aligned

DROP SCHEMA tools, ex9, ex11, ex14, py, "My App" CASCADE;
