-- The twin of the jobs table, callables for both, and the referee.
--
-- psql variable: schema, that of the table under test. Databases hold one such table each, so that
-- the model needs no dynamic SQL.
CREATE SCHEMA twin;
-- Without its indexes and partitions, for an answer may not depend on them.
CREATE TABLE twin.oban_jobs (LIKE :"schema".oban_jobs INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
	PRIMARY KEY (id));
CREATE SCHEMA differ;

-- ---- triggers of the jobs, which have their own will

-- Some workers' jobs do not take the state that they are given: they keep theirs, wait, or are
-- available at once.
CREATE FUNCTION differ.whim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.state <> OLD.state AND current_setting('differ.whims', true) IS DISTINCT FROM 'off' THEN
		NEW.state := CASE OLD.worker WHEN 'Keeps' THEN OLD.state::text WHEN 'Waits' THEN 'scheduled'
			ELSE 'available' END;
	END IF;
	RETURN NEW;
END $$;
SELECT format($q$
CREATE TRIGGER whim BEFORE UPDATE ON %I.oban_jobs FOR EACH ROW
	WHEN (OLD.worker IN ('Keeps', 'Waits', 'Hurries')) EXECUTE FUNCTION differ.whim()
$q$, home) FROM unnest(ARRAY[:'schema', 'twin']) home \gexec

-- While differ.refuses is on, some workers' jobs are refused: before they are written, afterwards, and,
-- while differ.defers is on too, by a constraint that waits for the end of the transaction. One
-- worker's error is none that refuses a job.
CREATE FUNCTION differ.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('differ.refuses', true) = 'on'
		AND current_setting('differ.whims', true) IS DISTINCT FROM 'off'
		AND (OLD.worker <> 'Defers' OR current_setting('differ.defers', true) = 'on')
	THEN
		RAISE EXCEPTION USING MESSAGE = format('%s is refused', OLD.id), ERRCODE =
			CASE OLD.worker WHEN 'Breaks' THEN '0AR00'
			ELSE ('{P0001,23R00,22R00,27000,44000}'::text[])[1 + abs(OLD.id % 5)] END;
	END IF;
	RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
SELECT format($q$
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON %1$I.oban_jobs FOR EACH ROW
	WHEN (OLD.worker IN ('Refuses', 'Breaks')) EXECUTE FUNCTION differ.refuse();
CREATE TRIGGER refuse_later AFTER UPDATE OR DELETE ON %1$I.oban_jobs FOR EACH ROW
	WHEN (OLD.worker = 'Refuses later') EXECUTE FUNCTION differ.refuse();
CREATE CONSTRAINT TRIGGER defer AFTER UPDATE OR DELETE ON %1$I.oban_jobs
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
	WHEN (OLD.worker = 'Defers') EXECUTE FUNCTION differ.refuse()
$q$, home) FROM unnest(ARRAY[:'schema', 'twin']) home \gexec

-- Only one job of a name in its args may wait or run. A table that is partitioned by its ids has no such
-- index, and one that is by state has it in one partition.
SELECT format($q$
CREATE UNIQUE INDEX only_one ON %s ((args ->> 'only'))
	WHERE state IN ('available', 'scheduled', 'executing', 'retryable')
$q$, t) FROM unnest(CASE :'schema' WHEN 'by_state' THEN ARRAY['by_state.live', 'twin.oban_jobs']
	ELSE ARRAY[format('%I.oban_jobs', :'schema'), 'twin.oban_jobs'] END) t
WHERE :'schema' NOT LIKE 'hhh%' \gexec

-- The jobs whose queue was written, in a setting, for a trigger that writes would be seen.
CREATE FUNCTION differ.note_moved(name text, job_id bigint) RETURNS void LANGUAGE sql AS $$
	SELECT set_config(name, concat_ws(',', nullif(current_setting(name, true), ''), job_id), false)
