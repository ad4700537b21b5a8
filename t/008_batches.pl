# What a CALL of each of the four procedures does: batches that are whole, each in a transaction of
# its own, in the order of the ids; every job that the verb changes exactly once, and nothing else;
# its progress; the times of a spread retry; new jobs, DDL and errors between the batches; a batch
# that is tried again; memory.
#
# Shown to fail, by changes in src/functions/batch_transactions.c: without SPI_commit or
# om_transactions_check, with waits that do not grow, or seven tries. By changes in
# src/functions/batches.c: without the limit of the highest id, or the step to the next batch (these
# two do not end); with a spread that starts anew in each batch. With a memory context that om_try
# (src/verbs/try.c) does not delete; with all jobs of a spread available in
# om_state_by_schedule_append (src/statements/assignments.c).

use strict;
use warnings;

use FindBin;
use IPC::Run;
use lib $FindBin::RealBin;
use ObanTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $jobs = 20_000;

my $node = start_server('batches', shared_buffers => '256MB', autovacuum => 'off');
make_jobs_table($node, 'public', 'elixir', 14);
make_jobs_table($node, $_, 'python') for qw(stubborn doomed);
prepare_batches($node);

sub sql
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

sub call
{
	my ($script) = @_;
	return run_session($node, "SET application_name = 'batches';\n$script");
}

# ---- A batch that fails each time is given up; the waits before its tries grow. This takes some
# seconds, so it runs while the other tests do, in a schema of its own.

sql(q{
	INSERT INTO stubborn.oban_jobs (worker) SELECT 'Mailer' FROM generate_series(1, 100);
	CREATE SEQUENCE stubborn_tries;
	CREATE SEQUENCE passing_tries;
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF nextval(TG_NAME || '_tries') <= TG_ARGV[0]::int THEN
			RAISE LOG '% at %', TG_NAME, extract(epoch FROM clock_timestamp());
			RAISE 'the % refuses', TG_NAME USING ERRCODE = TG_ARGV[1];
		END IF;
		RETURN NEW;
	END $$;
	CREATE TRIGGER stubborn BEFORE UPDATE ON stubborn.oban_jobs
		FOR EACH ROW WHEN (OLD.id = 35) EXECUTE FUNCTION refuse(1000, '40001');});
my $stubborn = start_session($node, 'stubborn', q{
	\set VERBOSITY verbose
	CALL oban_cancel_in_batches('{"worker": "Mailer"}', 10, prefix => 'stubborn');
});

# ---- What each procedure does, and says

