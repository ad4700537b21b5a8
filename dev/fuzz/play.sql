-- What plays inputs within the server, and what they are played on.
CREATE SCHEMA fuzz;

-- A job in each state. TRUNCATE would take ten times as long.
CREATE PROCEDURE fuzz.fill() LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM jobs.oban_jobs;
	INSERT INTO jobs.oban_jobs (id, state, worker, queue, args, meta, tags, attempt, max_attempts)
	OVERRIDING SYSTEM VALUE
	SELECT n, state, 'App.Worker', 'mail', jsonb_build_object('n', n), '{"uniq_bmp": [1]}', '{a,b}',
		CASE n WHEN 7 THEN 32767 ELSE least(n, 3) END, CASE n WHEN 7 THEN 32767 ELSE 3 END
	FROM unnest(enum_range(NULL::jobs.oban_job_state)) WITH ORDINALITY s(state, n);
END $$;

-- Very many of them, runnable, so that nobody is told of each.
CREATE PROCEDURE fuzz.fill(jobs bigint) LANGUAGE sql AS $$
	TRUNCATE jobs.oban_jobs;
	INSERT INTO jobs.oban_jobs (id, worker, queue, args)
	OVERRIDING SYSTEM VALUE
	SELECT n, 'App.Worker', 'mail', '{"n": 1}' FROM generate_series(1, jobs) n;
	ANALYZE jobs.oban_jobs;
$$;

-- A job that keeps its state, whatever is done to it.
CREATE FUNCTION fuzz.keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.state := OLD.state;
	RETURN NEW;
END $$;
CREATE TRIGGER keep BEFORE UPDATE ON jobs.oban_jobs FOR EACH ROW WHEN (OLD.id = 5)
	EXECUTE FUNCTION fuzz.keep();

-- Some jobs are refused in some queue, after they were written.
CREATE FUNCTION fuzz.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE check_violation USING MESSAGE = 'refused';
END $$;
CREATE TRIGGER refuse AFTER UPDATE OF queue ON jobs.oban_jobs FOR EACH ROW
	WHEN (NEW.queue = 'other' AND NEW.id % 3 = 0) EXECUTE FUNCTION fuzz.refuse();

-- Runs "call" once for each input, which it finds as $1 (text), and takes back what it did. Gives how
-- often each SQLSTATE came, and the first input that came to what must not be: an error that is not
-- allowed, or without a text. An input that fails in the same way without the call, while "conversion"
-- makes of it what the call takes, has not reached the extension and counts as refused.
CREATE FUNCTION fuzz.play(call text, conversion text, inputs text[], allowed text, OUT codes jsonb,
	OUT bad jsonb)
LANGUAGE plpgsql AS $$
DECLARE
	input text;
	code text;
	message text;
BEGIN
	codes := '{}';
	FOREACH input IN ARRAY inputs LOOP
		BEGIN
			EXECUTE call USING input;
			RAISE SQLSTATE 'FUZZ0' USING MESSAGE = 'taken back';
		EXCEPTION WHEN OTHERS OR ASSERT_FAILURE THEN
			code := SQLSTATE;
			message := SQLERRM;
		END;
		IF code <> 'FUZZ0' THEN
			BEGIN
				EXECUTE 'SELECT ' || conversion USING input;
				RAISE SQLSTATE 'FUZZ0';
			EXCEPTION WHEN OTHERS THEN
				IF SQLSTATE = code THEN
					code := 'refused';
				END IF;
			END;
		END IF;
		codes := jsonb_set(codes, ARRAY[code], to_jsonb(coalesce((codes -> code)::bigint, 0) + 1));
		IF code !~ allowed OR message = '' THEN
			bad := jsonb_build_object('call', call, 'code', code,
				'input', encode(convert_to(input, getdatabaseencoding()), 'escape'),
				'message', encode(convert_to(message, getdatabaseencoding()), 'escape'));
			RETURN;
		END IF;
	END LOOP;
END $$;

-- The memory that the backend holds: what PostgreSQL gave out, without its caches and the plans that
-- are kept (up to 256, large and small); what is in its caches themselves, where a plan's own entry is,
-- too; how many contexts there are; and what the system counts. In bytes, but for the contexts.
CREATE FUNCTION fuzz.memory(OUT contexts bigint, OUT caches bigint, OUT number bigint,
	OUT process bigint)
