# Two-phase commit with oban_manage.notify off: after each call a transaction can be prepared, and
# committed or rolled back by another session, after a crash too; what it has locked, others wait for.
# With notify on, PostgreSQL says that NOTIFY cannot be prepared, and the jobs stay as they were. A
# subscriber that replicates prepared transactions needs the setting for its worker.
#
# Shown to fail with om_notify not asked in src/jobs/signals.c, and with the state judged before the
# lock (append_lock in src/statements/queries.c: the condition on a row of the statement's snapshot,
# and what was locked written whatever it has become).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Utils;
use Sessions;
use Test::More;

my %settings = (max_prepared_transactions => 10, log_error_verbosity => 'verbose');
my $node = start_server('prepared', %settings, wal_level => 'logical', max_wal_senders => 5,
	max_replication_slots => 5, wal_retrieve_retry_interval => '100ms');
make_jobs_table($node, 'public', 'elixir', 14);
make_life_jobs($node, 'public');
knows_every_function($node);

my $session = open_session($node);
my $other = open_session($node);
my $jobs = q(SELECT string_agg(format('%s %s %s %s', id, state, queue, priority), ', ' ORDER BY id)
	FROM oban_jobs);

# Each call of each function, prepared and then committed, or rolled back, by another session.
ask($_, 'SET oban_manage.notify = off; SET client_min_messages = warning') for $session, $other;
for my $call (calls_of('reads'), calls_of('writes'))
{
	my ($signature, $sql) = @$call;

	ask($session, 'CALL fill_life()');
	my $before = ask($session, $jobs);
	my $result = ask($session, "BEGIN; $sql");
	my $after = ask($session, "$jobs; PREPARE TRANSACTION 'it'");
	is(ask($other, $jobs), $before, "$signature: prepared, nobody sees it");
	is(ask($other, "COMMIT PREPARED 'it'; $jobs"), $after, "$signature: committed by another session");
	isnt($after, $before, "$signature: something was done")
	  unless grep { $_->[0] eq $signature } calls_of('reads');

	ask($session, "CALL fill_life()");
	is(ask($session, "BEGIN; $sql; PREPARE TRANSACTION 'it'; ROLLBACK PREPARED 'it'; $jobs"),
		"$result\n$before", "$signature: rolled back");
}

# With notify on, what has something to tell cannot be prepared: the error is PostgreSQL's own.
ask($session, 'RESET oban_manage.notify; CALL fill_life(); \set VERBOSITY verbose');
my $before = ask($session, $jobs);
for my $call ('oban_cancel_job(2)', 'oban_retry_job(3)', q(oban_cancel_all_jobs('{"all": true}')),
	q(state FROM oban_update_job(4, '{"schedule_in": 0}')))
{
	like( ask($session, "BEGIN; SELECT $call; PREPARE TRANSACTION 'it'"),
		qr/^ERROR:  0A000: cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY$/m,
		"$call: refused");
	is(ask($other, $jobs), $before, "$call: the job is as it was");
	is(ask($other, 'SELECT count(*) FROM pg_prepared_xacts'), 0, "$call: nothing is prepared");
}
ask($session, '\set VERBOSITY sqlstate');
is(ask($session, q(BEGIN; SELECT oban_cancel_job(1), oban_delete_job(3), oban_manage_jobs('cancel',
		'{2}', NULL, true) IS NULL; PREPARE TRANSACTION 'it'; ROLLBACK PREPARED 'it')),
	't|t|f', 'what has nothing to tell is prepared with notify on');
is( ask($session, q(BEGIN; SET LOCAL oban_manage.notify = off; SELECT oban_cancel_job(2);
		PREPARE TRANSACTION 'it'; SHOW oban_manage.notify; ROLLBACK PREPARED 'it')),
	"t\non", 'off for this transaction alone');
is( ask($session, q(BEGIN; SET LOCAL oban_manage.notify = off; SELECT oban_cancel_job(2);
		SET LOCAL oban_manage.notify = on; SELECT oban_retry_job(3); PREPARE TRANSACTION 'it')),
	"t\nt\nERROR:  0A000", 'on again in the same transaction');
is( ask($session, q(BEGIN; SAVEPOINT s; SELECT oban_cancel_job(2); ROLLBACK TO s;
		SELECT oban_cancel_job(1); PREPARE TRANSACTION 'it'; ROLLBACK PREPARED 'it')),
	"t\nt", 'what was to be told is rolled back');

# What a prepared transaction has changed, others wait for: and judge when they have it.
ask($session, q(SET oban_manage.notify = off; CALL fill_life(); BEGIN; SELECT oban_cancel_job(2);
	UPDATE oban_jobs SET state = 'executing', attempt = 1 WHERE id IN (1, 4); PREPARE TRANSACTION 'it'));
