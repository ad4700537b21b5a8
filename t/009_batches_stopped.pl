# A CALL that is stopped at any moment leaves whole batches, and called again it does the rest: a
# query cancel, a terminated backend, timeouts, a crash of the server; in a batch, in the pause, and
# wherever it happens to be. Two sessions that work on the same jobs at once share them. Afterwards
# each job was changed exactly once.
#
# Shown to fail, by changes in src/functions/batch_transactions.c: without SPI_commit, nothing is left
# of the batches; with a pause that no interrupt ends; when an error leaves its subtransaction open
# (src/verbs/try.c), the session does not go on. With the conditions of append_lock
# (src/statements/queries.c) in a subquery, which takes no lock, two sessions update jobs twice.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use List::Util qw(sum0);
use ObanTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $jobs = 20_000;
my $batch = 1000;
# A job that every verb changes, in the fourth batch or later.
my $held = 3 * 9001;

my $node = start_server('batches_stopped', shared_buffers => '256MB', autovacuum => 'off');
make_jobs_table($node, 'public', 'elixir', 14);
prepare_batches($node);

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

# Start a CALL in a session that goes on after an error, unless it is lost.
sub start_call
{
	my ($setting, @arguments) = @_;
	return start_session($node, 'stopped',
		"\\set VERBOSITY verbose\n$setting;\n"
		  . call_batches(@arguments)
		  . "SELECT 'the session goes on';\n");
}

