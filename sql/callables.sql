-- Updating with a callable: every form with every kind of argument on three dialects, whole rows
-- compared; what a callable is given; NULL and {}; order; all or none; jobs that change different
-- columns; several batches; results.
--
-- It fails, among others, when columns that a job does not name are not kept, when a schedule that
-- it does not name moves its state, when there is one batch only, when jobs without changes are
-- left out of the result, and when a function that was replaced is called as it was.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
-- What the callables of the matrix do: note what they were given, and return changes that depend on
-- it. Which ones says a setting, for a callable without a context has nothing else to go by.
CREATE TABLE tools.keys (key text);
INSERT INTO tools.keys VALUES ('tags'), ('every key'), ('with schedule_in'), ('nothing'), ('NULL');
CREATE FUNCTION tools.changes_of(job jsonb, key text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT CASE key
		WHEN 'NULL' THEN NULL
		WHEN 'nothing' THEN '{}'
		WHEN 'every key' THEN f || jsonb '{"scheduled_at": "2098-02-03T04:05:06Z"}'
		WHEN 'with schedule_in' THEN f || jsonb '{"schedule_in": 3600}'
		ELSE jsonb_build_object(key, f -> key)
	END
	FROM (SELECT jsonb_build_object(
		'args', job -> 'args' || jsonb_build_object('id', job -> 'id'),
		'meta', job -> 'meta' || jsonb_build_object('was', job -> 'state'),
		'tags', job -> 'tags' || jsonb '["Processed ", "b"]',
		'priority', (job ->> 'priority')::integer + 1,
		'queue', job ->> 'queue' || '-x',
		'worker', job ->> 'worker' || '.New',
		'max_attempts', (job ->> 'max_attempts')::integer + 1) AS f) c
$$;
CREATE TABLE tools.given (n serial, kind text, job jsonb, context jsonb);
CREATE FUNCTION tools.note(kind text, job jsonb, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tools.given (kind, job, context) VALUES (kind, job, context);
	RETURN tools.changes_of(job, current_setting('tools.key'));
END $$;

-- The kinds of argument, in SQL and in PL/pgSQL. The row type is of the table's own schema.
CREATE FUNCTION tools.change(job oban_job) RETURNS jsonb LANGUAGE sql AS
	$$SELECT tools.note('oban_job', to_jsonb(job), NULL)$$;
CREATE FUNCTION tools.change(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS
	$$BEGIN RETURN tools.note('oban_job', to_jsonb(job), context); END$$;
CREATE FUNCTION tools.change(job jsonb) RETURNS jsonb LANGUAGE plpgsql AS
	$$BEGIN RETURN tools.note('jsonb', job, NULL); END$$;
CREATE FUNCTION tools.change(job jsonb, context jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT tools.note('jsonb', job, context)$$;
SELECT format($q$
	CREATE FUNCTION tools.change(job %1$I.oban_jobs) RETURNS jsonb LANGUAGE plpgsql AS
		$f$BEGIN RETURN tools.note('row', to_jsonb(job), NULL); END$f$;
	CREATE FUNCTION tools.change(job %1$I.oban_jobs, context jsonb) RETURNS jsonb LANGUAGE sql AS
		$f$SELECT tools.note('row', to_jsonb(job), context)$f$$q$, p)
FROM unnest('{ex9,ex14,py}'::text[]) p \gexec
CREATE TABLE tools.kinds (kind text, arguments text, context jsonb);
INSERT INTO tools.kinds VALUES
	('oban_job', 'oban_job', NULL),
	('oban_job', 'oban_job,jsonb', '{"with": [1, null]}'),
	('row', 'P.oban_jobs', NULL),
	('row', 'P.oban_jobs,jsonb', '{"with": [1, null]}'),
	('jsonb', 'jsonb', NULL),
	('jsonb', 'jsonb,jsonb', '{"with": [1, null]}');

CREATE TABLE tools.forms (form text, call text);
INSERT INTO tools.forms VALUES
	('id', 'oban_update_job_with(N, C, X, %1$L) u'),
	('row', 'P.oban_jobs j, oban_update_job_with(j, C, X) u WHERE j.id = N'),
	('oban_job', 'oban_update_job_with(oban_get_job(N, %1$L), C, X) u'),
	('array', 'oban_update_job_with(ARRAY[N]::bigint[], C, X, %1$L) u'),
	('many_jobs', 'oban_update_many_jobs_with(''{N}'', C, X, %1$L) u');

-- Updates each job of a table with each callable in every form, each update undone afterwards, and
-- says what differs from the contract: in the table, in what is returned, and in what the callable
-- was given; a NULL mismatch is as promised.
CREATE FUNCTION tools.check_callables(prefix text, OUT form text, OUT kind text,
	OUT context boolean,
	OUT state text, OUT key text, OUT mismatch text) RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
	before jsonb;
	wanted jsonb;
	stored jsonb;
	given jsonb;
	result jsonb;
	f record;
BEGIN
	CALL tools.make_jobs(prefix);
	before := tools.rows(prefix);
	FOR f IN
		SELECT j.id, j.state, s.key, k.kind, k.context, m.form,
			format(replace(replace(replace(replace(m.call, 'N', j.id::text),
				'C', quote_literal('tools.change(' || k.arguments || ')') || '::regprocedure'),
				'X', quote_nullable(k.context)), 'P.', prefix || '.'), prefix) AS call
		FROM tools.model j, tools.keys s, tools.kinds k, tools.forms m WHERE before ? j.id::text
	LOOP
		PERFORM set_config('tools.key', f.key, true);
		stored := coalesce(tools.changes_of(before -> f.id::text, f.key), '{}');
		IF stored ? 'tags' THEN
			stored := stored || jsonb '{"tags": ["a", "b", "processed"]}';
		END IF;
		IF stored ?| '{scheduled_at,schedule_in}' THEN
			stored := stored - 'schedule_in' || jsonb_build_object('scheduled_at',
				CASE f.key WHEN 'every key' THEN timestamp '2098-02-03 04:05:06'
					ELSE timezone('UTC', now()) + interval '1 hour' END)
				|| CASE f.state WHEN 'available' THEN jsonb '{"state": "scheduled"}'
					ELSE '{}' END;
		END IF;
		wanted := before || jsonb_build_object(f.id, before -> f.id::text || stored);
		given := CASE f.kind WHEN 'row' THEN before -> f.id::text
			ELSE to_jsonb(oban_get_job(f.id, prefix)) END;
		BEGIN
			EXECUTE 'SELECT to_jsonb(u) FROM ' || f.call INTO STRICT result;
			mismatch := nullif(concat_ws('; ',
				tools.difference(tools.rows(prefix), wanted),
				'result: ' || tools.difference(jsonb_build_object('', result),
					jsonb_build_object('', to_jsonb(oban_get_job(f.id, prefix)))),
				(SELECT nullif(concat_ws('; ',
						'called ' || nullif(count(*), 1) || ' times',
						'given: ' || tools.difference(jsonb_build_object('',
						min(g.job::text)::jsonb),
							jsonb_build_object('', given)),
						'context: ' || min(g.context::text) FILTER
							(WHERE g.context IS DISTINCT FROM f.context),
						'kind: ' || min(g.kind) FILTER (WHERE g.kind <> f.kind)), '')
					FROM tools.given g)), '');
			RAISE EXCEPTION USING ERRCODE = 'P0099';
		EXCEPTION WHEN SQLSTATE 'P0099' THEN
			NULL;
		END;
		form := f.form;
		kind := f.kind;
		context := f.context IS NOT NULL;
		state := f.state;
		key := f.key;
		RETURN NEXT;
	END LOOP;
END $$;
\set ECHO all

CREATE TABLE tools.cells AS
SELECT prefix, c.* FROM unnest('{ex9,ex14,py}'::text[]) prefix, tools.check_callables(prefix) c;
SELECT prefix, kind, context, count(*) AS cells, count(DISTINCT form) AS forms,
	count(mismatch) AS mismatches
FROM tools.cells GROUP BY prefix, kind, context ORDER BY prefix, kind, context;
SELECT * FROM tools.cells WHERE mismatch IS NOT NULL
ORDER BY prefix, kind, context, form, state, key LIMIT 20;

-- managing-jobs.md's own examples: append to the tags, merge into meta, many jobs with what the
-- closure holds; by id and by a job instance.
CREATE FUNCTION tools.processed(job oban_job) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('tags', job.tags || 'processed'::text)$$;
CREATE FUNCTION tools.reviewed(job py.oban_jobs) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('meta', job.meta || jsonb_build_object('reviewed_at',
		timezone('UTC', now())))$$;
CREATE FUNCTION tools.in_batch(job jsonb, context jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('meta', job -> 'meta' || context)$$;
CALL tools.make_jobs('py');
SET oban_manage.prefix = 'py';
SELECT tags FROM oban_update_job_with(1, 'tools.processed');
SELECT updated.tags
FROM py.oban_jobs job, oban_update_job_with(job, 'tools.processed') updated WHERE job.id = 2;
BEGIN;
SELECT meta - 'reviewed_at' AS meta,
	(meta ->> 'reviewed_at')::timestamp = timezone('UTC', now()) AS now
FROM oban_update_job_with(1, 'tools.reviewed');
COMMIT;
SELECT id, meta FROM oban_update_many_jobs_with('{2,3,4}', 'tools.in_batch', '{"batch_id": 7}');
SELECT id, meta - 'reviewed_at' AS meta, tags FROM py.oban_jobs WHERE id < 5 ORDER BY id;
RESET oban_manage.prefix;

-- The prefix: argument, the job's own, the setting, and public when nothing says it.
CALL tools.make_jobs('ex9', 'ex14', 'py');
SELECT prefix, tags FROM oban_update_job_with(1, 'tools.processed', prefix => 'ex9');
SELECT prefix, tags FROM oban_update_job_with('{1,2}'::bigint[], 'tools.processed', NULL, 'ex14');
SELECT prefix, tags FROM oban_update_many_jobs_with('{1}', 'tools.processed', prefix => 'py');
SET oban_manage.prefix = 'ex9';
SELECT prefix, tags FROM oban_update_job_with(oban_get_job(3, 'py'), 'tools.processed');
SELECT u.prefix, u.tags FROM ex14.oban_jobs j, oban_update_job_with(j, 'tools.processed') u
WHERE j.id = 3;
SELECT prefix, tags FROM oban_update_job_with(4, 'tools.processed');
SELECT prefix, tags FROM oban_update_job_with(5, 'tools.processed', prefix => 'py');
RESET oban_manage.prefix;
SELECT oban_update_job_with(1, 'tools.processed');
SELECT oban_update_many_jobs_with('{1}', 'tools.processed', prefix => 'nowhere');
SELECT p, string_agg(j.key, ',' ORDER BY j.key) AS processed
FROM unnest('{ex9,ex14,py}'::text[]) p, jsonb_each(tools.rows(p)) j
WHERE j.value -> 'tags' ? 'processed' GROUP BY p ORDER BY p;

-- Functions of PostgreSQL itself, called without any language between: one returns {}, the others a
-- whole job, whose keys are not allowed.
CREATE FUNCTION tools.nothing(jsonb) RETURNS jsonb LANGUAGE internal IMMUTABLE AS
	'jsonb_build_object_noargs';
CREATE FUNCTION tools.whole(jsonb, jsonb) RETURNS jsonb LANGUAGE internal IMMUTABLE AS
	'jsonb_concat';
SELECT id, tags FROM oban_update_many_jobs_with('{2,1}', 'tools.nothing', prefix => 'py');
SELECT tools.refusal('SELECT oban_update_job_with(1, ''tools.whole'', ''{"x": 1}'', ''py'')');
SELECT tools.refusal('SELECT oban_update_job_with(1, ''jsonb_concat'', ''{}'', ''py'')');

-- A callable may have an output argument; a default of its context never counts.
CREATE FUNCTION tools.with_default(job oban_job, context jsonb DEFAULT '{"default": 1}',
	OUT changes jsonb) LANGUAGE sql AS
	$$SELECT jsonb_build_object('args', jsonb_build_object('context', context))$$;
SELECT args FROM oban_update_job_with(1, 'tools.with_default', prefix => 'py');
SELECT args FROM oban_update_job_with(1, 'tools.with_default', 'null', 'py');
SELECT args FROM oban_update_job_with(1, 'tools.with_default', '[1, {"a": "b"}]', 'py');
-- A context is passed to a callable that takes none: it is not looked at.
SELECT tags FROM oban_update_job_with(1, 'tools.processed', '{"unused": true}', 'py');

-- A job whose columns are NULL where the table lets them be: an oban_job has {} and an empty array,
-- the row has what is there.
CALL tools.make_jobs('ex14');
UPDATE ex14.oban_jobs SET meta = NULL, tags = NULL, attempted_by = NULL WHERE id = 1;
SET tools.key = 'nothing';
SELECT oban_update_job_with(1, c, prefix => 'ex14') IS NULL AS null FROM unnest('{
	tools.change(oban_job),tools.change(jsonb),tools.change(ex14.oban_jobs)}'::regprocedure[]) c;
SELECT kind, job -> 'meta' AS meta, job -> 'tags' AS tags, job -> 'attempted_by' AS attempted_by
FROM tools.given ORDER BY n;

-- NULL and {} write nothing: the row is the one it was, and the job is among the results.
CALL tools.make_jobs('py');
CREATE FUNCTION tools.by_id(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT context -> job.id::text$$;
SELECT array_agg(ctid ORDER BY id) AS before FROM py.oban_jobs \gset
SELECT id, priority FROM oban_update_many_jobs_with('{3,2,1}', 'tools.by_id', '{"2": {}}', 'py');
SELECT id, priority FROM oban_update_job_with(1, 'tools.by_id', '{}', 'py');
SELECT id, priority FROM oban_update_job_with(1, 'tools.by_id', '{"1": {}}', 'py');
SELECT array_agg(ctid ORDER BY id) = :'before' AS untouched FROM py.oban_jobs;
SELECT id, priority
FROM oban_update_many_jobs_with('{1,2,3,4}', 'tools.by_id', '{"2": {"priority": 7}, "3": {}}',
	'py');
SELECT string_agg(id || ' ' || priority, ', ' ORDER BY id) FILTER (WHERE ctid = b) AS untouched,
	string_agg(id || ' ' || priority, ', ' ORDER BY id) FILTER (WHERE ctid <> b) AS written
FROM (SELECT id, priority, ctid, (:'before'::tid[])[row_number() OVER (ORDER BY id)] b
	FROM py.oban_jobs) j;

-- Called once for each job, in id order; results likewise. NULL ids are passed over.
CALL tools.make_jobs('py');
SET tools.key = 'meta';
TRUNCATE tools.given;
SELECT id, meta FROM oban_update_many_jobs_with('{7,2,NULL,7,4,1,2}',
	'tools.change(oban_job)'::regprocedure, NULL, 'py');
SELECT string_agg(job ->> 'id', ', ' ORDER BY n) AS called_for FROM tools.given;
SELECT string_agg(id || ' ' || (meta -> 'was'), ', ' ORDER BY id) AS written
FROM py.oban_jobs WHERE meta ? 'was';
-- Nothing to do calls nothing.
TRUNCATE tools.given;
SELECT oban_update_job_with(NULL::bigint, 'tools.change(oban_job)'::regprocedure, NULL, 'py');
SELECT oban_update_job_with(NULL::oban_job, 'tools.change(oban_job)'::regprocedure);
SELECT oban_update_job_with(NULL::bigint[], 'tools.change(oban_job)'::regprocedure, NULL, 'py');
SELECT oban_update_many_jobs_with(NULL, 'tools.change(oban_job)'::regprocedure, NULL, 'py');
SELECT oban_update_many_jobs_with('{}', 'tools.change(oban_job)'::regprocedure, NULL, 'py');
SELECT oban_update_many_jobs_with('{NULL,NULL}', 'tools.change(oban_job)'::regprocedure, NULL,
	'py');
SELECT count(*) AS calls FROM tools.given;
-- Arrays of any shape.
SELECT id FROM oban_update_many_jobs_with('[5:6]={3,1}', 'tools.nothing', NULL, 'py');
SELECT id FROM oban_update_many_jobs_with('{{3,1},{2,NULL}}', 'tools.nothing', NULL, 'py');

-- All or none: jobs that do not exist are an error that names them, also when nothing would be
-- changed, and nothing is changed.
CALL tools.make_jobs('py');
SELECT tools.rows('py') AS py \gset
SELECT oban_update_job_with(99, 'tools.processed', prefix => 'py');
SELECT oban_update_many_jobs_with('{1,99,2,98,-5}', 'tools.processed', prefix => 'py');
SELECT oban_update_job_with('{99}'::bigint[], 'tools.nothing', prefix => 'py');
SELECT oban_update_job_with(99, 'tools.nothing', prefix => 'py');
BEGIN;
CREATE TABLE tools.kept AS SELECT oban_get_job(8, 'py') AS job;
DELETE FROM py.oban_jobs WHERE id = 8;
SELECT oban_update_job_with(job, 'tools.processed') FROM tools.kept;
ROLLBACK;
SELECT tools.rows('py') = :'py' AS nothing_changed;

-- Jobs of one call that name different columns: what a job does not name stays exactly as it is,
-- though one statement writes them all. So do NULLs, tags that are not normalised, and a schedule
-- that does not fit the state, which only a change of that job's own schedule may mend.
CALL tools.make_jobs('ex9', 'ex14', 'py');
INSERT INTO ex14.oban_jobs (id, worker, state, scheduled_at, meta, tags, errors)
VALUES (11, 'App.Worker', 'available', '2099-01-01', NULL, NULL, '{}'),
	(12, 'App.Worker', 'scheduled', '2001-01-01', '{"z": 1, "a": 2}', '{B," a",B}', '{"{}","[]"}'),
	(13, 'App.Worker', 'available', '2001-01-01', NULL, '{}', '{}'),
	(14, 'App.Worker', 'scheduled', '2099-01-01', '{}', NULL, '{}'),
	(15, 'App.Worker', 'available', 'infinity', '{}', '{}', '{}'),
	(16, 'App.Worker', 'scheduled', '-infinity', '{}', '{}', '{}');
SELECT tools.rows('ex14') AS before \gset
SELECT id, state, queue, priority, meta, tags FROM oban_update_many_jobs_with(
	'{1,2,3,4,5,6,7,11,12,13,14,15,16}', 'tools.by_id', '{
	"1": {"args": {"new": 1}}, "2": {"max_attempts": 30}, "3": {"meta": {"new": 3}},
	"4": {"priority": 8}, "5": {"queue": "fifth"}, "6": {"tags": ["X"]}, "7": {"worker": "Seven"},
	"11": {"priority": 1}, "12": {"priority": 1}, "13": {"scheduled_at": "2098-01-01"},
	"14": {"scheduled_at": "2002-01-01", "queue": "soon"}, "15": {"queue": "q"},
	"16": {"tags": []}}',
	'ex14');
SELECT k.key AS job, string_agg(format('%s: %s -> %s', c, o.value -> c, k.value -> c), ', '
	ORDER BY c) AS changed
FROM jsonb_each(tools.rows('ex14')) k JOIN jsonb_each(:'before') o ON o.key = k.key,
	jsonb_object_keys(k.value) c
WHERE k.value -> c IS DISTINCT FROM o.value -> c
GROUP BY k.key ORDER BY k.key::integer;
-- The same result as by a call for each job, in either dialect.
CREATE FUNCTION tools.one_by_one(prefix text, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	after jsonb;
BEGIN
	PERFORM oban_update_job(key::bigint, value, prefix) FROM jsonb_each(context);
	after := tools.rows(prefix);
	RAISE EXCEPTION USING ERRCODE = 'P0099';
EXCEPTION WHEN SQLSTATE 'P0099' THEN
	RETURN after;
END $$;
CREATE FUNCTION tools.all_at_once(prefix text, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	after jsonb;
BEGIN
	PERFORM oban_update_many_jobs_with(array_agg(key::bigint), 'tools.by_id', context, prefix)
	FROM jsonb_each(context);
	after := tools.rows(prefix);
	RAISE EXCEPTION USING ERRCODE = 'P0099';
EXCEPTION WHEN SQLSTATE 'P0099' THEN
	RETURN after;
END $$;
-- Every pair of keys on two jobs, of each state.
SELECT p, count(*) AS pairs, count(d) AS differences, min(d) AS first
FROM unnest('{ex9,ex14,py}'::text[]) p, tools.model a, tools.model b,
	jsonb_each('{"args": {"a": 1}, "max_attempts": 21, "meta": {"m": 1}, "priority": 1,
		"queue": "q", "scheduled_at": "2098-01-01", "tags": ["t"], "worker": "W",
		"schedule_in": 0}') x,
	jsonb_each('{"args": {"b": 2}, "queue": "r", "scheduled_at": "2001-01-01", "meta": {}}') y,
	LATERAL (SELECT jsonb_build_object(a.id, jsonb_build_object(x.key, x.value),
		b.id, jsonb_build_object(y.key, y.value)) AS context) c,
	LATERAL (SELECT tools.difference(tools.all_at_once(p, context), tools.one_by_one(p, context))
		AS d) r
WHERE a.id < b.id AND a.id IN (1, 2, 3) AND b.id IN (2, 5) GROUP BY p ORDER BY p;

-- More than one batch: 2,500 jobs, given in no order, each with changes of its own.
CALL tools.fill(2500, 'ex14', 'py');
CREATE FUNCTION tools.many(job oban_job) RETURNS jsonb LANGUAGE sql AS $$
	SELECT CASE job.id % 5
		WHEN 0 THEN jsonb_build_object('meta', jsonb_build_object('id', job.id))
		WHEN 1 THEN jsonb_build_object('queue', 'q' || job.id, 'priority', job.id % 10)
		WHEN 2 THEN jsonb_build_object('schedule_in', 3600 + job.id)
		WHEN 3 THEN jsonb_build_object('tags', job.tags || ARRAY['t' || job.id, 'all'])
		END
$$;
CREATE TABLE tools.results (n serial, job oban_job);
INSERT INTO tools.results (job)
SELECT u FROM oban_update_many_jobs_with((SELECT array_agg(g ORDER BY hashint8(g))
	FROM generate_series(1, 2500) g), 'tools.many', NULL, 'py') u;
INSERT INTO tools.results (job)
SELECT oban_update_job_with((SELECT array_agg(g ORDER BY hashint8(g))
	FROM generate_series(1, 2500) g), 'tools.many', NULL, 'ex14');
SELECT (job).prefix, count(*), count(*) FILTER (WHERE (job).id = (n - 1) % 2500 + 1) AS in_order,
	count(*) FILTER (WHERE to_jsonb(job) = to_jsonb(oban_get_job((job).id, (job).prefix)))
		AS as_stored
FROM tools.results GROUP BY 1 ORDER BY 1;
SELECT id % 5 AS kind, count(*),
	count(*) FILTER (WHERE meta = jsonb_build_object('id', id)) AS meta,
	count(*) FILTER (WHERE queue = 'q' || id AND priority = id % 10) AS queue,
	count(*) FILTER (WHERE state = 'scheduled' AND scheduled_at - inserted_at >= interval '1 hour')
		AS scheduled,
	count(*) FILTER (WHERE tags = ARRAY['all', 't' || id]) AS tags,
	count(*) FILTER (WHERE state = 'available' AND queue = 'default' AND priority = 0
		AND meta = '{}' AND tags = '{}') AS untouched
FROM py.oban_jobs GROUP BY 1 ORDER BY 1;
-- The last one of them does not exist; or fails.
CALL tools.fill(2500, 'py');
SELECT md5(tools.rows('py')::text) AS py \gset
SELECT tools.refusal($$SELECT oban_update_many_jobs_with(array_agg(g), 'tools.many', NULL, 'py')
	FROM generate_series(1, 2501) g$$);
CREATE FUNCTION tools.many_but_the_last(job jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('priority',
	CASE (job ->> 'id')::integer WHEN 2500 THEN 10 ELSE 1 END)$$;
SELECT tools.refusal($$SELECT oban_update_many_jobs_with(array_agg(g), 'tools.many_but_the_last',
	NULL,
	'py') FROM generate_series(1, 2500) g$$);
SELECT md5(tools.rows('py')::text) = :'py' AS nothing_changed;

-- More than five executions, and a callable that is replaced, dropped and made again between them.
CALL tools.make_jobs('ex9', 'py');
CREATE FUNCTION tools.count_up(job oban_job) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('args', jsonb_build_object('n', (job.args -> 'n')::integer + 1))$$;
CREATE FUNCTION tools.eight_times(prefix text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
BEGIN
	FOR i IN 1..8 LOOP
		found := concat_ws(' ', found,
			(oban_update_job_with(1, 'tools.count_up'::text::regproc,
			prefix => prefix)).args ->> 'n');
		found := concat_ws('/', found, (SELECT string_agg(args ->> 'n', ',')
			FROM oban_update_many_jobs_with('{1,2}', 'tools.count_up'::text::regproc, NULL,
				prefix)));
		IF i = 4 THEN
			CREATE OR REPLACE FUNCTION tools.count_up(job oban_job)
				RETURNS jsonb LANGUAGE plpgsql AS
				'BEGIN RETURN jsonb_build_object(''args'',
					jsonb_build_object(''n'', (job.args -> ''n'')::integer + 100)); END';
		ELSIF i = 6 THEN
			DROP FUNCTION tools.count_up(oban_job);
			CREATE FUNCTION tools.count_up(job jsonb) RETURNS jsonb LANGUAGE sql AS
				$f$SELECT jsonb_build_object('args', jsonb_build_object('n',
					(job #>> '{args,n}')::integer + 1000))$f$;
		END IF;
	END LOOP;
	RETURN found;
END $$;
SELECT tools.eight_times('py');
SELECT args FROM py.oban_jobs WHERE id IN (1, 2) ORDER BY id;
-- Another callable for each row of one statement, and each on what the one before it did.
CREATE FUNCTION tools.twice(job ex9.oban_jobs) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('args', jsonb_build_object('n', (job.args -> 'n')::integer * 2))$$;
SELECT c.n, u.args -> 'n' AS args
FROM unnest('{tools.count_up,tools.twice,tools.twice,tools.nothing,tools.count_up}'::regproc[])
		WITH ORDINALITY c(callable, n), oban_update_job_with(1, callable, prefix => 'ex9') u
ORDER BY c.n;
SELECT args FROM ex9.oban_jobs WHERE id = 1;

-- What a callable reads by SQL: STABLE as the calling statement does, VOLATILE the newest. The job
-- that it is handed is the newest in either case.
CALL tools.make_jobs('py');
CREATE FUNCTION tools.sees(job oban_job) RETURNS jsonb LANGUAGE sql VOLATILE AS
	$$SELECT jsonb_build_object('meta', jsonb_build_object('handed', job.queue, 'read',
		(SELECT queue FROM py.oban_jobs WHERE id = job.id)))$$;
CREATE FUNCTION tools.sees_stable(job oban_job) RETURNS jsonb LANGUAGE sql STABLE AS
	$$SELECT jsonb_build_object('meta', jsonb_build_object('handed', job.queue, 'read',
		(SELECT queue FROM py.oban_jobs WHERE id = job.id)))$$;
SELECT v.queue, v.meta, s.meta
FROM oban_update_job(1, '{"queue": "newest"}', 'py') q,
	oban_update_job_with(q, 'tools.sees') v, oban_update_job_with(v, 'tools.sees_stable') s;

-- A table that is altered between the calls, and its row type with it.
CREATE FUNCTION tools.columns(job ex14.oban_jobs) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN jsonb_build_object('args', to_jsonb(job) - (SELECT array_agg(attname::text)
		FROM pg_attribute WHERE attrelid = 'ex9.oban_jobs'::regclass));
END $$;
CALL tools.make_jobs('ex14');
SELECT id, args FROM oban_update_many_jobs_with('{1,2}', 'tools.columns', NULL, 'ex14');
ALTER TABLE ex14.oban_jobs ADD note text DEFAULT 'n';
SELECT id, args FROM oban_update_many_jobs_with('{1,2}', 'tools.columns', NULL, 'ex14');
ALTER TABLE ex14.oban_jobs ALTER note DROP DEFAULT, ALTER note TYPE integer USING 7,
	ADD more boolean;
SELECT args FROM oban_update_job_with(1, 'tools.columns', NULL, 'ex14');
ALTER TABLE ex14.oban_jobs DROP note;
SELECT args FROM oban_update_job_with(1, 'tools.columns', NULL, 'ex14');

-- A table that is partitioned by state, with the columns in another order in one of the partitions:
-- the job is a row of the whole table, and a change of its schedule moves it.
CREATE SCHEMA by_state;
CREATE TABLE by_state.oban_jobs (LIKE py.oban_jobs INCLUDING DEFAULTS) PARTITION BY LIST (state);
CREATE TABLE by_state.others PARTITION OF by_state.oban_jobs DEFAULT;
CREATE TABLE by_state.scheduled (gone integer, LIKE py.oban_jobs INCLUDING DEFAULTS);
ALTER TABLE by_state.scheduled DROP gone, DROP queue, DROP meta,
	ADD meta jsonb NOT NULL DEFAULT '{}', ADD queue text NOT NULL DEFAULT 'default';
ALTER TABLE by_state.oban_jobs ATTACH PARTITION by_state.scheduled FOR VALUES IN ('scheduled');
ALTER TYPE py.oban_job_state SET SCHEMA by_state;
CALL tools.make_jobs('by_state');
CREATE FUNCTION tools.turn(job by_state.oban_jobs) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('schedule_in', CASE job.state WHEN 'scheduled' THEN 0 ELSE 60 END,
		'queue', job.queue || ' of ' || job.state, 'meta', job.meta || '{"turned": true}')
$$;
SELECT id, state, queue, meta
FROM oban_update_many_jobs_with('{1,2,4,5}', 'tools.turn', NULL, 'by_state');
SELECT id, tableoid::regclass AS part, queue, meta FROM by_state.oban_jobs
WHERE id < 6 ORDER BY id;

-- What a callable warns of tells for which job
CREATE FUNCTION tools.warns(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'noticed';
	RAISE WARNING 'warned';
	RETURN NULL;
END $$;
\set SHOW_CONTEXT always
SET client_min_messages = notice;
SELECT (oban_update_job_with(1, 'tools.warns', NULL, 'ex14')).id;
-- What a trigger warns of does not: an update may be of many
CREATE FUNCTION tools.warns() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'noticed';
	RAISE WARNING 'warned';
	RETURN NEW;
END $$;
CREATE TRIGGER warns BEFORE UPDATE ON ex14.oban_jobs FOR EACH ROW EXECUTE FUNCTION tools.warns();
SELECT (oban_update_job(1, '{"priority": 2}', 'ex14')).id;
DROP TRIGGER warns ON ex14.oban_jobs;
SET client_min_messages = warning;

-- A callable that drops the table of its jobs, or makes it anew
CALL tools.make_jobs('ex11');
CREATE FUNCTION tools.drops(job jsonb, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	CREATE TABLE tools.kept (LIKE ex11.oban_jobs);
	DROP TABLE ex11.oban_jobs;
	IF context ? 'anew' THEN
		CREATE TABLE ex11.oban_jobs (LIKE tools.kept);
	END IF;
	RETURN context -> 'changes';
END $$;
SELECT oban_update_job_with(1, 'tools.drops', '{"changes": {"priority": 7}}', 'ex11');
SELECT oban_update_job_with('{1,2}'::bigint[], 'tools.drops', '{"changes": {"priority": 7}}', 'ex11');
SELECT oban_update_job_with('{1,2}'::bigint[], 'tools.drops', '{"anew": 1}', 'ex11');
SELECT tools.states('ex11');

DROP SCHEMA tools, ex9, ex11, ex14, py, by_state CASCADE;
