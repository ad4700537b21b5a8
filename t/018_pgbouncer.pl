# PgBouncer in transaction mode: clients that share a backend, with its settings, its kept plans and
# its loaded module, from one transaction to the next. psycopg sends parameters by the protocol, with
# statements that are unnamed, or named (protocol-level prepared statements); pgbench makes the crowd.
#
# PgBouncer before 1.21 does not know named statements in this mode: they serve within a transaction,
# and PostgreSQL says so across transactions. Later ones (max_prepared_statements) keep track of them.
#
# Shown to fail with the prefix kept from a call to the next in place of being asked for each time
# (om_prefix in src/jobs/jobs_table.c), and with the wake signal sent when a backend first calls only
# (src/jobs/signals.c). That kept plans are made anew it does not show: PostgreSQL plans anew by itself
# where no name has changed (t/014_extension_changed.pl).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use ObanTest;
use PostgreSQL::Test::Utils;
use Sessions;
use Test::More;

# Nothing waits for ever: neither for a lock, nor for a backend.
my $limit = int($PostgreSQL::Test::Utils::timeout_default / 3);
my $node = start_server('bounced', lock_timeout => "${limit}s", statement_timeout => "${limit}s",
	log_error_verbosity => 'verbose');
make_jobs_table($node, 'public', 'elixir', 14);
make_jobs_table($node, 'python', 'python');
make_life_jobs($node, 'public');
$node->safe_psql('postgres', q(INSERT INTO python.oban_jobs (id, state, worker) OVERRIDING SYSTEM VALUE
	VALUES (1, 'available', 'Python'), (2, 'executing', 'Python')));

