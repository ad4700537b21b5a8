# DROP EXTENSION, CREATE EXTENSION and ALTER EXTENSION ... SET SCHEMA while other sessions keep plans,
# wait for a lock inside a call, or are between the batches of one; and in the middle of a transaction
# of one's own. A session either goes on or is told what is missing (42883); jobs are changed wholly
# or not at all; and nothing of what was there before serves the extension that came after.
#
# Shown to fail with kept plans that are used whether SPI_plan_is_valid or not (is_usable in
# src/statements/plan_cache.c): the schema that is renamed; with those used under another
# search_path, or by another role where row-level security is in the plan: the type that has moved;
# and with the state judged before the lock (OM_WRITE in src/statements/queries.c): the calls that
# waited.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Utils;
use Sessions;
use Test::More;

my $node = start_server('changed', log_error_verbosity => 'verbose');
make_jobs_table($node, 'public', 'elixir', 14);
make_life_jobs($node, 'public');
knows_every_function($node);

my $session = open_session($node);
my $other = open_session($node);
ask($_, 'SET client_min_messages = warning') for $session, $other;

my $prepared = prepare_calls($session);
my @calls = sort keys %$prepared;

# How many of them work, in the session as it is.
sub working
{
	my ($session) = @_;
	my %given;

	for my $call (@calls)
	{
		my $got = ask($session,
			"BEGIN; CALL fill_life(); EXECUTE $prepared->{$call}; ROLLBACK");
		$given{ $got =~ /(ERROR:  \w+)/ ? $1 : 'works' }++;
	}
	return \%given;
}

is_deeply(differing_calls($node, $session, $prepared), [], 'at first each works');
is_deeply(working($session), { works => scalar @calls }, 'at first none fails');

# ---- moved

ask($other, 'CREATE SCHEMA ext; ALTER EXTENSION oban_manage SET SCHEMA ext');
is_deeply(working($session), { 'ERROR:  42883' => scalar @calls },
	'moved out of the search_path, its functions do not exist');
is(ask($session, 'SELECT ext.oban_cancel_job(1), ext.oban_job_cancelled(1)'),
	't|f', 'by its new name it works, in the same session');
ask($session, 'SET search_path = public, ext');
is_deeply(working($session), { works => scalar @calls }, 'with the search_path set, so do all');
ask($other, 'ALTER EXTENSION oban_manage SET SCHEMA public');
ask($session, 'RESET search_path');
is_deeply(differing_calls($node, $session, $prepared), [], 'moved back, each works');

# A trigger's callable, whose argument is of a type that has moved, in a session with another
# search_path than it had when the plan was made.
ask($session, 'CALL fill_life(); CREATE TABLE moves (job_id bigint);'
	  . ' INSERT INTO moves SELECT 4 FROM generate_series(1, 20); CREATE TRIGGER bump AFTER UPDATE ON'
	  . " moves FOR EACH ROW EXECUTE FUNCTION oban_update_job_with('job_id', 'public.bump', 'public')");
my $update = 'BEGIN; UPDATE public.moves SET job_id = 4 WHERE ctid = \'(0,1)\';'
  . ' SELECT priority FROM public.oban_jobs WHERE id = 4; ROLLBACK';
is(ask($session, $update), 1, 'a trigger with a callable');
ask($other, 'ALTER EXTENSION oban_manage SET SCHEMA ext');
is(ask($session, $update), 1, 'a trigger with a callable: the type of the job has moved');
is(ask($session, "SET search_path = pg_catalog; $update"),
	1, 'a trigger with a callable: and with another search_path');
# Nor by another role, where the plan depends on who runs it.
ask($other, 'ALTER TABLE oban_jobs ENABLE ROW LEVEL SECURITY; CREATE ROLE one; CREATE ROLE two;'
	  . ' GRANT ALL ON ALL TABLES IN SCHEMA public TO one, two; GRANT USAGE ON SCHEMA ext TO one, two;'
	  . ' CREATE POLICY every ON oban_jobs USING (true)');
is(ask($session, "RESET search_path; SET ROLE one; $update"),
	1, 'a trigger with a callable: with row-level security');
