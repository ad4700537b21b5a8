-- Functions in PL/pgSQL of the same contract as the calls: what a careful author would write.
--
-- They lock in id order and judge the locked row, tell Obans what was done, and refuse what makes
-- no sense; a set of ids takes one statement. Each knows one table only. The harness puts the
-- schema of that table in the place of {schema}.

CREATE FUNCTION {schema}.cancel_one(job_id bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	before text;
BEGIN
	SELECT state INTO before FROM {schema}.oban_jobs
		WHERE id = job_id AND state NOT IN ('completed', 'discarded', 'cancelled')
		FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	UPDATE {schema}.oban_jobs SET state = 'cancelled', cancelled_at = timezone('UTC', now())
		WHERE id = job_id;
	IF before = 'executing' THEN
		PERFORM pg_notify('{schema}.oban_signal', '{"action":"pkill","job_id":' || job_id || '}');
	END IF;
	RETURN true;
END $$;

CREATE FUNCTION {schema}.retry_one(job_id bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	waiting text;
BEGIN
	UPDATE {schema}.oban_jobs
		SET state = 'available', scheduled_at = timezone('UTC', now()),
			max_attempts = greatest(max_attempts, attempt + 1),
			completed_at = NULL, cancelled_at = NULL, discarded_at = NULL,
			meta = CASE WHEN meta ? 'uniq_bmp' THEN jsonb_set(meta, '{uniq_bmp}', '[]')
						ELSE meta END
		WHERE id = job_id AND state NOT IN ('available', 'executing') RETURNING queue INTO waiting;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM pg_notify('{schema}.oban_insert', '{"queue":' || to_json(waiting) || '}');
	RETURN true;
END $$;

CREATE FUNCTION {schema}.delete_one(job_id bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM {schema}.oban_jobs WHERE id = job_id AND state <> 'executing';
	RETURN FOUND;
END $$;

CREATE FUNCTION {schema}.cancel_many(job_ids bigint[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	changed integer;
	executing bigint[];
BEGIN
	WITH locked AS MATERIALIZED (
		SELECT id, state FROM {schema}.oban_jobs
		WHERE id = ANY (job_ids) AND state NOT IN ('completed', 'discarded', 'cancelled')
		ORDER BY id FOR NO KEY UPDATE),
	cancelled AS (
		UPDATE {schema}.oban_jobs AS job
		SET state = 'cancelled', cancelled_at = timezone('UTC', now())
		FROM locked WHERE job.id = locked.id RETURNING job.id, locked.state AS before)
	SELECT count(*), array_agg(id) FILTER (WHERE before = 'executing')
		INTO changed, executing FROM cancelled;
	PERFORM pg_notify('{schema}.oban_signal', '{"action":"pkill","job_id":' || job || '}')
		FROM unnest(executing) AS job;
	RETURN changed;
END $$;

CREATE FUNCTION {schema}.retry_many(job_ids bigint[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	changed integer;
	queues text[];
BEGIN
	WITH locked AS MATERIALIZED (
		SELECT id FROM {schema}.oban_jobs
		WHERE id = ANY (job_ids) AND state NOT IN ('available', 'executing')
		ORDER BY id FOR NO KEY UPDATE),
	retried AS (
		UPDATE {schema}.oban_jobs AS job
		SET state = 'available', scheduled_at = timezone('UTC', now()),
			max_attempts = greatest(job.max_attempts, job.attempt + 1),
			completed_at = NULL, cancelled_at = NULL, discarded_at = NULL,
			meta = CASE WHEN job.meta ? 'uniq_bmp' THEN jsonb_set(job.meta, '{uniq_bmp}', '[]')
						ELSE job.meta END
		FROM locked WHERE job.id = locked.id RETURNING job.queue),
	woken AS (SELECT queue, count(*) AS jobs FROM retried GROUP BY queue)
	SELECT coalesce(sum(jobs), 0), array_agg(queue) INTO changed, queues FROM woken;
	PERFORM pg_notify('{schema}.oban_insert', '{"queue":' || to_json(waiting) || '}')
		FROM unnest(queues) AS waiting;
	RETURN changed;
END $$;

CREATE FUNCTION {schema}.delete_many(job_ids bigint[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	changed integer;
BEGIN
	WITH locked AS MATERIALIZED (
		SELECT id FROM {schema}.oban_jobs WHERE id = ANY (job_ids) AND state <> 'executing'
		ORDER BY id FOR UPDATE)
	DELETE FROM {schema}.oban_jobs AS job USING locked WHERE job.id = locked.id;
	GET DIAGNOSTICS changed = ROW_COUNT;
	RETURN changed;
END $$;

-- What the changes say, checked, each in a variable of its own and NULL where it is not named.
CREATE FUNCTION {schema}.read_changes(
	changes jsonb, OUT args jsonb, OUT meta jsonb, OUT queue text, OUT worker text,
	OUT priority integer, OUT max_attempts integer, OUT tags text[], OUT scheduled_at timestamp)
LANGUAGE plpgsql AS $$
DECLARE
	change record;
BEGIN
	IF changes IS NULL OR jsonb_typeof(changes) <> 'object' THEN
		RAISE invalid_parameter_value USING MESSAGE = 'changes must be a JSON object';
	END IF;
	IF changes ?& ARRAY['scheduled_at', 'schedule_in'] THEN
		RAISE invalid_parameter_value USING MESSAGE = 'scheduled_at and schedule_in are given both';
	END IF;
	FOR change IN SELECT key, value, jsonb_typeof(value) AS kind, value #>> '{}' AS plain
				  FROM jsonb_each(changes) LOOP
		IF NOT (CASE change.key
			WHEN 'args' THEN change.kind = 'object'
			WHEN 'meta' THEN change.kind = 'object'
			WHEN 'tags' THEN change.kind = 'array' AND NOT jsonb_path_exists(
				change.value, 'strict $[*] ? (@.type() == "array" || @.type() == "object")')
			WHEN 'queue' THEN change.kind = 'string' AND change.plain ~ '\S'
			WHEN 'worker' THEN change.kind = 'string' AND change.plain ~ '\S'
			WHEN 'priority' THEN change.kind = 'number' AND change.plain ~ '^[0-9]$'
			WHEN 'max_attempts' THEN change.kind = 'number' AND change.plain ~ '^[1-9][0-9]*$'
			WHEN 'scheduled_at' THEN change.kind = 'string' AND change.plain !~ 'infinity'
			WHEN 'schedule_in' THEN change.kind IN ('number', 'string')
			ELSE false END) THEN
			RAISE invalid_parameter_value
				USING MESSAGE = format('invalid change of "%s": %s', change.key, change.value);
		END IF;
	END LOOP;
	args := changes -> 'args';
	meta := changes -> 'meta';
	queue := changes ->> 'queue';
	worker := changes ->> 'worker';
	priority := changes ->> 'priority';
	max_attempts := changes ->> 'max_attempts';
	IF changes ? 'tags' THEN
		tags := ARRAY(
			SELECT DISTINCT lower(btrim(tag))
			FROM jsonb_array_elements_text(changes -> 'tags') AS tag
			WHERE btrim(tag) <> '' ORDER BY 1);
	END IF;
	IF changes ? 'scheduled_at' THEN
		scheduled_at := timezone('UTC', (changes ->> 'scheduled_at')::timestamptz);
	ELSIF changes ? 'schedule_in' THEN
		scheduled_at := timezone('UTC', now()) + CASE jsonb_typeof(changes -> 'schedule_in')
			WHEN 'number' THEN make_interval(secs => (changes ->> 'schedule_in')::float)
			ELSE (changes ->> 'schedule_in')::interval END;
	END IF;
END $$;

CREATE FUNCTION {schema}.update_one(job_id bigint, changes jsonb) RETURNS oban_job
LANGUAGE plpgsql AS $$
DECLARE
	new record;
	updated oban_job;
BEGIN
	new := {schema}.read_changes(changes);
	UPDATE {schema}.oban_jobs AS job
		SET args = coalesce(new.args, args), meta = coalesce(new.meta, meta),
			queue = coalesce(new.queue, queue), worker = coalesce(new.worker, worker),
			priority = coalesce(new.priority, priority),
			max_attempts = coalesce(new.max_attempts, max_attempts),
			tags = coalesce(new.tags, tags),
			scheduled_at = coalesce(new.scheduled_at, scheduled_at),
			state = CASE
				WHEN state = 'available' AND new.scheduled_at > timezone('UTC', now())
					THEN 'scheduled'
				WHEN state = 'scheduled' AND new.scheduled_at <= timezone('UTC', now())
					THEN 'available'
				ELSE state END
		WHERE id = job_id
		RETURNING id, state, queue, worker, attempt, max_attempts, priority, args,
			coalesce(meta, '{}'), coalesce(tags, '{}'), to_jsonb(errors), attempted_by,
			timezone('UTC', inserted_at), timezone('UTC', scheduled_at),
			timezone('UTC', attempted_at), timezone('UTC', completed_at),
			timezone('UTC', cancelled_at), timezone('UTC', discarded_at), '{schema}'
		INTO updated;
	IF NOT FOUND THEN
		RAISE no_data_found USING MESSAGE = format('job %s does not exist', job_id);
	END IF;
	IF new.scheduled_at IS NOT NULL AND updated.state = 'available' THEN
		PERFORM pg_notify('{schema}.oban_insert', '{"queue":' || to_json(updated.queue) || '}');
	END IF;
	RETURN updated;
END $$;

CREATE FUNCTION {schema}.update_many(job_ids bigint[], changes jsonb) RETURNS SETOF oban_job
LANGUAGE plpgsql AS $$
DECLARE
	new record;
	updated integer;
	missing bigint[];
BEGIN
	new := {schema}.read_changes(changes);
	RETURN QUERY
		WITH locked AS MATERIALIZED (
			SELECT id FROM {schema}.oban_jobs WHERE id = ANY (job_ids)
			ORDER BY id FOR NO KEY UPDATE),
		job AS (
			UPDATE {schema}.oban_jobs AS job
			SET args = coalesce(new.args, args), meta = coalesce(new.meta, meta),
				queue = coalesce(new.queue, queue), worker = coalesce(new.worker, worker),
				priority = coalesce(new.priority, priority),
				max_attempts = coalesce(new.max_attempts, max_attempts),
				tags = coalesce(new.tags, tags),
				scheduled_at = coalesce(new.scheduled_at, scheduled_at),
				state = CASE
					WHEN state = 'available' AND new.scheduled_at > timezone('UTC', now())
						THEN 'scheduled'
					WHEN state = 'scheduled' AND new.scheduled_at <= timezone('UTC', now())
						THEN 'available'
					ELSE state END
			FROM locked WHERE job.id = locked.id RETURNING job.*)
		SELECT id, state::text, queue, worker, attempt::integer, max_attempts::integer,
			priority::integer, args, coalesce(meta, '{}'), coalesce(tags::text[], '{}'),
			to_jsonb(errors), attempted_by,
			timezone('UTC', inserted_at), timezone('UTC', scheduled_at),
			timezone('UTC', attempted_at), timezone('UTC', completed_at),
			timezone('UTC', cancelled_at), timezone('UTC', discarded_at), '{schema}'
		FROM job ORDER BY id;
	GET DIAGNOSTICS updated = ROW_COUNT;
	IF updated < cardinality(job_ids) THEN
		missing := ARRAY(SELECT unnest(job_ids)
						 EXCEPT SELECT id FROM {schema}.oban_jobs WHERE id = ANY (job_ids));
		IF missing <> '{}' THEN
			RAISE no_data_found USING MESSAGE = format('jobs %s do not exist', missing);
		END IF;
	END IF;
	IF new.scheduled_at IS NOT NULL THEN
		PERFORM pg_notify('{schema}.oban_insert', '{"queue":' || to_json(queue) || '}')
			FROM (SELECT DISTINCT queue FROM {schema}.oban_jobs
				  WHERE id = ANY (job_ids) AND state = 'available') AS waiting;
	END IF;
END $$;

-- Retries the discarded jobs of a worker, and commits after each batch.
CREATE PROCEDURE {schema}.retry_in_batches(worker_name text, batch_size integer,
										   INOUT affected bigint DEFAULT 0)
LANGUAGE plpgsql AS $$
DECLARE
	highest bigint := (SELECT max(id) FROM {schema}.oban_jobs);
	done_to bigint := 0;
	retried integer;
	last bigint;
	queues text[];
BEGIN
	WHILE done_to IS NOT NULL LOOP
		WITH locked AS MATERIALIZED (
			SELECT id FROM {schema}.oban_jobs
			WHERE id > done_to AND id <= highest AND worker = worker_name AND state = 'discarded'
			ORDER BY id LIMIT batch_size FOR NO KEY UPDATE),
		retried AS (
			UPDATE {schema}.oban_jobs AS job
			SET state = 'available', scheduled_at = timezone('UTC', now()),
				max_attempts = greatest(job.max_attempts, job.attempt + 1),
				completed_at = NULL, cancelled_at = NULL, discarded_at = NULL,
				meta = CASE WHEN job.meta ? 'uniq_bmp' THEN jsonb_set(job.meta, '{uniq_bmp}', '[]')
							ELSE job.meta END
			FROM locked WHERE job.id = locked.id RETURNING job.id, job.queue)
		SELECT count(*), max(id), array_agg(DISTINCT queue) INTO retried, last, queues FROM retried;
		PERFORM pg_notify('{schema}.oban_insert', '{"queue":' || to_json(waiting) || '}')
			FROM unnest(queues) AS waiting;
		COMMIT;
		affected := affected + retried;
		done_to := last;
		IF retried > 0 THEN
			RAISE NOTICE 'retried % jobs', affected;
		END IF;
	END LOOP;
END $$;
