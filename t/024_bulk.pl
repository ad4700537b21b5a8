# Bulk work beside others, and stopped in the middle.
#
# 1. Oban for Elixir's stager polls every 100 ms for jobs that fall due, and locks them from the latest
#    schedule to the earliest, while calls by filter cancel and retry the same jobs, 50 times each. Deadlocks
#    are there; no error reaches the caller. specs/filter_deadlock.spec makes one at a time.
# 2. A batch that divides its jobs, because the table refuses some, is cancelled, terminated, or the
#    server crashes: whole batches only are left, and the same call does the rest.
# 3. What pg_stat_activity shows of a CALL: its text, with how far it has come after it.
#
# Shown to fail, by changes in src/: 1 with MAX_TRIES 1 in verbs/run.c; 3, and the likes of it in 2,
# without show_activity (functions/batch_progress.c).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = start_server(
	'bulk',
	deadlock_timeout => '20ms',
	compute_query_id => 'on',
	track_activity_query_size => 300);
make_jobs_table($node, 'public', 'elixir', 14);
make_oban($node);

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

# ---- The stager. It and the calls meet in every try: the jobs fall due, one after the other, in the
# opposite order of their ids, while it polls.

sql(q{
	CREATE SEQUENCE stop;
	CREATE PROCEDURE stager() LANGUAGE plpgsql AS $$
	BEGIN
		WHILE NOT (SELECT is_called FROM stop) LOOP
			PERFORM oban('elixir.stage()');
			COMMIT;
			PERFORM pg_sleep(0.1);
		END LOOP;
	END $$;
	CREATE PROCEDURE fall_due() LANGUAGE sql AS $$
		TRUNCATE oban_jobs;
		INSERT INTO oban_jobs (id, worker, state, scheduled_at)
		SELECT id, 'Worker', 'scheduled',
			timezone('UTC', clock_timestamp()) + interval '0.2 s' * (2000 - id) / 2000
		FROM generate_series(1, 4000) id
	$$});
my $tries = join '', map {
	my $verb = $_ % 2 ? 'cancel' : 'retry';
	qq{CALL fall_due();\nSELECT pg_sleep(0.02 * ($_ % 12)) \\gset\n}
	  . qq{SELECT oban_${verb}_all_jobs('{"worker": "Worker"}') AS n \\gset $verb$_\_\n}
} 1 .. 100;
# The stager looks for a deadlock late, so that it is mostly the call that loses.
my $stager = start_session($node, 'stager', "SET deadlock_timeout = '300ms';\nCALL stager();\n");
my $output = run_session($node, "\\set VERBOSITY verbose\n" . $tries . "SELECT nextval('stop') \\gset\n");

is($output, '', 'a hundred calls by filter beside the stager: no error');
is(finish_session($stager), '', 'and none for the stager');
note(sql(q{SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()}), ' deadlocks');

# ---- Stopped while it divides. Jobs 1 to 5000, in batches of 500; every 97th is refused. Job 2200 waits
# for a lock: by then the fifth batch has met two refused jobs.

sql(q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.id % 97 = 0 THEN
			RAISE EXCEPTION 'no, not job %', NEW.id;
		END IF;
		IF NEW.id = 2200 THEN
			PERFORM pg_advisory_xact_lock_shared(17);
		END IF;
		RETURN NEW;
	END $$;
	CREATE TRIGGER refuse BEFORE UPDATE ON oban_jobs FOR EACH ROW EXECUTE FUNCTION refuse();
	CREATE PROCEDURE fill() LANGUAGE sql AS $$
		TRUNCATE oban_jobs;
		INSERT INTO oban_jobs (id, worker) SELECT id, 'Worker' FROM generate_series(1, 5000) id
	$$});
my $cancel = q{CALL oban_cancel_in_batches('{"worker": "Worker"}', 500, skip_refused => true);};
my $activity = q{FROM pg_stat_activity WHERE application_name = 'bulk'};

sub crash
{
	$node->stop('immediate');
	return;
}

