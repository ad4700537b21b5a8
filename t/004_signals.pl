# Signals to running Obans, byte for byte: what is sent, when, how often, and what happens where
# they cannot be sent.

use strict;
use warnings;
use utf8;

use Encode qw(encode_utf8);
use FindBin;
use lib $FindBin::RealBin;
use ObanTest;
use Test::More;

my $node = start_server('signals', max_prepared_transactions => 5);
make_jobs_table($node, 'public', 'elixir', 14);
make_jobs_table($node, 'python', 'python');

# Run statements in one session that listens to a schema, on a table of the jobs given (id =>
# [state, queue]); returns the notifications and all other lines that it wrote.
sub heard
{
	my ($schema, $jobs, $statements, %options) = @_;
	my $table = qq("$schema".oban_jobs);
	my $script = "SET client_min_messages = warning;\nTRUNCATE $table;\n";

	for my $id (sort { $a <=> $b } keys %$jobs)
	{
		my ($state, $queue) = @{ $jobs->{$id} };
		$script .= "INSERT INTO $table (id, state, queue, worker) OVERRIDING SYSTEM VALUE"
		  . " VALUES ($id, '$state', \$q\$$queue\$q\$, 'Worker');\n";
	}
	$script .= qq(LISTEN "$schema.oban_signal";\nLISTEN "$schema.oban_insert";\n)
	  unless $options{deaf};
	$script .= qq(\\set VERBOSITY verbose\nSET oban_manage.prefix = "$schema";\n$statements\n);

	return parse_notifications(run_session($node, encode_utf8($script)));
}

sub is_heard
{
	my ($name, $schema, $jobs, $statements, $lines, @expected) = @_;
	my ($signals, $got) = heard($schema, $jobs, $statements);

	# PostgreSQL::Test::Utils makes Perl's warnings errors from 17 on: no wide characters in a name.
	$name = encode_utf8($name);
	is_deeply($got, $lines, "$name: results");
	is_deeply($signals, [ map { encode_utf8($_) } @expected ], "$name: signals");
	return;
}

sub kill_of { return qq(public.oban_signal {"action":"pkill","job_id":$_[0]}); }
sub wake_of { return qq(public.oban_insert {"queue":$_[0]}); }

my %some = (
	1 => [ 'executing', 'mail' ],
	2 => [ 'available', 'mail' ],
	3 => [ 'executing', 'images' ],
	4 => [ 'completed', 'mail' ],
	5 => [ 'scheduled', 'images' ],
	6 => [ 'discarded', 'mail' ],
	7 => [ 'cancelled', 'images' ],
	8 => [ 'executing', 'images' ],
	9223372036854775807 => [ 'executing', 'last' ],);

# One kill a job, in the order of their ids.
is_heard(
	'a cancel of many', 'public', \%some,
	'SELECT oban_cancel_many_jobs(ARRAY[9223372036854775807, 8, 3, 2, 1, 4, 1]);',
	['5'], map { kill_of($_) } 1, 3, 8, '9223372036854775807');
is_heard('a cancel of none that is executing',
	'public', \%some, 'SELECT oban_cancel_many_jobs(ARRAY[2, 5]);', ['2']);
is_heard('a cancel of a row',
	'public', \%some, 'SELECT oban_cancel_job(j) FROM oban_jobs j WHERE id = 1;',
	['t'], kill_of(1));
is_heard('a delete', 'public', \%some, 'SELECT oban_delete_many_jobs(ARRAY[1, 2, 4, 7]);', ['3']);

# One wake a queue, however many of its jobs, and however they alternate.
my ($signals, $lines) =
  heard('public', \%some, 'SELECT oban_retry_many_jobs(ARRAY[4, 5, 6, 7, 2, 1]);');
is_deeply($lines, ['4'], 'a retry of many: results');
is_deeply(
	[ sort @$signals ],
	[ wake_of('"images"'), wake_of('"mail"') ],
	'a retry of many: one signal a queue');
is_heard(
	'a retry of none',
	'public', \%some, 'SELECT oban_retry_many_jobs(ARRAY[1, 2, 100]);', ['0']);

# Many queues in a call.
($signals, $lines) = heard(
	'public',
	{ map { $_ => [ 'completed', 'queue' . $_ % 50 ] } 1 .. 200 },
	'SELECT oban_retry_many_jobs(ARRAY(SELECT id FROM oban_jobs));');
