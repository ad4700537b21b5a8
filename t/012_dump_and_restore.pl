# pg_dump and restore of an application that is built upon the extension: into a new server, in each
# of the ways there are, and into a database that has the extension in another schema. The jobs come
# back as they were, whatever triggers there are; a dump of the copy is the dump of the original.
#
# A dump is restored with an empty search_path, which the calls in the materialized view show. Shown
# to fail with the function's text in queries.c built with the table's bare name, and with a C symbol
# that the script names and the module lacks.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sessions;
use Test::More;

my $old = start_server('old');
make_jobs_table($old, 'public', 'elixir', 14);
make_jobs_table($old, 'other', 'python');
make_life_jobs($old, 'public');
$old->safe_psql('postgres', 'CREATE SCHEMA ext; ALTER EXTENSION oban_manage SET SCHEMA ext');
make_application($old, 'ext');
# pg_dumpall leaves the settings of the database postgres alone.
my $settings = q(ALTER DATABASE %s SET oban_manage.prefix = 'other');
$old->safe_psql('postgres', 'CREATE DATABASE shop TEMPLATE postgres; ' . sprintf $settings, 'shop');
my $dir = PostgreSQL::Test::Utils::tempdir;

sub dump_of
{
	my ($node, $database, @options) = @_;
	my ($text, $errors) = run_command(
		[ 'pg_dump', '--no-sync', '-d', $node->connstr($database), @options ]);

	is($errors, '', "pg_dump of $database: no warning");
	# Not what is new each time (restrict keys), and not the name.
	return join "\n", grep { !/^(--|\\(un)?restrict |$)/ } split /\n/, $text;
}

# Run a program that restores. Nothing may go wrong.
sub restore
{
	my ($name, @command) = @_;

	command_checks_all(\@command, 0, [qr/^/], [qr/^$/], "restore $name");
	return;
}

my $original = dump_of($old, 'shop');
like($original, qr/EXECUTE FUNCTION ext\.oban_update_job_with\('job_id', 'app\.follow', 'public'\)/,
	'triggers are dumped');
unlike($original, qr/CREATE FUNCTION ext\./, 'what is in the extension is not');

# The whole server: roles and settings come with it.
$old->command_ok([ 'pg_dumpall', '--no-sync', '-f', "$dir/all.sql", '-d', $old->connstr('postgres') ],
	'pg_dumpall');
my $new = PostgreSQL::Test::Cluster->new('new');
$new->init(extra => [ '--no-locale', '--encoding=UTF8' ]);
$new->start;
# The role that initdb has made is there.
my $me = getpwuid($>);
my $all = slurp_file("$dir/all.sql") =~ s/^CREATE ROLE "?$me"?;$//mr;
PostgreSQL::Test::Utils::append_to_file("$dir/new.sql", $all);
# Notices of set_config apart, psql must be silent on errors.
restore('all', 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-o', "$dir/psql.out", '-d',
	$new->connstr('postgres'), '-f', "$dir/new.sql");
is(dump_of($new, 'shop'), $original, 'all: a dump of the copy is that of the original');
application_works($new, 'shop', 'ext', 'all');

# One database, in an archive: at once, by two workers, by parts.
for my $format (qw(custom directory))
{
	$old->command_ok(
		[
			'pg_dump', '--no-sync', '--create', '-F', $format, '-f', "$dir/$format", '-d',
			$old->connstr('shop')
		],
		"pg_dump in the format $format");
}
$new->safe_psql('postgres', 'CREATE DATABASE jobs_two; ' . sprintf $settings, 'jobs_two');
restore('by two workers', 'pg_restore', '-j2', '--exit-on-error', '-d', $new->connstr('jobs_two'),
	"$dir/directory");
is(dump_of($new, 'jobs_two'), $original, 'by two workers: the same');
application_works($new, 'jobs_two', 'ext', 'by two workers');

$new->safe_psql('postgres', 'CREATE DATABASE jobs_parts; ' . sprintf $settings, 'jobs_parts');
# Data loaded while triggers are there, but off.
restore("the $_", 'pg_restore', '--exit-on-error', "--section=$_", '-d', $new->connstr('jobs_parts'),
	"$dir/custom") for qw(pre-data data post-data);
is(dump_of($new, 'jobs_parts'), $original, 'by parts: the same');
$new->safe_psql('jobs_parts', 'TRUNCATE app.orders, app.mails, app.archive, public.oban_jobs');
restore('data alone', 'pg_restore', '--exit-on-error', '--data-only', '--disable-triggers', '-d',
	$new->connstr('jobs_parts'), "$dir/custom");
# That pg_restore enables the triggers, ALWAYS is lost: so it is for any trigger.
$new->safe_psql('jobs_parts', 'ALTER TABLE app.orders ENABLE ALWAYS TRIGGER "cancel it"');
is(dump_of($new, 'jobs_parts'), $original, 'data alone: no trigger has touched a job');
application_works($new, 'jobs_parts', 'ext', 'data alone');

# A database where the extension is in another schema already: what is built upon it is not found.
# Put it where it was, restore, put it back.
$new->safe_psql('postgres', 'CREATE DATABASE jobs_else; ' . sprintf $settings, 'jobs_else');
$new->safe_psql('jobs_else', 'CREATE SCHEMA elsewhere; CREATE EXTENSION oban_manage SCHEMA elsewhere');
command_checks_all(
	[ 'pg_restore', '-1', '-d', $new->connstr('jobs_else'), "$dir/custom" ], 1,
	[qr/^$/], [qr/(type|function) "?ext\.oban_\w+\S* does not exist/],
	'another schema: the restore says what it misses');
is($new->safe_psql('jobs_else', q(SELECT to_regclass('oban_jobs') IS NULL)),
	't', 'another schema: nothing is left behind');
$new->safe_psql('jobs_else', 'CREATE SCHEMA ext; ALTER EXTENSION oban_manage SET SCHEMA ext;');
# The schema that is there is not made again.
my ($list) = run_command([ 'pg_restore', '-l', "$dir/custom" ]);
PostgreSQL::Test::Utils::append_to_file("$dir/list",
	join "\n", grep { !/ SCHEMA - ext / } split /\n/, $list);
restore('where it was', 'pg_restore', '-1', '-L', "$dir/list", '-d', $new->connstr('jobs_else'),
	"$dir/custom");
$new->safe_psql('jobs_else', 'ALTER EXTENSION oban_manage SET SCHEMA elsewhere');
application_works($new, 'jobs_else', 'elsewhere', 'another schema');

$_->stop for $old, $new;
done_testing();