for my $case (
	[ 'a query cancel', sub { sql("SELECT pg_cancel_backend(pid) $activity") }, qr/ERROR:  canceling/ ],
	[ 'a terminated backend', sub { sql("SELECT pg_terminate_backend(pid) $activity") }, qr/FATAL:  / ],
	[ 'a crash', \&crash, qr/connection to server was lost/ ])
{
	my ($name, $stop, $error) = @$case;

	sql('CALL fill()');
	my $holder = start_session($node, 'holder', "SELECT pg_advisory_lock(17) \\gset\n");
	wait_for_session($node, 'holder', q{state = 'idle' AND query LIKE '%advisory%'});
	my $session = start_session($node, 'bulk', "$cancel\n");
	wait_for_lock($node, 'bulk');
	like(
		sql("SELECT query $activity"),
		qr{^\Q$cancel\E /\* cancelled 1980 of about 5000 jobs, \d+ per second, \d+ s left \*/$},
		"$name: pg_stat_activity says how far it is");
	$stop->();
	$output = finish_session($session);
	finish_session($holder);
	$node->start if !-e $node->data_dir . '/postmaster.pid';

	like($output, $error, "$name: the error");
	is( sql(q{SELECT count(*), min(id), max(id), count(*) FILTER (WHERE id % 97 = 0) FROM oban_jobs
		WHERE state = 'cancelled'}),
		'1980|1|2000|0', "$name: four whole batches, less the jobs that were refused");
	$output = run_session($node, $cancel);
	like($output, qr/WARNING:  51 jobs were refused by the table/, "$name: called again");
	like($output, qr/\n2969$/, "$name: it does the rest");
	is(sql(q{SELECT count(*) FROM oban_jobs WHERE state = 'cancelled'}), '4949', "$name: all of them");
}

# ---- pg_stat_activity: the text of a long CALL gives way to the line, is cut between letters, and
# a query keeps its id. Where activities are not tracked, nothing is shown.

sub watch
{
	my ($settings, $call) = @_;

	sql('CALL fill()');
	my $first = hold_jobs($node, 'id = 100');
	my $session = start_session($node, 'bulk', "$settings;\n$call\n");
	wait_for_lock($node, 'bulk');
	my $before = sql("SELECT query_id, query $activity");
	my $holder = start_session($node, 'lock', "SELECT pg_advisory_lock(17) \\gset\n");
	wait_for_session($node, 'lock', q{state = 'idle' AND query LIKE '%advisory%'});
	finish_session($first, "COMMIT;\n");
	wait_for_session($node, 'bulk', q{wait_event = 'advisory'});
	my $during = sql("SELECT query_id, query $activity");
	finish_session($holder);
	finish_session($session);
	return map { [ split /\|/, $_, 2 ] } $before, $during;
}

my ($before, $during) = watch('SET client_min_messages = error', $cancel);
is($during->[0], $before->[0], 'the query keeps its id');
isnt($during->[0], '', 'which it has');
is($before->[1], $cancel, 'the text of the CALL before the first batch is done');

my $long = $cancel =~ s/"Worker"/["Worker", "@{[ "\xc3\xa4" x 300 ]}"]/r;
($before, $during) = watch('SET client_min_messages = error', $long);
like(
	$during->[1],
	qr{^CALL oban_cancel_in_batches\('\{"worker": \["Worker", "(?:\xc3\xa4)+ /\* cancelled 1980 of about 5000 jobs, \d+ per second, \d+ s left \*/$},
	'a long CALL is cut, and the line is whole');
cmp_ok(length $during->[1], '<', 300, 'it fits');

# Nothing is known of such a session by its state: its lock tells.
sql('CALL fill()');
$node->append_conf('postgresql.conf', 'track_activities = off');
$node->reload;
$output = run_session($node, "SET client_min_messages = error;\nSHOW track_activities;\n$cancel");
is($output, "off\n4949\n", 'without track_activities');

$node->stop;
done_testing();
