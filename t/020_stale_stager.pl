# 30,000 jobs fall due. Oban for Elixir's stager makes them available, four times a second, while
# calls cancel them all. It judges the jobs in a subquery that takes no lock, and waits for those
# that a call has just cancelled. With the guard none of them comes back. A deadlock between the
# stager and a call may be; who loses it tries again.
#
# Then a job that is executing is cancelled and retried in one transaction, and its worker answers,
# by the statement of either Oban. With the guard the retry stands.
#
# Shown to fail without the guard: thousands of cancelled jobs become available, and the answer
# overwrites the retry.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = 10;
my $jobs = 3000;    # a round

my $node = start_server('stale_stager', deadlock_timeout => '100ms');
make_jobs_table($node, 'public', 'elixir', 14);
make_oban($node);

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

sql(q{
	CREATE TABLE changes (actor text, job_id bigint, old_state text, new_state text);
	CREATE FUNCTION log_update() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO changes SELECT current_setting('application_name'), o.id, o.state, n.state
			FROM old_jobs o JOIN new_jobs n USING (id);
		RETURN NULL;
	END $$;
	CREATE TRIGGER log_update AFTER UPDATE ON oban_jobs
		REFERENCING OLD TABLE AS old_jobs NEW TABLE AS new_jobs
		FOR EACH STATEMENT EXECUTE FUNCTION log_update();
	CREATE SEQUENCE stagings;
	CREATE SEQUENCE stop;
	CREATE TABLE waits (round int, stager_waited boolean);

	-- Every second round is made when the stager does not run, so that it certainly meets jobs that
	-- are due, and are being cancelled. In the others it has staged some of them before.
	CREATE PROCEDURE stager() LANGUAGE plpgsql AS $$
	BEGIN
		WHILE NOT (SELECT is_called FROM stop) LOOP
			PERFORM pg_advisory_xact_lock_shared(1);
			COMMIT;
			PERFORM oban('elixir.stage()');
			COMMIT;
			PERFORM nextval('stagings');
			PERFORM pg_sleep(0.25);
		END LOOP;
	END $$;
	CREATE PROCEDURE canceller(rounds int, jobs int) LANGUAGE plpgsql AS $$
	DECLARE
		cancelled bigint;
		stagings bigint;
		waits boolean;
	BEGIN
		FOR round IN 1 .. rounds LOOP
			IF round % 2 = 0 THEN
				PERFORM pg_advisory_lock(1);
			END IF;
			-- They fall due within some seconds, or are due, in another order than that of the ids.
			INSERT INTO oban_jobs (worker, state, attempt, attempted_at, args, scheduled_at)
			SELECT 'Worker', 'retryable', 1, '2024-01-01', jsonb_build_object('round', round),
				timezone('UTC', clock_timestamp())
				+ (round % 2) * interval '3 s' * ((n * 7) % jobs) / jobs
			FROM generate_series(1, jobs) n;
			COMMIT;
			IF round % 2 = 1 THEN
				stagings := (SELECT last_value FROM stagings);
				WHILE (SELECT last_value FROM stagings) < stagings + 2 LOOP
					PERFORM pg_sleep(0.01);
				END LOOP;
			END IF;

			cancelled := NULL;
			WHILE cancelled IS NULL LOOP
				BEGIN
					cancelled := oban_cancel_all_jobs(
						jsonb_build_object('args', jsonb_build_object('round', round)));
				EXCEPTION WHEN deadlock_detected THEN
				END;
			END LOOP;
			IF cancelled <> jobs THEN
				RAISE 'round %: % jobs cancelled', round, cancelled;
			END IF;
			IF round % 2 = 0 THEN
				PERFORM pg_advisory_unlock(1);
			END IF;
			-- Until the stager waits for a job. It does not if it had staged all of them before.
			stagings := (SELECT last_value FROM stagings);
			LOOP
				PERFORM pg_stat_clear_snapshot();
				SELECT wait_event_type = 'Lock' AND wait_event <> 'advisory' INTO waits
				FROM pg_stat_activity WHERE application_name = 'stager';
				EXIT WHEN waits OR (SELECT last_value FROM stagings) > stagings + 2;
				PERFORM pg_sleep(0.01);
			END LOOP;
			INSERT INTO waits VALUES (round, waits);
			COMMIT;
		END LOOP;
	END $$;});

my %outputs = run_sessions(
	$node,
	stager => 'CALL stager();',
	canceller => "CALL canceller($rounds, $jobs);\nSELECT nextval('stop') \\gset\n");
is($outputs{$_}, '', "$_ met no error") for sort keys %outputs;

is( sql(q{SELECT count(*) FROM waits WHERE round % 2 = 0 AND stager_waited}),
	$rounds / 2,
	'the stager waited for jobs that were being cancelled');
finds_nothing($node, q{
	SELECT actor, new_state, count(*) FROM changes WHERE old_state = 'cancelled' GROUP BY 1, 2},
	'no cancelled job came back');
is(sql('SELECT state, count(*) FROM oban_jobs GROUP BY 1'),
	'cancelled|' . $rounds * $jobs, 'all jobs stay cancelled');
note sql(q{SELECT count(*) || ' jobs were staged before' FROM changes WHERE actor = 'stager'});

# The answer of a run that was cancelled and retried in one transaction.
for my $oban (qw(elixir python))
{
	is( run_session(
			$node, qq{
			TRUNCATE oban_jobs RESTART IDENTITY;
			INSERT INTO oban_jobs (worker) VALUES ('Worker');
			SELECT id, attempt FROM $oban.fetch(1);
			BEGIN;
			SELECT oban_cancel_job(1), oban_retry_job(1);
			COMMIT;
			SELECT $oban.stop(1, 1);
			SELECT state, cancelled_at, to_jsonb(errors) @> '[{"attempt": 1}]' FROM oban_jobs;
			SELECT id, attempt FROM $oban.fetch(1);
			SELECT $oban.fail(1, 2, 60);
			SELECT state, attempt, jsonb_array_length(to_jsonb(errors)) FROM oban_jobs;}),
		"1|1\nt|t\n1\navailable||t\n1|2\n1\nretryable|2|2\n",
		"$oban: a retry stands when the killed run answers, and the job runs again");
}

$node->stop;
done_testing();
