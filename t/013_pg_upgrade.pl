# pg_upgrade of a server with the extension and what is built upon it, the guard among it; and a dump of it,
# by either version's pg_dumpall, restored into a new server of that version.
#
# To the newest version of PostgreSQL beside the one under test that has the extension, as a staged
# copy, Debian's /usr/lib/postgresql/VERSION, `dev/deep newest` or dev/upgrade has it; where there is none, to the
# same version, which takes the same way: each object of the extension is made again one by one, with
# its OID, and linked to the module of the new installation. Which it was is printed.
#
# Shown to fail with a C symbol renamed in the new installation's module, and with its module taken
# away (pg_upgrade refuses).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use File::Basename qw(basename);
use ObanTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sessions;
use Test::More;

# What follows VERSION in the directory of the version under test; its siblings are the others.
chomp(my $bindir = (run_command([ 'pg_config', '--bindir' ]))[0]);
my ($from) = $bindir =~ m{/(\d+)/bin$};
my $to = $bindir =~ s{/bin$}{}r;

if (defined $from)
{
	my $versions = $bindir =~ s{/\d+/bin$}{}r;

	for my $path (sort { basename($a) <=> basename($b) } glob "'$versions'/[1-9]*")
	{
		next if basename($path) < $from || !-x "$path/bin/pg_upgrade";
		my ($modules) = run_command([ "$path/bin/pg_config", '--pkglibdir' ]);
		$to = $path if -e "$modules/oban_manage.so";
	}
}
my $new_bindir = "$to/bin";

my $old = start_server('old');
make_jobs_table($old, 'public', 'elixir', 14);
make_jobs_table($old, 'other', 'python');
make_life_jobs($old, 'public');
$old->safe_psql('postgres', 'CREATE SCHEMA ext; ALTER EXTENSION oban_manage SET SCHEMA ext');
make_application($old, 'ext');
$old->safe_psql('postgres', q(ALTER DATABASE postgres SET oban_manage.prefix = 'other'));

sub dump_of
{
	my ($node) = @_;
	my ($text, $errors) = run_command(
		[ "$new_bindir/pg_dump", '--no-sync', '--create', '-d', $node->connstr('postgres') ]);

	is($errors, '', 'pg_dump: no warning');
	# Not what is new each time (restrict keys), and not the name.
	return join "\n", grep { !/^(--|\\(un)?restrict |$)/ } split /\n/, $text;
}

# The types of the columns, by OID: a job in a column is stored with that of oban_job.
my $oids = q{SELECT oid, typrelid FROM pg_type WHERE typname = 'oban_job'};
my $original = dump_of($old);
my $old_oids = $old->safe_psql('postgres', $oids);

my @install_path = $to eq $bindir =~ s{/bin$}{}r ? () : (install_path => $to);

# Both have checksums, or none has. As of version 18 a new server has them, unless it is told not to.
my $checksums = $old->safe_psql('postgres', 'SHOW data_checksums');

sub new_server
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, @install_path);

	$node->init(extra => [ '--no-locale', '--encoding=UTF8',
		$checksums eq 'on' ? '--data-checksums' : $node->pg_version < 18 ? () : '--no-data-checksums' ]);
	return $node;
}

my $new = new_server('new');
diag 'from ' . $old->pg_version . ' to ' . $new->pg_version;
my $dir = PostgreSQL::Test::Utils::tempdir;

# Some minor releases of the autumn of 2026, as 15.20, keep an option "pg_attver" at the columns of every
# table. Releases from before, as 18.6, refuse it, so that no table comes over, whatever the extension: take
# it away then.
my $has_attver = q(attoptions::text LIKE '%pg_attver=%');
my $attver = $old->safe_psql('postgres', "SELECT EXISTS (SELECT FROM pg_attribute WHERE $has_attver)") eq 't'
  && !knows_attver($new);
diag 'without pg_attver, which ' . $new->pg_version . ' does not know' if $attver;

sub knows_attver
{
	my ($node) = @_;

	$node->start;
	my ($status) = $node->psql('postgres',
		'CREATE TEMP TABLE t (a int); ALTER TABLE t ALTER a SET (pg_attver = 1)');
	$node->stop;
	return $status == 0;
}

