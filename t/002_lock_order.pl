# Two sessions call for the same 1,000 random jobs in opposite orders, at the same time, over and
# over: no deadlock, and each job is changed exactly once.
#
# Shown to fail without ORDER BY in the locking statement (append_lock in src/statements/queries.c).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use List::Util qw(sum0);
use ObanTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $jobs_a_round = 1000;
# Verbs of the two sessions, and how many rounds of them.
my @bouts = (
	[ 'cancel', 'cancel', 200 ],
	[ 'cancel', 'retry', 20 ],
	[ 'cancel', 'delete', 20 ],
	[ 'retry', 'update', 20 ],
	[ 'update', 'update', 20 ],);
my $rounds = sum0 map { $_->[2] } @bouts;

my $node = start_server(
	'lock_order',
	deadlock_timeout => '50ms',
	shared_buffers => '256MB',
	max_wal_size => '4GB',
	autovacuum => 'off',
	statement_timeout => '60s');
make_jobs_table($node, 'public', 'elixir', 14);

# The jobs lie on disk in random order, so that their order by page is not that by id. Each round
# has its own, a random 1,000 of all.
$node->safe_psql(
	'postgres', qq{
	SELECT setseed(0.5);
	INSERT INTO oban_jobs (id, state, worker, meta)
		SELECT id, 'scheduled', 'Worker', NULL FROM generate_series(1, $rounds * $jobs_a_round) id
		ORDER BY random();
	CREATE TABLE rounds (round int PRIMARY KEY, forth bigint[], back bigint[]);
	INSERT INTO rounds
		SELECT (place - 1) / $jobs_a_round + 1, array_agg(id ORDER BY place),
			   array_agg(id ORDER BY place DESC)
		FROM (SELECT id, row_number() OVER (ORDER BY random()) AS place FROM oban_jobs) shuffled
		GROUP BY 1;
	ANALYZE oban_jobs;

	-- Both sessions come to a round's start, then both go on.
	CREATE SEQUENCE arrivals;
	CREATE FUNCTION start_together(round int) RETURNS void LANGUAGE plpgsql AS \$\$
	BEGIN
		PERFORM nextval('arrivals');
		WHILE (SELECT last_value FROM arrivals) < 2 * round LOOP
			PERFORM pg_sleep(0.0002);
		END LOOP;
	END \$\$;});

# What a session does, round by round; it says how many jobs each call changed.
sub session_script
{
	my ($which) = @_;
	my $ids = $which == 0 ? 'forth' : 'back';
	my ($script, $round) = ("\\set VERBOSITY terse\n", 0);

	for my $bout (@bouts)
	{
		my $verb = $bout->[$which];
		my $call =
		  $verb eq 'update'
		  ? qq[(SELECT count(*) FROM oban_update_many_jobs($ids, '{"priority": $which}'))]
		  : "oban_${verb}_many_jobs($ids)";

		for my $n (1 .. $bout->[2])
		{
			$round++;
			# Half of the rounds as the planner likes, half with the second session kept from the
			# index on id, so that it goes by page unless it sorts.
			$script .= "RESET ALL; DISCARD PLANS;\n" if $n == 1;
			$script .= "SET enable_indexscan = off; DISCARD PLANS;\n"
			  if $which == 1 && $n == int($bout->[2] / 2) + 1;
			$script .= "SELECT start_together($round) \\gset\n"
			  . "SELECT $call FROM rounds WHERE round = $round;\n";
		}
	}
	return $script;
}

my @scripts = map { session_script($_) } 0, 1;
my @outputs = ('', '');
my @psql = ('psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', '-');
IPC::Run::run(
	[@psql], '<', \$scripts[0], '>', \$outputs[0], '2>&1', '&',
	[@psql], '<', \$scripts[1], '>', \$outputs[1], '2>&1',
	IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

my @counts = map { [ split /\n/, $_ ] } @outputs;
is(scalar @{ $counts[$_] }, $rounds, "session $_ made all $rounds calls") for 0, 1;
for my $which (0, 1)
{
	my @errors = grep { /\D/ } @{ $counts[$which] };
	is(scalar @errors, 0, "session $which met no error")
	  or diag("the first of them: $errors[0]");
}
my @deadlocks = slurp_file($node->logfile) =~ /deadlock detected/g;
is(scalar @deadlocks, 0, 'the server saw no deadlock');

# How many jobs the two calls of a round change: the one that comes second sees all that the first
# did, or nothing of it. Cancelling leaves nothing to cancel, and a deleted job is gone; a cancelled
# one is deleted or retried all the same, and update takes any job.
my %changed = (
	'cancel cancel' => qr/^(1000 0|0 1000)$/,
	'cancel retry' => qr/^1000 1000$/,
	'cancel delete' => qr/^(1000|0) 1000$/,
	'retry update' => qr/^1000 1000$/,
	'update update' => qr/^1000 1000$/,);
my $round = 0;
for my $bout (@bouts)
{
	my ($one, $two, $n) = @$bout;
	my @wrong;

	for (1 .. $n)
	{
		my $got = join ' ', map { $_->[$round] // 'nothing' } @counts;

		$round++;
		push @wrong, "round $round: $got" if $got !~ $changed{"$one $two"};
	}
	is_deeply(\@wrong, [], "$one against $two, $n rounds: each job changed once by each verb");
}

is( $node->safe_psql(
		'postgres', q{
		SELECT bout, string_agg(state || ' ' || jobs, ', ' ORDER BY state) FROM (
			SELECT CASE WHEN round <= 200 THEN 'cancel cancel' ELSE 'cancel delete' END AS bout,
				   coalesce(state::text, 'gone') AS state, count(*) AS jobs
			FROM rounds CROSS JOIN unnest(forth) id LEFT JOIN oban_jobs USING (id)
			WHERE round <= 200 OR round BETWEEN 221 AND 240
			GROUP BY 1, 2) outcome
		GROUP BY 1 ORDER BY 1}),
	"cancel cancel|cancelled 200000\ncancel delete|gone 20000",
	'every job is as the last call left it');

$node->stop;
done_testing();