ask($other, 'ALTER EXTENSION oban_manage SET SCHEMA public');
is(ask($session, $update), 1, 'a trigger with a callable: and moved back');
is(ask($session, "SET ROLE two; $update"), 1, 'a trigger with a callable: and by another role');
is(ask($session, "RESET ROLE; SET row_security = off; $update"),
	1, 'a trigger with a callable: and by who is above it');
ask($session, 'RESET row_security; DROP TABLE moves');
ask($other, 'DROP POLICY every ON oban_jobs; ALTER TABLE oban_jobs DISABLE ROW LEVEL SECURITY;'
	  . ' DROP OWNED BY one, two; DROP ROLE one, two');

# While a call waits, and a transaction is open that has used it. An open transaction learns of it
# with the next table that it opens.
my $holder = hold_jobs($node, 'id = 1');
ask($session, 'BEGIN; SELECT oban_cancel_job(2)');
my $waiting = start_session($node, 'waiting',
	q(SELECT oban_cancel_many_jobs('{1,2,4}'); SELECT ext.oban_cancel_job(1);) . "\n");
wait_for_lock($node, 'waiting');
is(ask($other, 'ALTER EXTENSION oban_manage SET SCHEMA ext'), '', 'moved while a call waits');
is(ask($session, 'SELECT FROM pg_class LIMIT 0; SELECT ext.oban_retry_job(2); ROLLBACK'),
	't', 'the open transaction goes on');
finish_session($holder, "ROLLBACK;\n");
is(finish_session($waiting), "3\nf\n", 'the call that waited goes on');
ask($other, 'ALTER EXTENSION oban_manage SET SCHEMA public; CALL fill_life()');

# ---- dropped, in a transaction of one's own

is( ask($session, q(BEGIN; SELECT oban_cancel_job(1); DROP EXTENSION oban_manage CASCADE;
		SAVEPOINT s; SELECT oban_cancel_job(2); ROLLBACK TO s;
		SELECT state FROM oban_jobs WHERE id = 1)),
	"t\ncancelled\nERROR:  42883", 'dropped after a call: the change stays, the function is gone');
is( ask($session, q(CREATE EXTENSION oban_manage SCHEMA ext; SELECT ext.oban_cancel_job(2);
		EXECUTE call_1)),
	"t\nERROR:  42883", 'made again elsewhere in the same transaction');
is(ask($session, 'ROLLBACK; SELECT string_agg(state::text, \',\' ORDER BY id) FROM oban_jobs'),
	'available,executing,completed,scheduled,cancelled', 'rolled back: no job is changed');
is_deeply(differing_calls($node, $session, $prepared), [], 'rolled back: each works');
is( ask($session, q(BEGIN; SAVEPOINT s; DROP EXTENSION oban_manage CASCADE; ROLLBACK TO s;
		SELECT oban_cancel_job(1); COMMIT; CALL fill_life())),
	't', 'a savepoint is enough');

# A transaction that has fired a trigger holds the table, and so the trigger and the extension.
ask($other, q(CREATE TABLE app (job_id bigint); INSERT INTO app VALUES (1), (2), (4);
	CREATE TRIGGER cancel AFTER DELETE ON app FOR EACH ROW
	EXECUTE FUNCTION oban_cancel_job('job_id')));
ask($session, 'BEGIN; DELETE FROM app WHERE job_id = 1');
is(ask($other, "SET lock_timeout = '100ms'; DROP EXTENSION oban_manage CASCADE"),
	'ERROR:  55P03', 'a trigger that has fired in an open transaction holds the extension');
is(ask($session, 'COMMIT; SELECT oban_job_cancelled(1)'), 't', 'which commits what the trigger did');
ask($other, 'RESET lock_timeout; DROP TABLE app; CALL fill_life()');

# ---- dropped by another session

ask($session, 'BEGIN; SELECT oban_cancel_job(1)');
is(ask($other, 'DROP EXTENSION oban_manage CASCADE'), '', 'dropped by another session');
is(ask($session, 'SELECT FROM pg_class LIMIT 0; SELECT oban_cancel_job(2)'), 'ERROR:  42883',
	'an open transaction is told');
