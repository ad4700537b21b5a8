#!/usr/bin/python3
"""Concurrency soak: workers and managing clients on one table, while backends and the server die.

    dev/soak/run.py [--seconds 60] [--seed S] [--table NAME] [--no-guard]

Four workers fetch, work, answer, fail and snooze by the statements of Oban for Elixir, of Oban for
Python, or of both. A signal kills a run of Oban for Elixir, whose worker then answers for it. Beside
them are the stagers, pruners, rescues and bulk calls of both, and a listener to the signals. 16
clients call every verb in every form, with ids in any order, most of them the same. One more cancels
running jobs and retries them, mostly in one transaction. The jobs have the guard.

Every few seconds a backend is killed (-9, which restarts the server), ended, or the server stopped
at once and started again. It goes by rounds, each of one kind of table; all along an event log that
triggers on the table make is looked at (round.sql says what must hold), and after each round what
the actors were told is compared with it (checks.sql).

Of 600 seconds or more the rounds are longer, and interrupted less often, so that sessions last.

Without the guard (--no-guard) cancelled jobs run and retries are lost: then the soak must fail.

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
import traceback

import psycopg

import actors
from server import WAYS, Chaos, Server, deadlocks, findings, tail

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, '../../fixtures')
# The table of a round: its schema, that of its states, fixtures, and whose statements it sees.
TABLES = {'elixir': ('ex14', 'ex14', ['ex14'], ['elixir']),
          'python': ('py', 'py', ['py'], ['python']),
          'by_hash': ('by_hash', 'ex14', ['ex14', 'py', 'partitions'], actors.OBANS),
          'by_state': ('by_state', 'py', ['ex14', 'py', 'partitions'], actors.OBANS)}
FILES = {'ex14': ['-v', 'schema=ex14', '-f', f'{FIXTURES}/elixir.sql'],
         'py': ['-v', 'schema=py', '-f', f'{FIXTURES}/python.sql'],
         'partitions': ['-f', f'{FIXTURES}/partitions.sql']}
ROUND, LONG_ROUND = 15, 150  # seconds
WORKERS = 4
CLIENTS = 16
ENOUGH = 1000  # calls that were answered, for each form to have had its turn
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
        actor.errors.append((name, type(error).__name__, traceback.format_exc()))
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
    def __init__(self, server, number, table, seed, long, seconds, guard):
        self.server = server
        self.table = table
        self.schema, types, fixtures, self.obans = TABLES[table]
        self.database = f'round_{number}'
        self.seed = f'{seed}/{number}'
        self.long = long
        self.seconds = seconds
        server.psql('postgres', '-c', f'CREATE DATABASE {self.database}')
        server.psql('postgres', '-c', f"ALTER DATABASE {self.database} SET timezone = 'UTC'")
        server.psql(self.database, '-c', 'CREATE EXTENSION oban_manage')
        for fixture in fixtures:
            server.psql(self.database, *FILES[fixture])
        server.psql(self.database, '-v', f'schema={self.schema}', '-v', f'types={types}', '-v',
                    f'guard={str(guard).lower()}', '-v', f'workers={FIXTURES}/workers.sql',
                    '-f', f'{HERE}/round.sql',
                    '-c', f"ALTER DATABASE {self.database} SET oban_manage.prefix = '{self.schema}'",
                    '-c', f'ALTER DATABASE {self.database} SET search_path = {self.schema}, public',
                    '-c', f"ALTER DATABASE {self.database} SET client_min_messages = 'error'")
        server.psql(self.database, '-c', 'SELECT add_jobs(1500)')

    def run(self):
        """What the actors were told, by their kind."""
        place = {'conninfo': self.server.conninfo(self.database), 'prefix': self.schema}
        obans = [self.obans[n % len(self.obans)] for n in range(WORKERS)]
        troupes = [[(f'{oban.capitalize()}Worker', f'worker{n}_{oban}')]
                   for n, oban in enumerate(obans)] + \
            [[(part, f'{part.lower()}_{oban}') for part in ('Stager', 'Pruner', 'Rescuer', 'Manager')]
             for oban in self.obans] + \
            [[('Listener', 'listener'), ('Adder', 'adder'), ('Restarter', 'restarter'),
              ('Watcher', 'watcher')]] + \
            [[('Client', f'client{n}') for n in range(m, CLIENTS, 4)] for m in range(4)]
        queue = multiprocessing.Queue()
        until = time.time() + self.seconds - 2  # then the listener hears the rest
        processes = [multiprocessing.Process(
            target=act_together, args=(troupe, place, self.seed, until, queue), daemon=True)
            for troupe in troupes]
        for process in processes:
            process.start()
        chaos = Chaos(self.server, self.database, random.Random(self.seed), self.long)
        chaos.run(until - 2)
        reports = [queue.get(timeout=self.seconds + 120) for troupe in troupes for _ in troupe]
        for process in processes:
            process.join()
        return reports, chaos.done, chaos.wrong

    def check(self, reports, counts):
        """What was told goes into the database, beside the log; the violations."""
        with psycopg.connect(self.server.conninfo(self.database), autocommit=True) as connection:
            connection.execute('''
                CREATE TABLE told (actor text PRIMARY KEY, client text, form text, verb text, kind text,
                    began float8, ended float8, snapshot pg_snapshot, outcome text, sqlstate text,
                    quiet boolean, named bigint[], filter jsonb, changes jsonb, count bigint,
                    jobs bigint[], answers jsonb);
                CREATE TABLE executed (worker text, job bigint, attempt integer);
                CREATE TABLE unanswered (worker text, job bigint, answer text);
                CREATE TABLE asked (snapshot pg_snapshot, job bigint, cancelled boolean);
                CREATE TABLE heard (channel text, payload text);
                CREATE TABLE spells (began float8, ended float8)''')
            cycles = []
            for _, name, result, _, _ in reports:
                for key in ('executed', 'unanswered'):
                    result[key] = [(name, *row) for row in result.get(key, [])]
                counts.update(result.get('done', {}))
                cycles += result.get('cycles', [])
                for call in result.get('calls', []):
                    counts[call.form] += 1
                    counts[f'calls {call.outcome}'] += 1
                for table, key in (('told', 'calls'), ('executed', 'executed'), ('asked', 'asked'),
                                   ('unanswered', 'unanswered'), ('heard', 'heard'),
                                   ('spells', 'spells')):
                    with connection.cursor().copy(f'COPY {table} FROM STDIN') as copy:
                        for row in result.get(key, []):
                            copy.write_row(row)
            self.server.psql(self.database, '-f', f'{HERE}/checks.sql')
            for query, what in (
                    ('events', 'events'), ('executed', 'executions'),
                    ("events WHERE by = 'cancel' AND old_state = 'executing'",
                     'executing jobs cancelled'),
                    ("events WHERE by = 'worker' AND old_state = 'cancelled'",
                     'answers to a cancelled job'),
                    # The errors of a worker's report, or its meta, are all that changed.
                    ("events WHERE by = 'worker' AND old_state = new_state AND old_state IN "
                     "('available', 'scheduled')", 'answers to a retried job'),
                    ("named WHERE NOT touched AND outcome = 'told' AND verb IS NOT NULL AND acts(verb, state)",
                     'jobs that had to change'),
                    ("outcomes WHERE outcome = 'refused'", 'jobs refused'),
                    ("outcomes WHERE outcome = 'locked'", 'jobs locked')):
                counts[what] += connection.execute(f'SELECT count(*) FROM {query}').fetchone()[0]
            counts.update(dict(connection.execute(
                "SELECT format('changed by %s', form), count(*) FROM events WHERE form IS NOT NULL "
                "GROUP BY form UNION ALL SELECT format('heard %s', channel), count(*) FROM heard "
                'GROUP BY channel').fetchall()))
            wrong = findings(connection) + [
                ('no call of ours waits for itself', None, cycle, []) for cycle in cycles]
        # What an actor could not tell for an error of its own would be missed by all other checks.
        expected = EXPECTED_BY_STATE if self.table == 'by_state' else EXPECTED
        for kind, name, _, errors, _ in reports:
            for what, state, message in errors:
                counts[f'error {state}'] += 1
                if state not in expected or (kind != 'Client' and state == 'P0002'):
                    wrong.insert(0, (f'no error {state}', None, f'{name}, {what}: {message}', []))
        return wrong


def judge_log(log, counts):
    """What the server's log has of a round that it must not have."""
    with_oban, tried_again, bad = deadlocks(log)
    counts["deadlocks with an Oban's statements"] += with_oban
    counts['deadlocks that were tried again'] += tried_again
    bad += [line for line in log.split('\n') if 'PANIC' in line or 'TRAP' in line
            or ('terminated by signal' in line and 'signal 9' not in line)]
    return [('the server says', None, text, []) for text in bad]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--seconds', type=int, default=60)
    parser.add_argument('--seed', default=str(int(time.time())))
    parser.add_argument('--table', choices=TABLES)
    parser.add_argument('--no-guard', dest='guard', action='store_false')
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so stop the server
    print(f'seed {options.seed}', flush=True)
    names = itertools.cycle([options.table] if options.table else TABLES)
    counts = collections.Counter()
    failed = 0
    long = options.seconds >= 600
    directory = tempfile.mkdtemp(prefix='soak.')
    server = Server(directory)
    try:
        for number in itertools.count():
            # A round counts as its time, so that each table has one of the same time.
            left = options.seconds - number * (LONG_ROUND if long else ROUND)
            if number and left < ROUND:
                break
            table = next(names)
            one = Round(server, number, table, options.seed, long,
                        min(LONG_ROUND, left) if long else ROUND, options.guard)
            reports, chaos, wrong = one.run()
            counts.update(chaos)
            counts['connections lost'] += sum(report[4] for report in reports)
            log = server.take_log()
            wrong = one.check(reports, counts) + wrong + judge_log(log, counts)
            print(f'{table}: round {number + 1} ' + (
                f'FAILED, {len(wrong)} findings' if wrong else
                f'passed, {sum(chaos[way] for way in WAYS)} interruptions'), flush=True)
            for what, job, text, rows in wrong[:20]:
                print(f'    FAILED: {what}: {f"job {job}, " if job else ""}{text}')
                for row in rows:
                    print(f'        {row}')
            if wrong:
                print(f'    the end of the log of the server:\n{tail(log)}', flush=True)
            failed += len(wrong)
            server.psql('postgres', '-c', f'DROP DATABASE {one.database} WITH (FORCE)')
    finally:
        subprocess.run(['pg_ctl', '-D', server.data, '-m', 'immediate', 'stop'], check=False,
                       stdout=subprocess.DEVNULL)
        shutil.rmtree(directory, ignore_errors=True)
    for what, count in sorted(counts.items()):
        print(f'    {what}: {count}')
    # What never happened was not tested; where the machine is too busy for that, it says so.
    must = [form.name for form in actors.FORMS] + [
        f'changed by {form.name}' for form in actors.FORMS if form.verb and form.kind != 'dry_run'] + [
        *WAYS, 'executions', 'checks in between', 'heard oban_signal', 'heard oban_insert',
        'executing jobs cancelled', 'jobs that had to change', 'jobs refused',
        'jobs locked', 'calls unknown', 'calls rolled back',
        'cancel restart', 'retry restart', 'runs killed', 'runs answered twice', 'runs told',
        'late answers', 'answers to a cancelled job', 'answers to a retried job', *(
            f'{oban} {what}' for oban in actors.OBANS for what in (
                'stage', 'prune', 'rescue', 'cancel_all', 'retry_all', 'delete_all',
                'answers complete', 'answers fail', 'answers snooze', 'answers discard',
                'answers stop')), 'elixir answers snooze_before']
    if options.seconds >= 60 and counts['calls told'] < ENOUGH:
        failed += 1
        print(f'FAILED: only {counts["calls told"]} calls, where {ENOUGH} make a test')
        must = []
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
