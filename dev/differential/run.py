#!/usr/bin/python3
"""Differential test: random calls against the extension and against a model of the contract.

    dev/differential/run.py [--calls N] [--seed S] [--table NAME [--case N]]

A case is a set of random jobs and some calls upon them, one after the other; after each call the
rows, the result or the SQLSTATE, the notifications and what the callables were called with are the
model's, or the case is shrunk to the smallest jobs and call that still differ, and printed. The
seed, the table and the number of the case make the same case again.

It wants a server with the extension (as libpq finds it) and makes its own databases there.
"""

import argparse
import collections
import json
import math
import multiprocessing
import os
import random
import subprocess
import sys
import time

import psycopg
from psycopg.types.json import Jsonb

import generate
from parts import quote, quote_name
from shrink import shrink

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, '../../fixtures')
ALL_STATES = generate.STATES
TABLES = {
    # Two dialects, the oldest and the newest of the one, and two kinds of partitions. The names
    # are odd, and the longest leaves no room for a channel.
    'ex14': {'schema': 'Odd "Jobs', 'states': ALL_STATES, 'small': False, 'nullable': True},
    'ex9': {'schema': 'ex9', 'states': ALL_STATES[:-1], 'small': False, 'nullable': True},
    'py': {'schema': 'py', 'states': ALL_STATES, 'small': True, 'nullable': False},
    'by_hash': {'schema': 'h' * 54, 'states': ALL_STATES, 'small': False, 'nullable': True,
                'partitions': ['part_0', 'part_1', 'part_2', 'part_3']},
    'by_state': {'schema': 'by_state', 'states': ALL_STATES, 'small': True, 'nullable': False,
                 'partitions': ['live', 'suspended', 'completed', 'discarded', 'cancelled']},
}
CALLS_A_CASE = 6
CASES_UNTIL_LARGE = 500  # every so many there are more jobs than are locked at once,
CALLS_A_LARGE_CASE = 2   # and these calls
CASES_A_CLEANING = 60
NO_TEXT = 'refused by the model'


def psql(database, *arguments):
    subprocess.run(['psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', database, *arguments],
                   check=True, stdout=subprocess.DEVNULL)


def prepare(name, database):
    """A database with one kind of jobs table, its twin and the model."""
    schema = TABLES[name]['schema']
    subprocess.run(['dropdb', '--if-exists', database], check=True, stderr=subprocess.DEVNULL)
    subprocess.run(['createdb', database], check=True)
    base = 'py' if name in ('py', 'by_state') else 'ex14' if name == 'by_hash' else name
    dialect = ['-f', f'{FIXTURES}/python.sql'] if base == 'py' else \
        ['-v', f'version={base[2:]}', '-f', f'{FIXTURES}/elixir.sql']
    psql(database, '-c', 'CREATE EXTENSION oban_manage')
    if name in ('by_hash', 'by_state'):
        for setting in (['-v', 'schema=py', '-f', f'{FIXTURES}/python.sql'],
                        ['-v', 'schema=ex14', '-f', f'{FIXTURES}/elixir.sql'],
                        ['-f', f'{FIXTURES}/partitions.sql']):
            psql(database, *setting)
        if schema != name:
            psql(database, '-c', f'ALTER SCHEMA {name} RENAME TO "{schema}"')
    else:
        psql(database, '-v', f'schema={schema}', *dialect)
    other = ['-v', 'version=14', '-f', f'{FIXTURES}/elixir.sql'] if base == 'py' else \
        ['-f', f'{FIXTURES}/python.sql']
    psql(database, '-v', 'schema=other', *other)
    for file in ('play', 'model_verbs', 'model_updates', 'model_filters', 'model_bulk',
                 'model_batches', 'model_triggers'):
        psql(database, '-v', f'schema={schema}', '-f', f'{HERE}/{file}.sql')
    with psycopg.connect(dbname=database, autocommit=True) as c:
        for setting in ('differ.prefix', 'oban_manage.prefix'):
            c.execute(psycopg.sql.SQL('ALTER DATABASE {} SET {} = {}').format(
                psycopg.sql.Identifier(database), psycopg.sql.Identifier(*setting.split('.')),
                psycopg.sql.Literal(schema)))
        c.execute(f'ALTER DATABASE {database} SET client_min_messages = warning')