ask($session, 'ROLLBACK');
is_deeply(working($session), { 'ERROR:  42883' => scalar @calls }, 'each prepared statement is told');
is(ask($session, 'SHOW oban_manage.prefix'), 'public', 'the settings stay as long as the session');
ask($other, 'CREATE EXTENSION oban_manage; CREATE FUNCTION bump(job oban_job) RETURNS jsonb'
	  . q( LANGUAGE sql AS $$SELECT jsonb_build_object('priority', job.priority + 2)$$));
is_deeply(differing_calls($node, $session, $prepared), [], 'made again, each works');
is_deeply(working($session), { works => scalar @calls }, 'made again, none fails');

# While calls wait for a lock. Those with a result of the type oban_job find it gone when they
# return it, and then nothing may be done either. What they are told is the executor's, not ours: a
# PL/pgSQL function of a composite type that is dropped while it runs ends with the same XX000 from
# the same place (getTypeOutputInfo), for nothing locks the type of a running function's result.
my %given = (
	q(oban_cancel_many_jobs('{1,4}')) => '2',
	'oban_delete_job(1)' => 't',
	q(oban_update_all_jobs('{"id": [1, 4]}', '{"priority": 7}')) => '2',
	q(outcome FROM oban_manage_jobs('cancel', '{1}')) => 'cancelled',
	q(state FROM oban_update_job(1, '{"priority": 7}')) =>
	  qr/^ERROR:  type with OID \d+ does not exist$/,
	q(count(*) FROM oban_update_many_jobs_with('{1,4}', 'raise')) => '2',
	q(oban_update_job(1, '{"priority": 7}')) =>
	  qr/^ERROR:  cache lookup failed for type \d+$/);
ask($other, 'CREATE FUNCTION raise(job jsonb) RETURNS jsonb LANGUAGE sql AS'
	  . q( $$SELECT jsonb_build_object('priority', 7)$$));
for my $call (sort keys %given)
{
	ask($other, 'CALL fill_life()');
	my $before = ask($other, 'SELECT string_agg(j::text, E\'\n\' ORDER BY id) FROM oban_jobs j');
	my $holder = hold_jobs($node, 'id = 1');
	my $waiting = start_session($node, 'waiting', "SELECT $call;\n");

	wait_for_lock($node, 'waiting');
	is(ask($other, 'DROP EXTENSION oban_manage CASCADE'), '', "dropped during $call");
	finish_session($holder, "ROLLBACK;\n");
	my $given = finish_session($waiting) =~ s/^psql:\S*:\d+: //mgr =~ s/\n\z//r;
	like($given, ref $given{$call} ? $given{$call} : qr/^\Q$given{$call}\E$/,
		"what it then gives: $call");
	my $after = ask($other, 'SELECT string_agg(j::text, E\'\n\' ORDER BY id) FROM oban_jobs j');
	is($after eq $before ? 'as before' : 'changed', $given =~ /^ERROR/ ? 'as before' : 'changed',
		"the jobs are changed if it gives a result, and else not: $call");
	ask($other, 'CREATE EXTENSION oban_manage');
}
ask($other, 'CREATE FUNCTION bump(job oban_job) RETURNS jsonb'
	  . q( LANGUAGE sql AS $$SELECT jsonb_build_object('priority', job.priority + 2)$$));
is_deeply(differing_calls($node, $session, $prepared), [], 'made again after each, each works');

# A worker takes the job while a call waits and the extension goes and comes: judged when locked.
ask($other, 'CALL fill_life()');
$holder = start_session($node, 'holder', "BEGIN; UPDATE oban_jobs SET state = 'executing',"
	  . " attempt = attempt + 1 WHERE id IN (1, 4);\n");
