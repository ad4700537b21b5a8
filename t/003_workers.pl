# Workers of both Obans fetch, run and acknowledge jobs for some seconds, the stagers of both make
# them due, and clients cancel, retry, delete and update the same jobs all the while. A trigger logs
# every change of state, and the log is judged afterwards: no executing job deleted or made
# available, no cancelled job fetched, none that comes back, no retry overwritten, no attempt run
# twice, each cancel of an executing job told to its worker, and each count that a call returned is
# what happened.
#
# Shown to fail without the guard: cancelled jobs come back, and retries are overwritten. Shown to
# fail with the state test in a subquery that takes no lock (append_write and append_lock in
# src/statements/queries.c): executing jobs are deleted and made available, and cancels of them tell
# nobody.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = 5;

my $node = start_server('workers', max_connections => 30, deadlock_timeout => '100ms');
make_jobs_table($node, 'public', 'elixir', 14);
make_oban($node);

$node->safe_psql(
	'postgres', q{
	INSERT INTO oban_jobs (worker, max_attempts) SELECT 'Worker', 3 FROM generate_series(1, 150);

	-- Numbered while the row is locked, so in the order of what happened to each job.
	CREATE TABLE events (
		seq bigserial PRIMARY KEY, actor text, job_id bigint, old_state text, new_state text,
		attempt int);
	CREATE FUNCTION log_event() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO events (actor, job_id, old_state, new_state, attempt)
			VALUES (current_setting('application_name'), coalesce(NEW.id, OLD.id),
					coalesce(OLD.state::text, 'none'), coalesce(NEW.state::text, 'none'),
					NEW.attempt);
		RETURN NULL;
	END $$;
	CREATE TRIGGER log_event AFTER INSERT OR UPDATE OR DELETE ON oban_jobs
		FOR EACH ROW EXECUTE FUNCTION log_event();

	CREATE TABLE runs (job_id bigint, attempt int);
	CREATE TABLE calls (actor text, changed int);
	CREATE SEQUENCE finished;

	CREATE PROCEDURE worker(oban text, seconds float) LANGUAGE plpgsql AS $$
	DECLARE
		until timestamptz := clock_timestamp() + make_interval(secs => seconds);
		run record;
		answer text;
		running jsonb;
	BEGIN
		WHILE clock_timestamp() < until LOOP
			running := oban(oban || '.fetch(5)');
			-- Clients come in between.
			PERFORM pg_sleep(0.003);
			COMMIT;

			FOR run IN SELECT * FROM jsonb_to_recordset(running)
				AS r (id bigint, attempt int, max_attempts int, meta jsonb)
			LOOP
				INSERT INTO runs VALUES (run.id, run.attempt);
				PERFORM pg_sleep(0.001);
				-- The answer goes by id alone. Some workers ask at a safe point whether to stop.
				IF random() < 0.5 AND oban_job_cancelled(run.id) THEN
					answer := 'stop';
				ELSIF random() < 0.4 THEN
					answer := 'complete';
				-- The snooze that gives the attempt back would make its number come again.
				ELSIF random() < 0.3 AND oban = 'elixir' THEN
					answer := 'snooze_before';
				ELSIF run.attempt < run.max_attempts THEN
					answer := 'fail';
				ELSE
					answer := 'discard';
				END IF;
				PERFORM oban(format('%s.%s(%s%s)', oban, answer, run.id, CASE answer
					WHEN 'complete' THEN ''
					WHEN 'snooze_before' THEN format(', %L, 0', run.meta)
					WHEN 'fail' THEN format(', %s, 0', run.attempt)
					ELSE format(', %s', run.attempt) END));
				COMMIT;
			END LOOP;
		END LOOP;
		PERFORM nextval('finished');
	END $$;

	CREATE PROCEDURE stager(oban text, seconds float) LANGUAGE plpgsql AS $$
	DECLARE
		until timestamptz := clock_timestamp() + make_interval(secs => seconds);
	BEGIN
		WHILE clock_timestamp() < until LOOP
			PERFORM oban(oban || '.stage()');
			COMMIT;
			PERFORM pg_sleep(0.01);
		END LOOP;
		PERFORM nextval('finished');
	END $$;

	-- A client calls one verb for some jobs at random: for one, or for several at once.
	CREATE PROCEDURE client(verb text, seconds float) LANGUAGE plpgsql AS $$
	DECLARE
		until timestamptz := clock_timestamp() + make_interval(secs => seconds);
		ids bigint[];
		changed int;
	BEGIN
		WHILE clock_timestamp() < until LOOP
			SELECT array_agg(id) FROM (SELECT id FROM oban_jobs ORDER BY random() LIMIT 8) j
				INTO ids;
			BEGIN
				IF verb = 'update' THEN
					SELECT count(*) INTO changed
						FROM oban_update_job(ids, '{"schedule_in": 0, "tags": ["seen"]}');
				ELSIF random() < 0.5 THEN
					EXECUTE format('SELECT oban_%s_job($1)', verb) INTO changed USING ids;
				ELSE
					EXECUTE format('SELECT oban_%s_job($1)::int', verb) INTO changed USING ids[1];
				END IF;
			-- Oban for Elixir's stager locks in another order.
			EXCEPTION WHEN no_data_found OR deadlock_detected THEN
				changed := 0;
			END;
			INSERT INTO calls VALUES (current_setting('application_name'), changed);
			-- What is deleted is made up for.
			IF verb = 'delete' THEN
				INSERT INTO oban_jobs (worker, max_attempts)
					SELECT 'Worker', 3 FROM generate_series(1, changed);
			END IF;
			COMMIT;
			PERFORM pg_sleep(0.002);
		END LOOP;
		PERFORM nextval('finished');
	END $$;

	CREATE FUNCTION wait_for_others(others int) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		WHILE (SELECT last_value FROM finished) < others LOOP
			PERFORM pg_sleep(0.05);
		END LOOP;
	END $$;});

