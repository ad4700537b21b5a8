-- The contract as plain SQL: filters and what is done by them.

-- Refuses what is no filter.
CREATE FUNCTION model.check_filter(filter jsonb, depth integer DEFAULT 1) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	c record;
	elements jsonb;
	fits boolean;
BEGIN
	IF filter IS NULL THEN
		PERFORM model.refuse('22004');
	ELSIF jsonb_typeof(filter) <> 'object' OR filter = '{}' THEN
		PERFORM model.refuse('22023');
	END IF;
	FOR c IN SELECT key, value, jsonb_typeof(value) AS type FROM jsonb_each(filter) LOOP
		elements := CASE c.type WHEN 'array' THEN c.value ELSE jsonb_build_array(c.value) END;
		fits := elements <> '[]' AND CASE
			WHEN c.key IN ('id', 'priority', 'attempt', 'max_attempts') THEN
				(SELECT bool_and(model.is_whole(e) OR c.key = 'id' AND jsonb_typeof(e) = 'string'
					AND e #>> '{}' ~ '^[0-9]+$') FROM jsonb_array_elements(elements) e)
			WHEN c.key IN ('queue', 'worker') THEN
				(SELECT bool_and(jsonb_typeof(e) = 'string') FROM jsonb_array_elements(elements) e)
			WHEN c.key = 'state' THEN
				(SELECT bool_and(jsonb_typeof(e) = 'string' AND e #>> '{}' = ANY
						(enum_range((SELECT state FROM twin.oban_jobs WHERE false))::text[]))
				 FROM jsonb_array_elements(elements) e)
			WHEN c.key IN ('args', 'meta') THEN c.type = 'object' AND c.value <> '{}'
			WHEN c.key IN ('tags', 'attempted_by') THEN
				(SELECT bool_and(jsonb_typeof(e) = 'string' AND NOT model.is_blank(e #>> '{}'))
				 FROM jsonb_array_elements(elements) e)
			WHEN c.key = 'error' THEN c.type = 'string' AND c.value <> '""'
			WHEN c.key = 'not' THEN c.type = 'object' AND c.value <> '{}' AND depth < 3
			WHEN c.key IN ('inserted_at', 'scheduled_at', 'attempted_at', 'completed_at',
					'cancelled_at', 'discarded_at') THEN
				CASE WHEN c.type = 'object' THEN c.value <> '{}' AND (SELECT
						bool_and(key IN ('after', 'before') AND model.time(value) IS NOT NULL)
					FROM jsonb_each(c.value)) ELSE false END
			ELSE c.key = 'all' AND c.value = 'true'
		END;
		IF NOT fits THEN
			PERFORM model.refuse(CASE WHEN c.key LIKE '%\_at' THEN '22000' ELSE '22023' END);
		ELSIF c.key = 'not' THEN
			PERFORM model.check_filter(c.value, depth + 1);
		END IF;
	END LOOP;
END $$;

-- Does a job have what a good filter asks for?
CREATE FUNCTION model.matches(job twin.oban_jobs, filter jsonb) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
	fields jsonb := to_jsonb(job);
	c record;
	at timestamp;
	named text[];
	matches boolean;
BEGIN
	FOR c IN SELECT key, value, jsonb_typeof(value) AS type FROM jsonb_each(filter) LOOP
		IF c.key = 'all' THEN
			CONTINUE;
		ELSIF c.key IN ('args', 'meta') THEN
			matches := fields -> c.key @> c.value;
		ELSIF c.key IN ('tags', 'attempted_by') THEN
			named := ARRAY(SELECT jsonb_array_elements_text(CASE c.type WHEN 'array' THEN c.value
				ELSE jsonb_build_array(c.value) END));
			matches := CASE c.key WHEN 'tags' THEN job.tags::text[] @> named
				ELSE job.attempted_by::text[] && named END;
		ELSIF c.key = 'error' THEN
			matches := EXISTS (SELECT FROM jsonb_array_elements(to_jsonb(job.errors)) e
				WHERE position(c.value #>> '{}' IN coalesce(e ->> 'error', e #>> '{}')) > 0);
		ELSIF c.key = 'not' THEN
			matches := NOT model.matches(job, c.value);
		ELSIF c.type = 'object' THEN
			at := (fields ->> c.key)::timestamp;
			matches := at IS NOT NULL
				AND (NOT c.value ? 'after' OR at >= model.time(c.value -> 'after'))
				AND (NOT c.value ? 'before' OR at < model.time(c.value -> 'before'));
		ELSE
			-- jsonb compares its numbers as numbers.
			matches := fields -> c.key IN (SELECT CASE WHEN c.key = 'id'
					THEN (e #>> '{}')::numeric::text::jsonb ELSE e END
				FROM jsonb_array_elements(CASE c.type WHEN 'array' THEN c.value
					ELSE jsonb_build_array(c.value) END) e);
		END IF;
		IF matches IS NOT TRUE THEN
			RETURN false;
		END IF;
	END LOOP;
	RETURN true;
END $$;

-- Why changes, or a filter with its limit, are refused: a SQLSTATE or NULL.
CREATE FUNCTION model.wrong_changes(changes jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM model.check_changes(changes, model.most('max_attempts'));
	RETURN NULL;
EXCEPTION WHEN data_exception THEN
	RETURN SQLSTATE;
END $$;

CREATE FUNCTION model.wrong_filter(filter jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM model.check_filter(filter);
	RETURN NULL;
EXCEPTION WHEN data_exception THEN
	RETURN SQLSTATE;
END $$;

-- The ids that match, the lowest first; of those that a verb changes, when one is given.
CREATE FUNCTION model.find(verb text, filter jsonb, max_jobs integer, prefix text)
RETURNS bigint[] LANGUAGE plpgsql AS $$
BEGIN
	PERFORM model.check_prefix(prefix);
	PERFORM model.refuse_any(model.wrong_filter(filter), CASE WHEN max_jobs < 0 THEN '22023' END);
	RETURN ARRAY(
		SELECT j.id FROM twin.oban_jobs j JOIN model.fates f ON f.state = j.state::text
		WHERE model.matches(j, filter) AND CASE verb WHEN 'cancel' THEN f.cancel IS NOT NULL
			WHEN 'retry' THEN f.retry IS NOT NULL AND NOT model.is_spent(j) WHEN 'delete' THEN f.delete IS NOT NULL
			ELSE true END
		ORDER BY j.id LIMIT max_jobs);
END $$;

CREATE FUNCTION model.oban_all_jobs(filter jsonb, max_jobs integer DEFAULT NULL,
	prefix text DEFAULT NULL)
RETURNS SETOF public.oban_job LANGUAGE sql AS $$
	SELECT j.* FROM unnest(model.find(NULL, filter, max_jobs, prefix)) id, model.job(id) j
$$;

DO $do$
DECLARE
	verb text;
BEGIN
	FOREACH verb IN ARRAY '{cancel,retry,delete}'::text[] LOOP
		EXECUTE model.with_time(verb, replace($q$
			CREATE FUNCTION model.oban_VERB_all_jobs(filter jsonb, max_jobs integer DEFAULT NULL,
				prefix text DEFAULT NULL, PARAMETER) RETURNS bigint LANGUAGE sql AS $$
				SELECT model.change_many('VERB', model.find('VERB', filter, max_jobs, prefix),
					current_setting('differ.prefix'), TIME)::bigint $$;
		$q$, 'VERB', verb));
	END LOOP;
END $do$;

CREATE FUNCTION model.oban_update_all_jobs(filter jsonb, changes jsonb,
	max_jobs integer DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	job_ids bigint[];
BEGIN
	PERFORM model.check_prefix(prefix);
	PERFORM model.refuse_any(model.wrong_filter(filter), model.wrong_changes(changes),
		CASE WHEN max_jobs < 0 THEN '22023' END);
	job_ids := model.find(NULL, filter, max_jobs, prefix);
	PERFORM model.check_attempts(job_ids, changes);
	PERFORM model.apply(id, changes) FROM unnest(job_ids) id;
	RETURN cardinality(job_ids);
END $$;
