-- The contract as plain SQL: what becomes of each job of a call, and calls with a callable by filter.

-- Does an error say that the table refuses the job, and not the whole call?
CREATE FUNCTION model.is_refusal(code text) RETURNS boolean LANGUAGE sql AS $$
	SELECT left(code, 2) IN ('22', '23', '27', '44', 'P0')
$$;

-- What is done to a job: a verb, with changes, or with the query of a callable and its context, for
-- update, and with a time for retry.
CREATE TYPE model.deed AS (verb text, changes jsonb, query text, context jsonb, at timestamp);

-- Does it to one job that exists; says whether the job counts as changed.
CREATE FUNCTION model.do(deed model.deed, job_id bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF deed.verb <> 'update' THEN
		RETURN model.change(deed.verb, job_id, coalesce(deed.at, timezone('UTC', now())));
	ELSIF deed.query IS NOT NULL THEN
		RETURN coalesce(model.call_for(deed.query, job_id, deed.context), false);
	END IF;
	PERFORM model.apply(job_id, deed.changes);
	RETURN true;
END $$;

-- The same, with skip_refused in a subtransaction of the job's own; "refused" is why the table refuses it.
CREATE FUNCTION model.try(deed model.deed, job_id bigint, skip_refused boolean, OUT did boolean,
	OUT refused text) LANGUAGE plpgsql AS $$
BEGIN
	did := model.do(deed, job_id);
EXCEPTION WHEN OTHERS THEN
	IF NOT skip_refused OR NOT model.is_refusal(SQLSTATE) THEN
		RAISE;
	END IF;
	did := false;
	refused := SQLERRM;
END $$;

-- What would become of the job if it were the only one, and no trigger or check of the table there.
CREATE FUNCTION model.try_dry(deed model.deed, job_id bigint, skip_refused boolean, OUT did boolean,
	OUT refused text, OUT state text) LANGUAGE plpgsql AS $$
DECLARE
	t record;
BEGIN
	PERFORM set_config('differ.whims', 'off', true);
	DELETE FROM twin.oban_jobs WHERE id <> job_id;
	BEGIN
		t := model.try(deed, job_id, false);
	EXCEPTION WHEN check_violation OR string_data_right_truncation THEN
		deed.changes := deed.changes - '{queue,worker,tags}'::text[];
		t := model.try(deed, job_id, false);
	WHEN invalid_parameter_value THEN
		-- Too few attempts: not a matter of the table.
		t := model.try(deed, job_id, skip_refused);
	END;
	did := t.did;
	refused := t.refused;
	SELECT j.state INTO state FROM twin.oban_jobs j WHERE id = job_id;
	RAISE SQLSTATE 'DRY00';
EXCEPTION WHEN SQLSTATE 'DRY00' THEN
	NULL;
END $$;

-- Why the arguments that both functions with outcomes have are refused: a SQLSTATE or NULL.
CREATE FUNCTION model.wrong_action(action text, changes jsonb, VARIADIC switches boolean[])
RETURNS text LANGUAGE sql AS $$
	SELECT CASE
		WHEN action IS NULL OR array_position(switches, NULL) IS NOT NULL
			OR (action = 'update' AND changes IS NULL) THEN '22004'
		WHEN action NOT IN ('cancel', 'retry', 'delete', 'update')
			OR (action <> 'update' AND changes IS NOT NULL) THEN '22023'
		WHEN action = 'update' THEN model.wrong_changes(changes) END
$$;

CREATE FUNCTION model.oban_manage_jobs(action text, job_ids bigint[], changes jsonb DEFAULT NULL,
	dry_run boolean DEFAULT false, prefix text DEFAULT NULL, skip_refused boolean DEFAULT false,
	skip_locked boolean DEFAULT false)
RETURNS TABLE (job_id bigint, outcome text, old_state text, new_state text, reason text)
LANGUAGE plpgsql AS $$
DECLARE
	deed model.deed := (action, changes, NULL, NULL, NULL);
	spent boolean;
	refused text;
	t record;
BEGIN
	PERFORM model.check_prefix(prefix);
	PERFORM model.refuse_any(model.wrong_action(action, changes, dry_run, skip_refused, skip_locked));
	FOR job_id IN SELECT * FROM model.ids(job_ids) LOOP
		spent := (SELECT model.is_spent(j) FROM twin.oban_jobs j WHERE id = job_id);
		SELECT state INTO old_state FROM twin.oban_jobs WHERE id = job_id;
		IF old_state IS NULL THEN
			outcome := 'not_found';
			new_state := NULL;
		ELSE
			IF dry_run THEN
				t := model.try_dry(deed, job_id, skip_refused);
				new_state := t.state;
			ELSE
				t := model.try(deed, job_id, skip_refused);
				SELECT state INTO new_state FROM twin.oban_jobs WHERE id = job_id;
			END IF;
			refused := t.refused;
			outcome := CASE WHEN refused IS NOT NULL THEN 'refused' WHEN NOT t.did THEN 'ignored'
				ELSE CASE action WHEN 'cancel' THEN 'cancelled' WHEN 'retry' THEN 'retried'
					WHEN 'delete' THEN 'deleted' ELSE 'updated' END END;
		END IF;
		reason := CASE outcome
			WHEN 'not_found' THEN
				format('schema "%s" has no such job', current_setting('differ.prefix'))
			WHEN 'refused' THEN refused
			WHEN 'updated' THEN 'jobs in any state are updated'
			WHEN 'ignored' THEN CASE
				WHEN action = 'retry' AND spent AND old_state NOT IN ('available', 'executing')
					THEN 'the job has made as many attempts as max_attempts can hold'
				ELSE format(CASE WHEN model.fate(action, old_state) IS NULL
					THEN '%s jobs are not %s'
					ELSE 'a trigger or policy of the table kept the job from being %2$s' END,
					old_state, CASE action
					WHEN 'cancel' THEN 'cancelled' WHEN 'retry' THEN 'retried' ELSE 'deleted' END) END
			ELSE format('%s jobs are %s', old_state, outcome) || CASE WHEN action = 'cancel'
				AND old_state = 'executing' AND model.notifies() AND octet_length(
					current_setting('differ.prefix') || '.oban_signal') < 64
				THEN '; their workers are told'
				ELSE '' END END;
		RETURN NEXT;
	END LOOP;
END $$;

-- The jobs of a filter in any state, max_jobs of them whatever becomes of each.
CREATE FUNCTION model.oban_manage_all_jobs(action text, filter jsonb, changes jsonb DEFAULT NULL,
	max_jobs integer DEFAULT NULL, dry_run boolean DEFAULT false, skip_refused boolean DEFAULT false,
	skip_locked boolean DEFAULT false, prefix text DEFAULT NULL)
RETURNS TABLE (job_id bigint, outcome text, old_state text, new_state text, reason text)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM model.check_prefix(prefix);
	PERFORM model.refuse_any(
		model.wrong_action(action, changes, dry_run, skip_refused, skip_locked),
		model.wrong_filter(filter), CASE WHEN max_jobs < 0 THEN '22023' END);
	RETURN QUERY SELECT * FROM model.oban_manage_jobs(action, model.find(NULL, filter, max_jobs, prefix),
		changes, dry_run, prefix, skip_refused, skip_locked);
END $$;

CREATE FUNCTION model.oban_update_all_jobs_with(filter jsonb, callable regproc,
	context jsonb DEFAULT NULL, max_jobs integer DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	deed model.deed;
BEGIN
	PERFORM model.check_prefix(prefix);
	PERFORM model.refuse_any(model.wrong_filter(filter));
	deed := ('update', NULL, model.callable(callable), context, NULL);
	RETURN (SELECT count(*) FILTER (WHERE model.do(deed, id))
		FROM unnest(model.find(NULL, filter, max_jobs, prefix)) id);
END $$;
