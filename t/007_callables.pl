# Sessions count their calls in the meta of the same jobs by callable, for some seconds, in random
# arrays: directly, in each form that a callable may take the job, and by a trigger. Workers fetch
# and acknowledge the jobs and count in meta too, other clients cancel and retry. At the end each
# job's counters are the numbers of calls that were committed: no update was lost on either side,
# and none was kept of a call that failed. No session met a deadlock.
#
# Shown to fail, by changes in append_lock (src/statements/queries.c): without FOR, or with the job
# that is handed to the callable read in a subquery, which takes no lock, updates are lost; without
# ORDER BY there are deadlocks.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = 5;
my $jobs = 20;

my $node = start_server('callables', max_connections => 30, deadlock_timeout => '100ms');
make_jobs_table($node, 'public', 'elixir', 14);

$node->safe_psql(
	'postgres', qq{
	-- Every second job is one of Oban Pro's unique jobs, whose meta retry writes.
	INSERT INTO oban_jobs (worker, meta)
		SELECT 'Worker', CASE id % 2 WHEN 0 THEN '{"uniq_bmp": [1, 2]}' END::jsonb
		FROM generate_series(1, $jobs) id;
	CREATE TABLE appointments (id int PRIMARY KEY, note text, job_ids bigint[]);
	INSERT INTO appointments
		SELECT id, '', ARRAY[id, $jobs + 1 - id, NULL] FROM generate_series(1, $jobs) id;
	CREATE FUNCTION random_ids(most int) RETURNS bigint[] LANGUAGE sql VOLATILE AS \$\$
		SELECT array_agg(ceil(random() * $jobs)::bigint)
		FROM generate_series(1, ceil(random() * most)::int)
	\$\$;});