$$;
CREATE FUNCTION differ.moved(name text) RETURNS bigint[] LANGUAGE sql AS $$
	SELECT ARRAY(SELECT DISTINCT id::bigint
		FROM unnest(string_to_array(nullif(current_setting(name, true), ''), ',')) id ORDER BY 1)
$$;
CREATE FUNCTION differ.moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM differ.note_moved('differ.moved', NEW.id);
	RETURN NEW;
END $$;
SELECT format('CREATE TRIGGER zz_moves BEFORE UPDATE OF queue ON %I.oban_jobs FOR EACH ROW
	EXECUTE FUNCTION differ.moves()', :'schema') \gexec

-- ---- callables, in both schemas under the same names

CREATE PROCEDURE differ.make_callables(home text) LANGUAGE plpgsql AS $do$
DECLARE
	f text;
BEGIN
	EXECUTE format('SET LOCAL search_path = %I, public', home);
	-- What a callable was called with.
	CREATE TABLE calls (n serial, job jsonb, context jsonb);
	FOREACH f IN ARRAY ARRAY[
		-- The context says what each job gets, by its id.
		'pick(job oban_job, context jsonb) $$ SELECT context -> job.id::text $$',
		'pick_row(job oban_jobs, context jsonb) $$ SELECT context -> job.id::text $$',
		'pick_json(job jsonb, context jsonb) $$ SELECT context -> (job ->> ''id'') $$',
		-- It depends on the job.
		'tag(job oban_job) $$ SELECT jsonb_build_object(''tags'', job.tags || text '' New'',
			''meta'', job.meta || ''{"seen": true}'') $$',
		'tag_row(job oban_jobs) $$ SELECT jsonb_build_object(''priority'', job.id % 10,
			''queue'', job.queue || ''2'') $$',
		'tag_json(job jsonb) $$ SELECT jsonb_build_object(''args'', job) $$',
		'later(job oban_job) $$ SELECT jsonb_build_object(''scheduled_at'',
			job.scheduled_at + interval ''1000 days'') $$',
		'merge(job oban_job, context jsonb) $$ SELECT jsonb_build_object(''meta'',
			job.meta || context) $$',
		'nothing(job jsonb) $$ SELECT NULL::jsonb $$',
		'strict(job jsonb, context jsonb) $$ SELECT ''{"priority": 8}''::jsonb $$ STRICT',
		'divides(job oban_job) $$ SELECT jsonb_build_object(''priority'', 4 / (job.id % 3)) $$'
	] LOOP
		EXECUTE format('CREATE FUNCTION %s RETURNS jsonb LANGUAGE sql AS %s',
			split_part(f, ' $$', 1), substr(f, strpos(f, '$$')));
	END LOOP;
	-- None of these is a callable.
	CREATE FUNCTION gives_text(job oban_job) RETURNS text LANGUAGE sql AS $$ SELECT '{}' $$;
	CREATE FUNCTION gives_set(job oban_job) RETURNS SETOF jsonb LANGUAGE sql AS $$ SELECT jsonb '{}' $$;
	CREATE FUNCTION takes_id(job bigint) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb '{}' $$;
	CREATE FUNCTION takes_text(job oban_job, t text) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb '{}' $$;
	CREATE FUNCTION takes_none() RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb '{}' $$;
	CREATE FUNCTION takes_three(job oban_job, a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql
		AS $$ SELECT jsonb '{}' $$;
	CREATE AGGREGATE is_aggregate(jsonb) (SFUNC = jsonb_concat, STYPE = jsonb);
	CREATE FUNCTION keeps_log(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql
		SET search_path FROM CURRENT AS $$
	BEGIN
		INSERT INTO calls (job, context) VALUES (to_jsonb(job), context);
		IF context ? job.id::text THEN
			RAISE SQLSTATE 'JOB00';
		END IF;
		RETURN jsonb_build_object('priority', (SELECT count(*) FROM calls) % 10);
	END $$;
END $do$;
CALL differ.make_callables(:'schema');
CALL differ.make_callables('twin');

-- ---- the referee

-- Its rows are no jobs.
CREATE TABLE differ.numbers AS SELECT 5::bigint AS id;

-- The table under test by a name that is the same in all databases.
SELECT format('CREATE VIEW differ.jobs AS SELECT * FROM %I.oban_jobs', :'schema') \gexec
SELECT format('CREATE VIEW differ.calls AS SELECT * FROM %I.calls', :'schema') \gexec

-- New jobs in both tables; those of before are gone.
SELECT format($q$
CREATE FUNCTION differ.set_jobs(jobs jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM twin.oban_jobs;
	DELETE FROM %1$I.oban_jobs;
	DELETE FROM twin.calls;
	DELETE FROM %1$I.calls;
	INSERT INTO twin.oban_jobs SELECT * FROM jsonb_populate_recordset(NULL::twin.oban_jobs, jobs);
	INSERT INTO %1$I.oban_jobs OVERRIDING SYSTEM VALUE SELECT * FROM twin.oban_jobs;
END $$
$q$, :'schema') \gexec

-- Another jobs table, of the other dialect, with jobs of the same ids: no call is about it.
INSERT INTO other.oban_jobs (id, state, worker, queue, args, attempt, max_attempts)
OVERRIDING SYSTEM VALUE
SELECT i, (enum_range(NULL::other.oban_job_state))[1 + i % 7], 'Other', 'other', '{"a": 1}', 1, 3
FROM generate_series(1, 12) i;
CREATE FUNCTION differ.others() RETURNS text LANGUAGE sql AS $$
	SELECT md5(string_agg(to_jsonb(o)::text, ' ' ORDER BY id)) FROM other.oban_jobs o
$$;
CREATE TABLE differ.others_at_first AS SELECT differ.others() AS jobs;

-- What has heaped up; rows are deleted all the time, and no vacuum runs meanwhile.
SELECT format($q$
CREATE FUNCTION differ.clean() RETURNS void LANGUAGE sql AS $$
	TRUNCATE twin.oban_jobs, %1$I.oban_jobs, twin.calls, %1$I.calls RESTART IDENTITY
$$
$q$, :'schema') \gexec

-- Runs one call and gives what came out, as JSON, or the SQLSTATE that it ended with.
CREATE FUNCTION differ.try(call text, OUT result jsonb, OUT code text, OUT message text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'SELECT jsonb_agg(to_jsonb(r)) FROM (' || call || ') r' INTO result;
	-- Of a partition an error has the name, and of its constraints.
	result := regexp_replace(result::text, 'relation \\"\w+\\"', 'relation \"oban_jobs\"', 'g')::jsonb;
	code := '00000';
EXCEPTION WHEN OTHERS THEN
	code := SQLSTATE;
	message := SQLERRM;
END $$;

CREATE FUNCTION differ.rows() RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object(
		'got', (SELECT jsonb_agg(to_jsonb(j) ORDER BY j.id) FROM differ.jobs j),
		'wanted', (SELECT jsonb_agg(to_jsonb(j) ORDER BY j.id) FROM twin.oban_jobs j),
		'got calls', (SELECT jsonb_agg(to_jsonb(c) - 'n' ORDER BY n) FROM differ.calls c),
		'wanted calls', (SELECT jsonb_agg(to_jsonb(c) - 'n' ORDER BY n) FROM twin.calls c),
		'got moved', differ.moved('differ.moved'),
		'wanted moved', differ.moved('differ.to_move'),
		'got others', differ.others(),
		'wanted others', (SELECT jobs FROM differ.others_at_first))
$$;

CREATE FUNCTION differ.rows_agree() RETURNS boolean LANGUAGE sql AS $$
	SELECT NOT EXISTS (SELECT FROM differ.jobs g FULL JOIN twin.oban_jobs w USING (id)
			WHERE g.id IS NULL OR w.id IS NULL OR ROW(g.*) IS DISTINCT FROM ROW(w.*))
		AND (SELECT jsonb_agg(jsonb_build_array(job, context) ORDER BY n) FROM differ.calls)
			IS NOT DISTINCT FROM
			(SELECT jsonb_agg(jsonb_build_array(job, context) ORDER BY n) FROM twin.calls)
		AND differ.moved('differ.moved') = differ.moved('differ.to_move')
		AND differ.others() = (SELECT jobs FROM differ.others_at_first)
$$;

-- Is this the SQLSTATE that the contract wants? Where it does not say which mistake in a call's
-- arguments comes first, a null one (22004) and a wrong one (22023) are the same; with a table that
-- does not exist any error is as good; 22000, for a time that is none, is any of its class; what the
-- table's own checks say may come before a missing job; and when one row is out of range (22003) and
-- another breaks a check (23514), the order of the rows says which comes first, as it does where a
-- trigger or an index refuses a job. Internal errors,
-- statements that are none and the server's end are never right.
CREATE FUNCTION differ.codes_agree(got text, wanted text, no_table boolean) RETURNS boolean
LANGUAGE sql AS $$
	SELECT got !~ '^(XX|57|58|42601)' AND (got = wanted OR (no_table AND got <> '00000' AND wanted <> '00000')
		OR (got IN ('22004', '22023') AND wanted IN ('22004', '22023'))
		OR (got IN ('22003', '23514') AND wanted IN ('22003', '23514'))
		OR ((got ~ '^(P0001|23R00|22R00|27000|44000|0AR00|23505)$' OR wanted ~ '^(P0001|23R00|22R00|27000|44000|0AR00|23505)$')
			AND got <> '00000' AND wanted <> '00000')
		OR (wanted = '22000' AND left(got, 2) = '22')
		OR (wanted = 'P0002' AND got IN ('22001', '23514')))
$$;

-- Runs one call on both sides. "differs" is NULL, or says what does. A sentinel ends the
-- notifications of this call.
CREATE FUNCTION differ.play(got text, wanted text, settings jsonb, no_table boolean,
	OUT code text, OUT changed boolean, OUT differs jsonb) LANGUAGE plpgsql AS $$
DECLARE
	g record;
	w record;
BEGIN
	PERFORM set_config(key, value, true) FROM jsonb_each_text(settings);
	w := differ.try(wanted);
	IF settings ? 'differ.decoy' THEN
		-- The same in the other table first, and taken back: what is kept of it is not for this one.
		BEGIN
			PERFORM set_config('oban_manage.prefix', 'other', true);
			PERFORM differ.try(got);
			RAISE SQLSTATE 'DEC00';
		EXCEPTION WHEN SQLSTATE 'DEC00' THEN NULL;
		END;
	END IF;
	g := differ.try(got);
	code := w.code;
	changed := w.result IS NOT NULL AND w.result::text !~ '^\[\{"[a-z_]+": (0|false|null)\}\]$';
	IF NOT differ.codes_agree(g.code, w.code, no_table) OR g.result IS DISTINCT FROM w.result
		OR NOT differ.rows_agree()
		-- The model's message is the ids that are missing.
		OR (g.code = 'P0002' AND w.code = 'P0002' AND strpos(g.message, w.message) = 0) THEN
		differs := differ.rows() || jsonb_build_object('got result', g, 'wanted result', w);
	END IF;
	PERFORM set_config('differ.moved', '', false), set_config('differ.to_move', '', false);
	PERFORM pg_notify('done', '');
END $$;

-- The procedures took the time for themselves: what lies within this margin is the same. Only times
-- around now and after it, for those long ago are of the jobs.
CREATE FUNCTION differ.same_times(since timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY '{scheduled_at,cancelled_at}'::text[] LOOP
		EXECUTE format($q$
			UPDATE differ.jobs g SET %1$I = w.%1$I FROM twin.oban_jobs w
			WHERE g.id = w.id AND g.%1$I <> w.%1$I AND w.%1$I >= timezone('UTC', $1) - interval '1 month'
				AND g.%1$I BETWEEN w.%1$I - interval '30 s' AND w.%1$I + interval '30 s'
		$q$, name) USING since;
	END LOOP;
END $$;
