package ObanTest;

# What the TAP tests share: a server, the jobs tables of the fixtures in it, and long psql sessions.

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(dirname);
use File::Spec;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(start_server make_jobs_table make_oban run_session run_sessions start_session
  finish_session wait_for_session wait_for_lock hold_jobs prepare_batches call_batches
  batch_sizes finds_nothing parse_notifications);

my $fixtures = File::Spec->rel2abs(dirname(__FILE__) . '/../fixtures');

# A server with the extension in the database postgres, and the settings given; with install_path, of
# that installation.
sub start_server
{
	my ($name, %settings) = @_;
	my @installation = map { exists $settings{$_} ? ($_ => delete $settings{$_}) : () } 'install_path';
	my $node = PostgreSQL::Test::Cluster->new($name, @installation);

	$node->init(extra => [ '--no-locale', '--encoding=UTF8' ]);
	# Tens of thousands of calls: their text would fill the log.
	$settings{log_statement} //= 'none';
	$node->append_conf('postgresql.conf', "$_ = $settings{$_}") for sort keys %settings;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION oban_manage');
	return $node;
}

# The jobs table of a dialect ('elixir' with a migration's version, or 'python') in a schema.
sub make_jobs_table
{
	my ($node, $schema, $dialect, $version) = @_;
	my @variables = ('-v', "schema=$schema");

	push @variables, '-v', "version=$version" if defined $version;
	$node->command_ok(
		[
			'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', @variables,
			'-d', $node->connstr('postgres'), '-f', "$fixtures/$dialect.sql"
		],
		"the table of " . join(' ', grep { defined } $dialect, $version) . " in $schema");
	return;
}

# The statements of both Obans on public.oban_jobs, in the schemas elixir and python
# (fixtures/workers.sql), and the guard of the table. The function oban gives what such a call
# returns. It gives NULL where the call loses to a deadlock: both Obans lock in orders of their own,
# and send the same again.
sub make_oban
{
	my ($node) = @_;

	$node->command_ok(
		[
			'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
			'-f', "$fixtures/workers.sql"
		],
		'the statements of both Obans');
	$node->safe_psql(
		'postgres', q{
		CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON oban_jobs
			FOR EACH ROW EXECUTE FUNCTION oban_guard_job();
		CREATE FUNCTION oban(call text) RETURNS jsonb LANGUAGE plpgsql AS $$
		DECLARE
			returned jsonb;
		BEGIN
			EXECUTE 'SELECT jsonb_agg(r) FROM ' || call || ' r' INTO returned;
			RETURN returned;
		EXCEPTION WHEN deadlock_detected THEN
			RETURN NULL;
		END $$});
	return;
}

