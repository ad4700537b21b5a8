-- The contract as plain SQL: the procedures that commit after each batch.
--
-- Each batch is the next so many of the jobs that match, as they were found at the start. When a batch
-- fails, those before it stay.

CREATE FUNCTION model.wrong_interval(length interval) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN length IS NULL THEN '22004' WHEN length < '0' THEN '22023' END
$$;

CREATE FUNCTION model.wrong_size(batch_size integer) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN batch_size IS NULL THEN '22004' WHEN batch_size < 1 THEN '22023' END
$$;

-- The ids of one batch after the other.
CREATE FUNCTION model.batches(verb text, filter jsonb, batch_size integer, prefix text)
RETURNS TABLE (ids jsonb) LANGUAGE sql AS $$
	SELECT jsonb_agg(id ORDER BY id)
	FROM unnest(model.find(verb, filter, NULL, prefix)) WITH ORDINALITY f (id, n)
	GROUP BY (n - 1) / batch_size ORDER BY (n - 1) / batch_size
$$;

DO $do$
DECLARE
	verb text;
BEGIN
	FOREACH verb IN ARRAY '{cancel,delete}'::text[] LOOP
		EXECUTE replace($q$
			CREATE PROCEDURE model.oban_VERB_in_batches(filter jsonb, batch_size integer DEFAULT 10000,
				pause interval DEFAULT '0', prefix text DEFAULT NULL, INOUT affected bigint DEFAULT NULL)
			LANGUAGE plpgsql AS $$
			DECLARE
				batches jsonb;
				batch jsonb;
			BEGIN
				PERFORM model.refuse_any(model.wrong_size(batch_size), model.wrong_interval(pause),
					model.wrong_filter(filter));
				affected := 0;
				batches := (SELECT jsonb_agg(ids) FROM model.batches('VERB', filter, batch_size, prefix));
				FOR batch IN SELECT * FROM jsonb_array_elements(batches) LOOP
					affected := affected + model.change_many('VERB', model.numbers(batch), prefix);
					COMMIT;
				END LOOP;
			END $$
		$q$, 'VERB', verb);
	END LOOP;
END $do$;

CREATE PROCEDURE model.oban_update_in_batches(filter jsonb, changes jsonb,
	batch_size integer DEFAULT 10000, pause interval DEFAULT '0', prefix text DEFAULT NULL,
	INOUT affected bigint DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
	batches jsonb;
	batch jsonb;
BEGIN
	PERFORM model.refuse_any(model.wrong_size(batch_size), model.wrong_interval(pause),
		model.wrong_filter(filter), model.wrong_changes(changes));
	affected := 0;
	batches := (SELECT jsonb_agg(ids) FROM model.batches(NULL, filter, batch_size, prefix));
	FOR batch IN SELECT * FROM jsonb_array_elements(batches) LOOP
		PERFORM model.oban_update_job(model.numbers(batch), changes, prefix);
		affected := affected + jsonb_array_length(batch);
		COMMIT;
	END LOOP;
END $$;

-- A retried job's time is spread by its rank in id order among those found at the start.
CREATE PROCEDURE model.oban_retry_in_batches(filter jsonb, batch_size integer DEFAULT 10000,
	pause interval DEFAULT '0', spread interval DEFAULT '0', prefix text DEFAULT NULL,
	INOUT affected bigint DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
	start timestamptz := clock_timestamp();
	batches jsonb;
	batch jsonb;
	total bigint;
	before bigint := 0;
	job_id bigint;
BEGIN
	PERFORM model.refuse_any(model.wrong_size(batch_size), model.wrong_interval(pause),
		model.wrong_interval(spread), model.wrong_filter(filter));
	affected := 0;
	batches := (SELECT jsonb_agg(ids) FROM model.batches('retry', filter, batch_size, prefix));
	total := cardinality(model.numbers(batches));
	COMMIT;
	FOR batch IN SELECT * FROM jsonb_array_elements(batches) LOOP
		FOREACH job_id IN ARRAY model.numbers(batch) LOOP
			affected := affected + model.change('retry', job_id, timezone('UTC',
				start + spread * coalesce(before::float8 / nullif(total - 1, 0), 0)))::integer;
			before := before + 1;
		END LOOP;
		COMMIT;
	END LOOP;
END $$;
