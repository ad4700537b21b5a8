# An application's table is replicated to the database of the jobs, whose ENABLE ALWAYS triggers act
# on them: in the workers that copy the table at first, and in the one that applies what follows. A
# trigger that is enabled in the ordinary way does not fire there, for they run with
# session_replication_role = replica.
#
# In these workers there is no client and no statement of one, and search_path is empty: what a verb
# needs from any of them shows here. So a callable is named with its schema.
#
# Shown to fail with om_update_drop_missing (src/verbs/update_steps.c) raising an error in triggers
# too, which stops replication for good at a row whose job is gone; with no kill from a background
# worker (src/jobs/signals.c); with one row for a statement trigger (om_trigger_next_row in
# src/functions/trigger_rows.c); and with the old row as the new one in om_trigger_context
# (src/functions/trigger_contexts.c).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use ObanTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = start_server(
	'publisher',
	wal_level => 'logical',
	max_wal_senders => 10,
	max_replication_slots => 10);
my $subscriber =
  start_server('subscriber', wal_level => 'logical', wal_retrieve_retry_interval => '100ms');
make_jobs_table($subscriber, 'public', 'elixir', 14);

my $tables = q{
	CREATE TABLE appointments (id int PRIMARY KEY, at timestamptz, reminder_job_id bigint);
	ALTER TABLE appointments REPLICA IDENTITY FULL;
	CREATE TABLE orders (id int PRIMARY KEY, note text, job_ids bigint[]);
	ALTER TABLE orders REPLICA IDENTITY FULL;};

$publisher->safe_psql('postgres', "$tables CREATE PUBLICATION app FOR TABLE appointments, orders");
$publisher->safe_psql(
	'postgres', q{
	INSERT INTO appointments
		SELECT id, '2030-01-01 09:00Z', nullif(id, 9) FROM generate_series(1, 9) id;
	INSERT INTO orders VALUES (1, 'copied', '{11, 12}'), (2, 'copied too', '{12, NULL, 13}');});

