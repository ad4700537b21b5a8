-- What a round of the soak needs beside the jobs table: an event log, made by triggers on the table;
-- callables; and tables of an application whose triggers manage jobs.
--
-- psql variables: schema, that of the jobs table; types, that of its states; guard, whether the jobs
-- have oban_guard_job().

-- Changes of one job are logged in the order in which they were made, for who makes one holds the
-- job until its commit. The actor is the application name: of a managing client it goes on with the
-- form of its call. By statement triggers, for a row that moves between partitions is an update to
-- them.
CREATE TABLE public.events (
	seq bigserial PRIMARY KEY, actor text DEFAULT current_setting('application_name'), job bigint,
	was jsonb, became jsonb, xid xid8 DEFAULT pg_current_xact_id(),
	at timestamp DEFAULT timezone('UTC', now()),
	old_state text GENERATED ALWAYS AS (was ->> 'state') STORED,
	new_state text GENERATED ALWAYS AS (became ->> 'state') STORED,
	old_attempt integer GENERATED ALWAYS AS ((was ->> 'attempt')::integer) STORED,
	new_attempt integer GENERATED ALWAYS AS ((became ->> 'attempt')::integer) STORED,
	form text GENERATED ALWAYS AS (substring(actor FROM '^client\S+ (.*)')) STORED,
	by text GENERATED ALWAYS AS (coalesce(substring(actor FROM ' (cancel|retry|delete|update)'),
		substring(actor FROM '^[a-z]+'))) STORED);
CREATE INDEX ON public.events (job, seq);
CREATE FUNCTION public.log_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		INSERT INTO public.events (job, became) SELECT id, to_jsonb(n) FROM n;
	ELSIF TG_OP = 'DELETE' THEN
		INSERT INTO public.events (job, was) SELECT id, to_jsonb(o) FROM o;
	ELSE
		INSERT INTO public.events (job, was, became)
		SELECT id, to_jsonb(o), to_jsonb(n) FROM o JOIN n USING (id);
		-- Others shall come to wait for what a worker has just fetched.
		IF current_setting('application_name') LIKE 'worker%' AND random() < 0.3 THEN
			PERFORM pg_sleep(random() * 0.02);
		END IF;
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
CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON oban_jobs
	FOR EACH ROW EXECUTE FUNCTION oban_guard_job();
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
	FOR EACH ROW EXECUTE FUNCTION oban_cancel_job('job_id', :'schema');
CREATE TRIGGER delays AFTER UPDATE ON public.visits
	FOR EACH ROW EXECUTE FUNCTION oban_update_job('job_id', '{"schedule_in": 0.2}', :'schema');
CREATE TABLE public.orders (id bigint PRIMARY KEY, job_ids bigint[]);
CREATE TRIGGER retries AFTER INSERT ON public.orders REFERENCING NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION oban_retry_job('job_ids');
CREATE TABLE public.invoices (id bigint PRIMARY KEY, job_ids bigint[]);
CREATE TRIGGER steps AFTER UPDATE ON public.invoices REFERENCING NEW TABLE AS n
	FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('job_ids', 'public.step', :'schema');
CREATE TRIGGER deletes AFTER DELETE ON public.invoices REFERENCING OLD TABLE AS o
	FOR EACH STATEMENT EXECUTE FUNCTION oban_delete_job('job_ids', :'schema');

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
		CASE n % 7 WHEN 0 THEN 'slow' ELSE 'default' END, 30, jsonb_build_object('n', n % 50),
		timezone('UTC', now()) + interval '0.5 s'
	FROM generate_series(1, many) n
$$;

CREATE FUNCTION public.acts(verb text, state text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN
	CASE verb WHEN 'cancel' THEN state NOT IN ('completed', 'discarded', 'cancelled')
		WHEN 'retry' THEN state NOT IN ('available', 'executing')
		WHEN 'delete' THEN state <> 'executing' ELSE state IS NOT NULL END;

-- In one snapshot, so that it may be asked at any time: also of what a crash has left.
CREATE SCHEMA checks;
CREATE VIEW checks."the table is as the log ends" AS
	SELECT coalesce(j.id, e.job) AS job, format('the table has %s, the log %s', to_jsonb(j), became) AS wrong
	FROM oban_jobs j FULL JOIN (SELECT DISTINCT ON (job) * FROM events ORDER BY job, seq DESC) e
		ON e.job = j.id
	WHERE to_jsonb(j) IS DISTINCT FROM became;

CREATE VIEW checks."as many jobs are there as were inserted and not deleted" AS
	SELECT NULL::bigint AS job, format('%s inserted, %s deleted, %s there', i, d, n) AS wrong
	FROM (SELECT count(*) FILTER (WHERE old_state IS NULL) AS i,
			count(*) FILTER (WHERE new_state IS NULL) AS d FROM events) e,
		(SELECT count(*) AS n FROM oban_jobs) j
	WHERE n <> i - d;

CREATE VIEW checks."the log of a job has no gap" AS
	SELECT job, format('event %s begins with %s, after %s', seq, was, before) AS wrong
	FROM (SELECT job, seq, was, lag(became) OVER (PARTITION BY job ORDER BY seq) AS before FROM events) e
	WHERE was IS DISTINCT FROM before;

-- So no cancelled job is fetched unless it was retried or its own worker put it back, and no job that
-- is executing is deleted, retried, or fetched again.
CREATE VIEW checks."each change is one that its maker may make" AS
	SELECT job, format('event %s, %s: %s/%s to %s/%s', seq, actor, old_state, old_attempt, new_state,
		new_attempt) AS wrong
	FROM events WHERE NOT coalesce(CASE
		WHEN by = 'worker' AND new_state = 'executing' THEN
			old_state = 'available' AND new_attempt = old_attempt + 1
		WHEN old_state IS NULL THEN by IN ('oban', 'psql')
		WHEN new_attempt <> old_attempt THEN false
		WHEN by = 'worker' THEN new_state IN
			('completed', 'retryable', 'scheduled', 'discarded', 'cancelled') AND NOT
			(:'guard'::boolean AND old_state = 'cancelled' AND new_state IN ('retryable', 'scheduled'))
		WHEN by = 'oban' THEN CASE WHEN new_state IS NULL
			THEN old_state IN ('completed', 'cancelled', 'discarded')
			ELSE (old_state IN ('scheduled', 'retryable') AND new_state = 'available')
				OR (old_state = 'executing' AND new_state IN ('available', 'discarded')) END
		WHEN by = 'cancel' THEN new_state = 'cancelled' AND acts(by, old_state)
		WHEN by = 'retry' THEN new_state = 'available' AND acts(by, old_state)
		WHEN by = 'delete' THEN new_state IS NULL AND acts(by, old_state)
		WHEN by = 'update' THEN old_state = new_state OR (old_state IN ('available', 'scheduled')
			AND new_state IN ('available', 'scheduled')) END, false);

CREATE VIEW checks."cancel and retry set what they must and nothing else" AS
	SELECT job, format('event %s, %s: %s to %s', seq, actor, was, became) AS wrong
	FROM events WHERE by IN ('cancel', 'retry') AND became IS DISTINCT FROM was || CASE by
		WHEN 'cancel' THEN jsonb_build_object('state', 'cancelled', 'cancelled_at', at)
		ELSE jsonb_build_object('state', 'available', 'scheduled_at',
			greatest(at, (was ->> 'attempted_at')::timestamp + interval '1 microsecond'), 'completed_at', NULL,
			'cancelled_at', NULL, 'discarded_at', NULL,
			'max_attempts', greatest((was ->> 'max_attempts')::integer, old_attempt + 1)) END;
