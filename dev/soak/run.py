#!/usr/bin/python3
"""Concurrency soak: workers and managing clients on one table, while backends and the server die.

    dev/soak/run.py [--seconds 60] [--seed S] [--table NAME]

Four workers fetch, work, answer, fail and snooze as both Obans do; a stager and pruner, and a
listener to the signals; 16 clients call every verb in every form, with ids in any order, most of
them the same. Every few seconds a backend is killed (-9, which restarts the server), ended, or the
server stopped at once and started again. It goes by rounds, each of one kind of table; after each,
what the actors were told is compared with an event log that triggers on the table have made:
checks.sql says what must hold.

The seed makes the actors' choices again, not their timing. Servers are made in TMPDIR, with the
programs of PostgreSQL that PATH finds.
"""

import argparse
import collections
import itertools
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import psycopg

import actors
from server import WAYS, Chaos, Server, deadlocks, findings, history

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, '../../fixtures')
# The table of a round: its schema, that of its states, fixtures, and whether it has the guard.
TABLES = {'elixir': ('ex14', 'ex14', ['ex14'], True), 'python': ('py', 'py', ['py'], False),
          'by_hash': ('by_hash', 'ex14', ['ex14', 'py', 'partitions'], True),
          'by_state': ('by_state', 'py', ['ex14', 'py', 'partitions'], False)}
FILES = {'ex14': ['-v', 'schema=ex14', '-f', f'{FIXTURES}/elixir.sql'],
         'py': ['-v', 'schema=py', '-f', f'{FIXTURES}/python.sql'],
         'partitions': ['-f', f'{FIXTURES}/partitions.sql']}
ROUND = 15  # seconds
WORKERS = 4
CLIENTS = 16
# A missing job is refused by update. 40001: a row moved to another partition, which the README says.
# A deadlock is looked at in the server's log.
EXPECTED = {'P0002', '40P01'}
EXPECTED_BY_STATE = {'P0002', '40P01', '40001'}


def act(kind, name, place, seed, until, queue):
    """What one actor does in its thread."""
    actor = getattr(actors, kind)(name, place, seed, until)
    try:
        result = actor.run()
    except Exception as error:
        result = {}
        actor.errors.append((name, type(error).__name__, str(error)))
    queue.put((kind, name, result, actor.errors, actor.lost))


def act_together(troupe, place, seed, until, queue):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threads = [threading.Thread(target=act, args=(kind, name, place, seed, until, queue))
               for kind, name in troupe]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Round:
    def __init__(self, server, number, table, seed, seconds):
        self.server = server
        self.table = table
        self.schema, types, fixtures, self.guard = TABLES[table]
        self.database = f'round_{number}'
        self.seed = f'{seed}/{number}'
        self.seconds = seconds
        server.psql('postgres', '-c', f'CREATE DATABASE {self.database}')
        server.psql(self.database, '-c', 'CREATE EXTENSION oban_manage')
        for fixture in fixtures:
            server.psql(self.database, *FILES[fixture])
        server.psql(self.database, '-v', f'schema={self.schema}', '-v', f'types={types}', '-v',
                    f'guard={str(self.guard).lower()}', '-f', f'{HERE}/round.sql',
                    '-c', f"ALTER DATABASE {self.database} SET oban_manage.prefix = '{self.schema}'",
                    '-c', f'ALTER DATABASE {self.database} SET search_path = {self.schema}, public',
                    '-c', f"ALTER DATABASE {self.database} SET client_min_messages = 'error'")
        server.psql(self.database, '-c', 'SELECT add_jobs(1500)')

    def run(self):
        """What the actors were told, by their kind."""
        place = {'conninfo': self.server.conninfo(self.database),
                 'channel': f'{self.schema}.oban_signal'}
        troupes = [[('Worker', f'worker{n}')] for n in range(WORKERS)] + \
            [[('Oban', 'oban')], [('Listener', 'listener')]] + \
            [[('Client', f'client{n}') for n in range(m, CLIENTS, 4)] for m in range(4)]
        queue = multiprocessing.Queue()
        until = time.time() + self.seconds
        processes = [multiprocessing.Process(
            target=act_together, args=(troupe, place, self.seed, until, queue)) for troupe in troupes]
        for process in processes:
            process.start()
        chaos = Chaos(self.server, self.database, random.Random(self.seed))
        chaos.run(until - 2)
        reports = [queue.get(timeout=self.seconds + 120) for troupe in troupes for _ in troupe]
        for process in processes:
            process.join()
        return reports, chaos.done, chaos.wrong

    def check(self, reports, counts):
        """What was told goes into the database, beside the log; the violations."""
        with psycopg.connect(self.server.conninfo(self.database), autocommit=True) as connection:
            connection.execute('''
                CREATE TABLE told (actor text PRIMARY KEY, form text, verb text, kind text,
                    began float8, ended float8, outcome text, named bigint[], count bigint,
                    jobs bigint[], priorities integer[]);
                CREATE TABLE executed (worker text, job bigint, attempt integer);
                CREATE TABLE heard (job bigint);
                CREATE TABLE spells (began float8, ended float8)''')
            cursor = connection.cursor()
            for kind, name, result, _, _ in reports:
                with cursor.copy('COPY told FROM STDIN') as copy:
                    for call in result.get('calls', []):
                        copy.write_row(told_row(*call))
                        counts[f'{call[1]}'] += 1
                        counts[f'calls {call[6]}'] += 1
                with cursor.copy('COPY executed FROM STDIN') as copy:
                    for job, attempt in result.get('executed', []):
                        copy.write_row((name, job, attempt))
                with cursor.copy('COPY heard FROM STDIN') as copy:
                    for job in result.get('heard', []):
                        copy.write_row((job,))
                with cursor.copy('COPY spells FROM STDIN') as copy:
                    for spell in result.get('spells', []):
                        copy.write_row(spell)
            self.server.psql(self.database, '-v', f'guard={str(self.guard).lower()}',
                             '-f', f'{HERE}/checks.sql')
            for query, what in (
                    ('SELECT count(*) FROM events', 'events'),
                    ('SELECT count(*) FROM executed', 'executions'),
                    ('SELECT count(*) FROM heard', 'signals heard'),
                    ("SELECT count(*) FROM happened WHERE by = 'cancel' AND old_state = 'executing'",
                     'executing jobs cancelled'),
                    ("SELECT count(*) FROM happened WHERE by = 'retry'", 'jobs retried'),
                    ("SELECT count(*) FROM happened WHERE by = 'delete'", 'jobs deleted'),
                    ("SELECT count(*) FROM happened WHERE by = 'update'", 'jobs updated')):
                counts[what] += connection.execute(query).fetchone()[0]
            wrong = []
            for view, found in findings(connection):
                counts['checks'] += 1
                wrong += [(view, job, text, history(connection, job)) for job, text in found]
        expected = EXPECTED_BY_STATE if self.table == 'by_state' else EXPECTED
        for kind, name, _, errors, _ in reports:
            for what, state, message in errors:
                counts[f'error {state}'] += 1
                if state not in expected or (kind != 'Client' and state == 'P0002'):
                    wrong.append((f'no error {state}', None, f'{name}, {what}: {message}', []))
        return wrong


