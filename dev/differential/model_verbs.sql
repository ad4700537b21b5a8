-- The contract as plain SQL over one table: cancel, retry, delete, and the reading of jobs.
--
-- The functions bear the extension's own names and live in schema model, so that one text of a call
-- serves both. They know nothing of its code: one loop, one job at a time, no locks, no kept plans.
-- Their table is twin.oban_jobs; what they tell is told to the channel "model". A refusal has no
-- text, only its SQLSTATE, for that is what is compared; but for one that a call may pass over.
CREATE SCHEMA model;

CREATE FUNCTION model.refuse(code text, message text DEFAULT 'refused by the model') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message;
END $$;

-- The SQLSTATE of a refusal, which is 22000, for any of class 22, where arguments are wrong in several
-- ways: the contract does not say which mistake comes first.
CREATE FUNCTION model.refuse_any(VARIADIC codes text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	codes := ARRAY(SELECT DISTINCT code FROM unnest(codes) code WHERE code IS NOT NULL);
	IF codes <> '{}' THEN
		PERFORM model.refuse(CASE cardinality(codes) WHEN 1 THEN codes[1] ELSE '22000' END);
	END IF;
END $$;

-- What each state gets: the new state, 'gone' for deleted, NULL for ignored.
CREATE TABLE model.fates (state text PRIMARY KEY, cancel text, retry text, delete text);
INSERT INTO model.fates VALUES
	('available', 'cancelled', NULL, 'gone'),
	('scheduled', 'cancelled', 'available', 'gone'),
	('suspended', 'cancelled', 'available', 'gone'),
	('retryable', 'cancelled', 'available', 'gone'),
	('executing', 'cancelled', NULL, NULL),
	('completed', NULL, 'available', 'gone'),
	('discarded', NULL, 'available', 'gone'),
	('cancelled', NULL, 'available', 'gone');

-- The schema of the table: there is but one, and any other is missing.
CREATE FUNCTION model.check_prefix(prefix text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CASE coalesce(prefix, current_setting('oban_manage.prefix'))
		WHEN current_setting('differ.prefix') THEN NULL;
		WHEN 'model' THEN PERFORM model.refuse('42P01');
		ELSE PERFORM model.refuse('3F000');
	END CASE;
END $$;

CREATE FUNCTION model.notifies() RETURNS boolean LANGUAGE sql AS $$
	SELECT coalesce(current_setting('oban_manage.notify', true), 'on')::boolean
$$;

CREATE FUNCTION model.tell(name text, payload text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	channel text := current_setting('differ.prefix') || '.oban_' || name;
BEGIN
	IF model.notifies() THEN
		-- Of a channel that cannot be a warning tells.
		PERFORM pg_notify('model', CASE WHEN octet_length(channel) < 64
			THEN channel || ' ' || payload ELSE 'warned' END);
	END IF;
END $$;

CREATE FUNCTION model.wake(queue text) RETURNS void LANGUAGE sql AS $$
	SELECT model.tell('insert', '{"queue":' || to_json(queue) || '}')
$$;

-- The largest number that a column holds.
CREATE FUNCTION model.most(name text) RETURNS numeric LANGUAGE sql STABLE AS $$
	SELECT CASE atttypid WHEN 'smallint'::regtype THEN 32767 WHEN 'integer'::regtype THEN 2147483647
		ELSE 9223372036854775807 END
	FROM pg_attribute WHERE attrelid = 'twin.oban_jobs'::regclass AND attname = name
$$;

-- Has a job made so many attempts that max_attempts cannot be more?
CREATE FUNCTION model.is_spent(job twin.oban_jobs) RETURNS boolean LANGUAGE sql STABLE AS $$
	SELECT job.attempt >= least(model.most('max_attempts'), 2147483647)
$$;

-- Only in these years a time can be read by each Oban.
CREATE FUNCTION model.fits(at timestamp) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
	SELECT at >= '0001-01-01' AND at < '10000-01-01'
$$;

-- When a retry with that argument is to run.
CREATE FUNCTION model.asked(scheduled_at timestamptz) RETURNS timestamp LANGUAGE plpgsql AS $$
BEGIN
	IF NOT model.fits(timezone('UTC', scheduled_at)) THEN
		PERFORM model.refuse('22008');
	END IF;
	RETURN timezone('UTC', greatest(scheduled_at, now()));
END $$;

-- What a verb makes of a job in this state.
CREATE FUNCTION model.fate(verb text, old_state text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE verb WHEN 'cancel' THEN cancel WHEN 'retry' THEN retry ELSE delete END
	FROM model.fates WHERE state = old_state
$$;

-- One job that may be in any state: whether it is as the verb would have it afterwards, for a trigger
-- of the table may have its own will. "at" is when a retried job is to run, which
-- is after its last run began in any case.
CREATE FUNCTION model.change(verb text, job_id bigint, at timestamp DEFAULT timezone('UTC', now()))
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	waits boolean := at > timezone('UTC', now());
	old twin.oban_jobs;
	made text;
BEGIN
	SELECT * INTO old FROM twin.oban_jobs WHERE id = job_id;
	IF model.fate(verb, old.state::text) IS NULL OR (verb = 'retry' AND model.is_spent(old)) THEN
		RETURN false;
	ELSIF verb = 'cancel' THEN
		UPDATE twin.oban_jobs SET state = 'cancelled', cancelled_at = timezone('UTC', now())
			WHERE id = job_id RETURNING state INTO made;
		IF made = 'cancelled' AND old.state = 'executing' THEN
			PERFORM model.tell('signal', '{"action":"pkill","job_id":' || job_id || '}');
		END IF;
		RETURN made = 'cancelled';
	ELSIF verb = 'retry' THEN
		UPDATE twin.oban_jobs SET scheduled_at = greatest(at, attempted_at + interval '1 microsecond'),
				max_attempts = greatest(max_attempts, attempt + 1),
				state = CASE WHEN waits THEN 'scheduled' WHEN NOT waits THEN 'available' ELSE state END,
				completed_at = NULL, cancelled_at = NULL, discarded_at = NULL
			WHERE id = job_id RETURNING state INTO made;
		UPDATE twin.oban_jobs SET meta = meta || '{"uniq_bmp": []}'
			WHERE id = job_id AND jsonb_typeof(meta) = 'object' AND meta ? 'uniq_bmp';
		-- A job whose time is to come is not there for the workers yet, whom nobody wakes then.
		IF made = 'available' THEN
			PERFORM model.wake(old.queue);
		END IF;
		RETURN made = 'available' OR (waits AND made = 'scheduled');
	ELSE
		DELETE FROM twin.oban_jobs WHERE id = job_id;
	END IF;
	RETURN true;
END $$;

-- The distinct ids of an array, NULLs left out, in order.
CREATE FUNCTION model.ids(job_ids bigint[]) RETURNS SETOF bigint LANGUAGE sql AS $$
	SELECT DISTINCT id FROM unnest(job_ids) id WHERE id IS NOT NULL ORDER BY id
$$;

-- One id as an array; NULL is no array.
CREATE FUNCTION model.one(job_id bigint) RETURNS bigint[] LANGUAGE sql AS $$
	SELECT CASE WHEN job_id IS NOT NULL THEN ARRAY[job_id] END
$$;

CREATE FUNCTION model.change_many(verb text, job_ids bigint[], prefix text,
	scheduled_at timestamptz DEFAULT NULL) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	at timestamp;
BEGIN
	IF job_ids IS NULL THEN
		RETURN 0;
	END IF;
	PERFORM model.check_prefix(prefix);
	at := model.asked(scheduled_at);
	RETURN (SELECT count(*) FILTER (WHERE model.change(verb, id, at)) FROM model.ids(job_ids) id);
END $$;

-- The same for a job instance, whose table is known.
CREATE FUNCTION model.change_instance(verb text, job_id bigint, scheduled_at timestamptz)
RETURNS boolean LANGUAGE sql AS $$
	SELECT model.change_many(verb, model.one(job_id), current_setting('differ.prefix'), scheduled_at) = 1
$$;

-- The id of a job instance, checked for where it came from.
CREATE FUNCTION model.instance(job record) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	fields jsonb := to_jsonb(job);
BEGIN
	IF fields ->> 'id' IS NOT NULL AND fields ? 'prefix' THEN
		PERFORM model.check_prefix(fields ->> 'prefix');
	END IF;
	RETURN fields ->> 'id';
END $$;

-- The forms of the three verbs differ in nothing but the time of a retry.
CREATE FUNCTION model.with_time(verb text, definition text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE verb WHEN 'retry'
		THEN replace(replace(definition, 'PARAMETER', 'scheduled_at timestamptz DEFAULT NULL'),
			'TIME', 'scheduled_at')
		ELSE replace(replace(definition, ', PARAMETER', ''), 'TIME', 'NULL') END
$$;
DO $do$
DECLARE
	verb text;
BEGIN
	FOREACH verb IN ARRAY '{cancel,retry,delete}'::text[] LOOP
		EXECUTE model.with_time(verb, replace($q$
			CREATE FUNCTION model.oban_VERB_job(job_id bigint, prefix text DEFAULT NULL, PARAMETER)
			RETURNS boolean LANGUAGE sql AS
				$$ SELECT model.change_many('VERB', model.one(job_id), prefix, TIME) = 1 $$;
			CREATE FUNCTION model.oban_VERB_job(job record, PARAMETER) RETURNS boolean
			LANGUAGE plpgsql AS
				$$ BEGIN RETURN model.change_instance('VERB', model.instance(job), TIME); END $$;
			CREATE FUNCTION model.oban_VERB_job(job_ids bigint[], prefix text DEFAULT NULL, PARAMETER)
			RETURNS integer LANGUAGE sql AS $$ SELECT model.change_many('VERB', job_ids, prefix, TIME) $$;
			CREATE FUNCTION model.oban_VERB_many_jobs(job_ids bigint[], prefix text DEFAULT NULL, PARAMETER)
			RETURNS integer LANGUAGE sql AS $$ SELECT model.change_many('VERB', job_ids, prefix, TIME) $$;
		$q$, 'VERB', verb));
	END LOOP;
END $do$;

-- ---- reading

CREATE FUNCTION model.job(wanted bigint) RETURNS public.oban_job LANGUAGE sql AS $$
	SELECT (id, state, queue, worker, attempt, max_attempts, priority, args, coalesce(meta, '{}'),
		coalesce(tags, '{}'), to_jsonb(errors), attempted_by, timezone('UTC', inserted_at),
		timezone('UTC', scheduled_at), timezone('UTC', attempted_at),
		timezone('UTC', completed_at), timezone('UTC', cancelled_at),
		timezone('UTC', discarded_at), current_setting('differ.prefix'))::public.oban_job
	FROM twin.oban_jobs WHERE id = wanted
$$;

CREATE FUNCTION model.oban_get_job(job_id bigint, prefix text DEFAULT NULL)
RETURNS public.oban_job LANGUAGE plpgsql AS $$
BEGIN
	IF job_id IS NOT NULL THEN
		PERFORM model.check_prefix(prefix);
	END IF;
	RETURN model.job(job_id);
END $$;

CREATE FUNCTION model.oban_job_cancelled(job_id bigint, prefix text DEFAULT NULL,
	attempt integer DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF job_id IS NULL THEN
		RETURN false;
	END IF;
	PERFORM model.check_prefix(prefix);
	RETURN NOT EXISTS (SELECT FROM twin.oban_jobs j WHERE j.id = job_id
		AND CASE WHEN oban_job_cancelled.attempt IS NULL THEN j.state <> 'cancelled'
			ELSE j.state = 'executing' AND j.attempt = oban_job_cancelled.attempt END);
END $$;
