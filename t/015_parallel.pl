# Parallel query: the reading functions in parallel workers give what they give in the leader, see its
# changes and take its settings, role and locks along; the writing ones are not planned into workers,
# and one that is smuggled there by a function of a wrong marking gives PostgreSQL's own error.
#
# Shown to fail with the reading functions marked PARALLEL UNSAFE (no worker is asked), with
# oban_cancel_job marked PARALLEL SAFE, and with a reading that locks its rows.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Utils;
use Sessions;
use Test::More;

# Workers are enough for this session alone, so that each plan gets those that it wants.
my $node = start_server('parallel', log_error_verbosity => 'verbose',
	max_worker_processes => 8, max_parallel_workers => 4);
make_jobs_table($node, 'public', 'elixir', 14);
make_jobs_table($node, 'python', 'python');
$node->safe_psql(
	'postgres', q{
	INSERT INTO oban_jobs (id, state, queue, worker)
		SELECT id, (ARRAY['available', 'cancelled', 'executing'])[id % 3 + 1]::oban_job_state,
			   'q' || id % 5, 'Worker' FROM generate_series(1, 2000) id;
	INSERT INTO python.oban_jobs (id, state, worker) OVERRIDING SYSTEM VALUE
		SELECT id, 'cancelled', 'Worker' FROM generate_series(1, 100) id;
	CREATE TABLE app AS SELECT id AS job_id, repeat('x', 200) AS note FROM generate_series(1, 3000) id;
	ALTER TABLE app SET (parallel_workers = 2);
	ANALYZE;
	CREATE ROLE reader;
	GRANT SELECT ON oban_jobs, app TO reader;
	ALTER TABLE oban_jobs ENABLE ROW LEVEL SECURITY;
	CREATE POLICY only_q1 ON oban_jobs USING (queue = 'q1');
	-- Lies about being safe.
	CREATE FUNCTION smuggle(bigint) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE SET work_mem = '1MB'
		AS 'SELECT oban_cancel_job($1)';});

my $parallel = q{SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0;
	SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
	SET parallel_leader_participation = off;};
my $serial = 'SET max_parallel_workers_per_gather = 0;';

# How many workers a statement was given.
sub workers
{
	my ($session, $sql) = @_;

	my ($launched) =
	  ask($session, "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) $sql") =~
	  /Workers Launched: (\d+)/;
	return $launched // 0;
}

my %reads = (
	cancelled => 'SELECT count(*) FILTER (WHERE oban_job_cancelled(job_id)) FROM app',
	'the job' => q(SELECT count(*), sum(job_id) FROM app
		WHERE (oban_get_job(job_id)).queue <> 'q3'),
	'all jobs' => q(SELECT sum((SELECT count(*) FROM oban_all_jobs(
		jsonb_build_object('id', job_id, 'state', 'cancelled')))) FROM app WHERE job_id % 10 = 0));

for my $name (sort keys %reads)
{
	# Each in a new session, in which the workers are the first to need the module.
	my $leader = open_session($node);
	my $session = open_session($node);

	ask($session, $parallel);
	ask($leader, $serial);
	my $expected = ask($leader, $reads{$name});
	unlike($expected, qr/^$|^0|ERROR/, "$name: found by the leader");
	is(ask($session, $reads{$name}), $expected, "$name: the same in workers");
	is(workers($session, $reads{$name}), 2, "$name: there were two of them");
	is(workers($leader, $reads{$name}), 0, "$name: and none for the leader alone");
	is(ask($session, join '; ', ($reads{$name}) x 7), join("\n", ($expected) x 7), "$name: often");

	# The whole statement in one worker.
	ask($session, 'SET force_parallel_mode = on; SET parallel_leader_participation = on');
	is(ask($session, $reads{$name}), $expected, "$name: in force_parallel_mode");

	# With another prefix, as a role that does not see all jobs.
	for my $set ("SET oban_manage.prefix = 'python'", 'RESET oban_manage.prefix; SET ROLE reader')
	{
		ask($_, $set) for $leader, $session;
		my $other = ask($leader, $reads{$name});
		isnt($other, $expected, "$name, $set: something else is found");
		is(ask($session, $reads{$name}), $other, "$name, $set: the same in workers");
		is(workers($session, $reads{$name}) > 0, 1, "$name, $set: there were workers");
	}
	$_->quit for $leader, $session;
}

