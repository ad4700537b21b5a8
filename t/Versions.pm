package Versions;

# What the tests of several versions of the extension share: an installation of PostgreSQL of their own,
# into which they may put a version, and the extension's part of the catalogue, to be compared.

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(basename dirname);
use File::Spec;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(private_installation scripts_in full_versions symbols_of catalogue_of);

my $sources = File::Spec->rel2abs(dirname(__FILE__) . '/..');

# Copy the installation under test, with the extension, below a directory. What a test puts into the copy
# is seen by no other test, and goes with the directory, however the test ends; and the installation itself
# need not be writable. Returns the path of the copy, as PostgreSQL::Test::Cluster takes it, and the
# directory of the extensions in it.
sub private_installation
{
	my ($dir) = @_;
	my $stage = q{. "$1/dev/packages.sh"; . "$1/dev/server.sh"; stage "$2" "$3"
		extension=$("$2" --sharedir)/extension; modules=$("$2" --pkglibdir)
		cp -L "$extension"/oban_manage* "$3$extension"; cp -L "$modules/oban_manage.so" "$3$modules"
		printf '%s\n' "$("$PG_CONFIG" --bindir)" "$3$extension"};
	my ($bindir) = run_command([ 'pg_config', '--bindir' ]);
	my ($copy, $errors) =
	  run_command([ 'bash', '-euc', $stage, 'stage', $sources, "$bindir/pg_config", $dir ]);

	is($errors, '', 'an installation of its own');
	my ($bin, $extensions) = split /\n/, $copy;
	return (dirname($bin), $extensions);
}

# The scripts of the extension in a directory: oban_manage--1.0.sql and the like, and those from one version
# to another.
sub scripts_in
{
	my ($dir) = @_;

	return map { basename($_) } sort glob "'$dir'/oban_manage--*.sql";
}

# The versions that have a script of their own, the lowest first.
sub full_versions
{
	my @versions = map { /^oban_manage--((?:(?!--).)+)\.sql$/ ? $1 : () } @_;
	my $key = sub { join '.', map { sprintf '%09d', $_ } split /\./, $_[0] };

	return sort { $key->($a) cmp $key->($b) } @versions;
}

# The C symbols that a script names.
sub symbols_of
{
	my ($script) = @_;
	my $text = slurp_file($script);
	my %symbols = map { $_ => 1 } $text =~ /'MODULE_PATHNAME'\s*,\s*'(\w+)'/g;

	# A function without one would look for its own name.
	is(() = $text =~ /'MODULE_PATHNAME'(?!\s*,\s*'\w+')/g,
		0, basename($script) . ': each function names its symbol');
	return sort keys %symbols;
}

# All that the catalogue says of the extension in a database, except OIDs and the owner of the extension,
# as text: each of its objects with its definition, owner, grants, comment and dependencies.
sub catalogue_of
{
	my ($node, $database) = @_;

	return $node->safe_psql(
		$database, q{
		WITH extension AS (SELECT * FROM pg_extension WHERE extname = 'oban_manage'),
		member AS (
			SELECT d.classid, d.objid FROM pg_depend d, extension e
			WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
				AND d.deptype = 'e')
		SELECT concat_ws(E'\n    ', 'extension', extversion, extnamespace::regnamespace,
			'relocatable ' || extrelocatable, extconfig, extcondition,
			'comment ' || obj_description(oid, 'pg_extension'))
		FROM extension
		UNION ALL (
		SELECT concat_ws(E'\n    ', pg_describe_object(classid, objid, 0), definition,
			'owner ' || owner::regrole, 'grants ' || acl::text,
			'first grants ' || (SELECT initprivs::text FROM pg_init_privs
				WHERE classoid = classid AND objoid = objid AND objsubid = 0),
			'comment ' || (SELECT description FROM pg_description
				WHERE classoid = classid AND objoid = objid AND objsubid = 0),
			(SELECT string_agg(depends, E'\n    ' ORDER BY depends COLLATE "C") FROM (
				SELECT concat(d.deptype, ' ', d.objsubid, ' ',
					pg_describe_object(refclassid, refobjid, refobjsubid)) AS depends
				FROM pg_depend d WHERE d.classid = member.classid AND d.objid = member.objid) d))
		FROM member LEFT JOIN LATERAL (
			SELECT pg_get_functiondef(oid), proowner, proacl
			FROM pg_proc WHERE classid = 'pg_proc'::regclass AND oid = objid
			UNION ALL
			SELECT concat_ws(E'\n    ', to_jsonb(t) - '{oid,typname,typnamespace,typowner,typrelid,
					typelem,typarray,typacl,typsubscript}'::text[],
				(SELECT string_agg(concat_ws(' ', 'column', attname,
					format_type(atttypid, atttypmod), attcollation::regcollation, attstorage,
					attcompression, attacl,
					-- 15.20 keeps a number in it that is new each time.
					(SELECT string_agg(o, ',') FROM unnest(attoptions) o WHERE o !~ '^pg_attver='),
					col_description(attrelid, attnum)),
					E'\n    ' ORDER BY attnum)
				FROM pg_attribute WHERE attrelid = typrelid AND attnum > 0 AND NOT attisdropped)),
				typowner, typacl
			FROM pg_type t WHERE classid = 'pg_type'::regclass AND oid = objid
			) objects (definition, owner, acl) ON true
		ORDER BY pg_describe_object(classid, objid, 0) COLLATE "C")});
}

1;
