# The table of states and verbs, cell by cell: each dialect, state, verb and form of a call gives
# the value, the row and the notifications that it should, and no others.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use Test::More;

my @dialects = (
	{ name => 'Elixir 9', dialect => 'elixir', version => 9, schema => 'elixir_9' },
	{ name => 'Elixir 11', dialect => 'elixir', version => 11, schema => 'My "App".x' },
	{ name => 'Elixir 14', dialect => 'elixir', version => 14, schema => 'public' },
	{ name => 'Python', dialect => 'python', schema => 'python' },);

# A job of each state, as it may be found. All are in the past; the cancelled job has every
# timestamp that a retry must take away.
my %seeds = (
	available => {},
	scheduled => { meta => undef, tags => undef },
	suspended => { attempt => 4, max_attempts => 5 },
	retryable => { attempt => 2, max_attempts => 2, meta => '{"k": 1, "uniq_bmp": [1, 2]}' },
	executing => { attempt => 1, meta => '{"uniq_bmp": [3]}', attempted_at => 1 },
	completed => { attempt => 1, meta => '{"uniq_bmp": [3]}', completed_at => 1 },
	discarded => { attempt => 20, discarded_at => 1 },
	cancelled => {
		attempt => 3,
		max_attempts => 3,
		completed_at => 1,
		discarded_at => 1,
		cancelled_at => 1
	},);

my @states = sort keys %seeds;

# What a verb does to each state; what is not named is ignored.
my %does = (
	cancel => { map { $_ => 1 } qw(available scheduled suspended retryable executing) },
	retry => { map { $_ => 1 } qw(scheduled suspended retryable completed discarded cancelled) },
	delete => {
		map { $_ => 1 }
		  qw(available scheduled suspended retryable completed discarded cancelled)
	},);

# The forms of a call. "setting" has the schema from oban_manage.prefix; in all others that names a
# schema which does not exist.
my @forms = (
	{ name => 'id', call => 'SELECT oban_VERB_job(ID, PREFIX)', one => 1 },
	{ name => 'id by setting', call => 'SELECT oban_VERB_job(ID)', one => 1, setting => 1 },
	{ name => 'row', call => 'SELECT oban_VERB_job(j) FROM TABLE j WHERE id = ID', one => 1 },
	{ name => 'oban_job', call => 'SELECT oban_VERB_job(oban_get_job(ID, PREFIX))', one => 1 },
	{ name => 'array', call => 'SELECT oban_VERB_job(ARRAY[ID]::bigint[], PREFIX)' },
	{
		name => 'array by setting',
		call => 'SELECT oban_VERB_job(ARRAY[ID]::bigint[])',
		setting => 1
	},
	{ name => 'many_jobs', call => 'SELECT oban_VERB_many_jobs(ARRAY[ID], PREFIX)' },);

my $node = start_server('states');

# What differs between two images of a row; a time that is now, in UTC, is called NOW.
$node->safe_psql(
	'postgres', q{
	CREATE FUNCTION public.changed(before jsonb, after jsonb) RETURNS text LANGUAGE sql AS $$
		SELECT coalesce(string_agg(key || '=' || CASE
				WHEN key LIKE '%\_at' AND (after ->> key)::timestamp = timezone('UTC', now())
				THEN 'NOW' ELSE (after -> key)::text END, ' ' ORDER BY key), 'as it was')
		FROM jsonb_object_keys(before || after) key
		WHERE before -> key IS DISTINCT FROM after -> key
	$$});

for my $dialect (@dialects)
{
	make_jobs_table($node, @$dialect{qw(schema dialect version)});
	check_dialect($dialect);
}

done_testing();

sub sql_literal
{
	my ($text) = @_;
	return 'NULL' unless defined $text;
	$text =~ s/'/''/g;
	return "'$text'";
}

sub seed_of
{
	my ($dialect, $state) = @_;
	my %seed = (
		attempt => 0,
		max_attempts => 20,
		meta => '{"k": 1}',
		tags => '{a,b}',
		%{ $seeds{$state} });

	# Only Elixir's columns may be NULL.
	if ($dialect->{dialect} eq 'python')
	{
		$seed{meta} //= '{}';
		$seed{tags} //= '{}';
	}
	return %seed;
}

sub insert_job
{
	my ($dialect, $table, $id, $state) = @_;
	my %seed = seed_of($dialect, $state);
	my $errors =
	  $dialect->{dialect} eq 'python'
	  ? q{'[{"attempt": 1}]'}
	  : q{ARRAY['{"attempt": 1}']::jsonb[]};
	my @columns = qw(id state queue worker errors attempt max_attempts meta tags scheduled_at);
	my @values = (
		$id, "'$state'", "'queue-$id'", "'Worker'", $errors, $seed{attempt}, $seed{max_attempts},
		sql_literal($seed{meta}), sql_literal($seed{tags}), "'2020-01-01 00:00:00'");

	for my $column (grep { $seed{$_} } qw(attempted_at completed_at discarded_at cancelled_at))
	{
		push @columns, $column;
		push @values, "'2020-01-02 00:00:00'";
	}
	return
		"INSERT INTO $table ("
	  . join(', ', @columns)
	  . ') OVERRIDING SYSTEM VALUE VALUES ('
	  . join(', ', @values) . ");\n";
}

