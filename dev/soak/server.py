"""The server of the soak, and what befalls it."""

import collections
import itertools
import os
import re
import signal
import subprocess
import time

import psycopg

WAYS = ['backend killed', 'backend ended', 'server stopped at once']


class Server:
    def __init__(self, directory):
        self.directory = directory
        self.data = f'{directory}/data'
        self.log = f'{directory}/server.log'
        self.socket = f'{directory}/socket'
        os.mkdir(self.socket, 0o700)
        self.call('initdb', '--no-sync', '--auth=trust', '--username=postgres', '--encoding=UTF8',
                  '--locale=C.UTF-8', '-D', self.data)
        with open(f'{self.data}/postgresql.conf', 'a', encoding='utf8') as conf:
            # What is told must last through a crash of the server, not of the machine.
            conf.write(f"listen_addresses = ''\nunix_socket_directories = '{self.socket}'\n"
                       "fsync = off\nmax_connections = 60\ndeadlock_timeout = '200ms'\n"
                       "log_min_messages = warning\nlog_line_prefix = '%m %p %a '\n"
                       "log_lock_waits = on\n")
        self.start()

    def call(self, *command):
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def start(self):
        self.call('pg_ctl', '-D', self.data, '-l', self.log, '-w', 'start')

    def stop(self, mode):
        self.call('pg_ctl', '-D', self.data, '-m', mode, 'stop')

    def conninfo(self, database):
        return f"host='{self.socket}' port=5432 user=postgres dbname={database}"

    def psql(self, database, *arguments):
        self.call('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', self.conninfo(database),
                  *arguments)


class Chaos:
    """Kills backends and stops the server, until a time."""

    def __init__(self, server, database, rng):
        self.server = server
        self.database = database
        self.rng = rng
        self.done = collections.Counter()
        self.wrong = []

    def run(self, until):
        ways = itertools.cycle(WAYS)
        time.sleep(2)
        while time.time() < until:
            way = next(ways)
            try:
                self.done[way] += getattr(self, way.replace(' ', '_'))()
            except psycopg.Error:
                pass  # the server is not up yet
            time.sleep(self.rng.uniform(1, 2))
            self.check()
            time.sleep(self.rng.uniform(0.5, 1.5))

    def check(self):
        """What can be judged while the others go on."""
        try:
            with psycopg.connect(self.server.conninfo(self.database)) as connection:
                for view, found in findings(connection):
                    self.wrong += [(view, job, text, history(connection, job)) for job, text in found]
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
            os.kill(found[0], signal.SIGKILL)
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
    """Each check there is by now, with the first few that violate it."""
    for (view,) in connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'checks'::regnamespace "
            'ORDER BY oid').fetchall():
        yield view, connection.execute(f'SELECT job, wrong FROM checks."{view}" LIMIT 3').fetchall()


def history(connection, job):
    return [] if job is None else connection.execute(
        'SELECT * FROM events WHERE job = %s ORDER BY seq', [job]).fetchall()


def deadlocks(log):
    """The deadlocks in the server's log: how many may be SKIP LOCKED's, and the texts of the others.

    PostgreSQL's SKIP LOCKED does wait where an update commits just as the row is looked at and
    somebody else has locked the new version by then: what fetches or stages several jobs can so
    deadlock with any statement that locks several, ours or not. Procedures try again after a
    deadlock; the error is not in the log then, only that there was one (log_lock_waits).
    """
    told = re.findall(r'ERROR:  deadlock detected\n[^\n]*DETAIL:(.*?)(?=\n\d{4}-)', log, re.DOTALL)
    others = [d for d in told if not re.search(r'public\.(fetch|stage|prune|rescue)\(', d)]
    return log.count('detected deadlock while waiting for') - len(others), others
