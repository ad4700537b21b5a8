-- Partitioned tables, many prefixes in one session, and how many plans are kept.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL

\set ECHO none
\set partitions :abs_srcdir '/fixtures/partitions.sql'
\i :partitions
ALTER TYPE ex14.oban_job_state SET SCHEMA by_hash;
ALTER TYPE py.oban_job_state SET SCHEMA by_state;

-- Each verb on each state; a change of state moves the row.
CREATE FUNCTION tools.verbs(p text, OUT verb text, OUT one text, OUT many text) RETURNS SETOF record
LANGUAGE plpgsql AS $$
BEGIN
	FOREACH verb IN ARRAY '{cancel,retry,delete}'::text[] LOOP
		CALL tools.make_jobs(p);
		EXECUTE format('SELECT string_agg(id || '' '' || oban_%s_job(id, %L), '', '' ORDER BY id)
			FROM generate_series(1, 9) id', verb, p) INTO one;
		one := one || E'\n' || tools.states(p);
		CALL tools.make_jobs(p);
		EXECUTE format('SELECT oban_%s_many_jobs(''{9,8,7,6,5,4,3,2,1}'', %L)', verb, p) INTO many;
		many := many || E'\n' || tools.states(p);
		RETURN NEXT;
	END LOOP;
END $$;
SELECT v.* FROM tools.verbs('by_hash') v;
SELECT v.* FROM tools.verbs('by_state') v;
CALL tools.make_jobs('by_hash', 'by_state');
SELECT p, id, state, prefix FROM unnest('{by_hash,by_state}'::text[]) p,
	oban_update_many_jobs('{4,2,1}', '{"schedule_in": 0, "tags": ["B"]}', p) ORDER BY p, id;
SELECT oban_cancel_many_jobs('{1,2,3,4,5,6,7,8}', 'by_state');
SELECT tableoid::regclass AS part, string_agg(id::text, ',' ORDER BY id) AS ids
FROM by_state.oban_jobs GROUP BY 1 ORDER BY 1;
-- Many rows, so that ctids of different partitions coincide; only the odd ids are changed.
CALL tools.fill(2000, 'by_hash', 'by_state');
CREATE TABLE tools.odd AS SELECT array_agg(g) AS ids FROM generate_series(1, 2000, 2) g;
SELECT p, oban_cancel_many_jobs(ids, p) FROM tools.odd, unnest('{by_hash,by_state}'::text[]) p;
UPDATE by_state.oban_jobs SET state = 'completed' WHERE id < 20;
SELECT p, count(*) AS updated, array_agg(u.id) = array_agg(u.id ORDER BY u.id) AS in_id_order
FROM tools.odd, unnest('{by_hash,by_state}'::text[]) p,
	oban_update_many_jobs(ids, '{"priority": 1}', p) u GROUP BY p ORDER BY p;
-- An error's context names the job where ids are worked on in order; where they are not, as in hash
-- partitions, it names the first ten that are not done yet, and the table's own detail the row.
ALTER TABLE by_hash.oban_jobs ADD CONSTRAINT odd_one CHECK (id <> 1501 OR queue <> 'vip');
ALTER TABLE by_state.oban_jobs ADD CONSTRAINT odd_one CHECK (id <> 1501 OR queue <> 'vip');
CREATE TABLE tools.failed AS SELECT p, t.* FROM unnest('{by_hash,by_state}'::text[]) p,
	tools.try(format('SELECT oban_update_many_jobs(ids, ''{"queue": "vip"}'', %L)
		FROM tools.odd', p)) t;
SELECT p, code, detail ~ '[(]1501,' AS row_in_detail FROM tools.failed;
SELECT context ~ '^update of jobs? .*\m1501\M' AS names_the_job
FROM tools.failed WHERE p = 'by_state';
SELECT context ~ '^update of jobs (\d+, ){9}\d+ and \d+ more\M' AS names_some
FROM tools.failed WHERE p = 'by_hash';
SELECT p, oban_delete_many_jobs(ids[1:500], p)
FROM tools.odd, unnest('{by_hash,by_state}'::text[]) p;
SELECT id % 2 AS odd, state, priority, count(*), min(id), max(id) FROM by_hash.oban_jobs
GROUP BY 1, 2, 3 ORDER BY 1, 2;
SELECT id % 2 AS odd, state, priority, count(*), min(id), max(id) FROM by_state.oban_jobs
GROUP BY 1, 2, 3 ORDER BY 1, 2;
-- A partition detached, and attached again, while plans are kept.
CALL tools.fill(100, 'by_hash', 'by_state');
ALTER TABLE by_state.oban_jobs DETACH PARTITION by_state.cancelled;
SELECT code, message FROM tools.try('SELECT oban_cancel_job(1, ''by_state'')');
ALTER TABLE by_state.oban_jobs ATTACH PARTITION by_state.cancelled FOR VALUES IN ('cancelled');
SELECT oban_cancel_many_jobs('{1,2}', 'by_state');

-- 300 prefixes in one session, twice over, each with its own plans.
CREATE PROCEDURE tools.make_tenant(p text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format($q$
		CREATE SCHEMA %1$I;
		CREATE TYPE %1$I.oban_job_state AS ENUM ('available', 'scheduled', 'executing', 'retryable',
			'completed', 'discarded', 'cancelled');
		CREATE TABLE %1$I.oban_jobs (LIKE ex9.oban_jobs INCLUDING DEFAULTS);
		ALTER TABLE %1$I.oban_jobs ALTER state DROP DEFAULT, ALTER state TYPE %1$I.oban_job_state
			USING state::text::%1$I.oban_job_state, ADD PRIMARY KEY (id);
		INSERT INTO %1$I.oban_jobs (id, worker, state)
			SELECT g, 'W', 'available' FROM generate_series(1, 4) g;
	$q$, p);
END $$;
\set ECHO none
SELECT format('CALL tools.make_tenant(%L)', 'tenant_' || g) FROM generate_series(1, 300) g \gexec
\set ECHO all
CREATE FUNCTION tools.visit(first integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	p text;
BEGIN
	FOR i IN first..first + 99 LOOP
		p := 'tenant_' || i;
		ASSERT oban_cancel_job(1, p) AND oban_retry_job(1, p), p;
		ASSERT oban_cancel_many_jobs('{1,2}', p) = 2 AND oban_retry_many_jobs('{1,2}', p) = 2, p;
		ASSERT (oban_update_job(3, '{"priority": 1}', p)).prefix = p, p;
		ASSERT NOT oban_job_cancelled(3, p), p;
	END LOOP;
	RETURN format('visited %s to %s', first, first + 99);
END $$;
SELECT tools.visit(1);
SELECT tools.visit(101);
SELECT count(*) AS plans FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource' \gset
SELECT tools.visit(201);
SELECT tools.visit(1);
SELECT tools.visit(101);
SELECT tools.visit(201);
-- Bounded: a hundred prefixes more need no more plans.
SELECT count(*) <= :plans + 20 AS bounded FROM pg_backend_memory_contexts
WHERE name = 'CachedPlanSource';
SELECT oban_delete_many_jobs('{1,2,3,4}', 'tenant_1'),
	oban_delete_many_jobs('{1,2,3,4}', 'tenant_300');

\set ECHO none
SELECT format('DROP SCHEMA tenant_%s, tenant_%s, tenant_%s CASCADE', g, g + 100, g + 200)
FROM generate_series(1, 100) g \gexec
\set ECHO all
DROP SCHEMA by_hash, by_state CASCADE;
DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
