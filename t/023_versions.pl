# ALTER EXTENSION ... UPDATE, from each version of the extension to each later one, and to a pretended next
# version, which makes the changes that a next version is likely to make: afterwards the catalogue is as
# after a new installation of that version; what users have built upon the extension works on, and so do
# the sessions that were open. And the module has each C symbol that a script has ever named.
#
# The scripts are found by their names: a new version needs no word here. docs/upgrading.md says how one is
# made.
#
# Shown to fail with a script that names a C symbol that is not there; with each statement of the update
# script left out; with PARALLEL SAFE left out of its CREATE OR REPLACE; with the column added before
# "prefix" in the full script; without the NULLs of om_job_columns_added in src/statements/job_columns.c;
# and with check_row (src/jobs/job_result.c) refusing a type with more columns.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Sessions;
use Test::More;
use Versions;

my $sources = "$FindBin::RealBin/..";
my ($installation, $extensions) = private_installation(PostgreSQL::Test::Utils::tempdir);
my $node = start_server('versions', install_path => $installation, log_error_verbosity => 'verbose');

# ---- the scripts

my @scripts = scripts_in($sources);
my @versions = full_versions(@scripts);
my ($released) = slurp_file("$sources/oban_manage.control") =~ /^default_version = '(.*)'$/m;
my $next = '999.0';