def told_row(actor, form, verb, kind, began, ended, outcome, named, told):
    jobs = priorities = None
    count = told if kind == 'count' else None if told is None else len(told)
    if told is not None and kind == 'outcomes':
        jobs = told
    elif told is not None and kind == 'jobs':
        jobs, priorities = [row[0] for row in told], [row[1] for row in told]
    return actor, form, verb, kind, began, ended, outcome, named, count, jobs, priorities


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--seconds', type=int, default=60)
    parser.add_argument('--seed', default=str(int(time.time())))
    parser.add_argument('--table', choices=TABLES)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so stop the server
    print(f'seed {options.seed}', flush=True)
    names = itertools.cycle([options.table] if options.table else TABLES)
    counts = collections.Counter()
    failed = 0
    directory = tempfile.mkdtemp(prefix='soak.')
    server = Server(directory)
    try:
        for number in range(max(1, options.seconds // ROUND)):
            table = next(names)
            one = Round(server, number, table, options.seed, ROUND)
            reports, chaos, at_once = one.run()
            counts.update(chaos)
            counts['connections lost'] += sum(report[4] for report in reports)
            wrong = at_once + one.check(reports, counts)
            print(f'{table}: round {number + 1} ' + (
                f'FAILED, {len(wrong)} findings' if wrong else
                f'passed, {sum(chaos[way] for way in WAYS)} interruptions'), flush=True)
            for what, job, text, rows in wrong[:20]:
                print(f'    FAILED: {what}: {f"job {job}, " if job else ""}{text}')
                for row in rows:
                    print(f'        {row}')
            failed += len(wrong)
            server.psql('postgres', '-c', f'DROP DATABASE {one.database} WITH (FORCE)')
        with open(server.log, encoding='utf8', errors='replace') as file:
            log = file.read()
        counts['deadlocks of SKIP LOCKED'], bad = deadlocks(log)
        # They are rare, and whatever a client is told of is in the log.
        if not counts['error 40P01'] - len(bad) <= counts['deadlocks of SKIP LOCKED'] <= number + 1:
            bad.append('deadlocks: ' + '\n'.join(re.findall('.*deadlock.*', log)))
        bad += [line for line in log.split('\n') if 'PANIC' in line or 'TRAP' in line
                or ('terminated by signal' in line and 'signal 9' not in line)]
        for text in bad:
            failed += 1
            print(f'FAILED: the server says: {text.strip()}')
    finally:
        subprocess.run(['pg_ctl', '-D', server.data, '-m', 'immediate', 'stop'], check=False,
                       stdout=subprocess.DEVNULL)
        shutil.rmtree(directory, ignore_errors=True)
    for what, count in sorted(counts.items()):
        print(f'    {what}: {count}')
    # What never happened was not tested.
    must = [form[0] for form in actors.FORMS] + [
        *WAYS, 'executions', 'checks in between', 'signals heard',
        'executing jobs cancelled', 'jobs retried', 'jobs deleted', 'jobs updated', 'calls unknown']
    for what in must:
        if options.seconds >= 60 and not counts[what]:
            failed += 1
            print(f'FAILED: never: {what}')
    print(f'{options.seconds} s, {counts["events"]} events, {counts["executions"]} executions, '
          f'{counts["calls told"]} calls told, {counts["connections lost"]} connections lost, '
          f'seed {options.seed}')
    sys.exit(failed != 0)


if __name__ == '__main__':
    main()
