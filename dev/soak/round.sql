-- What a round of the soak needs beside the jobs table: an event log, made by triggers on the table;
-- callables; and tables of an application whose triggers manage jobs.
--
-- psql variables: schema, that of the jobs table; types, that of its states; guard, whether the jobs
-- have oban_keep_cancelled.

-- Changes of one job are logged in the order in which they were made, for who makes one holds the
-- job until its commit. The actor is the application name. By statement triggers, for a row that
-- moves between partitions is an update to them.
CREATE TABLE public.events (
	seq bigserial PRIMARY KEY, actor text DEFAULT current_setting('application_name'), job bigint,
	old_state text, new_state text, old_attempt integer, new_attempt integer, priority integer,
	steps integer, xid xid8 DEFAULT pg_current_xact_id());
CREATE INDEX ON public.events (job, seq);
CREATE FUNCTION public.log_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		INSERT INTO public.events (job, new_state, new_attempt) SELECT id, state, attempt FROM n;
	ELSIF TG_OP = 'DELETE' THEN
		INSERT INTO public.events (job, old_state, old_attempt) SELECT id, state, attempt FROM o;
	ELSE
		INSERT INTO public.events (job, old_state, new_state, old_attempt, new_attempt, priority, steps)
		SELECT id, o.state, n.state, o.attempt, n.attempt, n.priority,
			coalesce((n.meta ->> 'steps')::integer, 0) - coalesce((o.meta ->> 'steps')::integer, 0)
		FROM o JOIN n USING (id);
	END IF;
	RETURN NULL;
END $$;
-- Partitioned tables have the states of the tables that they were made from.
SET search_path = :"schema", :"types", public;
CREATE TRIGGER log_insert AFTER INSERT ON oban_jobs REFERENCING NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION public.log_event();
CREATE TRIGGER log_update AFTER UPDATE ON oban_jobs REFERENCING OLD TABLE AS o NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION public.log_event();
CREATE TRIGGER log_delete AFTER DELETE ON oban_jobs REFERENCING OLD TABLE AS o
	FOR EACH STATEMENT EXECUTE FUNCTION public.log_event();
\if :guard
CREATE TRIGGER keep_cancelled BEFORE UPDATE ON oban_jobs
	FOR EACH ROW WHEN (OLD.state = 'cancelled' AND NEW.state IN ('retryable', 'scheduled')
					   AND NEW.cancelled_at IS NOT NULL)
	EXECUTE FUNCTION oban_keep_cancelled();
\endif

-- Counts its calls in the job itself: a lost update would show.
CREATE FUNCTION public.step(job oban_job) RETURNS jsonb LANGUAGE sql RETURN jsonb_build_object('meta',
	job.meta || jsonb_build_object('steps', coalesce((job.meta ->> 'steps')::integer, 0) + 1));