class Referee:
    """One connection that plays cases."""

    def __init__(self, name, database):
        self.table = TABLES[name]
        self.schema = quote_name(self.table['schema'])
        self.database = database
        self.connect()

    def connect(self):
        self.connection = psycopg.connect(dbname=self.database, autocommit=True)
        self.heard = []
        self.connection.add_notify_handler(lambda n: self.heard.append((n.channel, n.payload)))
        self.warned = []
        self.connection.add_notice_handler(lambda n: self.warned.append(
            (n.sqlstate, n.message_primary)))
        self.listen()

    def listen(self):
        own = self.table['schema']
        for channel in ('model', 'done', *(
                f'{schema}.oban_{name}' for schema in (own, own.lower(), 'other', 'public', 'twin')
                for name in ('signal', 'insert'))):
            if len(channel.encode()) < 64:
                self.connection.execute('LISTEN "' + channel.replace('"', '""') + '"')

    def set_jobs(self, jobs):
        self.connection.execute('SELECT differ.set_jobs(%s)', [Jsonb(jobs)], prepare=True)
        self.hear()

    def clean(self):
        self.connection.execute('SELECT differ.clean()')

    def rows(self):
        return self.connection.execute("SELECT differ.rows() -> 'wanted'").fetchone()[0] or []

    def hear(self):
        heard, self.heard[:] = list(self.heard), []
        return heard

    def call_alone(self, text, settings):
        """Runs a CALL, which commits: what it gave, in SQL, and which jobs it warned of."""
        warned = len(self.warned)
        for name, value in settings.items():
            self.connection.execute('SELECT set_config(%s, %s, false)', [name, value])
        try:
            affected = self.connection.execute(text).fetchone()[0]
            given = f'SELECT {affected}::bigint AS affected'
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
            given = f"SELECT model.refuse('{error.sqlstate}')"
        finally:
            for name in settings:
                self.connection.execute(f'RESET {name}')
        return given, [text for code, text in self.warned[warned:] if code == '01000']

    def play(self, call):
        """What the call came to: SQLSTATE, whether it gave something, what differs or None."""
        try:
            return self.play_alive(call)
        except psycopg.OperationalError as error:
            self.connection.close()
            self.wait_for_server()
            return None, False, {'got result': f'the connection was lost: {error}'}

    def wait_for_server(self):
        for _ in range(120):
            try:
                return self.connect()
            except psycopg.OperationalError:
                time.sleep(0.5)
        raise RuntimeError('the server does not come back')

    def play_alive(self, call):
        got = call.render(call.got, 'public', self.schema)
        wanted = call.render(call.wanted, 'model', 'twin')
        self.warned.clear()
        named, to_name = [], []
        skips = 'skip_refused' in wanted
        no_table = 'prefix =>' in wanted and f"prefix => {quote(self.table['schema'])}" not in wanted
        if wanted.startswith('CALL '):
            since = self.connection.execute('SELECT clock_timestamp()').fetchone()[0]
            (wanted, to_name), (got, named) = (
                self.call_alone(text, call.settings) for text in (wanted, got))
            self.connection.execute('SELECT differ.same_times(%s)', [since])
        code, changed, differs = self.connection.execute(
            'SELECT * FROM differ.play(%s, %s, %s, %s)',
            [got, wanted, Jsonb(call.settings), no_table], prepare=True).fetchone()
        heard = self.hear()
        if not heard or heard[-1][0] != 'done':
            raise RuntimeError(f'no sentinel among {heard}')
        told = sorted(f'{channel} {payload}' for channel, payload in heard[:-1]
                      if channel != 'model')
        payloads = [payload for channel, payload in heard if channel == 'model']
        to_tell = sorted(payload for payload in payloads if payload != 'warned')
        # Of a channel whose name is too long; with an error it comes all the same, or not, and so it
        # does of jobs that are refused afterwards.
        warned = any(code == '42622' for code, _ in self.warned)
        to_warn = 'warned' in payloads
        if warned != to_warn and code == '00000' and not (warned and skips):
            told, to_tell = [*told, f'warned: {warned}'], [*to_tell, f'warned: {to_warn}']
        if not same_warnings(named, to_name):
            told, to_tell = told + named, to_tell + to_name
        if told != to_tell:
            differs = {**(differs or {}), 'got notifications': told,
                       'wanted notifications': to_tell}
        return code, changed or bool(told), differs


