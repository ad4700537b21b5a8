"""The server of the soak, and what befalls it."""

import collections
import itertools
import os
import re
import signal
import subprocess
import time

import psycopg

from actors import OURS

WAYS = ['backend killed', 'backend ended', 'server stopped at once']


class Server:
    def __init__(self, directory):
        self.directory = directory
        self.data = f'{directory}/data'
        self.log = f'{directory}/server.log'
        self.log_taken = 0
        self.socket = f'{directory}/socket'
        os.mkdir(self.socket, 0o700)
        self.call('initdb', '--no-sync', '--auth=trust', '--username=postgres', '--encoding=UTF8',
                  '--locale=C.UTF-8', '-D', self.data)
        with open(f'{self.data}/postgresql.conf', 'a', encoding='utf8') as conf:
            # What is told must last through a crash of the server, not of the machine.
            conf.write(f"listen_addresses = ''\nunix_socket_directories = '{self.socket}'\n"
                       "fsync = off\nmax_connections = 60\ndeadlock_timeout = '200ms'\n"
                       "log_min_messages = warning\nlog_line_prefix = '%m [%p] (%a) '\n"
                       "log_lock_waits = on\nlog_connections = on\nlog_min_error_statement = panic\n"
                       "jit = off\n")
        self.start()

    def call(self, *command):
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def start(self):
        try:
            self.call('pg_ctl', '-D', self.data, '-l', self.log, '-w', 'start')
        except subprocess.CalledProcessError:
            print(f'FAILED: the server does not start:\n{tail(self.take_log())}', flush=True)
            raise

    def stop(self, mode):
        self.call('pg_ctl', '-D', self.data, '-m', mode, 'stop')

    def take_log(self):
        """What the server has said since this was asked last."""
        with open(self.log, encoding='utf8', errors='replace') as file:
            file.seek(self.log_taken)
            said = file.read()
            self.log_taken = file.tell()
        return said

    def conninfo(self, database):
        return f"host='{self.socket}' port=5432 user=postgres dbname={database}"

    def psql(self, database, *arguments):
        self.call('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', self.conninfo(database),
                  *arguments)


class Chaos:
    """Kills backends and stops the server, until a time."""

    def __init__(self, server, database, rng, long):
        self.server = server
        self.database = database
        self.rng = rng
        # Seconds until a check, and checks until something is killed.
        self.pause, self.checks = (20, 2) if long else (2, 1)
        self.done = collections.Counter()
        self.wrong = []

    def run(self, until):
        ways = itertools.cycle(WAYS)
        time.sleep(2)
        for number in itertools.count():
            if number % self.checks == 0:
                way = next(ways)
                try:
                    self.done[way] += getattr(self, way.replace(' ', '_'))()
                except psycopg.Error:
                    pass  # the server is not up yet
            time.sleep(max(0, min(self.pause * self.rng.uniform(0.6, 1.2), until - time.time())))
            if time.time() >= until:
                break
            self.check()

    def check(self):
        """What can be judged while the others go on."""
        try:
            with psycopg.connect(self.server.conninfo(self.database)) as connection:
                self.wrong += findings(connection)
            self.done['checks in between'] += 1
        except psycopg.OperationalError:
            pass  # still in recovery

    def a_backend(self, connection):
        return connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'client%' "
            "AND state = 'active' ORDER BY random() LIMIT 1").fetchone()

    def backend_killed(self):
        with psycopg.connect(self.server.conninfo(self.database)) as connection:
            found = self.a_backend(connection)
        if found:
            try:
                os.kill(found[0], signal.SIGKILL)
            except ProcessLookupError:  # it has ended by itself
                return False
        return found is not None

    def backend_ended(self):
        with psycopg.connect(self.server.conninfo(self.database)) as connection:
            found = self.a_backend(connection)
            if found:
                connection.execute('SELECT pg_terminate_backend(%s)', found)
        return found is not None

    def server_stopped_at_once(self):
        self.server.stop('immediate')
        self.server.start()
        return True


def findings(connection):
    """The first few that violate each check there is by now: check, job, what, and what led to it."""
    found = []
    for (view,) in connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'checks'::regnamespace "
            'ORDER BY oid').fetchall():
        found += [(view, job, text, history(connection, job, text)) for job, text in connection.execute(
            f'SELECT job, wrong FROM checks."{view}" LIMIT 3').fetchall()]
    return found


def history(connection, job, text):
    """The job's last events, and what the client was told whose call is spoken of."""
    rows = connection.execute(
        'SELECT seq, actor, old_state, new_state, old_attempt, new_attempt, xid::text, at::text '
        'FROM events WHERE job = %s ORDER BY seq DESC LIMIT 15', [job]).fetchall()[::-1]
    call = re.search(r'client\d+/\d+', text)
    if call and connection.execute("SELECT to_regclass('told')").fetchone()[0]:
        rows += connection.execute(
            "SELECT left(to_jsonb(t)::text, 2000) FROM told t WHERE actor LIKE %s || ' %%'",
            [call[0]]).fetchall()
    return rows


def tail(log):
    return '\n'.join(line[:300] for line in log.split('\n')[-40:])


def deadlocks(log):
    """The deadlocks in the server's log: how many have a statement of an Oban in them, how many do not
    say so, and the texts of those between our own calls.

    Both Obans lock in orders of their own: Elixir's stager begins with the newest job, Python's
    answers go by when they came, and bulk calls have no order. So one can deadlock with any statement
    that locks several jobs. Two calls of ours never do. A call that tries again after a deadlock
    leaves in the log only that there was one, and whom it waited for: a watcher looks at those.
    """
    names = {}  # the actors, by process
    found = []  # [processes, text]
    last = {}  # of a process, the deadlock that it has found and not told yet
    for entry in re.split(r'\n(?=\d{4}-\d\d-\d\d )', log):
        parts = re.match(r'\S+ \S+ \S+ \[(\d+)\] \((.*?)\) (\w+):  (.*)', entry, re.DOTALL)
        if not parts:
            continue
        process, name, level, text = parts.groups()
        connected = re.search(r'^connection authorized: .* application_name=(\w+)', text)
        if connected:
            names[process] = connected[1]
        if level == 'LOG' and 'detected deadlock while waiting for' in text:
            last[process] = [{process}, entry]
            found.append(last[process])
        elif level == 'DETAIL' and process in last and text.startswith('Process'):
            # First whom it waits for; then, unless it tries again, all of them, with their statements.
            last[process][0].update(re.findall(r'Process (\d+) waits', text))
            last[process][1] += '\n' + entry
        elif level in ('LOG', 'ERROR', 'FATAL') and text != 'deadlock detected':
            last.pop(process, None)
    with_oban, tried_again, ours = 0, 0, []
    for processes, text in found:
        makers = {names.get(process, process) for process in processes}
        if 'waits for' not in text:
            tried_again += 1
        elif all(maker.startswith(OURS) for maker in makers):
            ours.append(f'deadlock of {", ".join(sorted(makers))}: {text}')
        else:
            with_oban += 1
    return with_oban, tried_again, ours
