-- The contract as plain SQL: changes, update, and update with a callable.

-- ---- values

CREATE FUNCTION model.is_whole(value jsonb) RETURNS boolean LANGUAGE sql AS $$
	SELECT CASE WHEN jsonb_typeof(value) = 'number' THEN mod(value::numeric, 1) = 0 ELSE false END
$$;

CREATE FUNCTION model.is_blank(value text) RETURNS boolean LANGUAGE sql AS $$
	SELECT btrim(value, E' \t\n\r\f\v') = ''
$$;

-- An ISO 8601 time as UTC without an offset; NULL when it is none, or not in the years that fit.
CREATE FUNCTION model.time(value jsonb) RETURNS timestamp LANGUAGE plpgsql AS $$
DECLARE
	text text := value #>> '{}';
	result timestamp;
BEGIN
	-- With separators or without
	IF jsonb_typeof(value) <> 'string' OR text !~* replace(
		'^(\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.]\d+)?)?OFFSET)?'
		'|\d{8}([T ]\d{4}(\d\d([.]\d+)?)?OFFSET)?)$', 'OFFSET', '(Z|[+-]\d\d(:?\d\d)?)?') THEN
		RETURN NULL;
	ELSIF text ~* '[T ].*(Z|[+-]\d\d(:?\d\d)?)$' THEN
		result := timezone('UTC', text::timestamptz);
	ELSE
		result := text::timestamp;
	END IF;
	RETURN CASE WHEN model.fits(result) THEN result END;
EXCEPTION WHEN data_exception THEN
	RETURN NULL;
END $$;

-- The tags as they are stored; NULL when they are not tags.
CREATE FUNCTION model.tags(value jsonb) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
	IF jsonb_typeof(value) <> 'array' OR EXISTS (SELECT FROM jsonb_array_elements(value) t
			WHERE jsonb_typeof(t) IN ('object', 'array')) THEN
		RETURN NULL;
	END IF;
	RETURN ARRAY(SELECT DISTINCT lower(btrim(t, E' \t\n\r\f\v')) COLLATE "C" AS tag
		FROM jsonb_array_elements_text(value) t
		WHERE t IS NOT NULL AND NOT model.is_blank(t) ORDER BY tag);
END $$;

-- The time that a change of the schedule asks for; NULL when it asks for none.
CREATE FUNCTION model.schedule(changes jsonb) RETURNS timestamp LANGUAGE plpgsql
SET IntervalStyle = 'postgres' AS $$
DECLARE
	at jsonb := changes -> 'scheduled_at';
	after jsonb := changes -> 'schedule_in';
	result timestamp;
