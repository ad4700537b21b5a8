-- What plays inputs within the server, and what they are played on.
--
-- psql variable: schema, that of the jobs table.
CREATE SCHEMA fuzz;

-- A job in each state.
CREATE PROCEDURE fuzz.fill() LANGUAGE plpgsql AS $$
BEGIN
	TRUNCATE jobs.oban_jobs;
	INSERT INTO jobs.oban_jobs (id, state, worker, queue, args, meta, tags, attempt, max_attempts)
	OVERRIDING SYSTEM VALUE
	SELECT n, state, 'App.Worker', 'mail', jsonb_build_object('n', n), '{"uniq_bmp": [1]}', '{a,b}',
		least(n, 3), 3
	FROM unnest(enum_range(NULL::jobs.oban_job_state)) WITH ORDINALITY s(state, n);
END $$;

-- Runs "call" once for each input, which it finds as $1 (text), and takes back what it did. Gives how
-- often each SQLSTATE came, and the first input that came to what must not be: an error of a class
-- that is not allowed, or without a text.
CREATE FUNCTION fuzz.play(call text, inputs text[], allowed text, OUT codes jsonb, OUT bad jsonb)
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
		codes := jsonb_set(codes, ARRAY[code], to_jsonb(coalesce((codes -> code)::bigint, 0) + 1));
		IF code !~ allowed OR message = '' THEN
			bad := jsonb_build_object('call', call, 'input', encode(convert_to(input,
				getdatabaseencoding()), 'escape'), 'code', code, 'message', encode(convert_to(message, getdatabaseencoding()),
					'escape'));
			RETURN;
		END IF;
	END LOOP;
END $$;

-- The memory that the backend holds, in bytes: what PostgreSQL gave out, without the plans that are
-- kept (up to 256, large and small) and its own caches, and what the system counts.
CREATE FUNCTION fuzz.memory(OUT contexts bigint, OUT anonymous bigint) LANGUAGE sql AS $$
	SELECT (SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts
			WHERE name !~ '^(CacheMemoryContext|CachedPlan|SPI Plan|index info|relation rules)'),
		substring(pg_read_file('/proc/self/status') FROM 'RssAnon:\s+(\d+) kB')::bigint * 1024
$$;

-- Every verb with a record, which the SQL makes in a column r.
CREATE FUNCTION fuzz.try_record(records text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format($q$SELECT public.oban_cancel_job(r), public.oban_retry_job(r),
		public.oban_update_job(r, '{"priority": 2}'),
		public.oban_update_job_with(r, 'fuzz.give', '{"tags": []}'),
		public.oban_delete_job(r) FROM (%s) s$q$, records);
END $$;

-- A table whose rows fire what is tried as a trigger.
CREATE TABLE fuzz.app (id integer, job bigint, jobs integer[], word text, at timestamptz);
CREATE FUNCTION fuzz.fire(arguments text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TRIGGER t %s ON fuzz.app %s FOR EACH %s EXECUTE FUNCTION public.%s(%s)',
		arguments[1], arguments[2], arguments[3], arguments[4],
		(SELECT string_agg(quote_literal(a), ', ') FROM unnest(arguments[5:]) a));
	INSERT INTO fuzz.app VALUES (1, 4, '{1,5,99}', 'x', now()), (2, NULL, '{NULL,6}', NULL, NULL);
	UPDATE fuzz.app SET job = job + 1, jobs = jobs || id;
	DELETE FROM fuzz.app;
END $$;

-- Callables that give what they are told to, and some that are none.
CREATE FUNCTION fuzz.give(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN context;
CREATE FUNCTION fuzz.give_row(job jobs.oban_jobs, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN context;
CREATE FUNCTION fuzz.give_json(job jsonb, context jsonb) RETURNS jsonb LANGUAGE sql
	RETURN context;

-- The jobs are not the superuser's to change, and some functions of pg_proc would do harm.
SELECT 'CREATE ROLE regress_oban_fuzz'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'regress_oban_fuzz') \gexec
GRANT USAGE ON SCHEMA fuzz, jobs TO regress_oban_fuzz;
GRANT ALL ON ALL TABLES IN SCHEMA fuzz, jobs TO regress_oban_fuzz;