# The jobs. Those of the orders are touched by the initial copy. Jobs 1 to 4 are executing.
$subscriber->safe_psql(
	'postgres', $tables . q{
	INSERT INTO oban_jobs (id, state, worker, queue, scheduled_at)
		SELECT id, CASE WHEN id <= 4 THEN 'executing' ELSE 'scheduled' END::oban_job_state,
			   'Worker', 'mail', '2030-01-01 08:00'
		FROM generate_series(1, 20) id;

	-- An hour before the appointment, and what came with the change.
	CREATE FUNCTION follow(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS $$
		SELECT jsonb_build_object(
			'scheduled_at', (context #>> '{new,at}')::timestamptz - interval '1 hour',
			'meta', job.meta || jsonb_build_object('op', context -> 'op', 'table',
				context -> 'table', 'schema', context -> 'schema', 'moved', context #> '{old,id}'))
	$$;
	CREATE FUNCTION count_calls(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS $$
		SELECT jsonb_build_object('meta', job.meta || jsonb_build_object(
			context ->> 'op', coalesce((job.meta ->> (context ->> 'op'))::int, 0) + 1))
	$$;
	CREATE FUNCTION refuse(job oban_job) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		RAISE 'refused by the callable' USING ERRCODE = 'UE001';
	END $$;

	CREATE TRIGGER a_cancel AFTER DELETE ON appointments
		FOR EACH ROW EXECUTE FUNCTION oban_cancel_job('reminder_job_id');
	CREATE TRIGGER b_follow AFTER UPDATE ON appointments
		FOR EACH ROW EXECUTE FUNCTION oban_update_job_with('reminder_job_id', 'public.follow');
	ALTER TABLE appointments ENABLE ALWAYS TRIGGER a_cancel, ENABLE ALWAYS TRIGGER b_follow;
	-- These must not fire.
	CREATE TRIGGER c_default AFTER INSERT OR UPDATE OR DELETE ON appointments
		FOR EACH ROW EXECUTE FUNCTION oban_update_job('reminder_job_id', '{"tags": ["default"]}');
	CREATE TRIGGER d_default AFTER INSERT ON orders REFERENCING NEW TABLE AS copied
		FOR EACH STATEMENT EXECUTE FUNCTION oban_delete_job('job_ids');

	-- COPY fires both kinds.
	CREATE TRIGGER e_row AFTER INSERT ON orders
		FOR EACH ROW EXECUTE FUNCTION oban_update_job_with('job_ids', 'public.count_calls');
	CREATE TRIGGER f_set AFTER INSERT ON orders REFERENCING NEW TABLE AS copied
		FOR EACH STATEMENT EXECUTE FUNCTION oban_retry_job('job_ids');
	ALTER TABLE orders ENABLE ALWAYS TRIGGER e_row, ENABLE ALWAYS TRIGGER f_set;});

# A running Oban, which listens to the end.
my ($to_listener, $from_listener) = (
	qq(LISTEN "public.oban_signal";\nLISTEN "public.oban_insert";\n\\echo listening\n), '');
my $listener = IPC::Run::start(
	[ 'psql', '-XAtq', '-d', $subscriber->connstr('postgres'), '-f', '-' ],
	'<', \$to_listener, '>', \$from_listener, '2>&1',
	IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
$listener->pump until $from_listener =~ /listening/;

# What came since the last call, sorted: the order in which several subscribers' transactions commit
# is not given.
sub heard
{
	$from_listener = '';
	# psql shows notifications after a statement's result.
	$to_listener .= "SELECT 1 AS one \\gset\n\\echo heard\n";
	$listener->pump until $from_listener =~ /^heard$/m;
	my ($signals) = parse_notifications($from_listener);
	return [ sort @$signals ];
}

sub kill_of { return qq(public.oban_signal {"action":"pkill","job_id":$_[0]}); }
my $wake = 'public.oban_insert {"queue":"mail"}';

sub jobs
{
	my ($columns, @ids) = @_;
	my $ids = join ', ', @ids;
	return $subscriber->safe_psql('postgres',
		"SELECT id, $columns FROM oban_jobs WHERE id IN ($ids) ORDER BY id");
}

# Publish a change, wait until it is applied, and look whether the worker that did so still lives.
my $worker;

sub apply_worker
{
	return $subscriber->safe_psql('postgres',
		"SELECT pid FROM pg_stat_subscription WHERE subname = 'jobs' AND relid IS NULL");
}

sub publish
{
	my ($sql, $name) = @_;
	$publisher->safe_psql('postgres', $sql);
	$publisher->wait_for_catchup('jobs');
	is(apply_worker(), $worker, "$name: the apply worker is the same");
	return;
}

# The initial copy.
my $connection = $publisher->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres',
	"CREATE SUBSCRIPTION jobs CONNECTION '$connection' PUBLICATION app");
$subscriber->wait_for_subscription_sync($publisher, 'jobs');
$worker = apply_worker();
like($worker, qr/^\d+$/, 'there is an apply worker');

is( $subscriber->safe_psql('postgres',
		'SELECT (SELECT count(*) FROM appointments), (SELECT count(*) FROM orders)'),
	'9|2',
	'the tables were copied');
is( jobs('state, meta', 11 .. 14),
	join("\n",
		'11|available|{"INSERT": 1}', '12|available|{"INSERT": 2}',
		'13|available|{"INSERT": 1}', '14|scheduled|{}'),
	'copied rows: the row trigger ran for each job of each row, the statement trigger once');
is_deeply(heard(), [$wake], 'copied rows: the queue was woken');
is( jobs("state, coalesce(array_to_string(tags, ','), '')", 1, 5),
	"1|executing|\n5|scheduled|",
	'copied rows: ordinary triggers did not fire');

# Deletes cancel.
publish('DELETE FROM appointments WHERE id IN (1, 2, 5, 9)', 'delete');
is( jobs(q{state, cancelled_at > timezone('UTC', now()) - interval '5 minutes'}, 1 .. 6),
	join("\n",
		'1|cancelled|t', '2|cancelled|t', '3|executing|',
		'4|executing|', '5|cancelled|t', '6|scheduled|'),
	'delete: the jobs of those rows are cancelled, and no others');
is_deeply(
	heard(),
	[ kill_of(1), kill_of(2) ],
	'delete: the listener is told of those that were executing');

# Updates reschedule, by callable.
publish("UPDATE appointments SET at = '2031-02-03 10:00+02' WHERE id IN (3, 6)", 'update');
is( jobs('state, scheduled_at, meta', 3, 6, 7),
	join("\n",
		(map
			{ qq($_|2031-02-03 07:00:00|{"op": "UPDATE", "moved": ID, "table": "appointments",)
				. ' "schema": "public"}' } '3|executing', '6|scheduled'),
		'7|scheduled|2030-01-01 08:00:00|{}') =~ s/^(\d+)(.*)ID/$1$2$1/gmr,
	'update: the jobs follow, with the context of the change');
is_deeply(heard(), [], 'update: nobody is woken for what lies in the future');

publish("UPDATE appointments SET at = '2020-01-01Z' WHERE id = 6", 'update to the past');
is(jobs('state', 6), '6|available', 'update to the past: the job is available');
is_deeply(heard(), [$wake], 'update to the past: its queue is woken');

# Several changes in one transaction, and one that is rolled back.
publish(
	q{BEGIN;
	  UPDATE appointments SET at = '2032-01-01 09:00Z' WHERE id = 3;
	  SAVEPOINT before_it;
	  DELETE FROM appointments WHERE id = 4;
	  ROLLBACK TO SAVEPOINT before_it;
	  DELETE FROM appointments WHERE id = 3;
	  COMMIT;},
	'a transaction');
is( jobs('state, scheduled_at', 3, 4),
	"3|cancelled|2032-01-01 08:00:00\n4|executing|2030-01-01 08:00:00",
	'a transaction: all of it that was committed');
is_deeply(heard(), [ kill_of(3) ], 'a transaction: the listener is told once, at its end');

# Jobs that are not there, or are done, stop nothing.
$subscriber->safe_psql('postgres',
	"DELETE FROM oban_jobs WHERE id = 7; UPDATE oban_jobs SET state = 'completed' WHERE id = 8");
publish("UPDATE appointments SET at = '2033-01-01 09:00Z' WHERE id = 7", 'update, no job');
publish('DELETE FROM appointments WHERE id IN (7, 8)', 'delete, no job');
is(jobs('state', 7, 8), '8|completed', 'a missing or completed job is passed over');
is_deeply(heard(), [], 'and nobody is told');

# Many rows, so that every plan is a generic one by now; INSERT is applied row by row, where
# statement triggers do not fire.
publish(
	q{INSERT INTO orders SELECT id, 'new', ARRAY[14, 15] FROM generate_series(10, 109) id},
	'many rows');
is(jobs('state, meta', 14, 15),
	qq(14|scheduled|{"INSERT": 100}\n15|scheduled|{"INSERT": 100}),
	'many rows: the row trigger ran for each, no statement trigger did');
is_deeply(heard(), [], 'many rows: nobody is told of an update that makes nothing due');

# A callable that raises stops replication, as an error in any trigger does; once it is mended, the
# change is applied and nothing is lost.
my $logged = -s $subscriber->logfile;
$subscriber->safe_psql(
	'postgres', q{
	CREATE TRIGGER g_refuse BEFORE DELETE ON appointments
		FOR EACH ROW EXECUTE FUNCTION oban_update_job_with('reminder_job_id', 'public.refuse');
	ALTER TABLE appointments ENABLE ALWAYS TRIGGER g_refuse;});
$publisher->safe_psql('postgres', 'DELETE FROM appointments WHERE id = 4');
ok($subscriber->wait_for_log(qr/ERROR: .*refused by the callable/, $logged),
	'an error: it is in the log');
is(jobs('state', 4), '4|executing', 'an error: the job is as it was');
my $log = substr slurp_file($subscriber->logfile), $logged;
like(
	$log,
	qr/callable \S*refuse\(\S*oban_job\) for job 4/,
	'an error: the log names the callable and the job');
$subscriber->safe_psql('postgres', 'DROP TRIGGER g_refuse ON appointments');
$publisher->wait_for_catchup('jobs');
is(jobs('state', 4), '4|cancelled', 'an error: applied once the cause is gone');
is_deeply(heard(), [ kill_of(4) ], 'an error: the listener is told then, and once');

# An apply worker that ends wakes the launcher before it lets go of its replication origin, so the one
# that takes its place may find the origin still taken; the next one does not.
my @errors = grep { !/refused by the callable/ } slurp_file($subscriber->logfile) =~ /ERROR: .*/g;
my $taken = grep { /replication origin with ID \d+ is already active/ } @errors;
my $refused = () = slurp_file($subscriber->logfile) =~ /ERROR: .*refused by the callable/g;
cmp_ok($taken, '<=', $refused, 'an origin that is still taken is so after an error only');
@errors = grep { !/replication origin with ID \d+ is already active/ } @errors;
is_deeply(\@errors, [], 'the subscriber met no other error');

$to_listener .= "\\q\n";
$listener->finish;
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION jobs');
$subscriber->stop;
$publisher->stop;
done_testing();
