# Runs the code in README.md, SECURITY.md and docs/, in document order, so that a reader can trust every line
# of it.
#
# - ```sql blocks run in one psql session for each page, in a fresh database, from the top of the
#   source tree. A statement ends where a line ends with a semicolon; a line that starts with a
#   backslash is a command of psql.
# - ```python and ```javascript (or ```js) blocks run one by one, each a whole program, with the
#   same database as their default (PGHOST, PGPORT, PGUSER, PGDATABASE): by /usr/bin/python3 with
#   psycopg and by node with pg, which stands in clients/node/node_modules or in
#   OBAN_MANAGE_NODE_PATH.
# - ```console, ```sh, ```text and ```mermaid blocks are not run. A block of any other kind, or
#   none, fails the test: write what it is.
# - A comment "-- → value" says what the statement before it gives, at the end of its line or below
#   it; one comment a row, columns separated by |, NULL as NULL, and "(no rows)" for none. In Python
#   it is "# → line", in JavaScript "// → line", and all those of a block are all that it prints.
# - A statement that gives an error fails the test unless it is expected: "-- → ERROR: message". Its
#   detail, hint and context may follow, or not. A notification is expected as psql prints it, less
#   the words about the server process, a plan without its costs.
# - In what is expected, "…" stands for anything within a line, and alone for any number of lines.
# - A comment whose first line is <!-- sql and whose last is --> is a block of SQL too, unseen by
#   readers: the set-up that they have from elsewhere.
# - <!-- not run: why --> on the line before a block leaves it out.
#
# OBAN_MANAGE_README names another file to run in place of all these.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(basename dirname);
use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use ObanTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = abs_path(dirname($FindBin::RealBin));
my @pages = $ENV{OBAN_MANAGE_README} // (
	"$root/README.md", "$root/SECURITY.md", sort glob "'$root/docs/*.md'");
my $node_modules = $ENV{OBAN_MANAGE_NODE_PATH} // "$root/clients/node/node_modules";
my %arrows = (sql => '--', python => '#', javascript => '//');
my %not_run = map { $_ => 1 } qw(console sh text mermaid);

my $node = start_server('readme');
my ($psql, $psql_in, $psql_out);

chdir $root or die "could not change to $root: $!";
cmp_ok(@pages, '>', 1, 'there are pages in docs/') unless $ENV{OBAN_MANAGE_README};
run_page($pages[$_], "page_$_") for 0 .. $#pages;
$node->stop;
done_testing();

