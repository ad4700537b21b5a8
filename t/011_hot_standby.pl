# A hot standby: what reads works there, what writes gives PostgreSQL's own error (25006) and
# nothing worse, and sessions that were there before the promotion go on with the plans that they
# keep.
#
# Shown to fail with reading that locks (RowExclusiveLock is allowed there, SELECT FOR SHARE is
# not), with a dry run that locks its rows (om_call_find in src/verbs/selection.c), and with kept
# plans that are not made anew after an invalidation (om_plan_fetch in src/statements/plan_cache.c),
# which come by WAL here.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Cluster;
use Sessions;
use Test::More;

my $primary = start_server('primary', log_error_verbosity => 'verbose',
	wal_level => 'replica', max_wal_senders => 5);
make_jobs_table($primary, 'public', 'elixir', 14);
make_jobs_table($primary, 'python', 'python');
make_life_jobs($primary, 'public');
knows_every_function($primary);

$primary->backup('before');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'before', has_streaming => 1);
$standby->start;

sub on_primary
{
	my ($sql) = @_;

	$primary->safe_psql('postgres', $sql);
	$primary->wait_for_catchup($standby, 'replay');
	return;
}

my $session = open_session($standby);

# Reads, more often than a plan is made for its values.
my %given = (
	'oban_get_job(bigint,text)' => '2|executing',
	'oban_job_cancelled(bigint,text,integer)' => 'f|t',
	'oban_all_jobs(jsonb,integer,text)' => "1|available\n2|executing");
for my $read (calls_of('reads'))
{
	my ($signature, $sql) = @$read;

	is(ask($session, join '; ', ($sql) x 7), join("\n", ($given{$signature}) x 7), $signature);
}
is(ask($session, q(SELECT count(*) FROM oban_all_jobs('{"all": true}', NULL, 'python'))),
	0, 'a table that is empty');
is(ask($session, 'SELECT oban_get_job(99) IS NULL, oban_job_cancelled(99)'),
	't|t', 'a job that is not there');

# Dry runs say what the primary does.
my %dry_run =
  map { $_ => ask($session, "SELECT * FROM oban_manage_jobs('$_', '{5,4,3,2,1,9}', NULL, true)") }
  qw(cancel retry delete);
$dry_run{update} = ask($session,
	q(SELECT * FROM oban_manage_jobs('update', '{5,4,3,2,1,9}', '{"schedule_in": 0}', true)));
for my $verb (sort keys %dry_run)
{
	my $update = $verb eq 'update' ? q('{"schedule_in": 0}') : 'NULL';
	my $done = $primary->safe_psql('postgres',
		"BEGIN; SELECT * FROM oban_manage_jobs('$verb', '{5,4,3,2,1,9}', $update); ROLLBACK");

	is($dry_run{$verb}, $done, "a dry run of $verb");
	unlike($done, qr/^ERROR|^$/, "$verb has outcomes");
}

# Writes: one error, however often, and also when there is no such job.
for my $write (calls_of('writes'), calls_of('batches'))
{
	my ($signature, $sql) = @$write;

	is(ask($session, "$sql; $sql"), join("\n", ('ERROR:  25006') x 2), $signature);
}
is(ask($session, 'SELECT oban_cancel_job(99)'), 'ERROR:  25006', 'no such job');
is(ask($session, 'SELECT oban_cancel_job(NULL::bigint), oban_delete_many_jobs(NULL)'),
	'f|0', 'nothing to do');
is(ask($session, q(SELECT oban_cancel_all_jobs('{"state": "none"}'))),
	'ERROR:  22023', 'a filter that is refused');
ask($session, '\set VERBOSITY terse');
is( ask($session, 'SELECT oban_cancel_job(1)'),
	'ERROR:  cannot execute UPDATE in a read-only transaction',
	'the error is what PostgreSQL says');