# What was said to be done must have been committed, and it was done in whole batches.
sub check_whole_batches
{
	my ($name, $output, $size) = @_;
	my @sizes = batch_sizes($node, 'stopped');
	my ($said) = $output =~ /.*NOTICE: [^\n]*?(\d+) of about/s;

	is_deeply([ grep { $_ != $size } @sizes ], [], "$name: whole batches only");
	cmp_ok(sum0(@sizes), '>=', $said // 0, "$name: and all that were reported");
	return scalar @sizes;
}

sub check_rest
{
	my ($name, $verb) = @_;
	my $done = sql('SELECT count(*) FROM changes');
	my $output = run_session($node, "SET application_name = 'again';\n" . call_batches($verb));

	is((split /\n/, $output)[-1],
		sql("SELECT to_do('$verb')") - $done,
		"$name: called again, it does the rest");
	finds_nothing($node, "SELECT * FROM not_once('$verb')", "$name: each job once");
	return;
}

sub backend
{
	my ($function) = @_;
	return sub {
		is(sql("SELECT $function(pid) FROM pg_stat_activity WHERE application_name = 'stopped'"),
			't', $function);
	};
}

sub crash
{
	$node->stop('immediate');
	return;
}

# Finish the sessions, and start the server again where it crashed: not before, for it would inherit
# the pipes to the sessions, which would then never end.
sub finish_both
{
	my ($session, $holder) = @_;
	my $output = finish_session($session);

	finish_session($holder);
	$node->start if !-e $node->data_dir . '/postmaster.pid';
	return $output;
}

# ---- In a batch: the call waits for a job that somebody holds.

for my $case (
	[ 'retry', 'a query cancel', backend('pg_cancel_backend'),
		qr/ERROR:  57014.*the session goes on/s ],
	[ 'delete', 'a terminated backend', backend('pg_terminate_backend'), qr/FATAL:  57P01/ ],
	[ 'cancel', 'a crash', \&crash, qr/connection to server was lost/ ],
	[ 'update', 'a crash', \&crash, qr/connection to server was lost/ ])
{
	my ($verb, $what, $stop, $error) = @$case;
	my $name = "$verb, $what in a batch";

	sql("CALL fill($jobs)");
	my $holder = hold_jobs($node, "id = $held");
	my $session = start_call('', $verb, "batch_size => $batch");
	wait_for_lock($node, 'stopped');
	$stop->();
	my $output = finish_both($session, $holder);

	like($output, $error, "$name: the error");
	cmp_ok(check_whole_batches($name, $output, $batch), '>=', 3, "$name: after some batches");
	check_rest($name, $verb);
}

sql("CALL fill($jobs)");
my $holder = hold_jobs($node, "id = $held");
my $session = start_call(q{SET lock_timeout = '100ms'}, 'retry', "batch_size => $batch");
my $output = finish_session($session);
finish_session($holder, "COMMIT;\n");
like($output, qr/ERROR:  55P03.*the session goes on/s, 'lock_timeout: the error');
cmp_ok(check_whole_batches('lock_timeout', $output, $batch),
	'>=', 3, 'lock_timeout: after some batches');
check_rest('lock_timeout', 'retry');

# ---- In the pause, which would end after this test has given up. It is a transaction of its own, and
# keeps nothing from others: no lock, and no snapshot that vacuum would have to heed.

for my $case (
	[ 'cancel', 'a query cancel', backend('pg_cancel_backend'),
		qr/ERROR:  57014.*the session goes on/s ],
	[ 'retry', 'a terminated backend', backend('pg_terminate_backend'), qr/FATAL:  57P01/ ])
{
	my ($verb, $what, $stop, $error) = @$case;
	my $name = "$verb, $what in the pause";

	sql("CALL fill($jobs)");
	$session = start_call('', $verb, "batch_size => $batch", "pause => '1 hour'");
	$node->poll_query_until('postgres', 'SELECT count(*) > 0 FROM changes')
	  or die 'the first batch was never committed';
	wait_for_session($node, 'stopped',
		q{backend_xmin IS NULL AND NOT EXISTS (SELECT FROM pg_locks
			WHERE pid = pg_stat_activity.pid AND locktype <> 'virtualxid')
		  AND xact_start > (SELECT max(at) AT TIME ZONE 'UTC' FROM changes)});
	sql(q{SET lock_timeout = '10s'; ALTER TABLE oban_jobs ALTER COLUMN tags SET STATISTICS 10});
	$stop->();
	$output = finish_session($session);

	like($output, $error, "$name: the error");
	is(check_whole_batches($name, $output, $batch), 1, "$name: after the first batch");
	check_rest($name, $verb);
}

# ---- statement_timeout is for the whole call: at any moment, and however short the batches are.
# Without it, the pauses alone would take longer than all of these together.

sql("CALL fill($jobs)");
my @timeouts = (7, 13, 29, 61, 111, 203);
$output = run_session($node, join '',
	"SET application_name = 'stopped';\n\\set VERBOSITY verbose\n",
	map {
		"SET statement_timeout = $_;\n"
		  . call_batches('retry', 'batch_size => 500', "pause => '20ms'")
	} @timeouts);
my @errors = $output =~ /ERROR:  (\w+)/g;
is_deeply(\@errors, [ map { '57014' } @timeouts ], 'statement_timeout: each ends the call');
check_whole_batches('statement_timeout', '', 500);
check_rest('statement_timeout', 'retry');

# ---- transaction_timeout, which 17 has, is for each batch and for each pause: these are transactions of
# their own, so the call may take longer, and a longer pause ends the session.

if (sql('SHOW server_version_num') >= 170000)
{
	sql("CALL fill($jobs)");
	my $to_do = sql("SELECT to_do('cancel')");
	$output = run_session($node, "SET application_name = 'stopped'; SET transaction_timeout = '4s';\n"
		  . 'SELECT clock_timestamp() AS start \gset' . "\n"
		  . call_batches('cancel', "batch_size => $to_do / 8", "pause => '600ms'")
		  . q{SELECT clock_timestamp() - :'start' > '4s';} . "\n");
	like($output, qr/\n$to_do\nt\n\z/, 'transaction_timeout: the call may take longer');
	finds_nothing($node, q{SELECT * FROM not_once('cancel')},
		'transaction_timeout: the call does all its jobs');

	sql("CALL fill($jobs)");
	$session = start_call(q{SET transaction_timeout = '4s'},
		'delete', "batch_size => $batch", "pause => '1 hour'");
	$output = finish_session($session);
	like($output, qr/FATAL:  25P04/, 'transaction_timeout in the pause: the error');
	is(check_whole_batches('transaction_timeout in the pause', $output, $batch),
		1, 'transaction_timeout in the pause: after the first batch');
	check_rest('transaction_timeout in the pause', 'delete');
}

# ---- A crash wherever the call happens to be, once it has done some batches. It cannot be at the
# end: somebody holds a job there.

sql("CALL fill($jobs)");
$holder = hold_jobs($node,
	q{id = (SELECT max(id) FROM oban_jobs WHERE worker = 'Mailer' AND state = 'discarded')});
$session = start_call('', 'retry', 'batch_size => 300', "pause => '10ms'");
$node->poll_query_until('postgres', 'SELECT count(*) >= 1500 FROM changes')
  or die 'too few batches were ever committed';
crash();
$output = finish_both($session, $holder);
cmp_ok(check_whole_batches('a crash anywhere', $output, 300),
	'>=', 5, 'a crash anywhere: after some batches');
check_rest('a crash anywhere', 'retry');

# ---- Two sessions at once over the same jobs. A third holds the first job until both want it.

for my $verb (qw(cancel retry delete update))
{
	sql("CALL fill($jobs)");
	$holder = hold_jobs($node, 'id = 3');
	my $call = call_batches($verb, 'batch_size => 700');
	my %sessions = map { ($_ => start_session($node, $_, $call)) } qw(one two);
	wait_for_lock($node, $_) for qw(one two);
	finish_session($holder, "COMMIT;\n");
	my %outputs = map { ($_ => finish_session($sessions{$_})) } qw(one two);

	finds_nothing($node, "SELECT * FROM not_once('$verb')", "$verb, two sessions: each job once");
	for my $actor (qw(one two))
	{
		my @sizes = batch_sizes($node, $actor);

		unlike($outputs{$actor}, qr/ERROR/, "$verb, two sessions: no error in $actor");
		is((split /\n/, $outputs{$actor})[-1],
			sum0(@sizes), "$verb, two sessions: what $actor says it did");
		pop @sizes;
		is_deeply([ grep { $_ != 700 } @sizes ],
			[], "$verb, two sessions: whole batches of $actor");
	}
}

$node->stop;
done_testing();