$node->safe_psql(
	'postgres', q{
	CREATE TABLE counted (actor text, job_id bigint);
	CREATE TABLE failures (actor text);
	CREATE SEQUENCE calls;

	-- Each counts one more for the actor that the context names, and the calls, also of what is
	-- rolled back.
	CREATE FUNCTION plus_one(meta jsonb, context jsonb) RETURNS jsonb LANGUAGE sql AS $$
		SELECT jsonb_build_object('meta', meta || jsonb_build_object(
			context ->> 'actor', coalesce((meta ->> (context ->> 'actor'))::int, 0) + 1))
		WHERE nextval('calls') > 0
	$$;
	CREATE FUNCTION count_job(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_sleep(0.0005);
		RETURN plus_one(job.meta, context);
	END $$;
	CREATE FUNCTION count_row(job oban_jobs, context jsonb) RETURNS jsonb LANGUAGE sql AS $$
		SELECT plus_one(coalesce(job.meta, '{}'), context)
	$$;
	CREATE FUNCTION count_json(job jsonb, context jsonb) RETURNS jsonb LANGUAGE sql AS $$
		SELECT plus_one(job -> 'meta', context)
	$$;
	-- Names other columns for some jobs, nothing for others, and fails now and then.
	CREATE FUNCTION count_mixed(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF random() < 0.05 THEN
			RAISE 'refused' USING ERRCODE = 'UE001';
		END IF;
		RETURN CASE job.id % 4
			WHEN 0 THEN plus_one(job.meta, context) || '{"priority": 1}'
			WHEN 1 THEN '{"tags": ["seen"]}'
			WHEN 2 THEN plus_one(job.meta, context)
			END;
	END $$;
	CREATE FUNCTION count_in_trigger(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS $$
		SELECT plus_one(job.meta, '{"actor": "trigger"}')
	$$;
	CREATE TRIGGER count AFTER UPDATE ON appointments REFERENCING NEW TABLE AS changed
		FOR EACH STATEMENT EXECUTE FUNCTION oban_update_job_with('job_ids', 'public.count_in_trigger');

	CREATE PROCEDURE client(actor text, query text, seconds float) LANGUAGE plpgsql AS $$
	DECLARE
		until timestamptz := clock_timestamp() + make_interval(secs => seconds);
	BEGIN
		WHILE clock_timestamp() < until LOOP
			BEGIN
				EXECUTE 'INSERT INTO counted SELECT $1, id FROM ' || query
					USING actor, jsonb_build_object('actor', actor);
			EXCEPTION WHEN SQLSTATE 'UE001' THEN
				INSERT INTO failures VALUES (actor);
			END;
			COMMIT;
		END LOOP;
	END $$;

	-- What is counted for a row is a call for each of its jobs.
	CREATE PROCEDURE application(seconds float) LANGUAGE plpgsql AS $$
	DECLARE
		until timestamptz := clock_timestamp() + make_interval(secs => seconds);
	BEGIN
		WHILE clock_timestamp() < until LOOP
			WITH changed AS (
				UPDATE appointments SET note = to_char(clock_timestamp(), 'SS.US')
				WHERE id = ANY ((SELECT random_ids(3))::bigint[])
				RETURNING job_ids)
			INSERT INTO counted
				SELECT 'trigger', job_id FROM changed, unnest(job_ids) job_id
				WHERE job_id IS NOT NULL;
			COMMIT;
		END LOOP;
	END $$;

	-- Fetches, and acknowledges by id alone. Fetches one job at a time: PostgreSQL's SKIP LOCKED does
	-- wait where an update of the job commits just as it is looked at, and somebody else has locked
	-- the new version by then. A fetch that holds other jobs meanwhile, in an order that is not that
	-- of the ids, can deadlock with any statement that locks several.
	CREATE PROCEDURE worker(seconds float) LANGUAGE plpgsql AS $$
	DECLARE
		until timestamptz := clock_timestamp() + make_interval(secs => seconds);
		running bigint[];
		run bigint;
	BEGIN
		WHILE clock_timestamp() < until LOOP
			WITH subset AS MATERIALIZED (
				SELECT id FROM oban_jobs WHERE state = 'available' AND queue = 'default'
				 ORDER BY priority, scheduled_at, id LIMIT 1 FOR UPDATE SKIP LOCKED),
			fetched AS (
				UPDATE oban_jobs j
				   SET state = 'executing', attempt = attempt + 1, max_attempts = max_attempts + 1,
					   attempted_at = timezone('UTC', now()), attempted_by = ARRAY['node']
				  FROM subset
				 WHERE j.id = subset.id
				RETURNING j.id)
			SELECT array_agg(id) FROM fetched INTO running;
			PERFORM pg_sleep(0.002);
			COMMIT;

			FOREACH run IN ARRAY coalesce(running, '{}') LOOP
				UPDATE oban_jobs
				   SET state = (ARRAY['completed', 'retryable', 'available'])
							   [ceil(random() * 3)]::oban_job_state,
					   meta = coalesce(meta, '{}') || jsonb_build_object(
						   'worker', coalesce((meta ->> 'worker')::int, 0) + 1)
				 WHERE id = run;
				INSERT INTO counted VALUES ('worker', run);
				COMMIT;
			END LOOP;
		END LOOP;
	END $$;

	CREATE PROCEDURE verbs(seconds float) LANGUAGE plpgsql AS $$
	DECLARE
		until timestamptz := clock_timestamp() + make_interval(secs => seconds);
	BEGIN
		WHILE clock_timestamp() < until LOOP
			PERFORM oban_cancel_job(random_ids(8));
			COMMIT;
			PERFORM pg_sleep(0.002);
			PERFORM oban_retry_job(random_ids(12));
			COMMIT;
			PERFORM oban_update_job(random_ids(3), '{"tags": ["plain"]}');
			COMMIT;
		END LOOP;
	END $$;});

# $2 is the context that names the actor.
my %clients = (
	one_job => q{oban_update_job_with((random_ids(1))[1], 'count_job', $2)},
	jobs => q{oban_update_job_with(random_ids(10), 'count_job', $2)},
	rows => q{oban_update_many_jobs_with(random_ids(10), 'count_row', $2)},
	json => q{oban_update_many_jobs_with(random_ids(10), 'count_json', $2)},
	# Those jobs that count at all.
	mixed => q{oban_update_many_jobs_with(random_ids(6), 'count_mixed', $2) WHERE id % 2 = 0});
my %scripts = (
	(map { ($_ => "CALL client('$_', \$q\$$clients{$_}\$q\$, $seconds);") } keys %clients),
	application => "CALL application($seconds);",
	verbs => "CALL verbs($seconds);",
	map { ("worker$_" => "CALL worker($seconds);") } 1, 2);
# Kept from the index on id, so that these come to the jobs in the order of the disk, which changes
# all the time, unless they sort.
$scripts{$_} = "SET enable_indexscan = off;\n$scripts{$_}" for qw(rows mixed application verbs);

my %outputs = run_sessions($node, %scripts);

is($outputs{$_}, '', "$_ met no error") for sort keys %scripts;

# Things went on at all.
my @actors = sort(keys %clients, 'trigger', 'worker');
is( $node->safe_psql('postgres',
		q{SELECT actor FROM counted GROUP BY 1 HAVING count(*) >= 20 ORDER BY 1}),
	join("\n", @actors),
	'each actor counted some');
is($node->safe_psql('postgres', 'SELECT DISTINCT actor FROM failures'),
	'mixed', 'some calls failed, of one client only');
is( $node->safe_psql(
		'postgres', q{
		SELECT last_value > (SELECT count(*) FROM counted WHERE actor <> 'worker') FROM calls}),
	't',
	'so that there is something that must not be counted');

for my $actor (@actors)
{
	is( $node->safe_psql(
			'postgres', qq{
			SELECT j.id, j.in_meta, coalesce(c.calls, 0) FROM (
				SELECT id, coalesce((meta ->> '$actor')::int, 0) AS in_meta FROM oban_jobs) j
			LEFT JOIN (SELECT job_id, count(*) AS calls FROM counted WHERE actor = '$actor'
					   GROUP BY 1) c ON c.job_id = j.id
			WHERE j.in_meta <> coalesce(c.calls, 0) ORDER BY 1}),
		'',
		"$actor: each job's counter is the number of calls");
}

my @deadlocks = slurp_file($node->logfile) =~ /deadlock detected/g;
is(scalar @deadlocks, 0, 'the server saw no deadlock');
note $node->safe_psql('postgres',
	q{SELECT string_agg(actor || ' ' || n, ', ' ORDER BY actor)
	  FROM (SELECT actor, count(*) AS n FROM counted GROUP BY 1) c});

$node->stop;
done_testing();