BEGIN
	IF at IS NOT NULL AND after IS NOT NULL THEN
		PERFORM model.schedule(changes - 'scheduled_at');
		PERFORM model.schedule(changes - 'schedule_in');
		PERFORM model.refuse('22023');
	ELSIF at IS NOT NULL THEN
		result := model.time(at);
	ELSIF after IS NULL THEN
		RETURN NULL;
	ELSE
		BEGIN
			result := timezone('UTC', now()) + CASE jsonb_typeof(after)
				WHEN 'number' THEN make_interval(secs => after::float8)
				WHEN 'string' THEN (after #>> '{}')::interval END;
		EXCEPTION WHEN data_exception THEN
			result := NULL;
		END;
	END IF;
	IF result IS NULL OR NOT model.fits(result) THEN
		PERFORM model.refuse('22000');
	END IF;
	RETURN result;
END $$;

-- Refuses what cannot be made of any job; what only this job does not take is apply's.
CREATE FUNCTION model.check_changes(changes jsonb, most numeric) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	c record;
	fits boolean;
BEGIN
	IF changes IS NULL THEN
		PERFORM model.refuse('22004');
	ELSIF jsonb_typeof(changes) <> 'object' THEN
		PERFORM model.refuse('22023');
	END IF;
	FOR c IN SELECT key, value, jsonb_typeof(value) AS type, value #>> '{}' AS text
			FROM jsonb_each(changes) LOOP
		fits := CASE
			WHEN c.key IN ('args', 'meta') THEN c.type = 'object'
			WHEN c.key = 'max_attempts' THEN CASE WHEN model.is_whole(c.value)
				THEN c.value::numeric BETWEEN 1 AND most ELSE false END
			WHEN c.key = 'priority' THEN CASE WHEN model.is_whole(c.value)
				THEN c.value::numeric BETWEEN 0 AND 9 ELSE false END
			WHEN c.key IN ('queue', 'worker') THEN c.type = 'string' AND NOT model.is_blank(c.text)
			WHEN c.key = 'tags' THEN model.tags(c.value) IS NOT NULL
			ELSE c.key IN ('scheduled_at', 'schedule_in')
		END;
		IF NOT fits THEN
			PERFORM model.refuse('22023');
		END IF;
	END LOOP;
	PERFORM model.schedule(changes);
END $$;

-- ---- update

-- How few max_attempts a job may get: over one that may run and has no attempt left a queue stops.
CREATE FUNCTION model.least_attempts(job twin.oban_jobs) RETURNS numeric LANGUAGE sql AS $$
	SELECT job.attempt::numeric + CASE WHEN job.state::text IN ('completed', 'cancelled', 'discarded')
		THEN 0 ELSE 1 END
$$;

-- Makes good changes of one job that exists.
CREATE FUNCTION model.apply(job_id bigint, changes jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	old twin.oban_jobs;
	at timestamp := model.schedule(changes);
	c record;
BEGIN
	IF changes = '{}' THEN
		RETURN;
	END IF;
	SELECT * INTO old FROM twin.oban_jobs WHERE id = job_id;
	IF (changes -> 'max_attempts')::numeric < model.least_attempts(old) THEN
		PERFORM model.refuse('22023', format('invalid value for "max_attempts": %s',
			(changes -> 'max_attempts')::integer));
	END IF;
	-- All at once, for the table's own checks see the row as it will be. The tags by an assignment, not
	-- a cast, which would cut what is too long.
	UPDATE twin.oban_jobs SET
		args = coalesce(changes -> 'args', args),
		meta = coalesce(changes -> 'meta', meta),
		max_attempts = coalesce((changes -> 'max_attempts')::integer, max_attempts),
		priority = coalesce((changes -> 'priority')::integer, priority),
		queue = coalesce(changes ->> 'queue', queue),
		worker = coalesce(changes ->> 'worker', worker),
		scheduled_at = coalesce(at, scheduled_at),
		tags = CASE WHEN changes ? 'tags' THEN model.tags(changes -> 'tags') ELSE tags::text[] END,
		state = CASE WHEN state = 'available' AND at > timezone('UTC', now()) THEN 'scheduled'
			WHEN state = 'scheduled' AND at <= timezone('UTC', now()) THEN 'available'
			ELSE state END
	WHERE id = job_id;
	IF changes ? 'queue' OR (old.state = 'scheduled' AND at <= timezone('UTC', now())) THEN
		PERFORM model.wake(queue) FROM twin.oban_jobs WHERE id = job_id AND state = 'available';
	END IF;
	IF changes ? 'queue' THEN
		PERFORM differ.note_moved('differ.to_move', job_id);
	END IF;
END $$;

CREATE FUNCTION model.missing(job_ids bigint[]) RETURNS SETOF bigint LANGUAGE sql AS $$
	SELECT i FROM model.ids(job_ids) i
	WHERE NOT EXISTS (SELECT FROM twin.oban_jobs j WHERE j.id = i)
$$;

CREATE FUNCTION model.must_exist(job_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM model.missing(job_ids)) THEN
		RAISE no_data_found USING MESSAGE = (SELECT string_agg(i::text, ', ' ORDER BY i)
			FROM (SELECT i FROM model.missing(job_ids) i ORDER BY i LIMIT 10) m);
	END IF;
END $$;

-- What is too few for one of the jobs is so before any is written.
CREATE FUNCTION model.check_attempts(job_ids bigint[], changes jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM twin.oban_jobs j WHERE id = ANY (job_ids)
			AND model.least_attempts(j) > (changes -> 'max_attempts')::numeric) THEN
		PERFORM model.refuse('22023');
	END IF;
END $$;

CREATE FUNCTION model.oban_update_job(job_ids bigint[], changes jsonb, prefix text DEFAULT NULL)
RETURNS SETOF public.oban_job LANGUAGE plpgsql AS $$
BEGIN
	-- Which of several mistakes is reported is not in the contract: the order is the extension's.
	PERFORM model.check_prefix(prefix);
	PERFORM model.check_changes(changes, model.most('max_attempts'));
	PERFORM model.check_attempts(job_ids, changes);
	PERFORM model.must_exist(job_ids);
	PERFORM model.apply(id, changes) FROM model.ids(job_ids) id;
	RETURN QUERY SELECT j.* FROM model.ids(job_ids) id, model.job(id) j;
END $$;

CREATE FUNCTION model.oban_update_many_jobs(job_ids bigint[], changes jsonb,
	prefix text DEFAULT NULL)
RETURNS SETOF public.oban_job LANGUAGE sql AS $$
	SELECT * FROM model.oban_update_job(job_ids, changes, prefix)
$$;

CREATE FUNCTION model.oban_update_job(job_id bigint, changes jsonb, prefix text DEFAULT NULL)
RETURNS public.oban_job LANGUAGE sql AS $$
	SELECT u FROM model.oban_update_job(model.one(job_id), changes, prefix) u
$$;

CREATE FUNCTION model.oban_update_job(job record, changes jsonb)
RETURNS public.oban_job LANGUAGE plpgsql AS $$
BEGIN
	IF to_jsonb(job) ->> 'id' IS NULL THEN
		-- No row, no table, and none of its limits but those of all tables.
		PERFORM model.check_changes(changes, CASE WHEN to_jsonb(job) ? 'id' AND NOT to_jsonb(job) ? 'prefix'
			THEN model.most('max_attempts') ELSE 2147483647 END);
		RETURN NULL;
	END IF;
	RETURN model.oban_update_job(model.instance(job), changes);
END $$;

-- ---- update with a callable

-- How the callable is called, of $1 (the id) and $2 (the context).
CREATE FUNCTION model.callable(callable regproc) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	f pg_proc;
	job text;
BEGIN
	IF callable IS NULL THEN
		PERFORM model.refuse('22004');
	END IF;
	SELECT * INTO f FROM pg_proc WHERE oid = callable;
	IF NOT FOUND THEN
		PERFORM model.refuse('42883');
	ELSIF f.prokind <> 'f' OR f.proretset THEN
		PERFORM model.refuse('42809');
	END IF;
	job := CASE f.proargtypes[0]
		WHEN 'public.oban_job'::regtype THEN 'model.job($1)'
		WHEN 'twin.oban_jobs'::regtype THEN '(SELECT j FROM twin.oban_jobs j WHERE id = $1)'
		WHEN 'jsonb'::regtype THEN 'to_jsonb(model.job($1))' END;
	IF job IS NULL OR f.pronargs > 2 OR f.prorettype <> 'jsonb'::regtype
		OR (f.pronargs = 2 AND f.proargtypes[1] <> 'jsonb'::regtype) THEN
		PERFORM model.refuse('42804');
	END IF;
	RETURN format('SELECT %s(%s%s)', callable, job, CASE f.pronargs WHEN 2 THEN ', $2' END);
END $$;

-- Calls the callable for one job that exists, and makes the changes, if there are any.
CREATE FUNCTION model.call_for(query text, job_id bigint, context jsonb) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
	changes jsonb;
BEGIN
	EXECUTE query INTO changes USING job_id, context;
	IF changes IS NOT NULL THEN
		PERFORM model.check_changes(changes, model.most('max_attempts'));
		PERFORM model.apply(job_id, changes);
	END IF;
	RETURN changes <> '{}';
END $$;

CREATE FUNCTION model.oban_update_job_with(job_ids bigint[], callable regproc,
	context jsonb DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS SETOF public.oban_job LANGUAGE plpgsql AS $$
DECLARE
	query text := model.callable(callable);
BEGIN
	PERFORM model.check_prefix(prefix);
	PERFORM model.must_exist(job_ids);
	PERFORM model.call_for(query, id, context) FROM model.ids(job_ids) id;
	RETURN QUERY SELECT j.* FROM model.ids(job_ids) id, model.job(id) j;
END $$;

CREATE FUNCTION model.oban_update_many_jobs_with(job_ids bigint[], callable regproc,
	context jsonb DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS SETOF public.oban_job LANGUAGE sql AS $$
	SELECT * FROM model.oban_update_job_with(job_ids, callable, context, prefix)
$$;

CREATE FUNCTION model.oban_update_job_with(job_id bigint, callable regproc,
	context jsonb DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS public.oban_job LANGUAGE sql AS $$
	SELECT u FROM model.oban_update_job_with(model.one(job_id), callable, context, prefix) u
$$;

CREATE FUNCTION model.oban_update_job_with(job record, callable regproc,
	context jsonb DEFAULT NULL)
RETURNS public.oban_job LANGUAGE plpgsql AS $$
BEGIN
	IF to_jsonb(job) ->> 'id' IS NULL THEN
		PERFORM model.callable(callable);
		RETURN NULL;
	END IF;
	RETURN model.oban_update_job_with(model.instance(job), callable, context);
END $$;
