-- The contract as plain SQL: the procedures that commit after each batch.
--
-- Each batch is the next so many of the jobs that match, as they were found at the start. When a batch
-- fails, those before it stay. With skip_refused, each job has a subtransaction of its own.

CREATE FUNCTION model.wrong_interval(length interval) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN length IS NULL THEN '22004' WHEN length < '0' THEN '22023' END
$$;

CREATE FUNCTION model.wrong_size(batch_size integer) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN batch_size IS NULL THEN '22004' WHEN batch_size < 1 THEN '22023' END
$$;

-- Warns of the jobs that the table has refused: of the first ten by name.
CREATE FUNCTION model.warn_of_refused(refused text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF cardinality(refused) > 0 THEN
		RAISE WARNING USING MESSAGE = CASE cardinality(refused) WHEN 1 THEN '1 job was'
			ELSE cardinality(refused) || ' jobs were' END || ' refused by the table';
	END IF;
END $$;

-- The query of a deed is the oid of the callable still. A retried job's time is spread by its rank in id order among those found at the start.
CREATE PROCEDURE model.run_batches(deed model.deed, filter jsonb, batch_size integer, pause interval,
	spread interval, max_jobs bigint, skip_refused boolean, skip_locked boolean, prefix text,
	INOUT affected bigint)
LANGUAGE plpgsql AS $$
DECLARE
	start timestamptz := clock_timestamp();
	ids bigint[];
	batch bigint[];
	before bigint := 0;
	refused text[] := '{}';
	named integer := 0;
	changed bigint;
	job_id bigint;
	t record;
BEGIN
	PERFORM model.refuse_any(model.wrong_size(batch_size), model.wrong_interval(pause),
		model.wrong_interval(spread), model.wrong_filter(filter),
		CASE WHEN skip_refused IS NULL OR skip_locked IS NULL THEN '22004' END,
		CASE WHEN max_jobs < 1 THEN '22023' END,
		CASE WHEN deed.verb = 'update' AND deed.query IS NULL THEN model.wrong_changes(deed.changes) END);
	IF deed.query IS NOT NULL THEN
		deed.query := model.callable(deed.query::oid::regproc);
	END IF;
	affected := 0;
	ids := model.find(nullif(deed.verb, 'update'), filter, NULL, prefix);
	COMMIT;
	WHILE before < cardinality(ids) AND affected < coalesce(max_jobs, affected + 1) LOOP
		batch := ids[before + 1:before + least(batch_size, max_jobs - affected)];
		changed := 0;
		IF skip_refused THEN
			SET CONSTRAINTS ALL IMMEDIATE;
		ELSIF deed.verb = 'update' AND deed.query IS NULL THEN
			PERFORM model.check_attempts(batch, deed.changes);
		END IF;
		FOREACH job_id IN ARRAY batch LOOP
			deed.at := timezone('UTC', start + spread
				* coalesce(before::float8 / nullif(cardinality(ids) - 1, 0), 0));
			t := model.try(deed, job_id, skip_refused);
			changed := changed + t.did::integer;
			IF t.refused IS NOT NULL THEN
				refused := refused || format('job %s was refused: %s', job_id, t.refused);
			END IF;
			before := before + 1;
		END LOOP;
		COMMIT;
		affected := affected + changed;
		WHILE named < least(cardinality(refused), 10) LOOP
			named := named + 1;
			RAISE WARNING USING MESSAGE = refused[named];
		END LOOP;
	END LOOP;
	PERFORM model.warn_of_refused(refused);
END $$;

DO $do$
DECLARE
	form text[];
BEGIN
	-- What comes after the filter, the deed, and what comes after the pause
	FOREACH form SLICE 1 IN ARRAY ARRAY[
		['cancel_in_batches', '', $$'cancel', NULL, NULL, NULL, NULL$$, ''],
		['delete_in_batches', '', $$'delete', NULL, NULL, NULL, NULL$$, ''],
		['retry_in_batches', '', $$'retry', NULL, NULL, NULL, NULL$$, $$spread interval DEFAULT '0',$$],
		['update_in_batches', 'changes jsonb,', $$'update', changes, NULL, NULL, NULL$$, ''],
		['update_in_batches_with', 'callable regproc, context jsonb DEFAULT NULL,',
			$$'update', NULL, callable::oid::text, context, NULL$$, '']] LOOP
		EXECUTE format($q$
			CREATE PROCEDURE model.oban_%s(filter jsonb, %s batch_size integer DEFAULT 10000,
				pause interval DEFAULT '0', %s max_jobs bigint DEFAULT NULL,
				skip_refused boolean DEFAULT false, skip_locked boolean DEFAULT false,
				prefix text DEFAULT NULL, INOUT affected bigint DEFAULT NULL)
			LANGUAGE plpgsql AS $$
			DECLARE
				deed model.deed;
			BEGIN
				deed := (%s);
				CALL model.run_batches(deed, filter, batch_size, pause, %s, max_jobs, skip_refused,
					skip_locked, prefix, affected);
			END $$
		$q$, form[1], form[2], form[4], form[3],
			CASE form[1] WHEN 'retry_in_batches' THEN 'spread' ELSE $$interval '0'$$ END);
	END LOOP;
END $do$;