is_deeply($lines, ['200'], 'a retry over fifty queues: results');
is_deeply(
	[ sort @$signals ],
	[ sort map { wake_of(qq("queue$_")) } 0 .. 49 ],
	'a retry over fifty queues: one signal a queue');

# Update wakes a queue that it gave an available job by its schedule, and says nothing else.
is_heard(
	'an update that makes a job due', 'public', \%some,
	q{SELECT state FROM oban_update_job(5, '{"schedule_in": -1}');},
	['available'], wake_of('"images"'));
is_heard(
	'an update that makes a job due in another queue', 'public', \%some,
	q{SELECT state FROM oban_update_job(5, '{"schedule_in": 0, "queue": "other"}');},
	['available'], wake_of('"other"'));
is_heard(
	'updates that make nothing due', 'public', \%some,
	q{SELECT state FROM oban_update_job(ARRAY[1, 2, 4], '{"schedule_in": 0}');
	  SELECT state FROM oban_update_job(2, '{"schedule_in": 60}');
	  SELECT state FROM oban_update_job(5, '{"queue": "other"}');
	  SELECT state FROM oban_update_job(5, '{}');},
	[qw(executing available completed scheduled scheduled scheduled)]);

# The queue's name is a JSON string, the payload is compact.
my %odd_queues = (
	'a"b' => '"a\"b"',
	'a\\b' => '"a\\\\b"',
	"it's" => q("it's"),
	'naïve 日本 🙂' => '"naïve 日本 🙂"',
	"tab\there" => '"tab\there"',
	"line\nbreak" => '"line\nbreak"',
	' ' => '" "',
	'{"queue": 1}' => '"{\"queue\": 1}"',);
for my $queue (sort keys %odd_queues)
{
	is_heard(
		"a queue named $odd_queues{$queue}",
		'public', { 1 => [ 'completed', $queue ], 2 => [ 'completed', $queue ] },
		'SELECT oban_retry_job(1); SELECT oban_retry_job(ARRAY[2]);',
		[ 't', '1' ],
		(wake_of($odd_queues{$queue})) x 2);
}

# Nothing is sent before the commit, or for what was rolled back.
is_heard(
	'a transaction that is rolled back', 'public', \%some,
	'BEGIN; SELECT oban_cancel_job(1), oban_retry_job(4); ROLLBACK;'
	  . ' SELECT state FROM oban_jobs WHERE id = 1;',
	[ 't|t', 'executing' ]);
is_heard(
	'a statement that fails after the call', 'public', \%some,
	'\set VERBOSITY sqlstate
	 SELECT oban_cancel_job(id), 1 / (id - 3) FROM oban_jobs WHERE id IN (1, 3) ORDER BY id;',
	['ERROR:  22012']);
is_heard(
	'a savepoint that is rolled back', 'public', \%some,
	'BEGIN; SELECT oban_cancel_job(1); SAVEPOINT s; SELECT oban_cancel_job(3); ROLLBACK TO s;'
	  . ' SELECT oban_cancel_job(8); COMMIT;',
	[ 't', 't', 't' ],
	kill_of(1), kill_of(8));

# oban_manage.notify = off.
is_heard(
	'with notify off', 'public', \%some,
	'SET oban_manage.notify = off;'
	  . ' SELECT oban_cancel_job(1), oban_retry_job(4);'
	  . ' SELECT oban_cancel_job(ARRAY[3]), oban_retry_job(ARRAY[6]);'
	  . ' RESET oban_manage.notify; SELECT oban_cancel_job(8);',
	[ 't|t', '1|1', 't' ],
	kill_of(8));

# Two-phase commit: NOTIFY forbids it, but only where something was to be told.
($signals, $lines) = heard(
	'public', \%some,
	q{BEGIN; SELECT oban_cancel_job(1); PREPARE TRANSACTION 'told';
	  SELECT state FROM oban_jobs WHERE id = 1;
	  BEGIN; SELECT oban_cancel_job(2), oban_delete_job(7); PREPARE TRANSACTION 'nothing to tell';
	  COMMIT PREPARED 'nothing to tell';
	  SET oban_manage.notify = off;
	  BEGIN; SELECT oban_cancel_job(1), oban_retry_many_jobs(ARRAY[4, 5]);
	  PREPARE TRANSACTION 'silent';
	  COMMIT PREPARED 'silent';
	  SELECT id, state FROM oban_jobs WHERE id IN (1, 2, 4, 5, 7) ORDER BY id;},
	deaf => 1);