# ---- dump and restore

# pg_dumpall leaves the settings of the database postgres alone.
$old->safe_psql('postgres', $_)
  for 'CREATE DATABASE shop TEMPLATE postgres', q(ALTER DATABASE shop SET oban_manage.prefix = 'other');
for my $dumper ($to eq $bindir =~ s{/bin$}{}r ? $bindir : ($bindir, $new_bindir))
{
	my $name = "dump of $dumper" =~ s{.*/(\d+)/bin$}{dump by the pg_dumpall of $1}r;
	my $node = new_server('restored_' . ($dumper eq $bindir ? 'old' : 'new'));
	my ($dump, $errors) =
	  run_command([ "$dumper/pg_dumpall", '--no-sync', '-d', $old->connstr('postgres') ]);

	is($errors, '', "$name: no warning");
	# The role that initdb has made is there.
	my $me = getpwuid($>);
	$dump =~ s/^CREATE ROLE "?$me"?;$//m;
	$dump =~ s/^ALTER TABLE \S+ .*SET \(pg_attver=\d+\);$//mg if $attver;
	PostgreSQL::Test::Utils::append_to_file("$dir/$name.sql", $dump);
	$node->start;
	command_checks_all(
		[
			"$new_bindir/psql", '-XAtq', '-v', 'ON_ERROR_STOP=1', '-o', "$dir/psql.out", '-d',
			$node->connstr('postgres'), '-f', "$dir/$name.sql"
		],
		0, [qr/^/], [qr/^$/], "$name: restored");
	application_works($node, 'shop', 'ext', $name);
	$node->stop;
}

# ---- pg_upgrade

if ($attver)
{
	for my $database (qw(postgres shop))
	{
		$old->safe_psql($database, q(UPDATE pg_attribute SET attoptions = (SELECT array_agg(o)
			FROM unnest(attoptions) o WHERE o NOT LIKE 'pg_attver=%') WHERE ) . $has_attver);
	}
}
$old->stop;

# It writes where it is started.
chdir $dir or die "could not change to $dir: $!";
my @upgrade = (
	"$new_bindir/pg_upgrade", '--no-sync',
	'-d', $old->data_dir, '-D', $new->data_dir,
	'-b', $bindir, '-B', $new_bindir,
	'-s', $new->host, '-p', $old->port, '-P', $new->port);
# As of version 15 it has no --no-sync.
@upgrade = grep { $_ ne '--no-sync' } @upgrade if $new->pg_version < 16;
command_ok([ @upgrade, '--check' ], 'pg_upgrade would do it');
command_ok(\@upgrade, 'pg_upgrade does it');

$new->start;
is($new->safe_psql('postgres', $oids), $old_oids, 'the type has its OID');
# A newer server's dump of the same says it in other words.
is(dump_of($new), $original, 'a dump is as that of the old server')
  if $old->pg_version eq $new->pg_version;
is( $new->safe_psql('postgres', 'SELECT extversion, extnamespace::regnamespace FROM pg_extension'
		  . " WHERE extname = 'oban_manage'"),
	'1.0|ext', 'the extension is known as such');
is( $new->safe_psql('postgres', q{SELECT count(*) FROM pg_proc WHERE probin LIKE '%oban_manage'
		AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass
			AND objid = pg_proc.oid AND deptype = 'e')}),
	0, 'its functions are in it');
application_works($new, 'postgres', 'ext', 'upgraded');

# Every call finds its C function.
my $session = open_session($new);
ask($session, "SET search_path = public, ext; SET oban_manage.prefix = 'public'");
for my $call (calls_of('reads'), calls_of('writes'), calls_of('batches'))
{
	my ($signature, $sql) = @$call;

	ask($session, 'SET client_min_messages = warning; CALL fill_life()');
	unlike(ask($session, $sql), qr/ERROR/, $signature);
}
$session->quit;

# What an extension is for: gone at once, and there again.
$new->safe_psql('postgres', 'DROP EXTENSION oban_manage CASCADE; CREATE EXTENSION oban_manage');
is($new->safe_psql('postgres', 'SELECT oban_cancel_job(3)'), 'f', 'dropped, and made again');
$new->stop;
done_testing();
