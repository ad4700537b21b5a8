-- The contract as plain SQL: the verbs as triggers of an application's table, and the guard of the
-- jobs.
--
-- A spec says what is tried: timing, event and level of a trigger, the transition tables that it has,
-- the verb, the column that holds the ids, the rows, and other arguments. differ.fire makes such a
-- trigger and lets it fire; model.fire does the same statement without one, and then what the
-- contract says that the trigger does.

-- next_job and next_jobs are what an UPDATE makes of job and jobs.
CREATE TABLE differ.app (id integer PRIMARY KEY, job bigint, jobs bigint[], few smallint[], word text,
	next_job bigint, next_jobs bigint[]);
CREATE VIEW differ.app_view AS SELECT * FROM differ.app;

CREATE FUNCTION differ.set_app(spec jsonb) RETURNS void LANGUAGE sql AS $$
	TRUNCATE differ.app;
	INSERT INTO differ.app SELECT * FROM jsonb_populate_recordset(NULL::differ.app, spec -> 'rows')
		WHERE spec ->> 'event' <> 'INSERT'
$$;

-- The statement that fires the trigger.
CREATE FUNCTION differ.change_app(spec jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE CASE spec ->> 'event'
		WHEN 'INSERT' THEN format('INSERT INTO differ.%I SELECT * FROM '
			'jsonb_populate_recordset(NULL::differ.app, %L)', spec ->> 'relation', spec -> 'rows')
		WHEN 'UPDATE' THEN format('UPDATE differ.%I SET job = next_job, jobs = next_jobs',
			spec ->> 'relation')
		WHEN 'DELETE' THEN format('DELETE FROM differ.%I', spec ->> 'relation')
		ELSE 'TRUNCATE differ.app' END;
	RETURN (SELECT jsonb_agg(to_jsonb(a) ORDER BY id) FROM differ.app a);
END $$;

-- The arguments of the trigger, in a home for callables.
CREATE FUNCTION differ.trigger_arguments(spec jsonb, home text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(quote_literal(argument), ', ' ORDER BY n) FROM (VALUES
		(1, spec ->> 'column'),
		(2, CASE WHEN spec ? 'callable'
			THEN CASE WHEN spec ? 'bare' THEN '' ELSE quote_ident(home) || '.' END || (spec ->> 'callable')
			ELSE (spec -> 'changes')::text END),
		(3, spec ->> 'prefix'),
		(4, spec ->> 'more')) a (n, argument) WHERE argument IS NOT NULL
$$;

CREATE FUNCTION differ.fire(spec jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	result jsonb;
BEGIN
	PERFORM differ.set_app(spec);
	EXECUTE format('CREATE TRIGGER t %s %s ON differ.%I %s FOR EACH %s EXECUTE FUNCTION public.%I(%s)',
		spec ->> 'timing', spec ->> 'event', spec ->> 'relation',
		(SELECT 'REFERENCING ' || string_agg(format('%s TABLE AS %s_rows', v, v), ' ')
		 FROM jsonb_array_elements_text(spec -> 'tables') v),
		spec ->> 'level', spec ->> 'function',
		differ.trigger_arguments(spec, current_setting('differ.prefix')));
	result := differ.change_app(spec);
	EXECUTE format('DROP TRIGGER t ON differ.%I', spec ->> 'relation');
	RETURN result;
END $$;

-- The numbers in a scalar or an array of any depth.
CREATE FUNCTION model.numbers(value jsonb) RETURNS bigint[] LANGUAGE sql AS $$
	SELECT array_agg(n::bigint) FROM jsonb_path_query(value, 'strict $.** ? (@.type() == "number")') n
$$;

CREATE FUNCTION model.existing(job_ids bigint[]) RETURNS bigint[] LANGUAGE sql AS $$
	SELECT array_agg(id) FROM model.ids(job_ids) id JOIN twin.oban_jobs USING (id)
$$;

-- What a trigger with the jobs of one row, or of all, does.
CREATE FUNCTION model.trigger_verb(spec jsonb, job_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM model.ids(job_ids)) THEN
		RETURN;
	END IF;
	PERFORM model.check_prefix(spec ->> 'prefix');
	IF spec ->> 'function' = 'oban_update_job' THEN
		PERFORM model.oban_update_job(model.existing(job_ids), spec -> 'changes');
	ELSE
		PERFORM model.change_many(split_part(spec ->> 'function', '_', 2), job_ids, NULL);
	END IF;
END $$;

-- The rows as they were and as they are, with the ids that the column holds, in its version.
CREATE FUNCTION model.versions(spec jsonb, name text, reads_new boolean)
RETURNS TABLE (n bigint, old jsonb, new jsonb, ids bigint[]) LANGUAGE sql AS $$
	SELECT e.n, v.old, v.new, model.numbers(CASE WHEN reads_new THEN v.new ELSE v.old END -> name)
	FROM jsonb_array_elements(spec -> 'rows') WITH ORDINALITY e (given, n),
		to_jsonb(jsonb_populate_record(NULL::differ.app, given)) r,
		LATERAL (SELECT CASE WHEN spec ->> 'event' <> 'INSERT' THEN r END,
			CASE spec ->> 'event' WHEN 'INSERT' THEN r WHEN 'UPDATE' THEN r || jsonb_build_object(
				'job', r -> 'next_job', 'jobs', r -> 'next_jobs') END) v (old, new)
$$;

CREATE FUNCTION model.fire(spec jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	event text := spec ->> 'event';
	by_row boolean := spec ->> 'level' = 'ROW';
	version text := substring(spec ->> 'column' FROM '(?i)^(old|new)[.]');
	name text := regexp_replace(spec ->> 'column', '^(old|new)[.]', '', 'i');
	reads_new boolean := coalesce(lower(version) = 'new', event <> 'DELETE');
	with_callable boolean := spec ->> 'function' = 'oban_update_job_with';
	query text;
	result jsonb;
	v record;
BEGIN
	PERFORM differ.set_app(spec);
	IF spec ->> 'timing' <> 'INSTEAD OF' THEN
		PERFORM differ.change_app(spec);
	END IF;
	result := (SELECT jsonb_agg(to_jsonb(a) ORDER BY id) FROM differ.app a);
	IF by_row AND spec -> 'rows' = '[]' THEN
		RETURN result;
	ELSIF spec ? 'more' THEN
		PERFORM model.refuse('22023');
	ELSIF event = 'TRUNCATE' OR event = (CASE WHEN reads_new THEN 'DELETE' ELSE 'INSERT' END) THEN
		PERFORM model.refuse('39P01');
	ELSIF name NOT IN ('id', 'job', 'jobs', 'few', 'word', 'next_job', 'next_jobs') THEN
		PERFORM model.refuse('42703');
	ELSIF name = 'word' THEN
		PERFORM model.refuse('42804');
	ELSIF NOT by_row AND NOT spec -> 'tables' ? (CASE WHEN reads_new THEN 'NEW' ELSE 'OLD' END) THEN
		PERFORM model.refuse('39P01');
	END IF;

	IF NOT with_callable THEN
		PERFORM model.trigger_verb(spec, ids) FROM model.versions(spec, name, reads_new) WHERE by_row;
		PERFORM model.trigger_verb(spec, array_agg(id))
			FROM model.versions(spec, name, reads_new), unnest(ids) id WHERE NOT by_row;
		RETURN result;
	END IF;

	-- Row by row, or all by the job's id; each with the row that named it.
	FOR v IN SELECT id, jsonb_build_object('op', event, 'schema', 'differ', 'table',
				spec ->> 'relation', 'old', CASE WHEN by_row OR NOT reads_new THEN old END,
				'new', CASE WHEN by_row OR reads_new THEN new END) AS context
			FROM model.versions(spec, name, reads_new), model.ids(ids) id
			ORDER BY CASE WHEN by_row THEN n END, id, n LOOP
		IF query IS NULL THEN
			PERFORM model.check_prefix(spec ->> 'prefix');
			IF spec ? 'bare' THEN
				PERFORM model.refuse('22023');
			END IF;
			query := model.callable(('twin.' || (spec ->> 'callable'))::regproc);
		END IF;
		IF model.existing(ARRAY[v.id]) IS NOT NULL THEN
			PERFORM model.call_for(query, v.id, v.context);
		END IF;
	END LOOP;
	RETURN result;
END $$;

-- ---- the guard

-- What a worker writes, by ids alone: the new values are those of a row of the table, a change of
-- attempt and of max_attempts, an entry about a run. One session judges no older version of a row, so
-- these are the guard's rules for late answers.
CREATE FUNCTION model.answered(jobs text, spec jsonb, state text, condition text) RETURNS text
LANGUAGE sql RETURN format($q$
	UPDATE %1$s j SET state = %2$s, meta = a.meta,
		attempt = j.attempt + (%3$L::jsonb ->> 'attempt')::integer,
		max_attempts = j.max_attempts + (%3$L::jsonb ->> 'max_attempts')::integer,
		errors = CASE WHEN %3$L::jsonb ? 'entry' THEN j.errors
			|| jsonb_build_object('attempt', %3$L::jsonb -> 'entry') ELSE j.errors END,
		scheduled_at = coalesce(a.scheduled_at, j.scheduled_at),
		cancelled_at = CASE WHEN NOT %3$L::jsonb ? 'clear' THEN j.cancelled_at END
	FROM jsonb_populate_record(NULL::%1$s, %3$L::jsonb -> 'answer') a
	WHERE j.id = ANY (model.numbers(%3$L::jsonb -> 'ids')) AND %4$s
$q$, jobs, state, spec, condition);

SELECT format($q$
CREATE FUNCTION differ.answer(spec jsonb) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	changed integer;
BEGIN
	CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON %1$I.oban_jobs
		FOR EACH ROW EXECUTE FUNCTION public.oban_guard_job();
	IF spec ? 'off' THEN
		SET LOCAL oban_manage.guard = off;
	END IF;
	EXECUTE model.answered('%1$I.oban_jobs', spec, 'a.state', 'true');
	GET DIAGNOSTICS changed = ROW_COUNT;
	SET LOCAL oban_manage.guard = on;
	DROP TRIGGER oban_guard ON %1$I.oban_jobs;
	RETURN changed;
END $$
$q$, :'schema') \gexec

-- Is the answer late for the job?
CREATE FUNCTION model.is_late(j twin.oban_jobs, spec jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	becomes text := spec #>> '{answer,state}';
	entry text := spec ->> 'entry';
	run integer := CASE WHEN entry ~ '^[0-9]{1,9}$' THEN entry::integer END;
	answered boolean := coalesce(run BETWEEN 1 AND j.attempt, false);
	snoozes boolean := becomes = 'scheduled'
		AND ((spec ->> 'attempt')::integer = -1 OR (spec ->> 'max_attempts')::integer = 1);
BEGIN
	IF spec ? 'off' THEN
		RETURN false;
	ELSIF j.state = 'cancelled' THEN
		RETURN (becomes = 'retryable' OR snoozes) AND NOT spec ? 'clear'
			AND j.cancelled_at IS NOT NULL;
	ELSIF j.state = 'executing' THEN
		RETURN becomes <> 'executing' AND answered AND run < j.attempt;
	ELSIF j.state NOT IN ('completed', 'discarded') AND j.attempted_at IS NOT NULL
		AND becomes <> 'executing'
	THEN
		IF NOT answered THEN
			IF becomes <> 'completed' AND NOT (snoozes
				AND j.scheduled_at <> (spec #>> '{answer,scheduled_at}')::timestamp) IS TRUE
			THEN
				RETURN false;
			END IF;
			run := j.attempt;
		END IF;
		RETURN (run < j.attempt OR j.scheduled_at > j.attempted_at)
			AND NOT (j.state = 'retryable' AND EXISTS (SELECT FROM jsonb_array_elements(
				to_jsonb(j.errors)) e WHERE e ->> 'attempt' = run::text));
	END IF;
	RETURN false;
END $$;

CREATE FUNCTION model.answer(spec jsonb) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	late bigint[] := ARRAY(SELECT id FROM twin.oban_jobs j WHERE model.is_late(j, spec));
	kept jsonb := spec #- '{answer,scheduled_at}' #- '{clear}' || '{"attempt": 0}';
	changed integer;
	more integer;
BEGIN
	-- The statement computes these for a late answer too, before the guard keeps the job's own.
	PERFORM jsonb_populate_record(j, jsonb_build_object(
		'attempt', j.attempt + (spec ->> 'attempt')::integer,
		'max_attempts', j.max_attempts + (spec ->> 'max_attempts')::integer))
	FROM twin.oban_jobs j WHERE j.id = ANY (late) AND j.id = ANY (model.numbers(spec -> 'ids'));
	EXECUTE model.answered('twin.oban_jobs', spec, 'a.state', format('j.id <> ALL (%L)', late));
	GET DIAGNOSTICS changed = ROW_COUNT;
	EXECUTE model.answered('twin.oban_jobs', kept, 'j.state', format('j.id = ANY (%L)', late));
	GET DIAGNOSTICS more = ROW_COUNT;
	RETURN changed + more;
END $$;
