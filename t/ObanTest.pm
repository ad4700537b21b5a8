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

our @EXPORT = qw(start_server make_jobs_table run_session run_sessions
  parse_notifications);

my $fixtures = File::Spec->rel2abs(dirname(__FILE__) . '/../fixtures');

# A server with the extension in the database postgres, and the settings given.
sub start_server
{
	my ($name, %settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

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
		push @harness,
		  [
			'psql', '-XAtq', '-d', $node->connstr('postgres') . " application_name=$actor", '-f', '-'
		  ],
		  '<', \$scripts{$actor}, '>', \$outputs{$actor}, '2>&1';
	}
	IPC::Run::run(@harness, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return %outputs;
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
