# Four workers of both Obans fetch, run and acknowledge jobs, the stagers of both make them due,
# their pruners delete old ones, and a session goes through the same jobs in batches all the while,
# with each of the four procedures. Every change is logged, and the log is judged afterwards: each
# call changed a job once at most, as its verb does and by what its state was then, and said how
# many; no job that was there to be retried was left out; no executing job was deleted or made
# available; no cancelled job came back but by a retry; each cancel of an executing job was told to
# its worker; nobody met an error.
#
# Shown to fail without the guard: cancelled jobs come back. Shown to fail, by changes in
# append_lock (src/statements/queries.c): with its conditions in a subquery, which takes no lock,
# executing jobs are cancelled by a filter for available ones; without FOR their workers are not
# told.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $jobs = 20_000;

my $node = start_server(
	'batches_and_workers',
	max_connections => 30,
	shared_buffers => '256MB',
	deadlock_timeout => '100ms');
make_jobs_table($node, 'public', 'elixir', 14);
make_oban($node);
prepare_batches($node);

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

sql("CALL fill($jobs)");
# Workers come to the jobs that are retried before the others.
sql(q{UPDATE oban_jobs SET priority = 1 WHERE state <> 'discarded'});
# Which jobs are old enough to be pruned goes by their ids here.
sql(q{
	UPDATE oban_jobs SET scheduled_at = '2024-01-01', completed_at = '2024-01-02',
		discarded_at = '2024-01-02'
	WHERE state IN ('completed', 'discarded') AND id % 11 = 0;
	TRUNCATE changes});
sql(q{
	CREATE TABLE runs (job_id bigint, attempt int);
	CREATE SEQUENCE stop;
	CREATE FUNCTION stopped() RETURNS boolean LANGUAGE sql AS 'SELECT is_called FROM stop';

	CREATE PROCEDURE worker(oban text) LANGUAGE plpgsql AS $$
	DECLARE
		run record;
		answer text;
		running jsonb;
	BEGIN
		WHILE NOT stopped() LOOP
			running := oban(oban || '.fetch(10)');
			COMMIT;
			PERFORM pg_sleep(0.005);
			FOR run IN SELECT * FROM jsonb_to_recordset(running)
				AS r (id bigint, attempt int, meta jsonb)
			LOOP
				INSERT INTO runs VALUES (run.id, run.attempt);
				PERFORM pg_sleep(0.001);
				-- The answer goes by id alone. Some workers ask at a safe point whether to stop.
				answer := (ARRAY['complete', 'complete', 'fail', 'discard',
					-- The snooze that gives the attempt back would make its number come again.
					CASE oban WHEN 'elixir' THEN 'snooze_before' ELSE 'fail' END])[ceil(random() * 5)];
				IF random() < 0.5 AND oban_job_cancelled(run.id) THEN
					answer := 'stop';
				END IF;
				PERFORM oban(format('%s.%s(%s%s)', oban, answer, run.id, CASE answer
					WHEN 'complete' THEN ''
					WHEN 'snooze_before' THEN format(', %L, 0', run.meta)
					WHEN 'fail' THEN format(', %s, 0', run.attempt)
					ELSE format(', %s', run.attempt) END));
				COMMIT;
			END LOOP;
		END LOOP;
	END $$;

	CREATE PROCEDURE again_and_again(call text) LANGUAGE plpgsql AS $$
	BEGIN
		WHILE NOT stopped() LOOP
			PERFORM oban(call);
			COMMIT;
			PERFORM pg_sleep(0.05);
		END LOOP;
	END $$;});

# The session with the batches takes the name of what it does.
my @calls = (
	retry => q{retry_in_batches('{"worker": "Mailer", "state": "discarded"}', 200, '2ms')},
	# These are the jobs that the workers take next.
	cancel_waiting => q{cancel_in_batches('{"state": "available", "priority": 0}', 100)},
	cancel => q{cancel_in_batches('{"worker": "Mailer", "queue": "default"}', 200, '2ms')},
	retry_all => q{retry_in_batches('{"state": ["cancelled", "retryable"]}', 200, '2ms')},
	update => q{update_in_batches('{"worker": "Mailer"}', '{"priority": 2}', 400)},
	delete => q{delete_in_batches('{"state": ["completed", "discarded"], "priority": 2}', 200)});

my %others = (
	worker1 => "worker('elixir')",
	worker2 => "worker('python')",
	worker3 => "worker('elixir')",
	worker4 => "worker('python')",
	map {
		(
			"stager_$_" => "again_and_again('$_.stage(500)')",
			"pruner_$_" => "again_and_again('$_.prune(interval ''1 hour'', 20)')")
	} qw(elixir python));
my @others = sort keys %others;
my %sessions = map { ($_ => start_session($node, $_, "CALL $others{$_};\n")) } @others;
$sessions{listener} = start_session($node, 'listener', qq{LISTEN "public.oban_signal";\n});
wait_for_session($node, 'listener', q{state = 'idle' AND query LIKE 'LISTEN%'});

# The retry cannot end before workers have met jobs that it retried: its last one is held till then.
my $holder = hold_jobs(
	$node, q{id = (
		SELECT max(id) FROM oban_jobs
		WHERE worker = 'Mailer' AND state = 'discarded' AND id % 11 <> 0)});