# The row after a retry, from what it was.
sub retried
{
	my ($dialect, $state) = @_;
	my %seed = seed_of($dialect, $state);
	my %changes = (state => '"available"', scheduled_at => 'NOW');

	$changes{$_} = 'null' for grep { $seed{$_} } qw(completed_at discarded_at cancelled_at);
	$changes{max_attempts} = $seed{attempt} + 1 if $seed{max_attempts} <= $seed{attempt};
	if (defined $seed{meta} && $seed{meta} =~ /uniq_bmp/)
	{
		($changes{meta} = $seed{meta}) =~ s/("uniq_bmp": )\[.*?\]/$1\[]/;
	}
	return join ' ', map { "$_=$changes{$_}" } sort keys %changes;
}

sub expected
{
	my ($dialect, $cell) = @_;
	my ($verb, $state, $form, $id) = @$cell{qw(verb state form id)};
	my $done = $does{$verb}{$state} ? 1 : 0;
	my $value = $form->{one} ? ($done ? 't' : 'f') : $done;
	my $row =
		!$done ? 'as it was'
	  : $verb eq 'delete' ? 'gone'
	  : $verb eq 'cancel' ? 'cancelled_at=NOW state="cancelled"'
	  : retried($dialect, $state);
	my @signals;

	push @signals, qq($dialect->{schema}.oban_signal {"action":"pkill","job_id":$id})
	  if $verb eq 'cancel' && $state eq 'executing';
	push @signals, qq($dialect->{schema}.oban_insert {"queue":"queue-$id"})
	  if $verb eq 'retry' && $done;
	return join "\n", $value, $row, @signals;
}

sub check_dialect
{
	my ($dialect) = @_;
	(my $schema = $dialect->{schema}) =~ s/"/""/g;
	my $table = qq("$schema".oban_jobs);
	my $prefix = sql_literal($dialect->{schema});
	my ($inserts, $calls, @cells) = ('', '');

	for my $verb (sort keys %does)
	{
		for my $form (@forms)
		{
			for my $state (@states)
			{
				next if $state eq 'suspended' && ($dialect->{version} // 14) < 14;

				my $id = 1000 + @cells;
				my %cell = (verb => $verb, form => $form, state => $state, id => $id);
				my $call = $form->{call};

				push @cells, \%cell;
				$call =~ s/VERB/$verb/;
				$call =~ s/TABLE/$table/;
				$call =~ s/PREFIX/$prefix/;
				$call =~ s/ID/$id/;
				my $setting = $form->{setting} ? $prefix : "'nowhere'";

				$inserts .= insert_job($dialect, $table, $id, $state);
				# now() stands still in the transaction, so the times can be compared exactly.
				$calls .= <<"SQL";
\\echo CELL
SET oban_manage.prefix = $setting;
BEGIN;
SELECT to_jsonb(j) AS before FROM $table j WHERE id = $id \\gset
$call;
SELECT coalesce(min(public.changed(:'before', to_jsonb(j))), 'gone') FROM $table j WHERE id = $id;
COMMIT;
SQL
			}
		}
	}

	# Inserts come before LISTEN: up to Elixir 11 a trigger announces them.
	my $listen = join '', map { qq(LISTEN "$schema.oban_$_";\n) } qw(signal insert);
	my $bystanders = "INSERT INTO $table (state, worker) SELECT state, 'Bystander'"
	  . " FROM unnest(enum_range(NULL::\"$schema\".oban_job_state)) state;\n";
	my $sum =
	  "SELECT md5(string_agg(j::text, '' ORDER BY id)) FROM $table j WHERE worker = 'Bystander';\n";

	# The session's time zone must make no difference.
	my $output = run_session($node,
			"SET TimeZone = 'Asia/Kathmandu';\n"
		  . "$inserts$bystanders$sum$listen$calls\\echo CELL\n$sum");
	my ($sum_before, @outputs) = split /^CELL\n/m, $output;
	my $sum_after = pop @outputs;

	is(scalar @outputs, scalar @cells, "$dialect->{name}: every cell was run");
	for my $i (0 .. $#cells)
	{
		my $cell = $cells[$i];
		my ($signals, $lines) = parse_notifications($outputs[$i] // '');

		is( join("\n", @$lines, @$signals),
			expected($dialect, $cell),
			"$dialect->{name}: $cell->{verb}, $cell->{form}{name}, $cell->{state}");
	}
	is($sum_after, $sum_before, "$dialect->{name}: no other job was touched");
	return;
}