wait_for_session($node, 'holder', "state = 'idle in transaction'");
$waiting = start_session($node, 'waiting', "SELECT oban_delete_many_jobs('{4,3,1}');\n");
wait_for_lock($node, 'waiting');
ask($other, 'DROP EXTENSION oban_manage CASCADE; CREATE EXTENSION oban_manage');
finish_session($holder, "COMMIT;\n");
is(finish_session($waiting), "1\n", 'the call that waited deletes no executing job');
is($node->safe_psql('postgres', q(SELECT string_agg(id || ' ' || state, ',' ORDER BY id)
		FROM oban_jobs)),
	'1 executing,2 executing,4 executing,5 cancelled', 'those are there, the other is gone');

# Between the batches of a CALL, which goes on to its end.
$node->safe_psql(
	'postgres', q{TRUNCATE oban_jobs; INSERT INTO oban_jobs (id, worker)
		SELECT id, 'Worker' FROM generate_series(1, 30) id});
$holder = hold_jobs($node, 'id = 15');
$waiting = start_session($node, 'waiting',
	q(SET client_min_messages = warning; CALL oban_cancel_in_batches('{"all": true}', 10);) . "\n");
wait_for_lock($node, 'waiting');
is(ask($other, 'DROP EXTENSION oban_manage CASCADE'), '', 'dropped between batches');
finish_session($holder, "ROLLBACK;\n");
is(finish_session($waiting), "30\n", 'the CALL ends as it should');
is(ask($other, q(SELECT count(*) FROM oban_jobs WHERE state = 'cancelled')),
	30, 'dropped between batches: all is done');

# ---- with the jobs themselves

is( ask($other, q(CREATE EXTENSION oban_manage SCHEMA ext; DROP SCHEMA ext CASCADE;
		SELECT count(*) FROM oban_jobs)),
	30, 'a schema that goes takes the extension along, the jobs stay');
ask($other, 'CREATE SCHEMA jobs; CREATE EXTENSION oban_manage SCHEMA jobs');
make_jobs_table($node, 'jobs', 'python');
$node->safe_psql('postgres', "INSERT INTO jobs.oban_jobs (worker) VALUES ('W')");
is(ask($session, join '; ', ("SELECT jobs.oban_cancel_job(1, 'jobs'), jobs.oban_retry_job(1, 'jobs')")
		x 7), join("\n", ('t|t') x 7), 'the extension in the schema of the jobs works');
$node->safe_psql('postgres', 'DROP SCHEMA jobs CASCADE');
is(ask($session, "SELECT jobs.oban_cancel_job(1, 'jobs')"),
	'ERROR:  3F000', 'that schema dropped: table and extension are gone at once');
$node->safe_psql('postgres', 'CREATE SCHEMA jobs; CREATE EXTENSION oban_manage SCHEMA jobs');
make_jobs_table($node, 'jobs', 'elixir', 9);
$node->safe_psql('postgres', "INSERT INTO jobs.oban_jobs (id, worker) VALUES (1, 'W')");
is(ask($session, "SELECT jobs.oban_cancel_job(1, 'jobs'), jobs.oban_retry_job(1, 'jobs'),"
		  . " jobs.oban_job_cancelled(1, 'jobs')"),
	't|t|f', 'and there again, with a table of another dialect, in the same session');

# The text of a kept plan has the name of the schema, which is another's now.
$node->safe_psql('postgres', 'ALTER SCHEMA jobs RENAME TO moved; CREATE SCHEMA jobs');
make_jobs_table($node, 'jobs', 'elixir', 14);
$node->safe_psql('postgres', "INSERT INTO jobs.oban_jobs (id, worker) VALUES (1, 'W')");
is( ask($session, q(SELECT moved.oban_cancel_job(1, 'moved');
		SELECT moved.oban_job_cancelled(1, 'moved');
		SELECT m.state, j.state FROM moved.oban_jobs m, jobs.oban_jobs j)),
	"t\nt\ncancelled|available", 'renamed, with another schema in its place: the right jobs');

$_->quit for $session, $other;
unlike(slurp_file($node->logfile), qr/TRAP|terminated by signal|PANIC/, 'nobody crashed');
my @internal = slurp_file($node->logfile) =~ /XX\d{3}: (.*)/g;
is_deeply([ map { s/\d+$/OID/r } @internal ], ['cache lookup failed for type OID'],
	'no internal error but that of the executor');
$node->stop;
done_testing();