my $script = "\\set VERBOSITY terse\n";
while (my ($name, $call) = splice @calls, 0, 2)
{
	$script .= "SET application_name = '$name';\n\\echo $name\nCALL oban_$call;\n";
}
$sessions{batches} = start_session($node, 'batches', "$script;SELECT nextval('stop') \\gset\n");
$node->poll_query_until('postgres', q{
	SELECT count(DISTINCT w.actor) = 4 FROM changes r JOIN changes w USING (job_id)
	WHERE r.actor = 'retry' AND w.actor LIKE 'worker%' AND w.seq > r.seq})
  or die 'workers never met what was retried';
finish_session($holder, "COMMIT;\n");

my %outputs = map { ($_ => finish_session($sessions{$_})) } 'batches', @others;
$outputs{listener} = finish_session($sessions{listener}, "SELECT 'end';\n");

is($outputs{$_}, '', "$_ met no error") for @others;
unlike($outputs{batches}, qr/ERROR|WARNING/, 'the batches met no error');

sub finds_none
{
	my ($query, $name) = @_;
	finds_nothing($node, $query, $name);
	return;
}

# Things went on at all, in every way that matters here.
is( sql(q{
		SELECT string_agg(what, ', ' ORDER BY what) FROM (
			SELECT DISTINCT actor || ': ' || old_state AS what FROM changes
			WHERE actor IN ('retry', 'cancel_waiting')
			   OR actor = 'cancel' AND old_state IN ('available', 'executing')
			   OR actor = 'retry_all' AND old_state = 'cancelled'
			   OR actor = 'delete') happened}),
	'cancel: available, cancel: executing, cancel_waiting: available, delete: completed, '
	  . 'delete: discarded, retry: discarded, retry_all: cancelled',
	'the batches met jobs of every kind');

finds_none(q{
	SELECT job_id, seq, last_state, old_state FROM (
		SELECT *, lag(new_state, 1, state) OVER (PARTITION BY job_id ORDER BY seq) AS last_state
		FROM changes JOIN initial ON id = job_id) c
	WHERE last_state IS DISTINCT FROM old_state}, 'the log has every change');
finds_none(q{
	SELECT i.id, c.new_state, j.state FROM initial i
		LEFT JOIN oban_jobs j USING (id)
		LEFT JOIN LATERAL (SELECT * FROM changes WHERE job_id = i.id ORDER BY seq DESC LIMIT 1) c
			ON true
	WHERE j.state::text IS DISTINCT FROM CASE WHEN c.seq IS NULL THEN i.state ELSE c.new_state END},
	'and every job is as its last change left it');
finds_none(q{
	SELECT actor, job_id FROM changes WHERE actor NOT SIMILAR TO '(worker|stager|pruner)%'
	GROUP BY 1, 2 HAVING count(*) > 1}, 'no call changed a job twice');
finds_none(q{
	SELECT actor, old_state, new_state, count(*) FROM changes
	WHERE CASE actor
			WHEN 'retry' THEN old_state <> 'discarded' OR new_state <> 'available'
			WHEN 'retry_all' THEN old_state NOT IN ('cancelled', 'retryable')
				OR new_state <> 'available'
			WHEN 'cancel_waiting' THEN old_state <> 'available' OR new_state <> 'cancelled'
			WHEN 'cancel' THEN old_state IN ('completed', 'discarded', 'cancelled')
				OR new_state <> 'cancelled'
			WHEN 'update' THEN new_state <> old_state
			WHEN 'delete' THEN old_state NOT IN ('completed', 'discarded') OR new_state IS NOT NULL
		END
	GROUP BY 1, 2, 3}, 'no call made another change than it was asked for');
finds_none(q{
	SELECT i.id, c.actor FROM initial i
		LEFT JOIN LATERAL (SELECT * FROM changes WHERE job_id = i.id ORDER BY seq LIMIT 1) c ON true
	WHERE i.state = 'discarded' AND worker = 'Mailer' AND actor IS DISTINCT FROM 'retry'
		AND (coalesce(actor, '') NOT LIKE 'pruner%' OR i.id % 11 <> 0)},
	'every job that was discarded at the start was retried, unless the pruner was first');
finds_none(q{
	SELECT actor, job_id, old_state, new_state FROM changes
	WHERE CASE WHEN actor LIKE 'stager%' THEN
			old_state NOT IN ('scheduled', 'retryable', 'available') OR new_state <> 'available'
		WHEN actor LIKE 'pruner%' THEN old_state NOT IN ('completed', 'cancelled', 'discarded')
		WHEN actor LIKE 'worker%' THEN
			old_state = 'cancelled' AND new_state NOT IN ('cancelled', 'completed', 'discarded')
		END}, 'no executing and no cancelled job came back, and none that was retried was pruned');
finds_none(q{SELECT job_id, attempt FROM runs GROUP BY 1, 2 HAVING count(*) > 1},
	'no attempt was run twice');

my %said = $outputs{batches} =~ /^(\w+)\n(?:psql\S+ NOTICE: .*\n)*(\d+)$/mg;
is_deeply(
	\%said,
	{
		map { split /\|/ } split /\n/,
		sql(q{SELECT actor, count(*) FROM changes
			WHERE actor NOT SIMILAR TO '(worker|stager|pruner)%' GROUP BY 1})
	},
	'each call said how many jobs it changed');

my ($signals, $lines) = parse_notifications($outputs{listener});
is_deeply($lines, ['end'], 'the listener met no error');
is( join("\n", sort @$signals),
	join(
		"\n",
		sort map { qq(public.oban_signal {"action":"pkill","job_id":$_}) } split /\n/,
		sql(q{SELECT job_id FROM changes WHERE actor = 'cancel' AND old_state = 'executing'})),
	'each cancel of an executing job was told, and nothing else');

$node->stop;
done_testing();