my %scripts = (
	worker1 => "CALL worker('elixir', $seconds);",
	worker2 => "CALL worker('python', $seconds);",
	worker3 => "CALL worker('elixir', $seconds);",
	(map { ("stager_$_" => "CALL stager('$_', $seconds);") } qw(elixir python)),
	map { ($_ => "CALL client('$_', $seconds);") } qw(cancel retry delete update));
my $others = keys %scripts;
$scripts{listener} =
  qq(LISTEN "public.oban_signal";\nSELECT wait_for_others($others);\nSELECT 'end';\n);

my %outputs = run_sessions($node, %scripts);

is($outputs{$_}, '', "$_ met no error") for grep { $_ ne 'listener' } sort keys %scripts;

sub nothing_found
{
	my ($query, $name) = @_;
	is($node->safe_psql('postgres', $query), '', $name);
	return;
}

# Things went on at all, in every way that matters here.
is( $node->safe_psql(
		'postgres', q{
		SELECT string_agg(what, ', ' ORDER BY what) FROM (
			SELECT DISTINCT actor || ': ' || old_state || ' to ' || new_state AS what FROM events
			WHERE actor = 'cancel' AND old_state IN ('available', 'executing', 'retryable')
			   OR actor = 'retry' AND old_state IN ('cancelled', 'completed', 'discarded')
			   OR actor = 'delete' AND old_state IN ('available', 'cancelled')) happened}),
	join(', ',
		'cancel: available to cancelled',
		'cancel: executing to cancelled',
		'cancel: retryable to cancelled',
		'delete: available to none',
		'delete: cancelled to none',
		'retry: cancelled to available',
		'retry: completed to available',
		'retry: discarded to available'),
	'clients and workers met over jobs of every kind');

nothing_found(
	q{SELECT actor, job_id FROM events WHERE old_state = 'executing' AND new_state = 'none'},
	'no executing job was deleted');
nothing_found(
	q{SELECT actor, job_id FROM events WHERE old_state = 'executing' AND new_state = 'available'},
	'no executing job was made available');
nothing_found(
	q{SELECT actor, old_state, new_state, count(*) FROM events
		WHERE actor = 'cancel' AND (old_state IN ('completed', 'discarded', 'cancelled')
									OR new_state <> 'cancelled')
		   OR actor = 'retry' AND (old_state IN ('available', 'executing')
								   OR new_state <> 'available')
		   OR actor = 'update' AND new_state <> old_state
			   AND (old_state, new_state) <> ('scheduled', 'available')
		GROUP BY 1, 2, 3},
	'clients made no other change of state than their verb makes');
nothing_found(
	q{SELECT job_id, seq, last_state, old_state FROM (
			SELECT *, lag(new_state) OVER (PARTITION BY job_id ORDER BY seq) AS last_state
			FROM events) e
		WHERE last_state <> old_state},
	'the log has every change');
nothing_found(
	q{SELECT actor, job_id, old_state FROM events
		WHERE actor LIKE 'worker%' AND new_state = 'executing' AND old_state <> 'available'},
	'no job that was cancelled before a fetch was fetched');
nothing_found(
	q{SELECT actor, job_id, new_state FROM events
		WHERE old_state = 'cancelled' AND actor NOT IN ('retry', 'delete')
			AND new_state NOT IN ('cancelled', 'completed', 'discarded')},
	'no cancelled job came back but by a retry');
nothing_found(
	q{SELECT actor, job_id, old_state, new_state FROM (
			SELECT *, lag(actor) OVER (PARTITION BY job_id ORDER BY seq) AS before FROM events
			WHERE new_state <> old_state OR actor IN ('cancel', 'retry', 'delete', 'update')) e
		WHERE before = 'retry' AND actor NOT IN ('cancel', 'retry', 'delete', 'update')
			AND NOT (actor LIKE 'worker%' AND new_state = 'executing')},
	'after a retry a job was fetched, or changed by a later call');
nothing_found(
	q{SELECT job_id, attempt FROM runs GROUP BY 1, 2 HAVING count(*) > 1},
	'no attempt was run twice');
nothing_found(
	q{SELECT id FROM oban_jobs WHERE state = 'cancelled' AND cancelled_at IS NULL},
	'every cancelled job says when');

my ($signals, $lines) = parse_notifications($outputs{listener});
is_deeply([ grep { $_ ne '' } @$lines ], ['end'], 'the listener met no error');
is( join("\n", sort @$signals),
	join(
		"\n",
		sort map { qq(public.oban_signal {"action":"pkill","job_id":$_}) } split /\n/,
		$node->safe_psql(
			'postgres',
			q{SELECT job_id FROM events WHERE actor = 'cancel' AND old_state = 'executing'})),
	'each cancel of an executing job was told, and nothing else');

is( $node->safe_psql(
		'postgres',
		q{SELECT actor, sum(changed) FROM calls WHERE actor <> 'update' GROUP BY 1 ORDER BY 1}),
	$node->safe_psql(
		'postgres', q{
		SELECT actor, count(*) FROM events
		WHERE actor IN ('cancel', 'retry') OR actor = 'delete' AND new_state = 'none'
		GROUP BY 1 ORDER BY 1}),
	'the counts that calls returned are what happened');
is( $node->safe_psql('postgres', q{SELECT sum(changed) FROM calls WHERE actor = 'update'}),
	$node->safe_psql('postgres', q{SELECT count(*) FROM events WHERE actor = 'update'}),
	'updates returned the jobs that they wrote');

$node->stop;
done_testing();
