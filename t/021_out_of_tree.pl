# The Makefile in a directory that is not the source tree, as debhelper uses it: it finds every test, builds,
# installs, tests and cleans there, and writes nothing into the tree.
#
# Shown to fail with the lists of tests taken from the current directory, with no rule for the folders of the
# objects, with VPATH kept (the tree has been built, and make takes its objects), with headers looked for in
# the current directory, and without clean-folders.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(basename dirname);
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tree = abs_path(dirname($FindBin::RealBin));
my $build = PostgreSQL::Test::Utils::tempdir();
my $root = PostgreSQL::Test::Utils::tempdir();
my @make = ('make', '-s', '-C', $build, 'with_llvm=no', 'TAP_TESTS=');
my $before = files_in($tree);

# make tells a make that it starts of its own flags.
delete @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL)};
# What the tests of the tree were called with is not for these.
delete $ENV{TESTDIR};

# The names of files and folders below a directory, in order, without the TAP tests' own.
sub files_in
{
	my ($directory) = @_;
	my @found =
	  split /\n/, (run_command([ 'find', $directory, '-mindepth', '1', '-printf', '%P\n' ]))[0];

	return join "\n", sort grep { !m{^(tmp_check|\.git)} } @found;
}

sub names_in
{
	my ($folder, $suffix) = @_;

	return join ' ', sort map { basename($_, $suffix) } glob "'$tree/$folder/*$suffix'";
}

# How debhelper calls it, and how one does by hand.
for my $call ([ '-f', "$tree/Makefile" ], [ '-f', "$tree/Makefile", "VPATH=$tree" ])
{
	my ($lists) = run_command(
		[
			@make, @$call, '--eval',
			'lists: ; @echo $(REGRESS); echo $(ISOLATION)', 'lists'
		]);

	is( $lists,
		names_in('sql', '.sql') . "\n" . names_in('specs', '.spec'),
		"every test is found: @$call");
}

push @make, '-f', "$tree/Makefile", "VPATH=$tree";
command_ok([ @make, 'all', 'COPT=-O0' ], 'make');
ok(-s "$build/oban_manage.so" && -s "$build/src/verbs/run.o", 'what was built is there');
command_ok([ @make, '-q', 'all' ], 'and need not be built again');
command_exit_is([ @make, '-q', '-W', "$tree/src/jobs/compat.h", 'src/verbs/run.o' ],
	1, 'unless a header changes');

command_ok([ @make, 'install', "DESTDIR=$root" ], 'make install');
my ($installed) = run_command([ 'find', $root, '-type', 'f' ]);
for my $file (qw(oban_manage.so oban_manage.control oban_manage--1.0.sql oban_manage/README.md
	oban_manage/docs/guard.md))
{
	like($installed, qr{/\Q$file\E$}m, "installed: $file");
}
command_ok([ @make, 'uninstall', "DESTDIR=$root" ], 'make uninstall');
is((run_command([ 'find', $root, '-type', 'f', '-o', '-name', 'oban_manage' ]))[0], '', 'nothing is left of it');

my $node = PostgreSQL::Test::Cluster->new('out_of_tree');
$node->init(extra => [ '--no-locale', '--encoding=UTF8' ]);
$node->start;
{
	local @ENV{qw(PGHOST PGPORT)} = ($node->host, $node->port);
	command_ok([ @make, 'installcheck', 'REGRESS=ids', 'ISOLATION=guard_stale' ],
		'make installcheck, of one test of each kind');
}
$node->stop;
ok(-e "$build/results/ids.out" && -e "$build/output_iso/results/guard_stale.out",
	'their results are there');

command_ok([ @make, 'clean' ], 'make clean');
is(files_in($build), '', 'nothing is left');
is(files_in($tree), $before, 'the tree is as it was');

{
	local $ENV{GIT_DIR} = "$build/none";
	command_fails_like([ @make, 'dist' ], qr/takes git/, 'make dist says what it needs');
}

done_testing();
