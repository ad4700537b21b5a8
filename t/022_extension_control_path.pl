# The extension in a directory of its own, which the settings extension_control_path (PostgreSQL 18)
# and dynamic_library_path name: created from there, called, dumped and restored.
#
# Shown to fail when oban_manage.control names the server's own library by its whole path.

use strict;
use warnings;

use File::Copy qw(copy);
use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('elsewhere');
$node->init(extra => [ '--no-locale', '--encoding=UTF8' ]);
$node->start;

# Before 18 there is only one directory, that of the server.
my $has_path = $node->safe_psql('postgres', 'SHOW server_version_num') >= 180000;
is($node->safe_psql('postgres',
		q{SELECT count(*) FROM pg_settings WHERE name = 'extension_control_path'}),
	$has_path ? 1 : 0,
	'extension_control_path: from 18 on');
check_elsewhere() if $has_path;
done_testing();

sub pg_config
{
	my ($what) = @_;
	my ($path) = run_command([ 'pg_config', "--$what" ]);
	return $path;
}

# The extension's files in a new directory, but for the library
sub copy_extension
{
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my $from = pg_config('sharedir') . '/extension';

	mkdir "$dir/extension" or die "could not make $dir/extension: $!";
	mkdir "$dir/lib" or die "could not make $dir/lib: $!";
	for my $file (glob "$from/oban_manage--*.sql")
	{
		copy($file, "$dir/extension/") or die "could not copy $file: $!";
	}
	# Its comment says where it is from.
	append_to_file("$dir/extension/oban_manage.control",
		slurp_file("$from/oban_manage.control") =~ s/^comment = .*/comment = 'from elsewhere'/mr);
	return $dir;
}

sub check_elsewhere
{
	my $dir = copy_extension();
	my $create = q{CREATE EXTENSION oban_manage;
		SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'oban_manage'};
	my $library = pg_config('pkglibdir') . '/oban_manage.' . ($^O eq 'darwin' ? 'dylib' : 'so');
	my ($errors, $dump) = ('', '');

	$node->append_conf('postgresql.conf', "extension_control_path = '$dir:\$system'");
	$node->append_conf('postgresql.conf', "dynamic_library_path = '$dir/lib'");
	$node->reload;

	# The library is looked for there alone.
	$node->psql('postgres', "\\set VERBOSITY verbose\n$create", stderr => \$errors);
	like($errors, qr/ERROR:  58P01: .*oban_manage/, 'without a library there it cannot be created');
	copy($library, "$dir/lib/") or die "could not copy $library: $!";
	is($node->safe_psql('postgres', $create), 'from elsewhere', 'created from there');

	make_jobs_table($node, 'public', 'elixir', 14);
	is( run_session(
			$node, q{
			INSERT INTO oban_jobs (id, worker) VALUES (1, 'W'), (2, 'W');
			SELECT oban_cancel_job(1);
			CALL oban_retry_in_batches('{"all": true}');
			CREATE TABLE app (job bigint);
			CREATE TRIGGER stop AFTER INSERT ON app FOR EACH ROW EXECUTE FUNCTION oban_cancel_job('job');
			INSERT INTO app VALUES (2);
			SELECT id, state FROM oban_jobs ORDER BY id;}) =~ s/^.*NOTICE:.*\n//mr,
		"t\n1\n1|available\n2|cancelled\n",
		'functions, a procedure and a trigger work');

	# A new server process finds it again; so does another database, by a dump.
	$node->restart;
	($dump) = run_command([ 'pg_dump', '--no-sync', '-d', $node->connstr('postgres') ]);
	$node->safe_psql('postgres', 'CREATE DATABASE copy');
	$node->safe_psql('copy', $dump =~ s/^\\(un)?restrict .*$//mgr);
	is($node->safe_psql('copy', 'SELECT oban_cancel_job(1), oban_cancel_job(2)'),
		't|f', 'restored in another database');
	is( $node->safe_psql('postgres',
			q{SELECT count(DISTINCT probin), min(probin) FROM pg_proc WHERE proname ~ '^oban_' AND probin <> ''}),
		'1|$libdir/oban_manage',
		'the functions keep the usual name of the library');
	return;
}
