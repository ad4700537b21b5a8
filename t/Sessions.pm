package Sessions;

# What the tests of a server's life share: sessions that are asked one thing after another, and a
# call of every function that the extension has, so that none is forgotten.

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use Test::More;

our @EXPORT = qw(open_session ask make_life_jobs calls_of knows_every_function prepare_calls
  differing_calls make_application application_works);

# A psql session that goes on after errors, of which it gives the SQLSTATE alone.
sub open_session
{
	my ($node, $database) = @_;
	my $session = $node->background_psql($database // 'postgres', on_error_stop => 0);

	ask($session, '\set VERBOSITY sqlstate');
	return $session;
}

# Run statements in a session. Returns what they gave, then their errors and warnings.
sub ask
{
	my ($session, $sql) = @_;

	$session->{stderr} = '';
	my $given = $session->query($sql);
	my $errors = $session->{stderr} =~ s/^psql:\S*:\d+: //gmr;
	$session->{stderr} = '';
	chomp $errors;
	return join "\n", grep { $_ ne '' } $given, $errors;
}

# Five jobs in a jobs table of Elixir's dialect, and a callable for them.
sub make_life_jobs
{
	my ($node, $schema) = @_;

	$node->safe_psql(
		'postgres', qq{
		CREATE OR REPLACE PROCEDURE fill_life() LANGUAGE sql AS \$\$
			DELETE FROM $schema.oban_jobs;
			INSERT INTO $schema.oban_jobs (id, state, queue, worker, attempt, scheduled_at,
					cancelled_at)
				VALUES (1, 'available', 'mail', 'Worker', 0, '2024-01-01', NULL),
					   (2, 'executing', 'mail', 'Worker', 1, '2024-01-01', NULL),
					   (3, 'completed', 'mail', 'Worker', 1, '2024-01-01', NULL),
					   (4, 'scheduled', 'slow', 'Worker', 0, '2099-01-01', NULL),
					   (5, 'cancelled', 'slow', 'Worker', 2, '2024-01-01', '2024-01-02');
		\$\$;
		CALL fill_life();
		CREATE FUNCTION bump(job oban_job) RETURNS jsonb LANGUAGE sql AS
			\$\$SELECT jsonb_build_object('priority', job.priority + 1)\$\$;});
	return;
}

# An application that is built upon the extension, which is in the schema given, in every way that a
# dump has to know of: triggers on its tables and on the jobs', callables, a view, a materialized view
# (whose contents are not dumped), a column of the type oban_job, and settings.
sub make_application
{
	my ($node, $extension) = @_;

	$node->safe_psql(
		'postgres', qq{
		CREATE SCHEMA app;
		CREATE FUNCTION app.follow(job $extension.oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS
			\$\$SELECT jsonb_build_object('tags', job.tags || (context ->> 'op'))\$\$;
		CREATE TABLE app.orders (id int PRIMARY KEY, job_id bigint);
		CREATE TABLE app.mails (id int PRIMARY KEY, job_ids bigint[]);
		INSERT INTO app.orders SELECT id, id FROM generate_series(1, 5) id;
		INSERT INTO app.mails VALUES (1, '{1,2}'), (2, '{4}');
		CREATE TRIGGER follow AFTER INSERT OR UPDATE ON app.orders FOR EACH ROW
			EXECUTE FUNCTION $extension.oban_update_job_with('job_id', 'app.follow', 'public');
		CREATE TRIGGER "cancel it" AFTER DELETE ON app.orders FOR EACH ROW WHEN (OLD.id <> 5)
			EXECUTE FUNCTION $extension.oban_cancel_job('job_id', 'public');
		CREATE TRIGGER retry AFTER INSERT ON app.mails REFERENCING NEW TABLE AS added
			FOR EACH STATEMENT EXECUTE FUNCTION $extension.oban_retry_job('job_ids', 'public');
		CREATE CONSTRAINT TRIGGER later AFTER DELETE ON app.mails DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION $extension.oban_update_job('job_ids', '{"priority": 9}',
			'public');
		ALTER TABLE app.orders ENABLE ALWAYS TRIGGER "cancel it";
		CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON public.oban_jobs
			FOR EACH ROW EXECUTE FUNCTION $extension.oban_guard_job();
		CREATE VIEW app.stuck AS
			SELECT id, $extension.oban_job_cancelled(job_id, 'public') AS cancelled FROM app.orders;
		CREATE MATERIALIZED VIEW app.snapshot AS
			SELECT id, state, prefix
			FROM $extension.oban_all_jobs('{"worker": "Worker"}', NULL, 'public');
		CREATE TABLE app.archive (job $extension.oban_job);
		INSERT INTO app.archive SELECT j FROM $extension.oban_all_jobs('{"all": true}') j;
		CREATE FUNCTION app.cancel(bigint) RETURNS boolean LANGUAGE sql SECURITY DEFINER
			SET oban_manage.prefix = 'public' BEGIN ATOMIC SELECT $extension.oban_cancel_job(\$1); END;
		ALTER DATABASE postgres SET oban_manage.prefix = 'other';
		CREATE ROLE silent;
		ALTER ROLE silent SET oban_manage.notify = off;
		CREATE ROLE clerk;
		REVOKE EXECUTE ON FUNCTION $extension.oban_delete_job(bigint, text) FROM public;
		GRANT EXECUTE ON FUNCTION $extension.oban_delete_job(bigint, text) TO clerk;});
	return;
}

# That application does what it should, on the jobs of make_life_jobs as they were at first.
sub application_works
{
	my ($node, $database, $extension, $name) = @_;
	my $session = open_session($node, $database);

	is(ask($session, 'SHOW oban_manage.prefix'), 'other', "$name: the setting of the database");
	ask($session, "SET client_min_messages = error");
	is(ask($session, 'SELECT * FROM app.snapshot ORDER BY id'),
		"1|available|public\n2|executing|public\n3|completed|public\n4|scheduled|public\n"
		  . '5|cancelled|public', "$name: the materialized view has its contents");
	is(ask($session, q(SELECT string_agg(cancelled::text, ',' ORDER BY id) FROM app.stuck)),
		'false,false,false,false,true', "$name: the view");
	is(ask($session, 'SELECT (job).id, (job).state, (job).prefix FROM app.archive ORDER BY 1 LIMIT 2'),
		"1|available|public\n2|executing|public", "$name: jobs in a column");
	is(ask($session, "SELECT $extension.oban_cancel_job(job) FROM app.archive WHERE (job).id = 1"),
		't', "$name: a job in a column is one");
	is(ask($session, 'SELECT app.cancel(2)'), 't', "$name: a function with a setting of its own");
	is(ask($session, 'INSERT INTO app.mails VALUES (9, ARRAY[1, 3]);
			DELETE FROM app.orders WHERE id IN (4, 5); UPDATE app.orders SET id = 50 WHERE id = 3;
			DELETE FROM app.mails WHERE id = 2'),
		'', "$name: the triggers fire");
	is(ask($session, q(UPDATE public.oban_jobs SET state = 'retryable' WHERE id IN (3, 5);
			SELECT id, state, priority, array_to_string(tags, ',') FROM public.oban_jobs ORDER BY id)),
		"1|available|0|\n2|cancelled|0|\n3|retryable|0|update\n4|cancelled|9|\n5|cancelled|0|",
		"$name: each did its own");
	is(ask($session, qq(SELECT has_function_privilege(r, '$extension.oban_delete_job(bigint, text)',
			'EXECUTE') FROM unnest('{silent,clerk}'::text[]) r)),
		"f\nt", "$name: who may execute what");
	$session->quit;
	is( $node->safe_psql('postgres', "SELECT setconfig FROM pg_db_role_setting s
			JOIN pg_roles r ON r.oid = s.setrole WHERE rolname = 'silent'"),
		'{oban_manage.notify=off}', "$name: the setting of a role");
	return;
}

my %reads = (
	'oban_get_job(bigint,text)' => 'SELECT id, state FROM oban_get_job(2)',
	'oban_job_cancelled(bigint,text,integer)' => 'SELECT oban_job_cancelled(2), oban_job_cancelled(5)',
	'oban_all_jobs(jsonb,integer,text)' =>
	  q(SELECT id, state FROM oban_all_jobs('{"queue": "mail"}', 2)));

# Each changes jobs of make_life_jobs, and would tell Obans of it.
my %writes = (
	'oban_manage_jobs(text,bigint[],jsonb,boolean,text,boolean,boolean)' =>
	  q(SELECT outcome FROM oban_manage_jobs('cancel', '{2}')),
	'oban_manage_all_jobs(text,jsonb,jsonb,integer,boolean,boolean,boolean,text)' =>
	  q(SELECT outcome FROM oban_manage_all_jobs('cancel', '{"id": 2}')));
my %batches;

my %ids = (cancel => [ 2, 1 ], retry => [ 3, 5 ], delete => [ 1, 3 ], update => [ 4, 1 ]);
my $changes = q('{"priority": 5, "schedule_in": -5}');

for my $verb (keys %ids)
{
	my ($first, $second) = @{ $ids{$verb} };
	my $many = "ARRAY[$second, $first]";
	my ($type, $rest, $from) =
	  $verb eq 'update' ? (',jsonb', ", $changes", 'count(*) FROM ') : ('', '', '');
	my $filter = "'{\"id\": [$first, $second]}'";
	my $later = $verb eq 'retry' ? ',timestamp with time zone' : '';

	$writes{"oban_${verb}_job(bigint$type,text$later)"} =
	  "SELECT ${from}oban_${verb}_job($first$rest)";
	$writes{"oban_${verb}_job(record$type$later)"} =
	  "SELECT ${from}oban_${verb}_job(oban_get_job($first)$rest)";
	$writes{"oban_${verb}_job(bigint[]$type,text$later)"} =
	  "SELECT ${from}oban_${verb}_job($many$rest)";
	$writes{"oban_${verb}_many_jobs(bigint[]$type,text$later)"} =
	  "SELECT ${from}oban_${verb}_many_jobs($many$rest)";
	$writes{"oban_${verb}_all_jobs(jsonb$type,integer,text$later)"} =
	  "SELECT oban_${verb}_all_jobs($filter$rest)";
	my $spread = $verb eq 'retry' ? ',interval' : '';
	$batches{"oban_${verb}_in_batches(jsonb$type,integer,interval$spread,bigint,boolean,boolean,text,bigint)"} =
	  "CALL oban_${verb}_in_batches($filter$rest)";
}
$writes{'oban_update_job_with(bigint,regproc,jsonb,text)'} =
  q(SELECT count(*) FROM oban_update_job_with(4, 'public.bump'));
$writes{'oban_update_job_with(record,regproc,jsonb)'} =
  q(SELECT count(*) FROM oban_update_job_with(oban_get_job(4), 'public.bump'));
$writes{'oban_update_job_with(bigint[],regproc,jsonb,text)'} =
  q(SELECT count(*) FROM oban_update_job_with(ARRAY[4, 1], 'public.bump'));
$writes{'oban_update_many_jobs_with(bigint[],regproc,jsonb,text)'} =
  q(SELECT count(*) FROM oban_update_many_jobs_with(ARRAY[4, 1], 'public.bump'));

$writes{'oban_update_all_jobs_with(jsonb,regproc,jsonb,integer,text)'} =
  q(SELECT oban_update_all_jobs_with('{"id": [4, 1]}', 'public.bump'));
$batches{
	'oban_update_in_batches_with(jsonb,regproc,jsonb,integer,interval,bigint,boolean,boolean,text,bigint)'
} = q(CALL oban_update_in_batches_with('{"id": [4, 1]}', 'public.bump'));

my %calls = (reads => \%reads, writes => \%writes, batches => \%batches);

# The calls of a kind (reads, writes, batches), each a signature and its SQL, in a fixed order.
sub calls_of
{
	my ($kind) = @_;

	return map { [ $_, $calls{$kind}{$_} ] } sort keys %{ $calls{$kind} };
}

# Use each function in each way in a session, more often than a plan is made for its values: as call_N,
# prepared, and as f_N(), in PL/pgSQL. Returns the names of the prepared ones by signature.
sub prepare_calls
{
	my ($session) = @_;
	my %prepared;
	my $n = 0;

	for my $call (calls_of('reads'), calls_of('writes'))
	{
		my ($signature, $sql) = @$call;

		$prepared{$signature} = 'call_' . ++$n;
		ask($session, "PREPARE $prepared{$signature} AS $sql; CREATE FUNCTION f_$n() RETURNS text"
			  . " LANGUAGE plpgsql AS \$\$ DECLARE r text; BEGIN $sql INTO r; RETURN r; END \$\$");
		ask($session, join '; ', ("CALL fill_life(); EXECUTE call_$n; SELECT f_$n()") x 7);
	}
	return \%prepared;
}

# Run each of those again in both ways, and return those that did not give what a new session is given.
sub differing_calls
{
	my ($node, $session, $prepared) = @_;
	my $fresh = open_session($node);
	my @differing;

	for my $call (calls_of('reads'), calls_of('writes'))
	{
		my ($signature, $sql) = @$call;
		my $fill = 'SET client_min_messages = warning; CALL fill_life()';
		my $function = $prepared->{$signature} =~ s/call/f/r;

		my $expected = ask($fresh, "BEGIN; $fill; $sql; ROLLBACK");
		my $got = ask($session, "BEGIN; $fill; EXECUTE $prepared->{$signature}; ROLLBACK");
		push @differing, "$signature: $got, not $expected" if $got ne $expected;
		$expected = ask($fresh, "BEGIN; $fill; SELECT $function(); ROLLBACK");
		$got = ask($session, "BEGIN; $fill; SELECT $function(); ROLLBACK");
		push @differing, "$function, $signature: $got, not $expected" if $got ne $expected;
	}
	$fresh->quit;
	return \@differing;
}

# The calls are of all the functions that the extension has, but for those of triggers.
sub knows_every_function
{
	my ($node) = @_;
	my $signatures = $node->safe_psql(
		'postgres', q{
		SELECT string_agg(s, E'\n' ORDER BY s COLLATE "C") FROM (
			SELECT p.oid::regprocedure::text AS s
			FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
				JOIN pg_extension e ON d.refobjid = e.oid AND e.extname = 'oban_manage'
			WHERE d.deptype = 'e' AND prorettype <> 'trigger'::regtype) functions});

	is($signatures, join("\n", sort map { keys %$_ } values %calls), 'every function is called');
	return;
}

1;