# Run the blocks of a page, in a database of its own.
sub run_page
{
	my ($file, $database) = @_;
	my $page = basename($file);
	my %ran = map { $_ => 0 } keys %arrows;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	my %environment = (
		PGHOST => $node->host,
		PGPORT => $node->port,
		PGUSER => scalar getpwuid($>),
		PGDATABASE => $database);
	local @ENV{ keys %environment } = values %environment;

	($psql_in, $psql_out) = ('', '');
	$psql = IPC::Run::start(
		[ 'psql', '-XAtq', '-P', 'null=NULL', '-f', '-' ],
		'<', \$psql_in, '>', \$psql_out, '2>&1',
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	for my $block (read_blocks($file))
	{
		my $name = "$page line $block->{line}: $block->{language}";

		if (exists $arrows{ $block->{language} })
		{
			my $wrong = $block->{language} eq 'sql' ? run_sql($block) : run_program($block);

			$ran{ $block->{language} }++;
			ok($wrong eq '', $name) or diag($wrong);
		}
		elsif (!$not_run{ $block->{language} })
		{
			fail("$name: a kind of block that is run, or known not to be");
		}
	}
	cmp_ok($ran{sql}, '>', 0, "$page: $ran{sql} blocks of SQL were run");
	note "$page: $ran{python} blocks of Python and $ran{javascript} of JavaScript were run";

	$psql_in .= "\\q\n";
	$psql->finish;
	return;
}

# The blocks of the file: language, first line, and text without the indentation of the fence.
sub read_blocks
{
	my ($file) = @_;
	my @lines = split /\n/, slurp_file($file);
	my (@found, $block, $end, $indent);
	my $skip = 0;

	for my $i (0 .. $#lines)
	{
		my $line = $lines[$i];

		if ($block)
		{
			if ($line =~ $end)
			{
				push @found, $block unless $skip;
				($block, $skip) = (undef, 0);
				next;
			}
			$line =~ s/^$indent//;
			$block->{text} .= "$line\n";
		}
		elsif ($line =~ /^(\s*)(```+)\s*(\S*)/)
		{
			my $language = $3 eq 'js' ? 'javascript' : $3;

			($indent, $end) = ($1, qr/^\s*$2\s*$/);
			$block = { language => $language, line => $i + 1, text => '' };
		}
		elsif ($line =~ /^<!-- sql\s*$/)
		{
			($indent, $end) = ('', qr/^-->\s*$/);
			$block = { language => 'sql', line => $i + 1, text => '' };
		}
		else
		{
			$skip = $line =~ /^\s*<!-- not run: .*-->\s*$/;
		}
	}
	die "$file: the block that begins at line $block->{line} does not end" if $block;
	return @found;
}

# The statements of a block, each with what is expected of it (undef: anything but an error).
sub statements_of
{
	my ($text) = @_;
	my @statements = ();
	my ($statement, $quote) = ('', '');

	for my $line (split /\n/, $text)
	{
		my $expected = $line =~ s/(^|\s)--\s*→ ?(.*?)\s*$// ? $2 : undef;
		my $code = $line;

		# Within a dollar-quoted text nothing ends a statement.
		for my $mark ($line =~ /(\$\w*\$)/g)
		{
			if ($quote eq '') { $quote = $mark; }
			elsif ($mark eq $quote) { $quote = ''; }
		}
		$code =~ s/\s--\s.*$//;
		if ($code =~ /\S/ || $statement ne '')
		{
			$statement .= "$line\n";
			if ($quote eq '' && ($code =~ /(;|\\gexec)\s*$/ || $statement =~ /^\s*\\/))
			{
				push @statements, { text => $statement, expected => undef };
				$statement = '';
			}
		}
		next unless defined $expected;
		die "nothing before the expectation \"$expected\"\n" unless @statements && $statement eq '';
		push @{ $statements[-1]{expected} }, $expected;
	}
	die "does not end with a semicolon: $statement" if $statement =~ /^(?!\s*--)\s*\S/m;
	return @statements;
}

# Send a statement to the session, and return what came of it, line by line.
sub run_statement
{
	my ($statement) = @_;
	my $marker = "=== end of statement ===\n";

	$psql_out = '';
	$psql_in .= $statement . "\\echo " . $marker;
	$psql->pump until $psql_out =~ /\Q$marker\E/;
	$psql_out =~ s/\Q$marker\E.*//s;
	my @lines = split /\n/, $psql_out;
	for (@lines)
	{
		s/^psql:[^ ]*:\d+: //;
		s/^([A-Z]+):  /$1: /;
		s/^(Asynchronous notification .*) received from server process with PID \d+\.$/$1/;
		s/  \(cost=[^()]*\)$//;
	}
	return @lines;
}

# Are the lines as expected?
sub as_expected
{
	my ($got, $expected) = @_;
	my $pattern = '';

	for my $line (@$expected)
	{
		$pattern .=
		  $line eq '…' ? '(?:.*\n)*?' : join('.*', map { quotemeta } split /…/, $line, -1) . '\n';
	}
	return join('', map { "$_\n" } @$got) =~ /\A$pattern\z/;
}

# Returns what is wrong with a block, nothing when all is as expected.
sub run_sql
{
	my ($block) = @_;
	my @statements = eval { statements_of($block->{text}) };
	my $wrong = $@;

	for my $statement (@statements)
	{
		my @got = run_statement($statement->{text});
		my $expected = $statement->{expected};

		if (!defined $expected)
		{
			# A warning or a notice is no failure, an error is.
			next unless grep { /^(ERROR|FATAL|PANIC|error|fatal):/ } @got;
		}
		else
		{
			my @compared = @got;

			@compared = ('(no rows)') unless @compared;
			# After an error, as much as was expected.
			splice @compared, scalar @$expected
			  if $expected->[0] =~ /^ERROR: / && @compared > @$expected;
			next if as_expected(\@compared, $expected);
		}
		$wrong .= "$statement->{text}gave:\n  " . join("\n  ", @got) . "\n";
		$wrong .= "expected:\n  " . join("\n  ", @$expected) . "\n" if defined $expected;
	}
	return $wrong;
}

sub run_program
{
	my ($block) = @_;
	my $directory = PostgreSQL::Test::Utils::tempdir();
	my $arrow = $arrows{ $block->{language} };
	my @expected = $block->{text} =~ /(?:^|\s)$arrow → ?(.*?)[ \t]*$/mg;
	my $output = '';
	my @command;

	if ($block->{language} eq 'python')
	{
		append_to_file("$directory/block.py", $block->{text});
		@command = ('/usr/bin/python3', "$directory/block.py");
	}
	else
	{
		# Beside the program, both import and require find the driver.
		return "there is no $node_modules/pg: run npm ci in clients/node\n"
		  unless -d "$node_modules/pg";
		symlink abs_path($node_modules), "$directory/node_modules"
		  or die "could not link $node_modules: $!";
		my $file =
		  "$directory/block." . ($block->{text} =~ /^\s*import\s/m ? 'mjs' : 'cjs');
		append_to_file($file, $block->{text});
		@command = ('node', $file);
	}

	my $done = eval {
		IPC::Run::run(\@command, '<', \undef, '>', \$output, '2>&1', IPC::Run::timeout(60));
	};
	return "could not run $command[0]: $@" if $@;
	return "failed with status $?:\n$output" unless $done;
	my @got = split /\n/, $output;
	return '' if as_expected(\@got, \@expected);
	return "printed:\n  " . join("\n  ", @got) . "\nexpected:\n  " . join("\n  ", @expected) . "\n";
}