for my $call ('oban_delete_many_jobs(ARRAY[1, 4])', q(oban_delete_all_jobs('{"id": [1, 4]}')))
{
	is(ask($other, "BEGIN; SET LOCAL lock_timeout = '100ms'; SELECT $call; ROLLBACK"),
		'ERROR:  55P03', "$call: waits");
}
is(ask($other, q(SELECT count(*) FROM (SELECT FROM oban_jobs FOR UPDATE SKIP LOCKED) j)),
	2, 'a worker passes over what is prepared');
my $waiting = start_session($node, 'waiting', "SELECT oban_delete_many_jobs(ARRAY[3, 1]);\n");
wait_for_lock($node, 'waiting');

# After a crash it is still there, with its locks.
$node->stop('immediate');
eval { finish_session($waiting) };
$node->start;
$_->reconnect_and_clear for $session, $other;
ask($_, '\set VERBOSITY sqlstate') for $session, $other;
is(ask($other, 'SELECT gid FROM pg_prepared_xacts'), 'it', 'after a crash it is there');
is(ask($other, "SET lock_timeout = '100ms'; SELECT oban_cancel_job(1); RESET lock_timeout"),
	'ERROR:  55P03', 'after a crash it has its locks');
my %waiting = (
	a => 'SELECT oban_delete_many_jobs(ARRAY[3, 1]);',
	b => q(SELECT oban_retry_all_jobs('{"id": [4, 5]}');));
my %sessions;
for my $actor (sort keys %waiting)
{
	$sessions{$actor} = start_session($node, $actor, "$waiting{$actor}\n");
	wait_for_lock($node, $actor);
}
ask($other, "COMMIT PREPARED 'it'");
is(finish_session($sessions{a}), "1\n", 'delete: the one that was taken meanwhile stays');
is(finish_session($sessions{b}), "1\n", 'retry: the one that was taken meanwhile stays');
is( ask($other, $jobs),
	'1 executing mail 0, 2 cancelled mail 0, 4 executing slow 0, 5 available slow 0',
	'after the commit all is as it should be');
$_->quit for $session, $other;

# A subscription with two_phase: what an ENABLE ALWAYS trigger of ours tells cannot be prepared by the
# worker that applies it, until the database's setting says not to tell.
my $subscriber = start_server('subscriber', %settings, wal_retrieve_retry_interval => '100ms');
make_jobs_table($subscriber, 'public', 'elixir', 14);
make_life_jobs($subscriber, 'public');
$_->safe_psql('postgres', 'CREATE TABLE app (id int PRIMARY KEY, job_id bigint)')
  for $node, $subscriber;
$node->safe_psql('postgres',
	'INSERT INTO app SELECT id, id FROM generate_series(1, 5) id; CREATE PUBLICATION app FOR TABLE app');
my $connection = $node->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres', q(CREATE TRIGGER cancel AFTER DELETE ON app FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('id'); ALTER TABLE app ENABLE ALWAYS TRIGGER cancel));
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION app CONNECTION '$connection'"
	  . ' PUBLICATION app WITH (two_phase = true)');
$subscriber->wait_for_subscription_sync($node, 'app');
$subscriber->poll_query_until('postgres', "SELECT subtwophasestate = 'e' FROM pg_subscription")
  or die 'two_phase was never enabled';

my $logged = -s $subscriber->logfile;
$node->safe_psql('postgres', q(BEGIN; DELETE FROM app WHERE id = 2; PREPARE TRANSACTION 'there'));
ok( $subscriber->wait_for_log(
		qr/cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY/, $logged),
	'the worker says why it cannot go on');
is($subscriber->safe_psql('postgres', 'SELECT oban_job_cancelled(2)'), 'f', 'and has done nothing');
$subscriber->safe_psql('postgres', 'ALTER DATABASE postgres SET oban_manage.notify = off');
$subscriber->poll_query_until('postgres', 'SELECT count(*) = 1 FROM pg_prepared_xacts')
  or die 'the transaction was never prepared';
is($subscriber->safe_psql('postgres', 'SELECT oban_job_cancelled(2)'),
	'f', 'with notify off: prepared');
$node->safe_psql('postgres', q(COMMIT PREPARED 'there'));
$node->wait_for_catchup('app');
is($subscriber->safe_psql('postgres', 'SELECT oban_job_cancelled(2)'),
	't', 'with notify off: applied');

unlike(slurp_file($_->logfile), qr/XX000|TRAP|terminated by signal|PANIC/,
	'the log has no crash and no internal error')
  for $node, $subscriber;
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION app');
$_->stop for $subscriber, $node;
done_testing();
