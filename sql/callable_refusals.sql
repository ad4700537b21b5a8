-- What is refused of a callable, and when: before a row is locked, where it is the function that is
-- wrong; with a context that names the job and the callable, where it is what it did or returned.
-- Callables that change jobs themselves, that call themselves, that take too long.
--
-- It fails, among others, without the check of the right to EXECUTE, of the kind of function, of
-- its result or of its argument, with a row type of any table taken, when a STRICT function is
-- called with NULL, and when what the callable itself wrote is not read again.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
DROP ROLE IF EXISTS regress_oban_caller, regress_oban_owner;
CREATE ROLE regress_oban_caller;
CREATE ROLE regress_oban_owner;

-- How a callable is refused, in each form of the call, and whether a row was locked on the way: a
-- lock leaves its mark in xmax, also when it is given back.
CREATE FUNCTION tools.locked(prefix text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	found boolean;
BEGIN
	EXECUTE format('SELECT NOT bool_and(xmax = 0) FROM %I.oban_jobs', prefix) INTO found;
	RETURN found;
END $$;
CREATE FUNCTION tools.refused(callable text, context jsonb DEFAULT '{}', OUT code text,
	OUT message text, OUT hint text, OUT alike boolean, OUT locked boolean) LANGUAGE plpgsql AS $$
DECLARE
	f text;
	r record;
BEGIN
	CALL tools.fill(3, 'py');
	alike := true;
	FOREACH f IN ARRAY ARRAY['oban_update_job_with(1, C, X, ''py'')',
		'oban_update_job_with(''{2,1}''::bigint[], C, X, ''py'')',
		'oban_update_many_jobs_with(''{2,1}'', C, X, ''py'')',
		'oban_update_job_with(oban_get_job(1, ''py''), C, X)',
		'j FROM py.oban_jobs j, oban_update_job_with(j, C, X)',
		'oban_update_job_with(99, C, X, ''py'')',
		'oban_update_job_with(NULL::bigint, C, X, ''py'')',
		'oban_update_job_with(NULL::bigint[], C, X, ''py'')',
		'oban_update_many_jobs_with(''{}'', C, X, ''py'')',
		'oban_update_many_jobs_with(NULL, C, X, ''py'')']
	LOOP
		r := tools.try('SELECT ' || replace(replace(f, 'C', callable), 'X',
			quote_nullable(context)));
		IF code IS NULL THEN
			code := r.code;
			message := r.message;
			hint := r.hint;
		ELSIF code <> r.code OR message <> r.message THEN
			alike := false;
			RAISE WARNING '%: % %', f, r.code, r.message;
		END IF;
	END LOOP;
	locked := tools.locked('py');
END $$;
\set ECHO all

-- No function at all.
SELECT * FROM tools.refused('NULL');
SELECT * FROM tools.refused('0');
SELECT * FROM tools.refused('''-''');
CREATE FUNCTION tools.short_lived(oban_job) RETURNS jsonb LANGUAGE sql AS 'SELECT jsonb ''{}''';
SELECT 'tools.short_lived'::regproc::oid AS dropped \gset
DROP FUNCTION tools.short_lived;
SELECT code, replace(message, :'dropped', 'N') AS message, alike, locked
FROM tools.refused(:'dropped');
SELECT * FROM tools.refused('''tools.no_such''');
SELECT * FROM tools.refused('''tools.no_such(oban_job)''::regprocedure');

-- No plain function.
CREATE PROCEDURE tools.procedure(oban_job) LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE tools.procedure_out(oban_job, INOUT jsonb) LANGUAGE sql AS 'SELECT $2';
CREATE AGGREGATE tools.aggregate(jsonb) (SFUNC = jsonb_concat, STYPE = jsonb);
CREATE FUNCTION tools.window(jsonb) RETURNS jsonb LANGUAGE internal WINDOW AS 'window_first_value';
CREATE FUNCTION tools.set(oban_job) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT jsonb ''{}''';
CREATE FUNCTION tools.table(oban_job) RETURNS TABLE (changes jsonb) LANGUAGE sql AS
	'SELECT jsonb ''{}''';
SELECT callable, r.* FROM unnest('{procedure,procedure_out,aggregate,window,set,table}'::text[])
	WITH ORDINALITY c(callable, n), tools.refused(format('%L', 'tools.' || callable)) r ORDER BY n;

-- Wrong arguments: none, three, other types, the row of another table.
CREATE FUNCTION tools.no_argument() RETURNS jsonb LANGUAGE sql AS 'SELECT jsonb ''{}''';
CREATE FUNCTION tools.three(oban_job, jsonb, jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $2';
CREATE FUNCTION tools.three_with_default(oban_job, jsonb, jsonb DEFAULT '{}') RETURNS jsonb
	LANGUAGE sql AS 'SELECT $2';
CREATE FUNCTION tools.of_text(text) RETURNS jsonb LANGUAGE sql AS 'SELECT jsonb ''{}''';
CREATE FUNCTION tools.of_json(json) RETURNS jsonb LANGUAGE sql AS 'SELECT jsonb ''{}''';
CREATE FUNCTION tools.of_id(bigint) RETURNS jsonb LANGUAGE sql AS 'SELECT jsonb ''{}''';
CREATE FUNCTION tools.of_jobs(oban_job[]) RETURNS jsonb LANGUAGE sql AS 'SELECT jsonb ''{}''';
CREATE FUNCTION tools.of_variadic(VARIADIC jsonb[]) RETURNS jsonb LANGUAGE sql AS 'SELECT $1[1]';
CREATE FUNCTION tools.of_record(record)
	RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN ''{}''; END';
CREATE FUNCTION tools.of_anything(anyelement) RETURNS jsonb LANGUAGE sql AS 'SELECT jsonb ''{}''';
CREATE FUNCTION tools.of_other_row(ex14.oban_jobs) RETURNS jsonb LANGUAGE sql AS
	'SELECT jsonb ''{}''';
CREATE FUNCTION tools.of_model(tools.model, jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $2';
CREATE FUNCTION tools.context_text(oban_job, text) RETURNS jsonb LANGUAGE sql AS
	'SELECT jsonb ''{}''';
CREATE FUNCTION tools.context_json(jsonb, json) RETURNS jsonb LANGUAGE sql AS
	'SELECT jsonb ''{}''';
CREATE FUNCTION tools.context_first(jsonb, oban_job) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION tools.context_anything(oban_job, anyelement) RETURNS jsonb LANGUAGE sql AS
	'SELECT jsonb ''{}''';
SELECT callable, r.* FROM unnest('{no_argument,three,three_with_default,of_text,of_json,of_id,
		of_jobs,of_variadic,of_record,of_anything,of_other_row,of_model,context_text,context_json,
		context_first,context_anything}'::text[]) WITH ORDINALITY c(callable, n),
	tools.refused(format('%L', 'tools.' || callable)) r ORDER BY n;
SELECT code, message FROM tools.refused('''to_jsonb''');
-- The same function is right for its own table.
CALL tools.fill(1, 'ex14');
SELECT u.id, u.prefix FROM ex14.oban_jobs j, oban_update_job_with(j, 'tools.of_other_row') u;

-- Wrong results.
CREATE FUNCTION tools.gives_json(oban_job) RETURNS json LANGUAGE sql AS 'SELECT json ''{}''';
CREATE FUNCTION tools.gives_text(oban_job, jsonb) RETURNS text LANGUAGE sql AS 'SELECT ''{}''';
CREATE FUNCTION tools.gives_nothing(oban_job) RETURNS void LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION tools.gives_job(oban_job) RETURNS oban_job LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION tools.gives_array(jsonb) RETURNS jsonb[] LANGUAGE sql AS 'SELECT ARRAY[$1]';
CREATE FUNCTION tools.gives_two(jsonb, OUT a jsonb, OUT b jsonb) LANGUAGE sql AS 'SELECT $1, $1';
CREATE FUNCTION tools.gives_same(jsonb) RETURNS record LANGUAGE sql AS 'SELECT $1, $1';
SELECT callable, r.* FROM unnest('{gives_json,gives_text,gives_nothing,gives_job,gives_array,
		gives_two,gives_same}'::text[]) WITH ORDINALITY c(callable, n),
	tools.refused(format('%L', 'tools.' || callable)) r ORDER BY n;

-- EXECUTE is needed by who calls, not by who wrote the callable.
CREATE FUNCTION tools.fine(oban_job)
	RETURNS jsonb LANGUAGE sql AS 'SELECT jsonb ''{"priority": 1}''';
REVOKE EXECUTE ON FUNCTION tools.fine FROM PUBLIC;
GRANT USAGE ON SCHEMA py TO regress_oban_caller;
GRANT ALL ON py.oban_jobs TO regress_oban_caller;
GRANT EXECUTE ON FUNCTION tools.fine TO regress_oban_owner;
CALL tools.fill(3, 'py');
SET ROLE regress_oban_caller;
SELECT code, message FROM tools.try('SELECT oban_update_job_with(1, ''tools.fine'', NULL, ''py'')');
SELECT code, message
FROM tools.try('SELECT oban_update_many_jobs_with(NULL, ''tools.fine'', NULL, ''py'')');
RESET ROLE;
SELECT tools.locked('py');
SELECT priority FROM oban_update_job_with(1, 'tools.fine', NULL, 'py');
GRANT EXECUTE ON FUNCTION tools.fine TO regress_oban_caller;
SET ROLE regress_oban_caller;
SELECT priority FROM oban_update_job_with(2, 'tools.fine', NULL, 'py');
-- Roles take turns in one statement.
RESET ROLE;
REVOKE EXECUTE ON FUNCTION tools.fine FROM regress_oban_caller;
CREATE FUNCTION tools.take_turns() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	call text := 'SELECT id FROM oban_update_job_with(3, ''tools.fine'', NULL, ''py'')';
	found text;
BEGIN
	FOR i IN 1..7 LOOP
		RESET ROLE;
		found := concat_ws(' ', found, (tools.try(call)).code);
		SET LOCAL ROLE regress_oban_caller;
		found := concat_ws(' ', found, (tools.try(call)).code);
	END LOOP;
	RESET ROLE;
	RETURN found;
END $$;
SELECT tools.take_turns();

-- Overloaded: by signature.
CREATE FUNCTION tools.two_forms(oban_job) RETURNS jsonb LANGUAGE sql AS
	'SELECT jsonb ''{"priority": 3}''';
CREATE FUNCTION tools.two_forms(oban_job, jsonb) RETURNS jsonb LANGUAGE sql AS
	'SELECT jsonb ''{"priority": 4}''';
SELECT code, message, locked FROM tools.refused('''tools.two_forms''');
SELECT a.priority, b.priority
FROM oban_update_job_with(1, 'tools.two_forms(oban_job)'::regprocedure, prefix => 'py') a,
	oban_update_job_with(1, 'tools.two_forms(oban_job,jsonb)'::regprocedure, prefix => 'py') b;

-- Results that are refused, as plain changes are; the context names the job and the callable.
CREATE FUNCTION tools.give(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT context -> job.id::text$$;
CREATE FUNCTION tools.refused_result(id bigint, result jsonb, OUT code text, OUT message text,
	OUT detail text, OUT hint text, OUT context text, OUT as_plain boolean, OUT unchanged boolean)
LANGUAGE plpgsql AS $$
DECLARE
	r record;
	plain record;
	before jsonb;
	query text;
BEGIN
	CALL tools.make_jobs('py');
	before := tools.rows('py');
	query := format('SELECT oban_update_many_jobs_with(''{1,2,7,8}'', ''tools.give'', %L, ''py'')',
		jsonb '{"1": {"priority": 1}, "2": {"queue": "q"}}' || jsonb_build_object(id, result));
	r := tools.try(query);
	code := r.code;
	message := r.message;
	detail := r.detail;
	hint := r.hint;
	context := r.context;
	query := format('SELECT oban_update_job(%s, %L, ''py'')', id, result);
	plain := tools.try(query);
	as_plain := (code, message, coalesce(detail, ''), coalesce(hint, ''))
		= (plain.code, plain.message, coalesce(plain.detail, ''), coalesce(plain.hint, ''));
	unchanged := before = tools.rows('py');
END $$;
\x
SELECT r.* FROM tools.refused_result(7, '{"max_attempts": 2}') r;
SELECT r.* FROM tools.refused_result(8, '{"prio": 1}') r;
\x
SELECT given, r.code, r.message, r.context, r.as_plain, r.unchanged
FROM unnest(ARRAY['null', '1', '"text"', 'true', '[]', '[{"priority": 1}]',
	'{"state": "available"}',
		'{"id": 1}', '{"args": null}', '{"args": []}', '{"meta": "x"}', '{"max_attempts": 0}',
		'{"max_attempts": 1.5}', '{"max_attempts": 32768}', '{"priority": 10}', '{"priority": "1"}',
		'{"priority": null}', '{"queue": " "}', '{"queue": 1}', '{"worker": ""}',
		'{"scheduled_at": "soon"}', '{"scheduled_at": "infinity"}', '{"scheduled_at": 1}',
		'{"schedule_in": "soon"}', '{"schedule_in": 1e400}',
		'{"schedule_in": 1, "scheduled_at": "2030-01-01"}', '{"tags": "a"}', '{"tags": [["a"]]}'])
	WITH ORDINALITY g(given, n), tools.refused_result(2, given::jsonb) r ORDER BY n;
-- A CHECK of the table.
CALL tools.make_jobs('ex11');
SELECT code, message, context
FROM tools.try($$SELECT oban_update_job_with(2, 'tools.give', '{"2": {"priority": 4}}', 'ex11')$$);
SELECT code, message, regexp_replace(context, ' / .*', '') AS context
FROM tools.try('SELECT oban_update_many_jobs_with(''{1,2,3}'', ''tools.give'',
	''{"1": {"priority": 1}, "2": {"priority": 4}, "3": {"queue": "q"}}'', ''ex11'')');
SELECT id, priority FROM ex11.oban_jobs WHERE id < 4 ORDER BY id;

-- A callable that raises: its error and its own context as they are, and which job it was.
CALL tools.make_jobs('py');
CREATE FUNCTION tools.raises(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id = 3 THEN
		RAISE EXCEPTION 'will not have job %', job.id USING ERRCODE = 'AB123', DETAIL = 'Why.',
			HINT = 'Do not.';
	END IF;
	RETURN '{"priority": 9}';
END $$;
CREATE FUNCTION tools.divides(jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('priority', 1 / ((($1 -> 'id')::integer) - 4))$$;
SELECT oban_update_many_jobs_with('{1,2,3,4}', 'tools.raises', NULL, 'py');
SELECT oban_update_job_with(4, 'tools.divides', NULL, 'py');
SELECT oban_update_job_with('{3,4,5}'::bigint[], 'tools.divides', NULL, 'py');
SELECT oban_update_job_with(oban_get_job(3, 'py'), 'tools.raises');
SELECT count(*) FROM py.oban_jobs WHERE priority <> 2;
-- After an error in a subtransaction, the next call is as good as new.
CREATE FUNCTION tools.tries() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
BEGIN
	FOR i IN 1..7 LOOP
		found := concat_ws(' ', found, (tools.try(
			'SELECT oban_update_many_jobs_with(''{1,2,3}'', ''tools.raises'', NULL, ''py'')')).code,
			(SELECT string_agg(priority::text, ',')
			FROM oban_update_many_jobs_with('{1,2}', 'tools.raises', NULL, 'py')));
	END LOOP;
	RETURN found;
END $$;
SELECT tools.tries();
-- A warning of a callable is none of ours, and goes through.
CREATE FUNCTION tools.warns(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING 'job % is looked at', job.id;
	RETURN NULL;
END $$;
SELECT id FROM oban_update_many_jobs_with('{2,1}', 'tools.warns', NULL, 'py');

-- STRICT: with a NULL context it is not called, which is no change. The job itself is never NULL.
CREATE FUNCTION tools.strict_one(job oban_job) RETURNS jsonb LANGUAGE sql STRICT AS
	$$SELECT jsonb '{"priority": 5}'$$;
CREATE FUNCTION tools.strict_two(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql STRICT
	AS $$BEGIN RAISE WARNING 'called for job %', job.id; RETURN context; END$$;
CALL tools.make_jobs('py');
SELECT priority FROM oban_update_job_with(1, 'tools.strict_one', NULL, 'py');
SELECT id, priority FROM oban_update_many_jobs_with('{2,1}', 'tools.strict_two', NULL, 'py');
SELECT id, priority FROM oban_update_many_jobs_with('{2,1}', 'tools.strict_two', '{"priority": 6}',
	'py');
SELECT oban_update_job_with(99, 'tools.strict_two', NULL, 'py');

-- SECURITY DEFINER and SET, for the callable only: it may do what the caller may not, and the write
-- of the job is the caller's.
CREATE TABLE tools.diary (n serial, entry text);
GRANT CREATE ON SCHEMA tools TO regress_oban_owner;
GRANT ALL ON tools.diary, tools.diary_n_seq TO regress_oban_owner;
SET ROLE regress_oban_owner;
CREATE FUNCTION tools.lends(job oban_job) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp SET lock_timeout = '7s' AS $$
DECLARE
	line text := format('job %s, %s, search_path %s, lock_timeout %s', job.id, current_user,
		current_setting('search_path'), current_setting('lock_timeout'));
BEGIN
	INSERT INTO tools.diary (entry) VALUES (line);
	RETURN jsonb_build_object('tags', ARRAY[current_user::text]);
END $$;
RESET ROLE;
REVOKE ALL ON py.oban_jobs FROM regress_oban_caller;
GRANT SELECT, UPDATE (tags) ON py.oban_jobs TO regress_oban_caller;
SET ROLE regress_oban_caller;
SELECT id, tags, current_user, current_setting('lock_timeout') AS lock_timeout
FROM oban_update_many_jobs_with('{1,2}', 'tools.lends', NULL, 'py');
SHOW search_path;
RESET ROLE;
SELECT entry FROM tools.diary ORDER BY n;
-- With the caller's rights it is refused; what one lends does not reach the write of the job.
ALTER FUNCTION tools.lends SECURITY INVOKER;
SET ROLE regress_oban_caller;
SELECT code, message, context
FROM tools.try('SELECT oban_update_job_with(1, ''tools.lends'', NULL, ''py'')');
RESET ROLE;
ALTER FUNCTION tools.lends SECURITY DEFINER;
REVOKE UPDATE (tags) ON py.oban_jobs FROM regress_oban_caller;
GRANT UPDATE (priority) ON py.oban_jobs TO regress_oban_caller;
GRANT USAGE ON SCHEMA py TO regress_oban_owner;
GRANT ALL ON py.oban_jobs TO regress_oban_owner;
SET ROLE regress_oban_caller;
SELECT code, message
FROM tools.try('SELECT oban_update_job_with(1, ''tools.lends'', NULL, ''py'')');
RESET ROLE;

-- A callable that updates its own job, by itself: both stay, and what it returns is written last.
CALL tools.make_jobs('py');
CREATE FUNCTION tools.writes_own(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	UPDATE py.oban_jobs SET queue = 'by itself', tags = '{itself}', errors = '[1]'
		WHERE id = job.id;
	RETURN context;
END $$;
SELECT id, queue, tags, errors, priority
FROM oban_update_job_with(1, 'tools.writes_own', '{"priority": 7}', 'py');
SELECT id, queue, tags, errors, priority
FROM oban_update_many_jobs_with('{2,3}', 'tools.writes_own', '{"tags": ["returned"]}', 'py');
SELECT id, queue, tags, errors, priority
FROM oban_update_many_jobs_with('{4,5}', 'tools.writes_own', '{}', 'py');
SELECT id, queue, tags, errors, priority
FROM oban_update_job_with(6, 'tools.writes_own', NULL, 'py');
SELECT id, queue, tags, errors, priority FROM py.oban_jobs WHERE id < 7 ORDER BY id;
-- In SQL, where the writing statement is also the last one, of its own job and of the next.
CALL tools.make_jobs('py');
CREATE FUNCTION tools.writes_in_sql(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS $$
	UPDATE py.oban_jobs SET queue = queue || ' by SQL', tags = '{sql}' WHERE id = job.id + 1;
	UPDATE py.oban_jobs SET queue = queue || ' for ' || job.id, tags = '{sql}' WHERE id = job.id
	RETURNING context || jsonb_build_object('worker', job.queue)
$$;
SELECT id, queue, worker, tags
FROM oban_update_many_jobs_with('{1,2,3}', 'tools.writes_in_sql', '{"tags": ["x"]}', 'py');
SELECT id, queue, worker, priority, tags
FROM oban_update_job_with(6, 'tools.writes_in_sql', '{"priority": 8}', 'py');
SELECT id, queue, worker FROM oban_update_job_with(6, 'tools.writes_in_sql', NULL, 'py');
SELECT id, queue, worker, priority, tags FROM py.oban_jobs ORDER BY id;
-- By a verb: retried by the callable, then given a schedule.
CREATE FUNCTION tools.retries_own(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM oban_retry_job(job);
	RETURN '{"scheduled_at": "2098-01-01"}';
END $$;
SELECT id, state, (scheduled_at AT TIME ZONE 'UTC')::date AS scheduled_at
FROM oban_update_many_jobs_with('{1,5,7}', 'tools.retries_own', NULL, 'py');
-- Its own attempts count, when it limits them.
CREATE FUNCTION tools.attempts_own(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	UPDATE py.oban_jobs SET attempt = 6 WHERE id = job.id;
	RETURN '{"max_attempts": 5}';
END $$;
SELECT code, message, detail FROM tools.try(
	'SELECT oban_update_job_with(1, ''tools.attempts_own'', NULL, ''py'')');

-- One that deletes its own job: the job does not exist, and all is undone.
CREATE FUNCTION tools.deletes_own(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id = 2 THEN
		DELETE FROM py.oban_jobs WHERE id = job.id;
	END IF;
	RETURN context;
END $$;
CALL tools.make_jobs('py');
SELECT oban_update_job_with(2, 'tools.deletes_own', '{"priority": 9}', 'py');
SELECT oban_update_job_with(2, 'tools.deletes_own', NULL, 'py');
SELECT oban_update_many_jobs_with('{1,2,3}', 'tools.deletes_own', '{"priority": 9}', 'py');
SELECT oban_update_many_jobs_with('{1,2,3}', 'tools.deletes_own', '{}', 'py');
SELECT tools.states('py'), max(priority) FROM py.oban_jobs;

-- One that changes a later job of the same call: the later one is handed over as it is then. One
-- that deletes a later job: it does not exist.
CREATE FUNCTION tools.passes_on(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	UPDATE py.oban_jobs SET args = jsonb_build_object('seen', job.args -> 'n', 'n', id)
	WHERE id = job.id + 1;
	IF context IS NOT NULL THEN
		DELETE FROM py.oban_jobs WHERE id = (context -> job.id::text)::bigint;
	END IF;
	RETURN jsonb_build_object('meta', jsonb_build_object('handed', job.args));
END $$;
SELECT id, args, meta FROM oban_update_many_jobs_with('{1,2,3}', 'tools.passes_on', NULL, 'py');
SELECT id, args, meta FROM py.oban_jobs WHERE id < 5 ORDER BY id;
SELECT oban_update_many_jobs_with('{1,2,3}', 'tools.passes_on', '{"1": 3}', 'py');
-- An earlier one is gone after it was updated.
SELECT id FROM oban_update_many_jobs_with('{1,2,3}', 'tools.passes_on', '{"3": 1}', 'py');
SELECT tools.states('py');

-- One that changes an earlier job of the same call, on top of what that one's own callable made of
-- it. For a callable that has written anything before, whatever it was, each job is written before
-- the next is called for, so nothing is lost.
CALL tools.make_jobs('py');
CREATE FUNCTION tools.tags_earlier(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF context -> 'by' IS NULL THEN
		IF (context -> 'always')::boolean THEN
			INSERT INTO tools.diary (entry) VALUES (format('called for job %s', job.id));
		END IF;
		PERFORM oban_update_job_with((context -> job.id::text)::bigint, 'tools.tags_earlier',
			jsonb_build_object('by', 'by ' || job.id), 'py');
	END IF;
	RETURN jsonb_build_object('tags', job.tags || coalesce(context ->> 'by', 'own'));
END $$;
SELECT id, tags FROM oban_update_many_jobs_with('{1,2,3}', 'tools.tags_earlier',
	'{"2": 1, "3": 1, "always": true}', 'py');
SELECT id, tags FROM py.oban_jobs WHERE id < 4 ORDER BY id;
-- Across batches too.
CALL tools.fill(1002, 'py');
SELECT count(*) FROM oban_update_many_jobs_with((SELECT array_agg(id) FROM py.oban_jobs),
	'tools.tags_earlier', '{"1002": 2}', 'py');
SELECT id, tags FROM py.oban_jobs WHERE id IN (1, 2, 1001, 1002) ORDER BY id;
-- Where it writes for the first time in a call, and that to a job whose own change is not written
-- yet, that is an error; a later job may be changed.
CALL tools.make_jobs('py');
SELECT oban_update_many_jobs_with('{1,2,3}', 'tools.tags_earlier', '{"3": 1}', 'py');
CREATE FUNCTION tools.deletes_earlier(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id = 3 THEN
		DELETE FROM py.oban_jobs WHERE id = 1;
	END IF;
	RETURN '{"priority": 9}';
END $$;
SELECT code, message FROM tools.try('SELECT oban_update_many_jobs_with(''{1,2,3}'',
	''tools.deletes_earlier'', NULL, ''py'')');
SELECT id, tags, priority FROM py.oban_jobs WHERE id < 4 ORDER BY id;
SELECT id, tags FROM oban_update_many_jobs_with('{1,2,3}', 'tools.tags_earlier', '{"1": 3, "2": 5}',
	'py');
SELECT id, tags FROM py.oban_jobs WHERE id IN (3, 5) ORDER BY id;
-- An earlier job that is left as it is may be changed, and comes back as it is then.
CREATE FUNCTION tools.annotates_first(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id = 3 THEN
		UPDATE py.oban_jobs SET queue = 'annotated' WHERE id = 1;
	END IF;
	RETURN CASE job.id WHEN 2 THEN jsonb '{"queue": "changed"}' END;
END $$;
SELECT id, queue FROM oban_update_many_jobs_with('{1,2,3}', 'tools.annotates_first', NULL, 'py');

-- The same in SQL, by a single statement each.
CALL tools.make_jobs('py');
CREATE FUNCTION tools.passes_on_in_sql(job oban_job) RETURNS jsonb LANGUAGE sql AS $$
	UPDATE py.oban_jobs SET args = jsonb_build_object('seen', job.args -> 'n', 'n', id)
	WHERE id = job.id + 1
	RETURNING jsonb_build_object('meta', jsonb_build_object('handed', job.args))
$$;
CREATE FUNCTION tools.deletes_own_in_sql(job oban_job) RETURNS jsonb LANGUAGE sql AS
	$$DELETE FROM py.oban_jobs WHERE id = job.id RETURNING jsonb '{"priority": 9}'$$;
CREATE FUNCTION tools.attempts_own_in_sql(job oban_job) RETURNS jsonb LANGUAGE sql AS
	$$UPDATE py.oban_jobs SET attempt = 6 WHERE id = job.id RETURNING jsonb '{"max_attempts": 5}'$$;
SELECT id, args, meta FROM oban_update_many_jobs_with('{1,2,3}', 'tools.passes_on_in_sql', NULL,
	'py');
SELECT code, message
FROM tools.try('SELECT oban_update_job_with(2, ''tools.deletes_own_in_sql'', NULL, ''py'')');
SELECT code, message
FROM tools.try($$SELECT oban_update_many_jobs_with('{2}', 'tools.deletes_own_in_sql', NULL,
	'py')$$);
SELECT code, message, detail
FROM tools.try('SELECT oban_update_job_with(1, ''tools.attempts_own_in_sql'', NULL, ''py'')');
SELECT tools.states('py');

-- One that calls the function again: on another job, on a job of the same call, on its own job.
CALL tools.make_jobs('py');
CREATE FUNCTION tools.calls_again(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	depth integer := (context -> 'depth')::integer;
	other oban_job;
BEGIN
	IF depth > 0 THEN
		other := oban_update_job_with(job.id + (context -> 'step')::bigint, 'tools.calls_again',
			context || jsonb_build_object('depth', depth - 1), 'py');
	END IF;
	RETURN jsonb_build_object('tags', job.tags || ('d' || depth), 'meta',
		jsonb_build_object('other', other.id, 'its tags', other.tags));
END $$;
SELECT id, tags, meta FROM oban_update_job_with(1, 'tools.calls_again', '{"depth": 3, "step": 1}',
	'py');
SELECT id, tags FROM py.oban_jobs WHERE id < 6 ORDER BY id;
CALL tools.make_jobs('py');
SELECT id, tags, meta
FROM oban_update_many_jobs_with('{1,2,3}', 'tools.calls_again', '{"depth": 1, "step": 1}', 'py');
SELECT id, tags FROM py.oban_jobs WHERE id < 6 ORDER BY id;
-- The outer one had its job before the inner one changed it, and writes last.
CALL tools.make_jobs('py');
SELECT id, tags, meta FROM oban_update_job_with(1, 'tools.calls_again', '{"depth": 2, "step": 0}',
	'py');
-- Without an end.
BEGIN;
SET LOCAL max_stack_depth = '300kB';
SELECT code, message FROM tools.try('SELECT oban_update_job_with(2, ''tools.calls_again'',
	''{"depth": 100000, "step": 0}'', ''py'')');
COMMIT;
SELECT id, tags FROM py.oban_jobs WHERE id < 4 ORDER BY id;

-- One that catches its errors, so that each call has a subtransaction: those that fail undo their
-- own work only.
CALL tools.make_jobs('py');
CREATE FUNCTION tools.catches(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	UPDATE py.oban_jobs SET errors = errors || jsonb '"kept"' WHERE id = job.id;
	BEGIN
		UPDATE py.oban_jobs SET errors = errors || jsonb '"undone"', queue = 'undone'
			WHERE id = job.id;
		PERFORM oban_update_job_with(job.id, 'tools.divides', NULL, 'py');
		RETURN jsonb_build_object('tags', ARRAY['went well']);
	EXCEPTION WHEN division_by_zero THEN
		RETURN jsonb_build_object('tags', ARRAY['caught']);
	END;
END $$;
SELECT id, queue, priority, tags, errors - 0 AS errors
FROM oban_update_many_jobs_with('{4,5,8}', 'tools.catches', NULL, 'py');

-- One that ends the transaction.
CREATE FUNCTION tools.commits(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS
	$$BEGIN COMMIT; RETURN '{"priority": 8}'; END$$;
CREATE FUNCTION tools.rolls_back(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS
	$$BEGIN ROLLBACK; RETURN '{"priority": 8}'; END$$;
SELECT code, message, context
FROM tools.try('SELECT oban_update_job_with(1, ''tools.commits'', NULL, ''py'')');
SELECT code, message, context
FROM tools.try('SELECT oban_update_many_jobs_with(''{1,2}'', ''tools.rolls_back'', NULL, ''py'')');
CALL tools.make_jobs('py');
DO $$ BEGIN PERFORM oban_update_job_with(1, 'tools.commits', NULL, 'py'); END $$;
SELECT count(*) FROM py.oban_jobs WHERE priority = 8;

-- One that takes too long: the user cancels the statement.
CREATE FUNCTION tools.sleeps(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id = 3 THEN
		PERFORM pg_sleep(60);
	END IF;
	RETURN '{"priority": 8}';
END $$;
SET statement_timeout = '100ms';
SELECT oban_update_many_jobs_with('{1,2,3,4}', 'tools.sleeps', NULL, 'py');
RESET statement_timeout;
SELECT count(*) FROM py.oban_jobs WHERE priority = 8;
SELECT id, priority FROM oban_update_many_jobs_with('{2,1}', 'tools.sleeps', NULL, 'py');

-- In a transaction that may only read.
BEGIN READ ONLY;
SELECT code, message
FROM tools.try('SELECT oban_update_job_with(1, ''tools.strict_one'', NULL, ''py'')');
ROLLBACK;

-- The control: a lock that was taken does show.
CALL tools.fill(3, 'py');
SELECT code, tools.locked('py')
FROM tools.try('SELECT oban_update_many_jobs_with(''{1,2,3}'', ''tools.raises'', NULL, ''py'')');

-- What the changes do not overwrite is no error: the state, for one.
CALL tools.fill(3, 'ex14');
CREATE FUNCTION tools.cancels_first(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id = 2 THEN
		PERFORM oban_cancel_job(1, 'ex14');
	END IF;
	RETURN '{"priority": 2}';
END $$;
SELECT id, state, priority
FROM oban_update_many_jobs_with('{1,2,3}', 'tools.cancels_first', NULL, 'ex14');

-- A change that would overwrite such a write is refused, also where PostgreSQL's hash of the two JSON
-- values is the same. A write to attempt is not refused, but the changes are checked against it again.
CREATE FUNCTION tools.writes_first(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id = 2 THEN
		UPDATE ex14.oban_jobs SET meta = context -> 'meta', attempt = (context -> 'attempt')::integer
		WHERE id = 1;
	END IF;
	RETURN jsonb_build_object('meta', job.meta || '{"seen": true}', 'max_attempts', 3);
END $$;
UPDATE ex14.oban_jobs SET state = 'available', meta = '{"a": {"b": 1}}' WHERE id = 1;
SELECT context, code, message FROM jsonb_array_elements('[{"meta": {"a": {"b": 1}}, "attempt": 5},
		{"meta": {"a": {}, "b": 1}, "attempt": 0}, {"meta": {"a": {"b": 1}}, "attempt": 0}]') context,
	tools.try(format('SELECT id FROM oban_update_many_jobs_with(''{1,2,3}'', ''tools.writes_first'',
		%L, ''ex14'')', context)) refusal(code, message, detail, hint, where_);

-- A job that was to stay as it is must be there all the same when it is returned.
CALL tools.fill(3, 'ex14');
CREATE FUNCTION tools.deletes_first(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id = 2 THEN
		DELETE FROM ex14.oban_jobs WHERE id = 1;
	END IF;
	RETURN NULL;
END $$;
SELECT code, message FROM tools.try(
	'SELECT oban_update_many_jobs_with(''{1,2,3}'', ''tools.deletes_first'', NULL, ''ex14'')');
SELECT tools.states('ex14');

-- What fails as the changes of earlier jobs are written, because a later callable writes, is about
-- those jobs, not about the one that it is called for.
CALL tools.fill(3, 'ex14');
CREATE TABLE tools.audit (job bigint);
CREATE FUNCTION tools.audits(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id = 3 THEN
		INSERT INTO tools.audit VALUES (job.id);
	END IF;
	RETURN jsonb_build_object('queue', CASE job.id WHEN 1 THEN repeat('q', 128) ELSE 'audited' END);
END $$;
SELECT code, context FROM tools.try(
	'SELECT oban_update_many_jobs_with(''{1,2,3}'', ''tools.audits'', NULL, ''ex14'')');
SELECT id, queue FROM oban_update_many_jobs_with('{2,3}', 'tools.audits', NULL, 'ex14');
SELECT * FROM tools.audit;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
DROP ROLE regress_oban_caller, regress_oban_owner;