ask($session, '\set VERBOSITY sqlstate');
is( ask($session, 'BEGIN; SELECT oban_delete_job(1); SELECT oban_job_cancelled(1); ROLLBACK;'
		  . ' SELECT oban_job_cancelled(1)'),
	"f\nERROR:  25006\nERROR:  25P02", 'the transaction is lost, the session is not');

# What is done on the primary is seen, at once by the same plans.
on_primary('SELECT oban_cancel_job(2)');
is(ask($session, 'SELECT oban_job_cancelled(2), (oban_get_job(2)).state'),
	't|cancelled', 'a cancel on the primary');
is(ask($session, q(SELECT id FROM oban_all_jobs('{"state": "cancelled"}'))),
	"2\n5", 'a cancel on the primary, by filter');

# In a snapshot that is kept, and after it.
ask($session, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT oban_job_cancelled(4)');
on_primary('SELECT oban_cancel_job(4)');
is(ask($session, 'SELECT oban_job_cancelled(4); COMMIT; SELECT oban_job_cancelled(4)'),
	"f\nt", 'a repeatable read keeps what it saw');

# The table changes on the primary while the session keeps plans: columns swapped, the table made
# again in the other dialect, its schema renamed.
on_primary(q{BEGIN; ALTER TABLE oban_jobs RENAME queue TO q; ALTER TABLE oban_jobs RENAME worker TO
	queue; ALTER TABLE oban_jobs RENAME q TO worker; COMMIT});
is(ask($session, 'SELECT queue, worker FROM oban_get_job(1)'), 'Worker|mail', 'columns renamed');
on_primary(q{BEGIN; ALTER TABLE oban_jobs RENAME queue TO q; ALTER TABLE oban_jobs RENAME worker TO
	queue; ALTER TABLE oban_jobs RENAME q TO worker; COMMIT});
is(ask($session, 'SELECT queue, worker FROM oban_get_job(1)'), 'mail|Worker', 'and renamed back');
on_primary(q{ALTER SCHEMA python RENAME TO other; CREATE SCHEMA python;
	ALTER TABLE public.oban_jobs SET SCHEMA python; ALTER TABLE other.oban_jobs SET SCHEMA public;
	INSERT INTO public.oban_jobs (id, state, worker) OVERRIDING SYSTEM VALUE
		VALUES (2, 'retryable', 'Python')});
is( ask($session, q(SELECT worker, prefix FROM oban_get_job(2);
		SELECT worker, prefix FROM oban_get_job(2, 'python'); SELECT oban_job_cancelled(2);
		SELECT id FROM oban_all_jobs('{"all": true}'))),
	"Python|public\nWorker|python\nf\n2", 'the tables change their schemas');
is(ask($session, 'SELECT oban_cancel_job(2)'), 'ERROR:  25006', 'and writes give the same error');

# The extension goes and comes, too.
on_primary('DROP EXTENSION oban_manage CASCADE');
is(ask($session, 'SELECT oban_job_cancelled(2)'), 'ERROR:  42883', 'the extension is dropped');
on_primary('CREATE EXTENSION oban_manage');
is(ask($session, 'SELECT oban_job_cancelled(2)'), 'f', 'the extension is there again');

# The standby becomes a server of its own; the session and its plans stay.
$primary->stop;
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
is( ask($session,
		q(LISTEN "public.oban_insert"; SELECT oban_retry_job(2), oban_job_cancelled(2);
		SELECT oban_cancel_job(2); SELECT oban_job_cancelled(2);
		SELECT oban_delete_job(2); SELECT count(*) FROM oban_jobs)) =~ s/ PID \d+/ PID/r,
	qq(t|f\nAsynchronous notification "public.oban_insert" with payload "{"queue":"default"}")
	  . " received from server process with PID.\nt\nt\nt\n0",
	'after the promotion the same session writes');

$session->quit;
unlike(
	PostgreSQL::Test::Utils::slurp_file($standby->logfile),
	qr/XX000|TRAP|terminated by signal|PANIC/,
	'nothing worse in the log');
$standby->stop;
done_testing();
