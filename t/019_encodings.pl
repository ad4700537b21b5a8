# Tags in databases of several encodings, locales and providers: each stores the same. And the table of
# lower-case letters is what Unicode says.

use strict;
use warnings;
use feature 'unicode_strings';
use utf8;

use Encode qw(decode_utf8 encode_utf8);
use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Unicode::UCD qw(charprop);

my $node = start_server('encodings');
my $root = "$FindBin::RealBin/..";

check_table();

# What is given as tags, and what each database must store, of the tags that its encoding can hold.
# A dotted capital I has a simple lower case, a plain i; a capital I never becomes a dotless one.
my @ascii = (INSERT => 'insert', 'App-42' => 'app-42', "\t Trimmed\n" => 'trimmed');
my @latin = (@ascii, 'ÉTÉ' => 'été', 'ÀÇÑÖ' => 'àçñö', 'ß' => 'ß', 'ÿ' => 'ÿ');
my @turkish = ('İZMİR' => 'izmir', 'ISPARTA ıŞĞ' => 'isparta ışğ');
my @greek = ('ΔΟΣ' => 'δοσ', 'ЖЁ' => 'жё', 'Ｆｕｌｌ' => 'ｆｕｌｌ', '日本' => '日本');
# Longer in UTF-8 than the capital, and beyond the basic plane; not every lower case has a capital.
my @all = (@latin, @turkish, @greek, 'Ⱥ' => 'ⱥ', "\x{10400}" => "\x{10428}", 'ẞŉǰ' => 'ßŉǰ',
	"\x{a0}NBSP\x{a0}" => "\x{a0}nbsp\x{a0}", 'Å' => 'å');
# A sign whose lower case the encoding does not have stays as it is.
my @korean = ("\x{212b}A" => "\x{212b}a", "\x{2126}" => 'ω');