for my $verb (qw(cancel retry delete update))
{
	sql("CALL fill($jobs)");
	my $to_do = sql("SELECT to_do('$verb')");
	my $output = call(call_batches($verb, 'batch_size => 1000'));

	finds_nothing($node, "SELECT * FROM not_once('$verb')",
		"$verb: each job once, and as it should be");
	finds_nothing(
		$node,
		'SELECT * FROM (SELECT seq, job_id, lag(job_id) OVER (ORDER BY seq) FROM changes) c
		 WHERE lag >= job_id',
		"$verb: in the order of the ids");

	my @sizes = ((1000) x int($to_do / 1000), $to_do % 1000);
	is_deeply([ batch_sizes($node, 'batches') ], \@sizes, "$verb: a transaction a batch");

	my @lines = map { s/^psql:<stdin>:\d+: //r } split /\n/, $output;
	is(pop @lines, $to_do, "$verb: affected is the number of jobs");
	my $verbed = { cancel => 'cancelled', retry => 'retried' }->{$verb} // "${verb}d";
	my $progress = qr/^NOTICE:  $verbed (\d+) of about $to_do jobs, \d+ per second, .* left$/;
	my $done = 0;
	is_deeply(
		[ map { /$progress/ ? $1 : $_ } @lines ],
		[ map { $done += $_ } @sizes ],
		"$verb: a NOTICE a batch, with what is done and what there is to do");

	# Again, there is nothing left to do.
	is((split /\n/, call(call_batches($verb)))[-1], 0, "$verb: nothing is left");
	is(scalar(batch_sizes($node, 'batches')), scalar(@sizes), "$verb: and nothing was changed");
}

# As many as two full batches hold, and no more.
sql('CALL fill(100)');
is( call(q{CALL oban_cancel_in_batches('{"id": [3, 6, 30, 33]}', 2, '0', prefix => 'public');}) =~
	  s/.*\n(?=.)//sr,
	"4\n",
	'two full batches');
is_deeply([ batch_sizes($node, 'batches') ], [ 2, 2 ], 'and no empty one');

# ---- Where it may be called

for my $case (
	[ 'in a transaction block', "BEGIN;\n%s" ],
	[ 'in a subtransaction', "BEGIN;\nSAVEPOINT s;\n%s" ],
	[ 'in a block with EXCEPTION',
		"DO \$\$ DECLARE n bigint; BEGIN %s EXCEPTION WHEN no_data_found THEN NULL; END \$\$;" ],
	[ 'in a function',
		"CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE plpgsql AS \$\$ DECLARE n bigint;
		 BEGIN %s END \$\$;\nSELECT pg_temp.f();" ])
{
	my ($name, $frame) = @$case;

	# Nothing matches, but it is an error all the same; and so are arguments that are wrong.
	for my $arguments (q{'{"id": 0}', affected => n}, q{'{"colour": "red"}', 0, affected => n})
	{
		my $call = "CALL oban_cancel_in_batches($arguments);";
		# Outside of PL/pgSQL there is no n.
		$call =~ s/, affected => n// if $frame !~ /DECLARE/;
		like(
			call("\\set VERBOSITY verbose\n" . sprintf $frame, $call),
			qr/ERROR:  25001: .*commit/,
			"$name: refused, with $arguments");
	}
}
$node->command_fails_like(
	[
		'psql', '-X', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'),
		'-c', q{SELECT 1; CALL oban_retry_in_batches('{"all": true}')}
	],
	qr/ERROR:  25001: .*commit/,
	'among several statements of one query: refused');
finds_nothing($node, 'SELECT * FROM changes WHERE seq > 4', 'and nothing was changed');
is( call(
		q{DO $$ DECLARE n bigint; BEGIN
			CALL oban_cancel_in_batches('{"state": "executing"}', 3, affected => n);
			RAISE WARNING 'changed %', n; END $$;}) =~ s/.*(?=changed)//sr,
	"changed 10\n",
	'a DO block may');
is_deeply([ batch_sizes($node, 'batches') ], [ 2, 2, 3, 3, 3, 1 ], 'and each batch is committed');

# ---- A retry that is spread over some time

# The times of the retried jobs go by their rank in id order. Who is late by then is available, the
# others are scheduled. The log has each batch's start.
sub check_spread
{
	my ($name, $before, $after, $spread) = @_;

	finds_nothing($node,
		qq{SELECT id, scheduled_at, wanted FROM (
			SELECT id, scheduled_at, min(scheduled_at) OVER () + interval '$spread'
				* ((row_number() OVER (ORDER BY id) - 1)::float / (count(*) OVER () - 1)) AS wanted
			FROM changes JOIN oban_jobs ON id = job_id) j
		WHERE abs(extract(epoch FROM scheduled_at - wanted)) > 0.001},
		"$name: by rank");
	is(sql(qq{SELECT min(scheduled_at) BETWEEN '$before' AND '$after' FROM oban_jobs
			WHERE id IN (SELECT job_id FROM changes)}),
		't', "$name: from the start on");
	finds_nothing($node,
		qq{SELECT id, state, scheduled_at, at FROM changes JOIN oban_jobs ON id = job_id
		WHERE state <> 'available' AND scheduled_at <= at
		   OR state <> 'scheduled' AND scheduled_at > '$after'},
		"$name: scheduled while the time lies in the future");
	finds_nothing($node, 'SELECT job_id FROM changes GROUP BY 1 HAVING count(*) > 1',
		"$name: each job once");
	return;
}

sub call_between
{
	my ($call) = @_;
	my $now = q{SELECT timezone('UTC', clock_timestamp());};
	my ($before, @output) = split /\n/, call("$now\n$call\n$now");

	return ($before, @output[-1, -2]);
}

# Jobs that were scheduled match the filter again, once they were retried.
sql("CALL fill($jobs)");
my $filter = q('{"worker": "Mailer", "state": ["discarded", "scheduled"]}');
my ($before, $after, $affected) =
  call_between("CALL oban_retry_in_batches($filter, 1000, '0', '1 hour');");
is($affected, sql(q{SELECT count(*) FROM initial
		WHERE worker = 'Mailer' AND state IN ('discarded', 'scheduled')}),
	'spread: every job that matches');
check_spread('spread', $before, $after, '1 hour');
is(sql(q{SELECT state FROM oban_jobs WHERE id = (SELECT min(job_id) FROM changes)}),
	'available', 'spread: the first is available at once');
is(sql(q{SELECT count(*) FROM changes JOIN oban_jobs ON id = job_id
		WHERE scheduled_at > timezone('UTC', now()) + interval '30 minutes' AND state = 'scheduled'
			AND attempt = 1 AND max_attempts = 20}) > 4000,
	1, 'spread: half of them in the second half');

# The pauses are longer than the spread: the second batch is late already.
sql('CALL fill(1000)');
($before, $after, $affected) = call_between(
	q{CALL oban_retry_in_batches('{"state": "discarded"}', 100, '10 milliseconds',
								 spread => '5 milliseconds');});
is($affected, 400, 'short spread: every job that matches');
check_spread('short spread', $before, $after, '5 milliseconds');
is(sql(q{SELECT DISTINCT state FROM changes JOIN oban_jobs ON id = job_id WHERE seq > 100}),
	'available', 'short spread: the later batches are available at once');

sql('CALL fill(100)');
call(q{CALL oban_retry_in_batches('{"id": 21}', spread => '1 hour');});
is(sql(q{SELECT state, scheduled_at <= timezone('UTC', now()) FROM oban_jobs WHERE id = 21}),
	'available|t', 'spread of a single job: now');

# ---- New jobs do not make it endless

sql("CALL fill($jobs)");
sql(q{
	CREATE FUNCTION insert_again() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO oban_jobs (worker, state) SELECT worker, 'discarded' FROM new_jobs;
		RETURN NULL;
	END $$;
	CREATE TRIGGER insert_again AFTER UPDATE ON oban_jobs REFERENCING NEW TABLE AS new_jobs
		FOR EACH STATEMENT EXECUTE FUNCTION insert_again();});
is((split /\n/, call(call_batches('retry', 'batch_size => 1000')))[-1],
	sql(q{SELECT to_do('retry')}), 'with a new job for each that is retried: those of the start');
finds_nothing($node, q{SELECT * FROM not_once('retry')}, 'new jobs: each job once');
is(sql("SELECT count(*), max(state) FROM oban_jobs WHERE id > 3 * $jobs"),
	sql(q{SELECT to_do('retry')}) . '|discarded', 'new jobs: left alone');
sql('DROP TRIGGER insert_again ON oban_jobs');

# ---- DDL between batches

# The CALL waits for a job of its third batch, the DDL for the CALL's transaction to end: it comes
# before the fourth batch.
for my $case (
	[ 'dropped', 'DROP TABLE doomed.oban_jobs;', qr/ERROR:  42P01: .*doomed/ ],
	[ 'made again',
		q{ALTER TABLE doomed.oban_jobs RENAME TO old;
		CREATE TABLE doomed.oban_jobs AS TABLE doomed.old;
		DROP TABLE doomed.old;}, undef ],
	[ 'without a column', 'ALTER TABLE doomed.oban_jobs DROP COLUMN max_attempts CASCADE;',
		qr/ERROR:  42703: .*max_attempts/ ],
	[ 'wider', 'ALTER TABLE doomed.oban_jobs ADD COLUMN note text DEFAULT $$-$$;', undef ])
{
	my ($name, $ddl, $error) = @$case;

	sql('CREATE TABLE doomed.kept (LIKE doomed.oban_jobs INCLUDING ALL)') if $name eq 'dropped';
	sql(q{DROP TABLE IF EXISTS doomed.oban_jobs;
		CREATE TABLE doomed.oban_jobs (LIKE doomed.kept INCLUDING ALL);
		INSERT INTO doomed.oban_jobs (worker) SELECT 'Mailer' FROM generate_series(1, 50)});
	my $holder = hold_jobs($node, 'id = 25', 'doomed');
	my $session = start_session($node, 'batches', qq{\\set VERBOSITY verbose
		SET oban_manage.prefix = 'doomed';
		CALL oban_update_in_batches('{"worker": "Mailer"}', '{"max_attempts": 9}', 10);\n});
	wait_for_lock($node, 'batches');
	my $other = start_session($node, 'ddl', "BEGIN;\n$ddl\nCOMMIT;\n");
	wait_for_lock($node, 'ddl');
	finish_session($holder, "COMMIT;\n");

	my $output = finish_session($session);
	is(finish_session($other), '', "table $name: the DDL came in between");
	my @notices = $output =~ /NOTICE:  00000: updated/g;
	is(scalar @notices, $error ? 3 : 5, "table $name: its batches");
	like($output, $error // qr/^50$/m, "table $name: " . ($error ? 'a clear error' : 'it goes on'));
	is(sql('SELECT count(*) FROM doomed.oban_jobs WHERE max_attempts = 9'), 50, 'and did all')
	  if !$error;
}

# ---- A batch that fails is tried again when that may help

sub refuse
{
	my ($tries, $sqlstate, $event) = @_;

	sql("CALL fill(100); SELECT setval('passing_tries', 1, false);
		 DROP TRIGGER IF EXISTS passing ON oban_jobs;
		 CREATE " . ($event =~ /AFTER/ ? 'CONSTRAINT' : '') . " TRIGGER passing $event
			FOR EACH ROW WHEN (OLD.id = 93) EXECUTE FUNCTION refuse($tries, '$sqlstate')");
	return;
}

for my $case (
	[ 'cancel', 3, '40001', 'BEFORE UPDATE ON oban_jobs' ],
	[ 'update', 2, '40P01', 'BEFORE UPDATE ON oban_jobs' ],
	[ 'retry', 2, '40001', 'AFTER UPDATE ON oban_jobs DEFERRABLE INITIALLY DEFERRED' ],
	[ 'delete', 1, '40P01', 'AFTER DELETE ON oban_jobs DEFERRABLE INITIALLY DEFERRED' ])
{
	my ($verb, $tries, $sqlstate, $event) = @$case;
	my $name = "$verb, $sqlstate " . ($event =~ /AFTER/ ? 'at the commit' : 'in the batch');

	refuse($tries, $sqlstate, $event);
	my $output = call(call_batches($verb, 'batch_size => 10'));
	unlike($output, qr/ERROR/, "$name: no error");
	finds_nothing($node, "SELECT * FROM not_once('$verb')", "$name: each job once");
	my @sizes = batch_sizes($node, 'batches');
	pop @sizes;
	is_deeply([ grep { $_ != 10 } @sizes ], [], "$name: a transaction a batch");
	is(sql('SELECT last_value FROM passing_tries'),
		$tries + 1, "$name: tried again as often as it takes");
}

refuse(1, '23514', 'BEFORE UPDATE ON oban_jobs');
my $output = call("\\set VERBOSITY verbose\n"
	  . call_batches('update', 'batch_size => 10')
	  . "SELECT 'the session goes on';");
like(
	$output,
	qr/ERROR:  23514: the passing refuses.*the session goes on/s,
	'another error is raised as it is');
is(sql('SELECT last_value FROM passing_tries'), 1, 'and at once');
is_deeply([ batch_sizes($node, 'batches') ], [ 10, 10 ], 'the batches before it stay');
$output = call("\\set VERBOSITY verbose\n" . call_batches('update', 'batch_size => 10'));
finds_nothing($node, q{SELECT * FROM not_once('update')}, 'called again, it does the rest');
sql('DROP TRIGGER passing ON oban_jobs');

# ---- Memory

# What the backend uses, by its own account, in each batch. Two thirds of 600 batches must not need
# more than those before; a leak of a hundred bytes a batch would show.
sql(q{
	CREATE TABLE memory (verb text, batch int GENERATED ALWAYS AS IDENTITY, used bigint);
	CREATE FUNCTION note_memory() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO memory (verb, used)
			SELECT current_setting('application_name'), sum(used_bytes)
			FROM pg_backend_memory_contexts;
		RETURN NULL;
	END $$;
	CREATE TRIGGER note_memory AFTER UPDATE OR DELETE ON oban_jobs
		FOR EACH STATEMENT EXECUTE FUNCTION note_memory();});
for my $verb (qw(cancel retry delete update))
{
	sql("CALL fill($jobs); TRUNCATE memory RESTART IDENTITY");
	my $size = int(sql("SELECT to_do('$verb')") / 600);

	run_session($node, "SET application_name = '$verb';\nSET client_min_messages = warning;\n"
		  . call_batches($verb, $size));
	my ($batches, $growth) = split /\|/, sql(q{
		SELECT max(batch),
			   max(used) FILTER (WHERE batch > 200) - max(used) FILTER (WHERE batch <= 200)
		FROM memory});
	cmp_ok($batches, '>=', 600, "memory, $verb: many batches");
	cmp_ok($growth, '<', 40_000, "memory, $verb: they need no more than the first of them");
}

# ---- The batch that failed each time

$output = finish_session($stubborn);
like($output, qr/ERROR:  40001: the stubborn refuses/, 'its own error is raised in the end');
is(scalar(() = $output =~ /NOTICE:  00000: cancelled/g), 3, 'after the batches before it');
is( sql(q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM stubborn.oban_jobs
		WHERE state = 'cancelled'}),
	join(' ', 1 .. 30),
	'which stay');
my @tries = slurp_file($node->logfile) =~ /LOG:  stubborn at ([\d.]+)/g;
is(scalar @tries, 8, 'it was tried eight times');
my @waits = map { $tries[$_] - $tries[ $_ - 1 ] } 1 .. $#tries;
is_deeply([ grep { $waits[$_] < 0.099 * 2**$_ } 0 .. $#waits ],
	[], 'after waits that double from 0.1 s') or diag("the waits: @waits");

# ---- Where no role has logged in, as in a background worker or a single-user server

$node->stop;
my $call = "CALL oban_retry_in_batches('{\"all\": true}', 7, prefix => 'stubborn')\n";
IPC::Run::run([ 'postgres', '--single', '-D', $node->data_dir, 'postgres' ], '<', \$call, '>',
	\my $single, '2>', \my $said);
like($single, qr/affected = "30"/, 'batches without a session authorization') or diag($said);
done_testing();