LANGUAGE sql AS $$
	SELECT sum(total_bytes) FILTER (
			WHERE name !~ '^(CacheMemoryContext|CachedPlan|SPI Plan|index info|relation rules)'),
		sum(used_bytes) FILTER (WHERE name = 'CacheMemoryContext'),
		count(*),
		substring(pg_read_file('/proc/self/status') FROM 'RssAnon:\s+(\d+) kB')::bigint * 1024
	FROM pg_backend_memory_contexts
$$;

-- A text of any bytes, from its hex.
CREATE FUNCTION fuzz.text_of(hex text) RETURNS text LANGUAGE sql
	RETURN convert_from(decode(hex, 'hex'), getdatabaseencoding());

-- The row that the SQL makes in a column r.
CREATE FUNCTION fuzz.make_record(records text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT count(r) FROM (%s) s', records);
END $$;

-- Every verb with it.
CREATE FUNCTION fuzz.try_record(records text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format($q$SELECT public.oban_cancel_job(r), public.oban_retry_job(r),
		public.oban_update_job(r, '{"priority": 2}'),
		public.oban_update_job_with(r, 'callables.give', '{"tags": []}'),
		public.oban_delete_job(r) FROM (%s) s$q$, records);
END $$;

-- A table whose rows fire what is tried as a trigger.
CREATE TABLE fuzz.app (id integer, job bigint, jobs integer[], word text, at timestamptz);
CREATE FUNCTION fuzz.make_trigger(arguments text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TRIGGER t %s ON fuzz.app %s FOR EACH %s EXECUTE FUNCTION public.%s(%s)',
		arguments[1], arguments[2], arguments[3], arguments[4],
		(SELECT string_agg(quote_literal(a), ', ') FROM unnest(arguments[5:]) a));
END $$;
CREATE FUNCTION fuzz.fire(arguments text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM fuzz.make_trigger(arguments);
	INSERT INTO fuzz.app VALUES (1, 4, '{1,5,99}', 'x', now()), (2, NULL, '{NULL,6}', NULL, NULL);
	UPDATE fuzz.app SET job = job + 1, jobs = jobs || id;
	DELETE FROM fuzz.app;
	TRUNCATE fuzz.app;
END $$;

-- The jobs in a schema of that name. The owner of the schema renames it, another calls.
CREATE FUNCTION fuzz.rename(name text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	EXECUTE format('ALTER SCHEMA jobs RENAME TO %I', name);
END $$;
CREATE FUNCTION fuzz.try_schema(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM fuzz.rename(name);
	ASSERT (SELECT j.prefix FROM public.oban_get_job(1, name) j) = name;
	ASSERT public.oban_cancel_job(1, name);
	ASSERT public.oban_job_cancelled(1, name);
	ASSERT public.oban_retry_many_jobs('{1,2}', name) > 0;
	ASSERT (SELECT count(*) FROM public.oban_update_many_jobs('{1,2}', '{"priority": 1}', name)) = 2;
	ASSERT public.oban_update_all_jobs('{"priority": 1}', '{"schedule_in": 9}', NULL, name) = 2;
	ASSERT public.oban_update_all_jobs_with('{"priority": 1}', 'callables.give', '{"tags": ["t"]}',
		NULL, name) = 2;
	ASSERT (SELECT count(*) FROM public.oban_manage_all_jobs('update', '{"tags": "t"}',
		'{"queue": "other"}', skip_refused => true, prefix => name)) = 2;
	ASSERT (SELECT count(*) FROM public.oban_update_many_jobs_with('{1,2}', 'callables.give',
		'{"queue": "x"}', name) j WHERE j.prefix = name) = 2;

	PERFORM set_config('oban_manage.prefix', name, true);
	ASSERT (SELECT count(*) FROM public.oban_all_jobs('{"queue": "x"}') j WHERE j.prefix = name) = 2;
	ASSERT (public.oban_update_job_with(1, 'callables.give_row', '{"queue": "y"}')).queue = 'y';
	ASSERT (public.oban_update_job_with(2, 'callables.give_json', '{"queue": "y"}')).queue = 'y';
	ASSERT (SELECT count(*) FROM public.oban_manage_jobs('retry', '{1,99}')) = 2;
	EXECUTE format('SELECT public.oban_cancel_job(j),
		public.oban_update_job_with(j, ''callables.give_row'', ''{}'') FROM %I.oban_jobs j', name);
	ASSERT public.oban_delete_all_jobs('{"all": true}', 3) = 3;
END $$;

-- Callables that give what they are told to, of each kind that there is, and some that are none.
CREATE SCHEMA callables;
CREATE DOMAIN callables.changes AS jsonb CHECK (VALUE <> '[]');
CREATE FUNCTION callables.give(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN context;
CREATE FUNCTION callables.give_row(job jobs.oban_jobs, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN context;
CREATE FUNCTION callables.give_json(job jsonb, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN context;
-- Each job other columns
CREATE FUNCTION callables.some(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN CASE jsonb_typeof(context) WHEN 'object'
		THEN context - (ARRAY['args', 'queue', 'tags', 'schedule_in'])[job.id] ELSE context END;
CREATE FUNCTION callables.one(job oban_job) RETURNS jsonb LANGUAGE sql
	RETURN jsonb_build_object('meta', job.args, 'tags', job.tags, 'scheduled_at', job.inserted_at);
CREATE FUNCTION callables.one_row(job jobs.oban_jobs) RETURNS jsonb LANGUAGE sql
	RETURN jsonb_build_object('priority', job.id, 'args', job.meta);
CREATE FUNCTION callables.one_json(job jsonb) RETURNS jsonb LANGUAGE sql
	RETURN CASE WHEN job ->> 'state' <> 'available' THEN jsonb_build_object('args', job) END;
CREATE FUNCTION callables.strict(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql STRICT
	RETURN context;
CREATE FUNCTION callables.with_default(job oban_job, context jsonb DEFAULT '{"priority": 3}')
	RETURNS jsonb LANGUAGE sql RETURN context;
CREATE FUNCTION callables.with_variadic(job oban_job, VARIADIC contexts jsonb[]) RETURNS jsonb
	LANGUAGE sql RETURN contexts[1];
CREATE FUNCTION callables.with_out(job jsonb, context jsonb, OUT changes jsonb) LANGUAGE sql
	RETURN context;
CREATE FUNCTION callables.with_outs(job jsonb, OUT changes jsonb, OUT more jsonb) LANGUAGE sql
	AS 'SELECT job, job';
CREATE FUNCTION callables.of_any(job anyelement, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS
	'BEGIN RETURN context; END';
CREATE FUNCTION callables.any_of_any(job anyelement) RETURNS anyelement LANGUAGE plpgsql AS
	'BEGIN RETURN job; END';
CREATE FUNCTION callables.gives_domain(job oban_job, context jsonb) RETURNS callables.changes
	LANGUAGE plpgsql AS 'BEGIN RETURN context; END';
CREATE FUNCTION callables.gives_set(job oban_job, context jsonb) RETURNS SETOF jsonb
	LANGUAGE sql RETURN context;
CREATE FUNCTION callables.definer(job oban_job, context jsonb) RETURNS jsonb
	LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_temp AS 'BEGIN RETURN context; END';
CREATE FUNCTION callables.writes(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	UPDATE jobs.oban_jobs j SET priority = 8 WHERE j.id >= job.id;
	RETURN context;
END $$;
CREATE FUNCTION callables.deletes(job jobs.oban_jobs, context jsonb) RETURNS jsonb
	LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM jobs.oban_jobs j WHERE j.id = job.id;
	RETURN context;
END $$;
CREATE FUNCTION callables.nests(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.oban_retry_job(job.id), public.oban_update_job_with(2, 'callables.give', context);
	RETURN context;
END $$;
CREATE FUNCTION callables.raises(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF job.id > 1 THEN
		RAISE SQLSTATE 'FUZZ1' USING MESSAGE = context;
	END IF;
	RETURN context;
END $$;
CREATE FUNCTION callables.recovers(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN callables.nests(job, context);
EXCEPTION WHEN OTHERS THEN
	RETURN '{}';
END $$;
CREATE PROCEDURE callables.procedure(job oban_job, context jsonb) LANGUAGE sql AS '';
CREATE AGGREGATE callables.aggregate(jsonb) (SFUNC = jsonb_concat, STYPE = jsonb);
CREATE FUNCTION callables.window(jsonb) RETURNS jsonb
	LANGUAGE internal WINDOW AS 'window_first_value';

-- The jobs are not the superuser's to change, and some functions of pg_proc would do harm.
SELECT 'CREATE ROLE regress_oban_fuzz'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'regress_oban_fuzz') \gexec
GRANT USAGE ON SCHEMA fuzz, jobs, callables TO regress_oban_fuzz;
GRANT ALL ON ALL TABLES IN SCHEMA fuzz, jobs TO regress_oban_fuzz;