my @databases = (
	{ name => 'c_utf8', encoding => 'UTF8', locale => q(LOCALE 'C'), tags => \@all },
	{ name => 'libc_utf8', encoding => 'UTF8', locale => q(LOCALE 'C.UTF-8'), tags => \@all },
	{
		name => 'turkish_icu',
		encoding => 'UTF8',
		locale => q(LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR' LOCALE 'C.UTF-8'),
		tags => \@all
	},
	{ name => 'latin1', encoding => 'LATIN1', tags => \@latin },
	{ name => 'latin5', encoding => 'LATIN5', tags => [ @latin, @turkish ] },
	{ name => 'euc_jp', encoding => 'EUC_JP', tags => [ @ascii, @greek ] },
	{ name => 'euc_kr', encoding => 'EUC_KR', tags => [ @ascii, @korean ] },
	# Two characters of UTF-8 there are one, か with a small circle.
	{
		name => 'euc_jis',
		encoding => 'EUC_JIS_2004',
		tags => [ @ascii, @greek, "\x{304b}\x{309a}A" => "\x{304b}\x{309a}a" ]
	},
	{ name => 'sql_ascii', encoding => 'SQL_ASCII', tags => \@all },
	{ name => 'mule', encoding => 'MULE_INTERNAL', tags => \@ascii },);

# A server may be built without ICU.
my $has_icu = $node->safe_psql('postgres',
	q{SELECT EXISTS (SELECT FROM pg_collation WHERE collprovider = 'i')}) eq 't';
@databases = grep { $has_icu || $_->{name} !~ /icu/ } @databases;
# As of version 19 there is no MULE_INTERNAL.
my $has_mule = $node->safe_psql('postgres', q{SELECT pg_char_to_encoding('MULE_INTERNAL') >= 0}) eq 't';
@databases = grep { $has_mule || $_->{name} ne 'mule' } @databases;

check_database($_) for @databases;
check_bytes();
check_all_letters();
done_testing();

# src/arguments/lower_case_table.h is what dev/lower-case prints.
sub check_table
{
	my ($made) = run_command([ 'perl', "$root/dev/lower-case" ]);

	is($made . "\n", slurp_file("$root/src/arguments/lower_case_table.h"), 'the table is up to date');
	return;
}

sub sql_literal
{
	my ($text) = @_;
	$text =~ s/'/''/g;
	return "'$text'";
}

# Run a script, which is text, in a database; gives what psql wrote, as text.
sub run_in
{
	my ($database, $script) = @_;
	my ($output, $errors) = ('', '');

	local $ENV{PGCLIENTENCODING} = $database->{client} // 'UTF8';
	$node->psql(
		$database->{name}, encode_utf8($script),
		stdout => \$output,
		stderr => \$errors,
		on_error_stop => 1);
	return decode_utf8($output . $errors);
}

sub make_database
{
	my ($database) = @_;
	my $locale = $database->{locale} // q(LOCALE 'C');

	$node->safe_psql('postgres',
		"CREATE DATABASE $database->{name} TEMPLATE template0 ENCODING '$database->{encoding}' $locale");
	# A client sends what a database in SQL_ASCII stores; PostgreSQL converts nothing there.
	$database->{client} = 'SQL_ASCII' if $database->{encoding} =~ /^(SQL_ASCII|MULE_INTERNAL)$/;
	$node->safe_psql($database->{name}, 'CREATE EXTENSION oban_manage');
	$node->command_ok(
		[
			'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'schema=public', '-d',
			$node->connstr($database->{name}), '-f', "$root/fixtures/python.sql"
		],
		"a database $database->{name}");
	$node->safe_psql($database->{name}, "INSERT INTO oban_jobs (worker) VALUES ('Worker')");
	return;
}

# Each tag by itself, by an update and by a callable; the filter finds it only as it is stored.
sub check_database
{
	my ($database) = @_;
	my @tags = @{ $database->{tags} };
	my (@got, @wanted, $script);

	make_database($database);
	$script = q{CREATE FUNCTION gives(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql
		AS 'SELECT context';};
	while (my ($given, $stored) = splice @tags, 0, 2)
	{
		my $changes = qq{jsonb_build_object('tags', ARRAY[} . sql_literal($given) . '])';

		$script .= "SELECT tags[1] FROM oban_update_job(1, $changes);\n"
		  . "SELECT tags[1] FROM oban_update_job_with(1, 'gives', $changes);\n"
		  . "SELECT count(*) FROM oban_all_jobs($changes);\n"
		  . 'SELECT count(*) FROM oban_all_jobs(jsonb_build_object('
		  . "'tags', ARRAY[" . sql_literal($stored) . "]));\n";
		push @wanted, $stored, $stored, $given eq $stored ? 1 : 0, 1;
	}
	@got = split /\n/, run_in($database, $script);
	is_deeply(\@got, \@wanted, "tags in $database->{name}");
	return;
}

# What is no letter to anybody stays as it is: in SQL_ASCII bytes that are no UTF-8, which are letters of
# some encoding that is not known; and a character that PostgreSQL cannot convert to UTF-8.
sub check_bytes
{
	for my $case ([ 'sql_ascii', 'SQL_ASCII', '41c9c35aff', '61c9c37aff' ],
		[ 'euc_kr', 'EUC_KR', '41c9a1', '61c9a1' ])
	{
		my ($name, $encoding, $given, $stored) = @$case;

		is( run_in(
				{ name => $name, client => 'SQL_ASCII' },
				qq{SELECT encode(convert_to(tags[1], '$encoding'), 'hex')
				FROM oban_update_job(1, jsonb_build_object('tags',
					ARRAY[convert_from('\\x$given'::bytea, '$encoding')]));}),
			$stored,
			"bytes that stay in $name");
	}
	return;
}

# All of Unicode, plane by plane, each character after its number, which keeps their order. Perl's own
# mapping agrees, for the characters that were there in the table's version.
sub check_all_letters
{
	my %differs;

	for my $plane (0 .. 16)
	{
		my $first = $plane * 0x10000;
		my $got = run_in(
			{ name => 'c_utf8' },
			qq{SELECT unnest(tags) FROM oban_update_job(1, (SELECT jsonb_build_object('tags',
				jsonb_agg(lpad(to_hex(c), 6, '0') || chr(c) || '.'))
			FROM generate_series($first + 33, $first + 65535) c WHERE c NOT BETWEEN 55296 AND 57343));}
		);
		my %tag = map { (hex(substr $_, 0, 6), substr($_, 6, -1)) } split /\n/, $got;

		for my $code ($first + 33 .. $first + 65535)
		{
			# No characters: Perl does not read them back.
			next if $code >= 0xD800 && $code <= 0xDFFF || ($code & 0xFFFE) == 0xFFFE;
			my $lower = simple_lower($code);
			$differs{ sprintf '%04X', $code } = $tag{$code}
			  unless defined $tag{$code} && $tag{$code} eq $lower;
		}
	}
	# What a Perl that is newer than the table has more
	delete @differs{ grep { charprop(hex $_, 'Age') !~ /^V?([1-9]|1[0-4])[._]/ } keys %differs };
	is_deeply(\%differs, {}, 'each character has its simple lower case');
	return;
}

# Perl's lc() is the full mapping, which makes two characters of one alone.
sub simple_lower
{
	my ($code) = @_;

	return $code == 0x130 ? 'i' : lc chr $code;
}