# Run a whole script in one psql session. Returns what it wrote, errors and all: a script goes on
# after an error, so that a test can show it.
sub run_session
{
	my ($node, $script, @options) = @_;
	my $output = '';

	IPC::Run::run(
		[ 'psql', '-XAtq', @options, '-d', $node->connstr('postgres'), '-f', '-' ],
		'<', \$script, '>', \$output, '2>&1',
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $output;
}

sub psql_command
{
	my ($node, $actor) = @_;

	return [
		'psql', '-XAtq', '-d', $node->connstr('postgres') . " application_name=$actor", '-f', '-'
	];
}

# Run scripts in psql sessions at the same time, each under the application name that is its key in
# the hash, and wait for all of them. Returns what each wrote, by the same keys.
sub run_sessions
{
	my ($node, %scripts) = @_;
	my %outputs;
	my @harness;

	for my $actor (sort keys %scripts)
	{
		$outputs{$actor} = '';
		push @harness, '&' if @harness;
		push @harness, psql_command($node, $actor),
		  '<', \$scripts{$actor}, '>', \$outputs{$actor}, '2>&1';
	}
	IPC::Run::run(@harness, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return %outputs;
}

# Start a script in a psql session under an application name, while the test goes on. The session
# takes what is appended to its script later, until it is finished.
sub start_session
{
	my ($node, $actor, $script) = @_;
	my %session = (actor => $actor, script => $script, output => '');

	$session{run} = IPC::Run::start(psql_command($node, $actor),
		'<', \$session{script}, '>', \$session{output}, '2>&1',
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$session{run}->pump_nb;
	return \%session;
}

# Run the rest of a session's script to its end. Returns what the session wrote.
sub finish_session
{
	my ($session, $rest) = @_;

	$session->{script} .= $rest if defined $rest;
	$session->{run}->finish;
	return $session->{output};
}

# Wait until a condition on its row in pg_stat_activity holds for a session.
sub wait_for_session
{
	my ($node, $actor, $condition) = @_;

	$node->poll_query_until('postgres',
		"SELECT $condition FROM pg_stat_activity WHERE application_name = '$actor'")
	  or die "$actor never came to be: $condition";
	return;
}

# Wait until a session waits for somebody's lock.
sub wait_for_lock
{
	my ($node, $actor) = @_;

	wait_for_session($node, $actor, q{state = 'active' AND wait_event_type = 'Lock'});
	return;
}

# Lock jobs in a session of their own, until it is finished.
sub hold_jobs
{
	my ($node, $condition, $schema) = @_;
	my $table = ($schema // 'public') . '.oban_jobs';
	my $session = start_session($node, 'holder', qq{BEGIN;
		SELECT count(id) FROM (SELECT id FROM $table WHERE $condition FOR UPDATE) held \\gset\n});

	wait_for_session($node, 'holder',
		q{state = 'idle in transaction' AND query LIKE '%FOR UPDATE%'});
	return $session;
}

# Prepare public.oban_jobs, of Elixir's dialect, for batches of every verb:
#
# - Each change of a job is logged in the table changes, with who made it (the application name) and
#   in which transaction; those of a statement at once, by id.
# - The procedure fill makes jobs in all states, with gaps between their ids; a seventh of them is
#   of another worker. The table initial keeps them as they were.
# - The table verbs says in which states a verb changes a job, and what becomes of it then. For
#   update that is another queue, so that no verb finds a job that it has changed.
# - The function not_once gives the jobs that a verb with the filter of call_batches has not done
#   exactly once, or should not have done at all.
sub prepare_batches
{
	my ($node) = @_;

	$node->safe_psql(
		'postgres', q{
		CREATE TABLE changes (
			seq bigserial PRIMARY KEY, actor text, job_id bigint, old_state text, new_state text,
			xid xid8, at timestamp);
		CREATE INDEX ON changes (job_id, seq);
		CREATE FUNCTION log_update() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO changes (actor, job_id, old_state, new_state, xid, at)
				SELECT current_setting('application_name'), o.id, o.state, n.state,
					   pg_current_xact_id(), timezone('UTC', now())
				FROM old_jobs o JOIN new_jobs n USING (id) ORDER BY id;
			RETURN NULL;
		END $$;
		CREATE FUNCTION log_delete() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO changes (actor, job_id, old_state, xid, at)
				SELECT current_setting('application_name'), id, state, pg_current_xact_id(),
					   timezone('UTC', now())
				FROM old_jobs ORDER BY id;
			RETURN NULL;
		END $$;
		CREATE TRIGGER log_update AFTER UPDATE ON oban_jobs
			REFERENCING OLD TABLE AS old_jobs NEW TABLE AS new_jobs
			FOR EACH STATEMENT EXECUTE FUNCTION log_update();
		CREATE TRIGGER log_delete AFTER DELETE ON oban_jobs REFERENCING OLD TABLE AS old_jobs
			FOR EACH STATEMENT EXECUTE FUNCTION log_delete();

		CREATE TABLE initial (id bigint PRIMARY KEY, state text, worker text);
		CREATE PROCEDURE fill(jobs int) LANGUAGE plpgsql AS $$
		BEGIN
			TRUNCATE oban_jobs, changes, initial RESTART IDENTITY;
			INSERT INTO oban_jobs (id, state, worker, attempt)
				SELECT n * 3,
					   (('{available,scheduled,retryable,executing,completed,cancelled,discarded,'
						 || 'discarded,discarded,discarded}')::oban_job_state[])[n % 10 + 1],
					   CASE n % 7 WHEN 0 THEN 'Other' ELSE 'Mailer' END, 1
				FROM generate_series(1, jobs) n;
			PERFORM setval('oban_jobs_id_seq', max(id)) FROM oban_jobs;
			INSERT INTO initial SELECT id, state, worker FROM oban_jobs;
			ANALYZE oban_jobs;
		END $$;

		CREATE TABLE verbs (verb text, states text[], state text);
		INSERT INTO verbs VALUES
			('cancel', '{available,scheduled,retryable,executing}', 'cancelled'),
			('retry', '{scheduled,retryable,completed,cancelled,discarded}', 'available'),
			('delete', '{available,scheduled,retryable,completed,cancelled,discarded}', NULL),
			('update', '{available,scheduled,retryable,executing,completed,cancelled,discarded}',
			 'as it was');
		CREATE FUNCTION to_do(v text) RETURNS bigint LANGUAGE sql AS $$
			SELECT count(*) FROM initial i JOIN verbs ON verb = v AND i.state = ANY (states)
			WHERE worker = 'Mailer'
		$$;
		CREATE FUNCTION not_once(v text) RETURNS TABLE (
			id bigint, was text, changed bigint, state text, queue text) LANGUAGE sql AS $$
			SELECT i.id, i.state, coalesce(changed, 0), j.state, j.queue
			FROM initial i
				JOIN verbs ON verb = v
				CROSS JOIN LATERAL (SELECT worker = 'Mailer' AND i.state = ANY (states) AS to_do) d
				LEFT JOIN (SELECT job_id, count(*) AS changed FROM changes GROUP BY 1) c
					ON c.job_id = i.id
				LEFT JOIN oban_jobs j USING (id)
			WHERE coalesce(changed, 0) <> to_do::int
				OR j.state::text IS DISTINCT FROM CASE WHEN to_do
					THEN CASE verb WHEN 'update' THEN i.state ELSE verbs.state END ELSE i.state END
				OR j.queue <> CASE WHEN to_do AND verb = 'update' THEN 'slow' ELSE 'default' END
			ORDER BY 1
		$$;});
	return;
}

# The CALL of a verb for the jobs of prepare_batches, with further arguments as SQL.
sub call_batches
{
	my ($verb, @arguments) = @_;

	unshift @arguments, q('{"queue": "slow"}') if $verb eq 'update';
	return "CALL oban_${verb}_in_batches("
	  . join(', ', q('{"worker": "Mailer", "queue": "default"}'), @arguments) . ");\n";
}

# How many jobs each transaction of the log changed, in the order of time.
sub batch_sizes
{
	my ($node, $actor) = @_;

	return split /\n/,
	  $node->safe_psql('postgres',
		"SELECT count(*) FROM changes WHERE actor = '$actor' GROUP BY xid ORDER BY min(seq)");
}

# Nothing may be found by a query.
sub finds_nothing
{
	my ($node, $query, $name) = @_;

	is($node->safe_psql('postgres', $query), '', $name);
	return;
}

my $notification = qr/^Asynchronous notification "(.*?)" with payload "(.*)"/
  . qr/ received from server process with PID \d+\.$/;

# Split psql's output into the notifications, each as "channel payload", and the other lines, those
# without the place in the script that psql puts before a message.
sub parse_notifications
{
	my ($output) = @_;
	my (@notifications, @lines);

	for my $line (split /\n/, $output)
	{
		if ($line =~ $notification)
		{
			push @notifications, "$1 $2";
		}
		else
		{
			push @lines, $line =~ s/^psql:<stdin>:\d+: //r;
		}
	}
	return (\@notifications, \@lines);
}

1;