# What this transaction has done, and its lock, are the workers' too.
my $session = open_session($node);
ask($session, $parallel);
my $count = $reads{cancelled};
my $before = ask($session, $count);
is( ask($session, "BEGIN; LOCK TABLE oban_jobs;"
		  . q( SELECT oban_cancel_all_jobs('{"state": "available"}', 7);) . " $count; ROLLBACK; $count"),
	join("\n", 7, $before + 7, $before), 'workers see what is not yet committed, under its lock');
# They do not wait behind somebody who waits for that lock.
ask($session, 'BEGIN; SELECT oban_get_job(1) IS NULL');
my $altering = start_session($node, 'altering', "ALTER TABLE oban_jobs ADD note text;\n");
wait_for_lock($node, 'altering');
is(ask($session, "$count; COMMIT"), $before, 'workers are not held up by who waits for the leader');
is(finish_session($altering), '', 'who then alters the table');
is(ask($session, $count), $before, 'and the workers know of it');

# An error in a worker is that of the leader.
is(ask($session, "SET oban_manage.prefix = 'nowhere'; $count; RESET oban_manage.prefix"),
	'ERROR:  3F000', 'an error in a worker');
is(ask($session, "BEGIN ISOLATION LEVEL SERIALIZABLE; $count; COMMIT"), $before, 'serializable');
is(ask($session, "BEGIN READ ONLY; $count; COMMIT"), $before, 'read only');
is(ask($session, "PREPARE p AS SELECT count(*) FILTER (WHERE oban_job_cancelled(job_id, \$1)) FROM app;"
		  . join '; ', ("EXECUTE p('public')", "EXECUTE p('python')") x 7),
	join("\n", ($before, 3000) x 7),
	'prepared, with the prefix as a parameter');

# Writes stay with the leader.
for my $call (calls_of('writes'))
{
	my ($signature, $sql) = @$call;

	is( $node->safe_psql('postgres',
			"SELECT format('%s%s', proparallel, provolatile) FROM pg_proc WHERE oid = '$signature'::regprocedure"),
		'uv', "$signature is for the leader alone");
}
my $write = 'SELECT count(*) FROM app WHERE oban_cancel_job(job_id)';
my $todo = $node->safe_psql('postgres',
	q(SELECT count(*) FROM oban_jobs WHERE state <> 'cancelled'));
is(workers($session, "SELECT count(*) FROM app WHERE job_id <> 0"), 2, 'there are workers for the table');
ask($session, 'BEGIN');
is(workers($session, $write), 0, 'but not to write');
is(ask($session, "ROLLBACK; BEGIN; $write; ROLLBACK"), $todo, 'and it is done');
is( ask($session, 'SELECT count(*) FROM app WHERE smuggle(job_id)'),
	'ERROR:  25000', 'smuggled into a worker: an error of PostgreSQL');
is(ask($session, $count), $before, 'and nothing was done');

# A policy that reads a temporary table, which no worker can see: the function's marking is wrong for this
# table. Whose function it is not puts another one around it: not in SQL, which would be inlined.
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION tenant() RETURNS text LANGUAGE plpgsql STABLE AS
		'BEGIN RETURN (SELECT queue FROM tenant); END';
	ALTER POLICY only_q1 ON oban_jobs USING (queue = tenant());
	CREATE FUNCTION is_cancelled(job_id bigint) RETURNS boolean LANGUAGE plpgsql STABLE
		PARALLEL RESTRICTED AS 'BEGIN RETURN oban_job_cancelled(job_id); END';
	CREATE FUNCTION inlined(job_id bigint) RETURNS boolean LANGUAGE sql STABLE
		PARALLEL RESTRICTED AS 'SELECT oban_job_cancelled(job_id)';});
ask($session, "CREATE TEMP TABLE tenant AS SELECT 'q1' AS queue; GRANT SELECT ON tenant TO reader;"
	  . ' RESET oban_manage.prefix; SET ROLE reader');
my $with = 'SELECT count(*) FROM app WHERE job_id = 5 AND %s(job_id)';
is(ask($session, sprintf $with, $_), 'ERROR:  25000', "$_: a worker cannot see what the policy needs")
  for qw(oban_job_cancelled inlined);
is(ask($session, sprintf $with, 'is_cancelled'), ask($session, "$serial " . sprintf $with, 'oban_job_cancelled'),
	'a function around it that is PARALLEL RESTRICTED stays in the leader');

$session->quit;
unlike(slurp_file($node->logfile), qr/XX000|TRAP|terminated by signal|PANIC/, 'nobody crashed');
$node->stop;
done_testing();