# One server connection for the databases one, fresh and reset; a few for many.
# No TCP: the port is but a part of the socket's name, in a directory of its own.
my $dir = PostgreSQL::Test::Utils::tempdir_short;
my $port = 6432;
my $user = getpwuid($>);
my $bouncer = (grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin')[0]
  or BAIL_OUT('there is no pgbouncer');
my ($major, $minor) = (run_command([ $bouncer, '--version' ]))[0] =~ /PgBouncer (\d+)\.(\d+)/;
my $knows_named = $major > 1 || $minor >= 21;

my $run;

sub start_bouncer
{
	my ($name, $settings) = @_;
	my $server = 'host=' . $node->host . ' port=' . $node->port . ' dbname=postgres';
	my $tracked = $knows_named ? 'max_prepared_statements = 50' : '';

	PostgreSQL::Test::Utils::append_to_file("$dir/users", qq("$user" ""\n)) unless -e "$dir/users";
	PostgreSQL::Test::Utils::append_to_file("$dir/$name.ini", qq(
[databases]
one = $server pool_size=1
fresh = $server pool_size=1
many = $server pool_size=3
[pgbouncer]
pool_mode = transaction
listen_port = $port
unix_socket_dir = $dir
auth_type = trust
auth_file = $dir/users
logfile = $dir/$name.log
max_client_conn = 100
query_wait_timeout = $limit
$tracked
$settings
));
	$run = IPC::Run::start([ $bouncer, '-q', "$dir/$name.ini" ], '<', \undef, '>', "$dir/$name.out",
		'2>&1');
	for my $try (1 .. 100)
	{
		last if (run_command([ 'psql', '-XAtqc', 'SELECT 1', "host=$dir port=$port dbname=one" ]))[0]
		  eq '1';
		die "$bouncer did not start: " . slurp_file("$dir/$name.log") if $try == 100;
		select undef, undef, undef, 0.1;
	}
	return;
}

sub stop_bouncer
{
	$run->kill_kill(grace => 5) if $run;
	undef $run;
	return;
}

END
{
	my $status = $?;

	stop_bouncer();
	$? = $status;
}

# Run a program that has "connect", to a database of PgBouncer's or, with direct, of the server; and
# "heard", what a connection that listens is told within some time, so many notifications or fewer.
# Returns what it printed.
sub python
{
	my ($program) = @_;
	my $start = q{
import os, psycopg, time
from psycopg.types.json import Jsonb
def connect(database, direct=False, **options):
    host, port = os.environ['DIRECT' if direct else 'BOUNCER'].split()
    return psycopg.connect(host=host, port=port, dbname=database, user=os.environ['DBUSER'], **options)
def one(connection, query, parameters=(), **options):
    return connection.execute(query, parameters, **options).fetchone()[0]
# Not by psycopg's notifies(), which gives none of those that come with the result of a statement,
# and waits for the next for ever.
def heard(connection, notes, number):
    end = time.monotonic() + float(os.environ['LIMIT'])
    while len(notes) < number and time.monotonic() < end:
        connection.execute('SELECT 1')
        time.sleep(0.05)
    return sorted(notes)
};
	local %ENV = (%ENV, BOUNCER => "$dir $port", DIRECT => $node->host . ' ' . $node->port,
		DBUSER => $user, LIMIT => $limit);
	my ($output, $errors) = ('', '');
	my $python = IPC::Run::start([ '/usr/bin/python3', '-c', "$start\n$program" ],
		'<', \undef, '>', \$output, '2>', \$errors,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	if (!eval { $python->finish; 1 })
	{
		$errors .= $@;
		$python->kill_kill(grace => 1);
	}
	chomp($output, $errors);
	return $errors eq '' ? $output : "$output\n$errors";
}

start_bouncer('plain', '');

# The prefix of a transaction, in a backend that has never heard of the extension: the module is
# loaded in the middle of a transaction that has set it, and that is rolled back.
is( python(q{
with connect('fresh', prepare_threshold=None) as c:
    with c.transaction(force_rollback=True):
        c.execute("SET LOCAL oban_manage.prefix = 'python'")
        print(one(c, 'SELECT worker FROM oban_get_job(%s)', [1]),
              one(c, 'SELECT oban_cancel_job(%s)', [1]))
    print(one(c, 'SELECT worker FROM oban_get_job(%s)', [1]), one(c, 'SHOW oban_manage.prefix'))
}), "Python True\nWorker public", 'the prefix of a transaction that loads the module');

# What the README warns of.
is( python(q{
a, b = (connect('one', autocommit=True, prepare_threshold=None) for _ in range(2))
a.execute("SET oban_manage.prefix = 'python'")
print(one(b, 'SELECT worker FROM oban_get_job(%s)', [1]))
a.execute('RESET oban_manage.prefix')
print(one(b, 'SELECT worker FROM oban_get_job(%s)', [1]))
}), "Python\nWorker", 'a SET without LOCAL becomes that of the next client');

# Two clients, one backend, transaction by transaction, often enough for every plan to be a kept one:
# each in its schema by SET LOCAL, and none of it left for a third.
is( python(q{
a, b, c = (connect('one', autocommit=True, prepare_threshold=None) for _ in range(3))
pids, seen = set(), set()
for i in range(20):
    for client, prefix in ((a, 'public'), (b, 'python')):
        with client.transaction():
            client.execute(f"SET LOCAL oban_manage.prefix = '{prefix}'")
            pids.add(one(client, 'SELECT pg_backend_pid()'))
            seen.add((prefix, one(client, 'SELECT worker FROM oban_get_job(%s)', [1]),
                      one(client, 'SELECT oban_cancel_many_jobs(%s)', [[1, 1]]),
                      one(client, 'SELECT oban_retry_job(%s)', [1]),
                      one(client, 'SELECT tags FROM oban_update_job(%s, %s)',
                          [1, Jsonb({'tags': [prefix]})])[0]))
    seen.add((one(c, 'SHOW oban_manage.prefix'), one(c, 'SELECT worker FROM oban_get_job(%s)', [1])))
print(len(pids), *sorted(seen))
}),
	"1 ('public', 'Worker') ('public', 'Worker', 1, True, 'public')"
	  . " ('python', 'Python', 1, True, 'python')",
	'clients with prefixes of their own share a backend');

# Row-level security, with the role or the tenant that a transaction sets: each client sees and changes
# its own jobs in a backend whose plans were kept for the others, and a third, a superuser, all of them.
$node->safe_psql(
	'postgres', q{
	CREATE ROLE slow; CREATE ROLE mail; CREATE ROLE tenants;
	GRANT ALL ON oban_jobs TO slow, mail, tenants;
	ALTER TABLE oban_jobs ENABLE ROW LEVEL SECURITY;
	CREATE POLICY own_queue ON oban_jobs TO slow, mail USING (queue = current_user);
	CREATE POLICY tenant ON oban_jobs TO tenants USING (queue = current_setting('app.tenant', true));});
is( python(q{
a, b, c = (connect('one', autocommit=True, prepare_threshold=None) for _ in range(3))
pids, seen = set(), set()
def turn(client, who, *setup):
    with client.transaction():
        for statement in setup:
            client.execute(statement)
        pids.add(one(client, 'SELECT pg_backend_pid()'))
        seen.add((who, one(client, 'SELECT oban_cancel_many_jobs(%s)', [[1, 2, 4]]),
                  one(client, 'SELECT oban_retry_many_jobs(%s)', [[1, 2, 4]]),
                  one(client, 'SELECT oban_cancel_job(%s)', [4]),
                  one(client, 'SELECT oban_job_cancelled(%s)', [1]),
                  one(client, 'SELECT worker FROM oban_get_job(%s)', [2]),
                  one(client, 'SELECT count(*) FROM oban_all_jobs(%s)', [Jsonb({'all': True})]),
                  one(client, 'SELECT oban_retry_all_jobs(%s)', [Jsonb({'id': [4]})])))
        try:
            with client.transaction():
                seen.add((who, one(client, 'SELECT id FROM oban_update_job(%s, %s)',
                                   [4, Jsonb({'priority': 2})])))
        except psycopg.Error as error:
            seen.add((who, error.sqlstate))
for i in range(12):
    turn(a, 'mail', 'SET LOCAL ROLE mail')
    turn(c, 'all')
    turn(b, 'slow', 'SET LOCAL ROLE slow')
    for client, tenant in ((b, 'mail'), (a, 'slow')):
        turn(client, 'tenant ' + tenant, 'SET LOCAL ROLE tenants', f"SET LOCAL app.tenant = '{tenant}'")
print(len(pids), *sorted(seen, key=str), sep='\n')
}), join("\n", 1,
		"('all', 3, 3, True, False, 'Worker', 5, 1)", "('all', 4)",
		"('mail', 'P0002')", "('mail', 2, 2, False, False, 'Worker', 3, 0)",
		"('slow', 1, 1, True, True, None, 2, 1)", "('slow', 4)",
		"('tenant mail', 'P0002')", "('tenant mail', 2, 2, False, False, 'Worker', 3, 0)",
		"('tenant slow', 1, 1, True, True, None, 2, 1)", "('tenant slow', 4)"),
	'roles and tenants take turns in one backend under row-level security');
$node->safe_psql('postgres', q(DROP POLICY own_queue ON oban_jobs; DROP POLICY tenant ON oban_jobs;
	ALTER TABLE oban_jobs DISABLE ROW LEVEL SECURITY; CALL fill_life()));

# A savepoint, and an error in the middle: the next client finds nothing of it.
is( python(q{
a, b = (connect('one', autocommit=True, prepare_threshold=None) for _ in range(2))
try:
    with a.transaction():
        a.execute("SET LOCAL oban_manage.prefix = 'python'; SET LOCAL oban_manage.notify = off")
        one(a, 'SELECT oban_cancel_job(%s)', [1])
        with a.transaction():
            a.execute("SET LOCAL oban_manage.prefix = 'nowhere'")
            one(a, 'SELECT oban_cancel_job(%s)', [1])
except psycopg.Error as error:
    print(error.sqlstate)
print(one(b, 'SHOW oban_manage.prefix'), one(b, 'SHOW oban_manage.notify'),
      one(b, "SELECT state FROM oban_get_job(%s, 'python')", [1]))
}), "3F000\npublic on available", 'an error leaves nothing behind');

# A client that goes away in its transaction.
is( python(q{
a = connect('one', prepare_threshold=None)
print(one(a, 'SELECT oban_cancel_job(%s)', [1]))
a.pgconn.finish()
with connect('one', prepare_threshold=None) as b:
    print(one(b, 'SELECT oban_job_cancelled(%s)', [1]), one(b, 'SELECT oban_delete_job(%s)', [99]))
}), "True\nFalse False", 'a client that goes away has done nothing');

# Statements with a name (protocol-level prepared ones), within a transaction.
is( python(q{
for prefix in ('public', 'python'):
    with connect('one', prepare_threshold=0) as a:
        a.execute(f"SET LOCAL oban_manage.prefix = '{prefix}'", prepare=False)
        print({(one(a, 'SELECT worker FROM oban_get_job(%s)', [1]),
                one(a, 'SELECT oban_cancel_job(%s)', [1]),
                one(a, 'SELECT oban_retry_many_jobs(%s)', [[1, 9]])) for i in range(10)},
              one(a, 'SELECT count(*) FROM pg_prepared_statements', prepare=False))
        a.execute('DEALLOCATE ALL', prepare=False)
}),
	"{('Worker', True, 1)} 3\n{('Python', True, 1)} 3",
	'named statements within a transaction, each with its prefix');

# And from one client's transaction to another's: what PostgreSQL says, or all is well.
my $across = python(q{
a, b = (connect('one', autocommit=True, prepare_threshold=0) for _ in range(2))
for i in range(4):
    for client in (a, b):
        try:
            one(client, 'SELECT oban_cancel_job(%s)', [1])
            print(one(client, 'SELECT oban_retry_job(%s)', [1]), end=' ')
        except psycopg.Error as error:
            print(error.sqlstate, end=' ')
});
if ($knows_named)
{
	is($across, 'True ' x 8, 'named statements across transactions');
}
else
{
	like($across, qr/^(True|42P05|26000)( (True|42P05|26000)){7}/,
		'named statements across transactions, which this PgBouncer does not know');
	like($across, qr/42P05|26000/, 'PostgreSQL says so');
}
$node->safe_psql('postgres', q(CALL fill_life()));

# Those who listen do so without PgBouncer, and hear of what is done through it.
is( python(q{
listener, notes = connect('postgres', direct=True, autocommit=True), []
listener.add_notify_handler(lambda note: notes.append(note.channel + note.payload))
for channel in ('oban_signal', 'oban_insert'):
    listener.execute(f'LISTEN "public.{channel}"')
a, b = (connect('one', prepare_threshold=None) for _ in range(2))
one(a, 'SELECT oban_cancel_job(%s)', [2]); a.rollback()
one(b, 'SELECT oban_cancel_job(%s)', [2]); b.commit()
one(a, 'SELECT oban_retry_many_jobs(%s)', [[3, 5]]); a.commit()
print(*heard(listener, notes, 3), sep='\n')
}),
	qq(public.oban_insert{"queue":"mail"}\npublic.oban_insert{"queue":"slow"}\n)
	  . 'public.oban_signal{"action":"pkill","job_id":2}',
	'listeners hear of what is done through PgBouncer');

# Batches commit, and keep the backend to their end.
$node->safe_psql('postgres', q{TRUNCATE oban_jobs; INSERT INTO oban_jobs (id, state, worker)
	SELECT id, 'discarded', 'Worker' FROM generate_series(1, 1000) id});
is( python(q{
with connect('many', autocommit=True, prepare_threshold=None) as a:
    print(one(a, 'CALL oban_retry_in_batches(%s, %s)', [Jsonb({'state': 'discarded'}), 100]),
          one(a, 'SELECT count(DISTINCT xmin::text) FROM oban_jobs'))
with connect('many', prepare_threshold=None) as a:
    try:
        a.execute('CALL oban_retry_in_batches(%s)', [Jsonb({'all': True})])
    except psycopg.Error as error:
        print(error.sqlstate)
}), "1000 10\n25001", 'batches commit one by one, and not in a transaction');

# A crowd of clients on three backends, over the same jobs in both orders, in both schemas.
$node->safe_psql(
	'postgres', q{
	TRUNCATE oban_jobs, python.oban_jobs;
	INSERT INTO oban_jobs (id, worker) SELECT id, 'Worker' FROM generate_series(1, 50) id;
	INSERT INTO python.oban_jobs (id, worker) OVERRIDING SYSTEM VALUE
		SELECT id, 'Python' FROM generate_series(1, 50) id;
	CREATE TABLE done (prefix text, cancelled int, retried int);
	-- Jobs that were changed, by where they are and where the client wants them.
	CREATE TABLE changed (at text, wanted text, jobs int);
	CREATE FUNCTION log_change() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO changed SELECT TG_TABLE_SCHEMA, current_setting('oban_manage.prefix'), count(*)
			FROM new_jobs;
		RETURN NULL;
	END $$;
	CREATE TRIGGER log_change AFTER UPDATE ON oban_jobs REFERENCING NEW TABLE AS new_jobs
		FOR EACH STATEMENT EXECUTE FUNCTION log_change();
	CREATE TRIGGER log_change AFTER UPDATE ON python.oban_jobs REFERENCING NEW TABLE AS new_jobs
		FOR EACH STATEMENT EXECUTE FUNCTION log_change();});
PostgreSQL::Test::Utils::append_to_file("$dir/crowd.sql", q{\set schema random(0, 1)
\set way random(0, 1)
\set lowest random(1, 40)
BEGIN;
SELECT set_config('oban_manage.prefix', (ARRAY['public', 'python'])[:schema + 1], true);
INSERT INTO done SELECT (ARRAY['public', 'python'])[:schema + 1],
	oban_cancel_many_jobs(ARRAY(SELECT :lowest + abs(n - 9 * :way) FROM generate_series(0, 9) n)), 0;
INSERT INTO done SELECT (ARRAY['public', 'python'])[:schema + 1], 0,
	oban_retry_many_jobs(ARRAY(SELECT :lowest + abs(n - 9 * :way) FROM generate_series(0, 9) n));
COMMIT;
});
command_checks_all(
	[
		'pgbench', '-n', '-M', 'extended', '-c', '12', '-j', '2', '-t', '40', '-f', "$dir/crowd.sql",
		'-h', $dir, '-p', $port, 'many'
	],
	0, [qr{transactions actually processed: 480/480}], [qr/^(?!.*ERROR)/s], 'a crowd of clients');
is($node->safe_psql('postgres', 'SELECT sum(cancelled), sum(retried) FROM done'),
	'4800|4800', 'each did all of its jobs');
is( $node->safe_psql('postgres', q(SELECT at, wanted, sum(jobs) = (SELECT sum(cancelled + retried)
		FROM done WHERE prefix = at) FROM changed GROUP BY 1, 2 ORDER BY 1, 2)),
	"public|public|t\npython|python|t", 'and in its own schema alone');
stop_bouncer();

# DISCARD ALL after each transaction: no plan and no setting is left, and all goes on.
$node->safe_psql('postgres', 'DROP FUNCTION log_change() CASCADE');
start_bouncer('reset', "server_reset_query = DISCARD ALL\nserver_reset_query_always = 1");
$node->safe_psql('postgres', q(CREATE FUNCTION same(job oban_job) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('tags', job.tags)$$));
is( python(q{
a, b = (connect('one', autocommit=True, prepare_threshold=None) for _ in range(2))
seen, pids = set(), set()
for i in range(15):
    with a.transaction():
        a.execute("SET oban_manage.prefix = 'python'")
        seen.add((one(a, 'SELECT worker FROM oban_get_job(%s)', [1]),
                  one(a, 'SELECT oban_cancel_job(%s)', [1]),
                  one(a, 'SELECT oban_retry_job(%s)', [1])))
    with b.transaction():
        pids.add(one(b, 'SELECT pg_backend_pid()'))
        seen.add((one(b, 'SELECT worker FROM oban_get_job(%s)', [1]),
                  one(b, 'SHOW oban_manage.prefix'),
                  one(b, 'SELECT count(*) FROM oban_update_many_jobs_with(%s, %s)',
                      [[1, 2], 'same'])))
print(len(pids), *sorted(seen, key=str))
}), "1 ('Python', True, True) ('Worker', 'public', 2)", 'DISCARD ALL between transactions');
stop_bouncer();

unlike(
	slurp_file($node->logfile),
	qr/XX000|TRAP|terminated by signal|PANIC|deadlock/,
	'the log has no crash, no internal error and no deadlock');
$node->stop;
done_testing();