def same_warnings(got, wanted):
    """What the model refuses by itself has no text."""
    return len(got) == len(wanted) and all(
        one == other or (other.endswith(NO_TEXT) and one.startswith(other.removesuffix(NO_TEXT)))
        for one, other in zip(got, wanted))


def make_case(seed, name, number):
    rng = random.Random(f'{seed}/{name}/{number}')
    generator = generate.Generator(rng, TABLES[name])
    if number % CASES_UNTIL_LARGE == CASES_UNTIL_LARGE - 1:
        return generator.large_case(CALLS_A_LARGE_CASE)
    jobs = generator.jobs()
    return jobs, [generator.call(jobs) for _ in range(CALLS_A_CASE)]


def work(name, seed, cases, database):
    """Plays cases on one table; the counts of what they came to, and how it failed."""
    counts = collections.Counter()
    where = f'--seed {seed} --table {name}'
    try:
        referee = Referee(name, database)
        for n, number in enumerate(cases):
            where = f'--seed {seed} --table {name} --case {number}'
            if n % CASES_A_CLEANING == 0:
                referee.clean()
            jobs, calls = make_case(seed, name, number)
            referee.set_jobs(jobs)
            for at, call in enumerate(calls):
                code, changed, differs = referee.play(call)
                if differs:
                    return counts, f'{where}\n' + shrink(referee, jobs, calls[:at + 1], differs)
                counts[call.kind, 'changed' if changed and code == '00000' else
                       'nothing' if code == '00000' else code] += 1
    except Exception as error:  # also a server that crashed
        return counts, f'{where}\n{type(error).__name__}: {error}'
    return counts, None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--calls', type=int, default=50000)
    parser.add_argument('--seed', default=str(int(time.time())))
    parser.add_argument('--table', choices=TABLES)
    parser.add_argument('--case', type=int)
    options = parser.parse_args()
    names = [options.table] if options.table else list(TABLES)
    a_case = CALLS_A_CASE - (CALLS_A_CASE - CALLS_A_LARGE_CASE) / CASES_UNTIL_LARGE
    cases = [options.case] if options.case is not None else \
        range(math.ceil(options.calls / (a_case * len(names))))
    print(f'seed {options.seed}', flush=True)

    start = time.monotonic()
    counts, failed = collections.Counter(), 0
    with multiprocessing.Pool(len(os.sched_getaffinity(0))) as pool:
        databases = {name: f'differ_{name}' for name in names}
        pool.starmap(prepare, databases.items())
        waiting = [(name, pool.apply_async(work, (name, options.seed, cases, databases[name])))
                   for name in names]
        for name, result in waiting:
            found, failure = result.get()
            counts += found
            calls = sum(found.values())
            print(f'{name}: {calls} calls agree' + (', then one differs' if failure else ''),
                  flush=True)
            if failure:
                failed += 1
                print(f'DIFFERS: again with {failure}', flush=True)

    outcomes = collections.defaultdict(collections.Counter)
    for (kind, outcome), n in counts.items():
        outcomes[kind][outcome] += n
    for kind in sorted(outcomes):
        print(f'    {kind}: ' + ', '.join(f'{o} {n}' for o, n in sorted(outcomes[kind].items())))
    print(f'{sum(counts.values())} calls in {time.monotonic() - start:.0f} s, seed {options.seed}')
    # A test that hardly ever sees a change, or never anything else, tests nothing.
    if not failed and not options.table and options.calls >= 10000:
        for kind in sorted(outcomes):
            if outcomes[kind]['changed'] < 0.1 * outcomes[kind].total() or len(outcomes[kind]) < 2:
                failed += 1
                print(f'FAILED: {kind} came to nothing but {dict(outcomes[kind])}')
    sys.exit(failed != 0)


if __name__ == '__main__':
    main()