CREATE FUNCTION public.step_json(job jsonb, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN jsonb_build_object('meta', (job -> 'meta') || jsonb_build_object('steps',
		coalesce((job #>> '{meta,steps}')::integer, 0) + 1));

-- Row triggers where one row is changed at a time, statement triggers where it is many.
CREATE TABLE public.visits (id bigint PRIMARY KEY, job_id bigint);
CREATE TRIGGER cancels AFTER DELETE ON public.visits
	FOR EACH ROW EXECUTE FUNCTION oban_cancel_job('job_id');
CREATE TRIGGER delays AFTER UPDATE ON public.visits
	FOR EACH ROW EXECUTE FUNCTION oban_update_job('job_id', '{"schedule_in": 0.2}');
CREATE TABLE public.orders (id bigint PRIMARY KEY, job_ids bigint[]);
CREATE TRIGGER retries AFTER INSERT ON public.orders REFERENCING NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION oban_retry_job('job_ids');
CREATE TRIGGER steps AFTER UPDATE ON public.orders REFERENCING NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('job_ids', 'public.step');
CREATE TRIGGER deletes AFTER DELETE ON public.orders REFERENCING OLD TABLE AS o
	FOR EACH STATEMENT EXECUTE FUNCTION oban_delete_job('job_ids');

-- As both Obans fetch and stage, and as workers answer.
CREATE FUNCTION public.fetch(most integer) RETURNS TABLE (id bigint, attempt integer) LANGUAGE sql
SET search_path FROM CURRENT AS $$
	WITH subset AS MATERIALIZED (
		SELECT id FROM oban_jobs WHERE state = 'available' AND queue = 'default'
		ORDER BY priority, scheduled_at, id LIMIT most FOR UPDATE SKIP LOCKED)
	UPDATE oban_jobs j SET state = 'executing', attempt = attempt + 1,
		attempted_at = timezone('UTC', now()), attempted_by = '{node}'
	FROM subset WHERE j.id = subset.id AND j.attempt < j.max_attempts
	RETURNING j.id, j.attempt
$$;
CREATE FUNCTION public.stage() RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT AS $$
	WITH subset AS MATERIALIZED (
		SELECT id FROM oban_jobs WHERE state IN ('scheduled', 'retryable')
			AND scheduled_at <= timezone('UTC', now())
		ORDER BY scheduled_at, id LIMIT 20000 FOR UPDATE SKIP LOCKED),
	staged AS (UPDATE oban_jobs j SET state = 'available' FROM subset WHERE j.id = subset.id
		RETURNING 1)
	SELECT count(*) FROM staged
$$;
CREATE FUNCTION public.prune() RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT AS $$
	WITH subset AS MATERIALIZED (
		SELECT id FROM oban_jobs WHERE state IN ('completed', 'cancelled', 'discarded') AND id % 9 = 0
		ORDER BY id LIMIT 20 FOR UPDATE SKIP LOCKED),
	pruned AS (DELETE FROM oban_jobs j USING subset WHERE j.id = subset.id RETURNING 1)
	SELECT count(*) FROM pruned
$$;
CREATE FUNCTION public.rescue() RETURNS bigint LANGUAGE sql SET search_path FROM CURRENT AS $$
	WITH subset AS MATERIALIZED (
		SELECT id FROM oban_jobs WHERE state = 'executing'
			AND attempted_at < timezone('UTC', now()) - interval '2 s'
		ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED),
	rescued AS (UPDATE oban_jobs j SET state = (CASE WHEN attempt < max_attempts THEN 'available'
			ELSE 'discarded' END)::oban_job_state
		FROM subset WHERE j.id = subset.id RETURNING 1)
	SELECT count(*) FROM rescued
$$;
CREATE FUNCTION public.answer(job bigint, answer text) RETURNS void LANGUAGE sql
SET search_path FROM CURRENT AS $$
	UPDATE oban_jobs SET state = (CASE WHEN answer = 'retryable' AND attempt >= max_attempts
			THEN 'discarded' ELSE answer END)::oban_job_state,
		max_attempts = max_attempts + CASE answer WHEN 'scheduled' THEN 1 ELSE 0 END,
		scheduled_at = CASE WHEN answer IN ('retryable', 'scheduled')
			THEN timezone('UTC', now()) + interval '0.3 s' ELSE scheduled_at END,
		completed_at = CASE answer WHEN 'completed' THEN timezone('UTC', now()) ELSE completed_at END,
		discarded_at = CASE answer WHEN 'discarded' THEN timezone('UTC', now()) ELSE discarded_at END,
		cancelled_at = CASE answer WHEN 'cancelled' THEN timezone('UTC', now()) ELSE cancelled_at END
	WHERE id = job
$$;
CREATE SEQUENCE public.ids;
CREATE FUNCTION public.add_jobs(many integer) RETURNS void LANGUAGE sql
SET search_path FROM CURRENT AS $$
	INSERT INTO oban_jobs (id, worker, state, queue, max_attempts, args, scheduled_at)
	OVERRIDING SYSTEM VALUE
	SELECT nextval('public.ids'), CASE n % 2 WHEN 0 THEN 'Even' ELSE 'Odd' END,
		(CASE n % 5 WHEN 0 THEN 'scheduled' ELSE 'available' END)::oban_job_state,
		CASE n % 7 WHEN 0 THEN 'slow' ELSE 'default' END, 30, jsonb_build_object('n', n % 10),
		timezone('UTC', now()) + interval '0.5 s'
	FROM generate_series(1, many) n
$$;

-- In one snapshot, so that it may be asked at any time: also of what a crash has left.
CREATE SCHEMA checks;
CREATE VIEW checks."the table is as the log ends" AS
	SELECT coalesce(j.id, e.job) AS job, format('the table has %s/%s, the log %s/%s', j.state,
		j.attempt, new_state, new_attempt) AS wrong
	FROM oban_jobs j FULL JOIN (SELECT DISTINCT ON (job) * FROM events ORDER BY job, seq DESC) e
		ON e.job = j.id
	WHERE (j.state::text, j.attempt::integer) IS DISTINCT FROM (new_state, new_attempt);
CREATE VIEW checks."as many jobs are there as were inserted and not deleted" AS
	SELECT NULL::bigint AS job, format('%s inserted, %s deleted, %s there', i, d, n) AS wrong
	FROM (SELECT count(*) FILTER (WHERE old_state IS NULL) AS i,
			count(*) FILTER (WHERE new_state IS NULL) AS d FROM events) e,
		(SELECT count(*) AS n FROM oban_jobs) j
	WHERE n <> i - d;
