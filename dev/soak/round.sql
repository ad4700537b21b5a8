-- What a round of the soak needs beside the jobs table: an event log, made by triggers on the table;
-- the guard; the statements of both Obans; callables; and tables of an application whose triggers
-- manage jobs.
--
-- psql variables: schema, that of the jobs table; types, that of its states; guard, whether the jobs
-- have it; workers, the file with the statements of both Obans.

-- Changes of one job are logged in the order in which they were made, because who makes one holds
-- the job until its commit. The actor is the application name: of a managing client it goes on with the
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
		-- Others shall come to wait for what a worker has just fetched, or a client changed.
		IF random() < (CASE substring(current_setting('application_name'), '^[a-z]+')
			WHEN 'worker' THEN 0.3 WHEN 'client' THEN 0.1 ELSE 0 END)
		THEN
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
\i :workers

-- To calls that pass over them some jobs are refused, before they are written or afterwards.
CREATE FUNCTION public.is_refused(args jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE
	RETURN (args ->> 'n')::integer % 5 = 0;
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('application_name') LIKE 'client% skipping%' THEN
		RAISE EXCEPTION 'job % is refused', OLD.id;
	END IF;
	RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON oban_jobs FOR EACH ROW
	WHEN (public.is_refused(OLD.args) AND OLD.id % 2 = 0) EXECUTE FUNCTION public.refuse();
CREATE TRIGGER refuse_later AFTER UPDATE OR DELETE ON oban_jobs FOR EACH ROW
	WHEN (public.is_refused(OLD.args) AND OLD.id % 2 = 1) EXECUTE FUNCTION public.refuse();

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

-- The bulk calls of both Obans are verbs too: what a manager did shows in what it made.
CREATE VIEW public.changes AS
	SELECT *, CASE WHEN by IN ('cancel', 'retry', 'delete', 'update') THEN by
		WHEN by = 'manager' THEN CASE WHEN new_state IS NULL THEN 'delete'
			WHEN new_state = 'available' THEN 'retry' WHEN new_state = 'cancelled' THEN 'cancel'
			ELSE 'nothing' END END AS verb,
		by = 'worker' AND old_state = 'available' AND new_state = 'executing' AS fetched
	FROM events;

-- What Oban for Elixir's stager and both Obans' answers do where they wait is in views of their own.
CREATE VIEW checks."each change is one that its maker may make" AS
	SELECT job, format('event %s, %s: %s/%s to %s/%s', seq, actor, old_state, old_attempt, new_state,
		new_attempt) AS wrong
	FROM changes WHERE NOT coalesce(CASE
		WHEN old_state IS NULL THEN by IN ('adder', 'psql')
		WHEN fetched THEN new_attempt = old_attempt + 1
		WHEN new_attempt <> old_attempt THEN
			by = 'worker' AND new_state = 'scheduled' AND new_attempt = old_attempt - 1
		WHEN by = 'worker' THEN new_state = old_state OR new_state IN
			('completed', 'retryable', 'scheduled', 'discarded', 'cancelled')
		-- Who waited for a retry or for another Oban's stager makes available what is so already.
		WHEN by = 'stager' THEN
			old_state IN ('scheduled', 'retryable', 'available') AND new_state = 'available'
		WHEN by = 'rescuer' THEN
			old_state = 'executing' AND new_state IN ('available', 'discarded')
		WHEN by = 'pruner' THEN
			old_state IN ('completed', 'cancelled', 'discarded') AND new_state IS NULL
		WHEN by = 'manager' THEN CASE verb WHEN 'cancel' THEN acts(verb, old_state) OR new_state = old_state
			WHEN 'retry' THEN acts(verb, old_state) OR new_state = old_state
			WHEN 'delete' THEN acts(verb, old_state) ELSE new_state = old_state END
		WHEN by = 'cancel' THEN new_state = 'cancelled' AND acts(by, old_state)
		WHEN by = 'retry' THEN new_state = 'available' AND acts(by, old_state)
		WHEN by = 'delete' THEN new_state IS NULL AND acts(by, old_state)
		WHEN by = 'update' THEN old_state = new_state OR (old_state IN ('available', 'scheduled')
			AND new_state IN ('available', 'scheduled')) END, false);

-- By whom, and by whatever statement: an answer that comes late, or a stager that judged before.
CREATE VIEW checks."no cancelled job comes back, but by a retry" AS
	SELECT job, format('event %s, %s: %s to %s', seq, actor, old_state, new_state) AS wrong
	FROM changes WHERE old_state = 'cancelled' AND verb IS DISTINCT FROM 'retry'
		AND new_state NOT IN ('cancelled', 'completed', 'discarded');

-- An answer may end a cancelled job in another way, as Oban documents.
CREATE VIEW checks."no cancelled job runs" AS
	SELECT f.job, format('event %s, %s: fetched after event %s, %s', f.seq, f.actor, last.seq, last.actor)
		AS wrong
	FROM changes f CROSS JOIN LATERAL (SELECT * FROM changes e
		WHERE e.job = f.job AND e.seq < f.seq AND (e.verb IN ('cancel', 'retry')
			OR (e.by = 'worker' AND e.new_state IN ('completed', 'discarded')))
		ORDER BY e.seq DESC LIMIT 1) last
	WHERE f.fetched AND last.verb = 'cancel';

-- After a retry the next change of the job's state is a fetch, or made by a later verb. The guard does
-- not know one answer: when a rescued run snoozes late, it takes the attempt of the run that executes
-- by then, and the answer of that run is about an attempt that the job does not have.
CREATE VIEW checks."no retry is lost" AS
	SELECT job, format('event %s, %s: %s to %s, after a retry', seq, actor, old_state, new_state) AS wrong
	FROM (SELECT *, lag(by) OVER (PARTITION BY job ORDER BY seq) AS before FROM changes
		WHERE verb IS NOT NULL OR new_state IS DISTINCT FROM old_state) c
	WHERE before = 'retry' AND verb IS NULL AND NOT fetched AND NOT coalesce(
		became -> 'errors' <> was -> 'errors'
		AND (became #>> '{errors,-1,attempt}')::integer > old_attempt, false);

-- A rescue judges the row that it writes.
CREATE VIEW checks."no executing job is deleted or made available, but by a rescue" AS
	SELECT job, format('event %s, %s: %s to %s', seq, actor, old_state, new_state) AS wrong
	FROM events WHERE old_state = 'executing' AND (new_state IS NULL
		OR (new_state IN ('available', 'suspended') AND by <> 'rescuer'));

-- Elixir's stager has the time of its node, some time after the transaction's.
CREATE VIEW checks."no job is staged before its time" AS
	SELECT job, format('event %s, %s: at %s, scheduled at %s', seq, actor, at, became ->> 'scheduled_at') AS wrong
	FROM events WHERE by = 'stager' AND old_state <> new_state
		AND (became ->> 'scheduled_at')::timestamp > at + interval '1 s';

CREATE VIEW checks."cancel and retry set what they must and nothing else" AS
	SELECT job, format('event %s, %s: %s to %s', seq, actor, was, became) AS wrong
	FROM events WHERE by IN ('cancel', 'retry') AND became IS DISTINCT FROM was || CASE by
		WHEN 'cancel' THEN jsonb_build_object('state', 'cancelled', 'cancelled_at', at)
		ELSE jsonb_build_object('state', 'available', 'scheduled_at',
			greatest(at, (was ->> 'attempted_at')::timestamp + interval '1 microsecond'), 'completed_at', NULL,
			'cancelled_at', NULL, 'discarded_at', NULL,
			'max_attempts', greatest((was ->> 'max_attempts')::integer, old_attempt + 1)) END;