is_deeply(
	[ grep { !/^LOCATION/ } @$lines ],
	[
		't',
		'ERROR:  0A000: cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY',
		'executing', 't|t', 't|2',
		'1|cancelled', '2|cancelled', '4|available', '5|available'
	],
	'PREPARE TRANSACTION works with notify off, or with nothing to tell');

# A channel may have 63 bytes; of a longer one nobody can be told, and the verb works all the same.
my $longest = 's' x 51;
my $too_long = 's' x 52;
my $sixty = 'é' x 30;
utf8::upgrade($_) for $longest, $too_long, $sixty;
for my $schema ($longest, $too_long, $sixty)
{
	make_jobs_table($node, encode_utf8($schema), 'elixir', 14);
}

is_heard(
	'a schema of 51 bytes', $longest, \%some,
	'SELECT oban_cancel_job(1), oban_retry_job(4);', ['t|t'],
	qq($longest.oban_signal {"action":"pkill","job_id":1}),
	qq($longest.oban_insert {"queue":"mail"}));

for my $schema ($too_long, $sixty)
{
	my $bytes = length encode_utf8($schema);

	for my $call (
		[ 'oban_cancel_job(1)', 't', 1, 'cancelled' ],
		[ 'oban_cancel_job(ARRAY[1, 3, 8])', 3, 1, 'cancelled' ],
		[ 'oban_retry_job(4)', 't', 4, 'available' ],
		[ 'oban_retry_job(ARRAY[4, 5])', 2, 4, 'available' ],
		[ q[(oban_update_job(5, '{"schedule_in": 0}')).state], 'available', 5, 'available' ],)
	{
		my ($sql, $value, $id, $state) = @$call;
		($signals, $lines) = heard(
			$schema, \%some,
			qq(SELECT $sql; SELECT state FROM "$schema".oban_jobs WHERE id = $id;),
			deaf => 1);
		my @warnings = grep { /^WARNING:  / } @$lines;
		my @errors = grep { /^(ERROR|FATAL|PANIC)/ } @$lines;

		is(scalar @warnings, 1, "a schema of $bytes bytes, $sql: a warning");
		is_deeply([ grep { /^(\d+|t|f|[a-z]+)$/ } @$lines ],
			[ $value, $state ], "a schema of $bytes bytes, $sql: the job is changed");
		is_deeply(\@errors, [], "a schema of $bytes bytes, $sql: no error");
	}
	($signals, $lines) = heard(
		$schema, \%some,
		'SET oban_manage.notify = off; SELECT oban_cancel_job(1), oban_retry_job(4);',
		deaf => 1);
	is_deeply($lines, ['t|t'], "a schema of $bytes bytes with notify off: no warning");
	($signals, $lines) =
	  heard($schema, \%some, 'SELECT oban_cancel_job(2), oban_delete_job(4);', deaf => 1);
	is_deeply($lines, ['t|t'], "a schema of $bytes bytes, nothing to tell: no warning");
}

# A schema with quotes, a dot and capitals: raw in the channel's name.
make_jobs_table($node, 'My "App".x', 'elixir', 14);
($signals, $lines) = parse_notifications(
	run_session(
		$node, q{
	INSERT INTO "My ""App"".x".oban_jobs (state, worker)
		VALUES ('executing', 'W'), ('completed', 'W');
	LISTEN "My ""App"".x.oban_signal"; LISTEN "My ""App"".x.oban_insert";
	SELECT oban_cancel_job(1, 'My "App".x'), oban_retry_job(ARRAY[2], 'My "App".x');}));
is_deeply($lines, ['t|1'], 'a schema that needs quotes: results');
is_deeply(
	$signals,
	[
		'My "App".x.oban_signal {"action":"pkill","job_id":1}',
		'My "App".x.oban_insert {"queue":"default"}'
	],
	'a schema that needs quotes: signals');

# A payload may have 7999 bytes. Python's table does not bound the queue's name.
my $queue = 'q' x 9000;
($signals, $lines) = heard(
	'python', { 1 => [ 'completed', $queue ] },
	'SELECT oban_retry_job(1); SELECT state FROM python.oban_jobs;');
is(scalar(grep { /^WARNING:  / } @$lines), 1, 'a queue too long for a payload: a warning');
is_deeply([ grep { /^[a-z]+$/ } @$lines ],
	[ 't', 'available' ], 'a queue too long for a payload: the job is changed');
is_deeply($signals, [], 'a queue too long for a payload: no signal');

$node->stop;
done_testing();