is_deeply([ scripts_in($extensions) ], \@scripts, 'every script is installed');
is($released, $versions[-1], 'the default version is the newest that has a script of its own');
is_deeply([ slurp_file("$sources/CHANGELOG.md") =~ /^## (\d[.\d]*)/mg ], [ reverse @versions ],
	'each version of CHANGELOG.md has a script of its own, and there is no other');
for my $script (@scripts)
{
	my @missing;

	for my $symbol (symbols_of("$sources/$script"))
	{
		my ($status) = $node->psql('postgres',
			"CREATE FUNCTION pg_temp.f() RETURNS int AS '\$libdir/oban_manage', '$symbol' LANGUAGE C");
		push @missing, $symbol if $status != 0;
	}
	is_deeply(\@missing, [], "$script: the module has each symbol");
}

# ---- a pretended next version

# What it changes in the script of the version before, each a text and what stands in its place.
my @edits = (
	# A new function
	[
		"-- reading\n", q{-- reading

CREATE FUNCTION oban_read_job(job_id bigint, prefix text DEFAULT NULL) RETURNS oban_job
AS 'MODULE_PATHNAME', 'oban_get_job' LANGUAGE C STABLE PARALLEL SAFE COST 100;
COMMENT ON FUNCTION oban_read_job(bigint, text) IS 'the job';
}
	],
	# Another default
	[ '(filter jsonb, max_jobs integer DEFAULT NULL, prefix text DEFAULT NULL)
RETURNS SETOF oban_job', '(filter jsonb, max_jobs integer DEFAULT 1000, prefix text DEFAULT NULL)
RETURNS SETOF oban_job' ],
	[
		'oban_delete_in_batches(filter jsonb, batch_size integer DEFAULT 10000',
		'oban_delete_in_batches(filter jsonb, batch_size integer DEFAULT 500'
	],
	# Another C function
	[ q('oban_delete_job_trigger'), q('oban_cancel_job_trigger') ],
	# Another cost
	[ q('oban_job_cancelled' LANGUAGE C STABLE PARALLEL SAFE COST 100),
	  q('oban_job_cancelled' LANGUAGE C STABLE PARALLEL SAFE COST 10) ],
	# Another comment
	[ "'the job, or NULL when there is none'", "'the job, or NULL'" ],
	# A further argument
	[ q{FUNCTION oban_cancel_all_jobs(filter jsonb, max_jobs integer DEFAULT NULL, prefix text DEFAULT NULL)},
	  q{FUNCTION oban_cancel_all_jobs(filter jsonb, max_jobs integer DEFAULT NULL, prefix text DEFAULT NULL, reason text DEFAULT NULL)} ],
	[ 'oban_cancel_all_jobs(jsonb, integer, text)', 'oban_cancel_all_jobs(jsonb, integer, text, text)' ],
	# A further column of oban_job
	[ "	prefix text\n);", "	prefix text,\n	note text\n);" ]);

my $name = 'oban_manage';
my $full_script = slurp_file("$sources/$name--$released.sql");
for my $edit (@edits)
{
	my ($before, $after) = @$edit;

	is(() = $full_script =~ /\Q$before\E/g, 1, "there is one place to change: " . $before =~ s/\n/ /gr);
	$full_script =~ s/\Q$before\E/$after/;
}

# The statement of the new script that begins so.
sub statement
{
	my ($beginning) = @_;
	my ($statement) = $full_script =~ /^(\Q$beginning\E.*?;)$/ms;

	return $statement // die "the script has no statement that begins with: $beginning";
}

sub replacement
{
	return statement("CREATE $_[0]") =~ s/^CREATE/CREATE OR REPLACE/r;
}

my ($cancel) = slurp_file("$sources/$name--$released.sql") =~ /^COMMENT ON (FUNCTION oban_cancel_all_jobs\(.*?\))/m;
my $update_script = join "\n\n", (
	q(\echo Use "ALTER EXTENSION oban_manage UPDATE" to load this file. \quit),
	statement('CREATE FUNCTION oban_read_job('),
	statement('COMMENT ON FUNCTION oban_read_job('),
	replacement('FUNCTION oban_all_jobs('),
	replacement('PROCEDURE oban_delete_in_batches('),
	replacement('FUNCTION oban_delete_job() '),
	'ALTER FUNCTION oban_job_cancelled(bigint, text, integer) COST 10;',
	statement('COMMENT ON FUNCTION oban_get_job('),
	# With a further argument it is another function. Beside the old one, calls would be ambiguous.
	"DROP $cancel;",
	statement('CREATE FUNCTION oban_cancel_all_jobs('),
	statement('COMMENT ON FUNCTION oban_cancel_all_jobs('),
	'ALTER TYPE oban_job ADD ATTRIBUTE note text CASCADE;',
	"COMMENT ON EXTENSION oban_manage IS 'the pretended next version';\n");
my $control = slurp_file("$sources/$name.control");
$control =~ s/^(default_version = ).*/$1'$next'/m;
$control =~ s/^(comment = ).*/$1'the pretended next version'/m;

# An application, and a session that has used everything, before the update.
make_jobs_table($node, 'public', 'elixir', 14);
make_jobs_table($node, 'other', 'python');
make_life_jobs($node, 'public');
make_application($node, 'public');
# application_works asks for its own setting.
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET oban_manage.prefix');
my $session = open_session($node);
ask($session, 'SET client_min_messages = warning');
my $prepared = prepare_calls($session);
ask($session, q(CREATE TABLE drops (job_id bigint); INSERT INTO drops VALUES (1), (1), (1);
	CREATE TRIGGER drop AFTER DELETE ON drops FOR EACH ROW
		EXECUTE FUNCTION oban_delete_job('job_id');
	PREPARE all_columns AS SELECT * FROM oban_get_job(5);
	CREATE FUNCTION oldest() RETURNS oban_job LANGUAGE plpgsql AS $$
	DECLARE j oban_job;
	BEGIN SELECT * INTO j FROM oban_get_job(5); RETURN j; END $$;
	CREATE TABLE typed OF oban_job; INSERT INTO typed SELECT * FROM oban_get_job(5);
	CREATE FUNCTION holds() RETURNS bigint LANGUAGE sql
		BEGIN ATOMIC SELECT oban_cancel_all_jobs('{"id": 1}'); END));
my $delete = "BEGIN; DELETE FROM drops WHERE ctid = '(0,1)';"
  . ' SELECT coalesce((SELECT state::text FROM oban_jobs WHERE id = 1), $$gone$$); ROLLBACK';
ask($session, 'CALL fill_life()');
is(ask($session, $delete), 'gone', 'a trigger with the function of before');
is(ask($session, join '; ', ('SELECT (oldest()).id') x 7), join("\n", (5) x 7), 'a row in PL/pgSQL');
my $trusted = 'CREATE ROLE shop_owner; CREATE DATABASE shop OWNER shop_owner';
$node->safe_psql('postgres', $_) for split /; /, $trusted;
$node->safe_psql('shop', 'SET ROLE shop_owner; CREATE EXTENSION oban_manage');

# Here it comes.
append_to_file("$extensions/$name--$next.sql", $full_script);
append_to_file("$extensions/$name--$released--$next.sql", $update_script);
unlink "$extensions/$name.control" or die "could not remove the control file: $!";
append_to_file("$extensions/$name.control", $control);

# ---- each version to each later one, beside a new installation

my %fresh;
for my $version (@versions, $next)
{
	my $database = "fresh_$version";

	$node->safe_psql('postgres', qq(CREATE DATABASE "$database"));
	$node->safe_psql($database, "CREATE EXTENSION oban_manage VERSION '$version'");
	$fresh{$version} = catalogue_of($node, $database);
	like($fresh{$version}, qr/^extension\n    \Q$version\E\n.*^function oban_get_job\(bigint,text\)$/ms,
		"$version: installed");
}
my @later = (@versions, $next);
while (defined(my $from = shift @later))
{
	last if !@later;
	my $database = "from_$from";

	$node->safe_psql('postgres', qq(CREATE DATABASE "$database"));
	$node->safe_psql($database, "CREATE EXTENSION oban_manage VERSION '$from'");
	for my $to (@later)
	{
		$node->safe_psql($database, "ALTER EXTENSION oban_manage UPDATE TO '$to'");
		is(catalogue_of($node, $database), $fresh{$to}, "from $from to $to: as newly installed");
	}
}
$node->safe_psql('shop', 'SET ROLE shop_owner; ALTER EXTENSION oban_manage UPDATE');
is(catalogue_of($node, 'shop'), $fresh{$next}, "updated by a database's owner: as newly installed");

# ---- what is built upon it

is_deeply(differing_calls($node, $session, $prepared), [], 'before the update each call works');
is( ask($session, 'ALTER EXTENSION oban_manage UPDATE;'
		  . q( SELECT extversion FROM pg_extension WHERE extname = 'oban_manage')),
	"$released\nERROR:  2BP01", 'a function that goes is held by what depends on it: no update');
is_deeply(differing_calls($node, $session, $prepared), [], 'which has changed nothing');

# While calls wait for a lock, another transaction has used the extension, and a CALL is between batches.
my $other = open_session($node);
ask($other, 'CALL fill_life(); DROP FUNCTION holds()');
ask($session, 'BEGIN; SELECT oban_cancel_job(2), oban_get_job(5)');
my $holder = hold_jobs($node, 'id = 4');
my %goes_on = (
	q(SELECT oban_cancel_many_jobs('{1,4}')) => '2',
	q(SELECT id, priority FROM oban_update_many_jobs('{4}', '{"priority": 3}')) => '4|3',
	q(SELECT oban_update_job(4, '{"priority": 5}') IS NULL) => 'f',
	q(SET client_min_messages = warning; CALL oban_update_in_batches('{"id": [1, 3, 4]}',
		'{"queue": "new"}', 2)) => '3');
# One job as a row is PostgreSQL's error: for any function whose type is altered while it runs.
my $fails = q(SELECT * FROM oban_update_job(4, '{"priority": 9}'));
my %waiting;
for my $call (sort(keys %goes_on), $fails)
{
	my $actor = 'waiting_' . keys %waiting;

	$waiting{$call} = start_session($node, $actor, "$call;\n");
	wait_for_lock($node, $actor);
}
is(ask($other, 'ALTER EXTENSION oban_manage UPDATE'), '', 'updated beside them');
is(ask($session, 'SELECT oban_retry_job(2), (oban_get_job(5)).id; COMMIT'),
	't|5', 'the open transaction goes on');
finish_session($holder, "ROLLBACK;\n");
is(finish_session($waiting{$_}), "$goes_on{$_}\n", "it waited, and goes on: $_") for sort keys %goes_on;
like(finish_session($waiting{$fails}),
	qr/ERROR:  function return row and query-specified return row do not match/,
	"it waited, and is refused: $fails");
is(ask($session, 'SELECT priority <> 9 FROM oban_jobs WHERE id = 4'), 't', 'which has changed nothing');

is_deeply(differing_calls($node, $session, $prepared), [], 'each works in the session that was open');
like(ask($session, 'EXECUTE all_columns'),
	qr/^5\|cancelled\|.*\|public$/, 'a prepared statement has the columns that it had');
is(ask($session, $delete), 'cancelled', 'a trigger has the function of the new version');
is(ask($session, 'SELECT (oldest()).id, (oldest()).note IS NULL'), '5|t', 'a row in PL/pgSQL');
is(ask($session, 'SELECT id, note IS NULL FROM typed'), '5|t', 'a table of the type has the new column');
is(ask($session, 'SELECT (oban_read_job(5)).state'), 'cancelled', 'a new function is there');
is(ask($session, q(SELECT oban_cancel_all_jobs('{"id": 5}', reason => 'late'))),
	0, 'and a further argument');
ask($session, q(CALL fill_life(); ALTER DATABASE postgres SET oban_manage.prefix = 'other'));
application_works($node, 'postgres', 'public', 'updated');
$_->quit for $session, $other;

# ---- the pretended version as what is installed

$node->safe_psql('postgres', 'DROP EXTENSION oban_manage CASCADE; CREATE EXTENSION oban_manage');
is(catalogue_of($node, 'postgres'), $fresh{$next}, 'made again, it is the new version');
unlike(slurp_file($node->logfile), qr/XX\d{3}|TRAP|terminated by signal|PANIC/, 'nobody crashed');
$node->stop;
done_testing();
