#!/usr/bin/python3
"""Fuzz: random and mutated inputs, none of which may crash, hang, leak or raise an internal error.

    dev/fuzz/run.py [--inputs N] [--seed S]

JSON for changes and filters, arrays, schema names of any bytes, the functions of pg_proc as
callables, records of any type and arguments of triggers are tried on jobs in every state, and what
they did is taken back. The seed is printed; with it the same inputs come again. An input fails when
the connection is lost, when it takes longer than TIMEOUT, when its error is of a class that no wrong
input has (XX is one) or has no text; the backend's memory must stay level over all inputs.

It wants a server with the extension (as libpq finds it), as a superuser of it, and makes its own
databases there: one in UTF8 with the table of Oban for Elixir, and one in SQL_ASCII, where text is
any bytes, with that of Oban for Python.
"""

import argparse
import collections
import multiprocessing
import os
import re
import subprocess
import sys
import time

import psycopg

from inputs import INTERVALS, Inputs

HERE = os.path.dirname(os.path.abspath(__file__))
DATABASES = {'fuzz_utf8': ('UTF8', 'elixir'), 'fuzz_ascii': ('SQL_ASCII', 'python')}
BATCH = 250
LOOKING = multiprocessing.Lock()
ENOUGH = 100000  # inputs, for what is judged over all of them; memory takes more to level out
ENOUGH_MEMORY = 5 * ENOUGH
TIMEOUT = '60s'  # for a batch; an input takes some 0.2 ms
# Wrong data (22), constraints of the table (23), names, rights and types (42), schemas (3F), what is
# not supported (0A), limits (54), a missing job (P0002), transactions (25001), triggers (09, 27, 39).
WRONG = '^(FUZZ0|22|23|42|3F|0A|54|P0002|25001|09|27|39P)'
# Each kind of input: how many of 1000, and the calls that take it as $1.
KINDS = {
    'changes': (300, [
        'SELECT public.oban_update_job(4, $1::jsonb)',
        "SELECT FROM public.oban_update_many_jobs('{1,3,5,7}', $1::jsonb)",
        "SELECT FROM public.oban_manage_jobs('update', '{2,4,99}', $1::jsonb)",
        "SELECT FROM public.oban_manage_jobs('update', '{2,4,99}', $1::jsonb, dry_run => true)",
        """SELECT public.oban_update_all_jobs('{"all": true}', $1::jsonb)""",
        "SELECT public.oban_update_job(j, $1::jsonb) FROM jobs.oban_jobs j",
        "SELECT FROM public.oban_update_many_jobs_with('{1,3,5}', 'fuzz.give', $1::jsonb)",
        "SELECT public.oban_update_job_with(6, 'fuzz.give_row', $1::jsonb)",
        "SELECT public.oban_update_job_with(j, 'fuzz.give_json', $1::jsonb) FROM jobs.oban_jobs j"]),
    'filter': (300, [
        'SELECT FROM public.oban_all_jobs($1::jsonb)',
        'SELECT public.oban_cancel_all_jobs($1::jsonb)',
        'SELECT public.oban_retry_all_jobs($1::jsonb, 2)',
        'SELECT public.oban_delete_all_jobs($1::jsonb)',
        """SELECT public.oban_update_all_jobs($1::jsonb, '{"schedule_in": 5}')"""]),
    'array': (200, [
        'SELECT public.oban_cancel_job($1::bigint[])',
        'SELECT public.oban_retry_job($1::smallint[])',
        'SELECT public.oban_delete_many_jobs($1::integer[])',
        """SELECT public.oban_update_job($1::bigint[], '{"priority": 1}')""",
        "SELECT FROM public.oban_update_many_jobs_with($1::bigint[], 'fuzz.give', '{}')",
        "SELECT FROM public.oban_manage_jobs('retry', $1::bigint[])"]),
    'prefix': (60, [
        "SELECT public.oban_cancel_job(1, convert_from(decode($1, 'hex'), getdatabaseencoding()))",
        "SELECT public.oban_get_job(4, convert_from(decode($1, 'hex'), getdatabaseencoding()))",
        "SELECT set_config('oban_manage.prefix', convert_from(decode($1, 'hex'), "
        "getdatabaseencoding()), true), public.oban_delete_many_jobs('{2,4}')"]),
    'callable': (60, [
        "SELECT public.oban_update_job_with(4, split_part($1, ' ', 1)::oid::regproc, "
        "substr($1, strpos($1, ' '))::jsonb)",
        "SELECT FROM public.oban_update_many_jobs_with('{1,2,5}', split_part($1, ' ', 1)::oid::regproc)"]),
    'record': (40, ['SELECT fuzz.try_record($1)']),
    'action': (30, ["SELECT FROM public.oban_manage_jobs($1, '{1,2,NULL,99}')",
                    "SELECT FROM public.oban_manage_jobs($1, '{3,4}', dry_run => true)"]),
    'trigger': (10, ['SELECT fuzz.fire($1::text[])']),
    'procedure': (5, []),  # see play_procedure
}


def make_database(name):
    encoding, dialect = DATABASES[name]
    subprocess.run(['dropdb', '--if-exists', name], check=True, stderr=subprocess.DEVNULL)
    subprocess.run(['createdb', '-T', 'template0', '-E', encoding, '--locale=C', name], check=True)
    run = ['psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', name, '-v', 'schema=jobs']
    for arguments in (['-c', 'CREATE EXTENSION oban_manage'],
                      ['-f', f'{HERE}/../../fixtures/{dialect}.sql'], ['-f', f'{HERE}/play.sql'],
                      ['-c', f"ALTER DATABASE {name} SET oban_manage.prefix = 'jobs'"]):
        subprocess.run(run + arguments, check=True, stdout=subprocess.DEVNULL)


class Player:
    """A connection that plays batches, as a role that may manage jobs and do little else."""

    def __init__(self, database, seed):
        self.database = database
        self.connect()
        functions = 'SELECT array_agg(oid::bigint ORDER BY oid) FROM pg_proc'
        relations = 'SELECT array_agg(oid::regclass::text ORDER BY oid) FROM pg_class'
        self.inputs = Inputs(f'{seed}/{database}', *(self.run(query).fetchone()[0] for query in (
            functions, functions + " WHERE pronamespace = 'fuzz'::regnamespace AND pronargs = 2",
            relations + " WHERE relkind IN ('r', 'v', 'c')")))
        self.codes = collections.defaultdict(collections.Counter)
        self.good = collections.Counter()  # by call
        self.memory = []
        self.figures = ''

    def connect(self):
        self.connection = psycopg.connect(dbname=self.database, autocommit=True,
                                          client_encoding='utf8')
        self.run = self.connection.execute
        self.run(f"SET statement_timeout = '{TIMEOUT}'")
        self.run('SET client_min_messages = error')

    def play(self, kind, call, inputs):
        with self.connection.transaction():
            if kind != 'trigger':  # which takes DDL
                self.run('SET LOCAL ROLE regress_oban_fuzz')
            codes, bad = self.run('SELECT * FROM fuzz.play(%s, %s, %s)',
                                  [call, inputs, WRONG]).fetchone()
        if bad:
            raise Bad(f'{kind}: {bad}')
        self.codes[kind].update(codes)
        self.good[call] += codes.get('FUZZ0', 0)

    def play_procedure(self):
        """One CALL, which commits; it may also be given bytes that are no text."""
        rng = self.inputs.rng
        verb = rng.choice(['cancel', 'retry', 'delete', 'update'])
        arguments = [self.inputs.filter()] + [self.inputs.changes()] * (verb == 'update') + [
            rng.choice([None, '0', '-1', '1', '2', '3', '100', '2147483647', '2147483648']),
            rng.choice([None, '0', '-1 second', '1 microsecond', '00:00:00.001'])] + [
                rng.choice([None] + INTERVALS)] * (verb == 'retry')
        if rng.random() < 0.3:
            arguments.append(bytes.fromhex(self.inputs.prefix()).replace(b'\0', b''))
        places = ', '.join(f'${n + 1}' for n in range(len(arguments)))
        raw = [a.encode() if isinstance(a, str) else a for a in arguments]
        result = self.connection.pgconn.exec_params(
            f'CALL public.oban_{verb}_in_batches({places})'.encode(), raw)
        code = (result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) or b'FUZZ0').decode()
        if not re.match(WRONG, code):
            raise Bad(f'{verb} in batches of {raw}: {code} {result.error_message}')
        self.codes['procedure'][code] += 1

    def one_by_one(self, kind, call, inputs):
        """Which input of the batch ends the connection.

        A backend that crashes takes those of the other players with it: one looks at a time.
        """
        with LOOKING:
            for given in inputs:
                try:
                    self.connect_again()
                    self.play(kind, call, [given])
                except psycopg.OperationalError as error:
                    return f'{kind}, {call!r} of {given!r}: {error}'
        return f'{kind}, {call!r}: the connection was lost, but by none of the inputs alone'

    def connect_again(self):
        """After a crash the server takes a while."""
        for _ in range(120):
            try:
                return self.connect()
            except psycopg.OperationalError:
                time.sleep(0.5)
        raise RuntimeError('the server does not come back')

    def play_all(self, total):
        """Plays so many inputs; an error's text, or None."""
        kinds = list(KINDS)
        weights = [KINDS[kind][0] for kind in kinds]
        rng = self.inputs.rng
        batches = -(-total // BATCH)
        for batch in range(batches):
            if batch % 20 == 0:
                self.run('CALL fuzz.fill()')
            if batch * 60 // batches != (batch - 1) * 60 // batches:
                self.memory.append(self.run('SELECT * FROM fuzz.memory()').fetchone())
            kind = rng.choices(kinds, weights)[0]
            if kind == 'procedure':
                for _ in range(BATCH):
                    self.play_procedure()
                continue
            call = rng.choice(KINDS[kind][1])
            inputs = [getattr(self.inputs, kind)() for _ in range(BATCH)]
            try:
                self.play(kind, call, inputs)
            except psycopg.OperationalError:
                raise Bad(self.one_by_one(kind, call, inputs))
        if total * len(DATABASES) >= ENOUGH_MEMORY:
            self.check_memory()

    def check_memory(self):
        """The last third of the inputs needs no more than the first, but for what PostgreSQL keeps.

        It remembers each name that it did not find (some 200 bytes), and plans are large and small.
        """
        third = len(self.memory) // 3
        for n, (name, allowance) in enumerate((('contexts', 2**19), ('process', 24 * 2**20))):
            first, last = (max(m[n] for m in part)
                           for part in (self.memory[:third], self.memory[-third:]))
            self.figures += f'{name} {first >> 10} to {last >> 10} kB; '
            if last > first * 1.1 + allowance:
                raise Bad(f'memory of the {name} grew from {first} to {last} bytes')


class Bad(Exception):
    pass


def work(database, seed, total):
    player = Player(database, seed)
    try:
        player.play_all(total)
        failure = None
    except Bad as bad:
        failure = str(bad)
    except Exception as error:
        failure = f'{type(error).__name__}: {error}'
    return {k: dict(v) for k, v in player.codes.items()}, player.good, player.figures, failure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--inputs', type=int, default=1000000)
    parser.add_argument('--seed', default=str(int(time.time())))
    options = parser.parse_args()
    print(f'seed {options.seed}', flush=True)
    start = time.monotonic()
    failed = 0
    codes, good = collections.defaultdict(collections.Counter), collections.Counter()
    for database in DATABASES:
        make_database(database)
    share = -(-options.inputs // len(DATABASES))
    with multiprocessing.Pool(len(DATABASES)) as pool:
        for database, (found, fine, figures, failure) in zip(DATABASES, pool.starmap(
                work, [(d, options.seed, share) for d in DATABASES])):
            for kind, counts in found.items():
                codes[kind].update(counts)
            good.update(fine)
            if failure:
                failed += 1
                print(f'FAILED: --inputs {options.inputs} --seed {options.seed}: {database}: {failure}')
            else:
                print(f'{database}: {sum(sum(c.values()) for c in found.values())} inputs passed; '
                      f'memory of {figures[:-2]}')
    for kind, counts in sorted(codes.items()):
        print(f'    {kind}: ' + ', '.join(f'{c.replace("FUZZ0", "fine")} {n}'
                                          for c, n in counts.most_common()))
        # What is always refused, or never, tests nothing.
        if not failed and options.inputs >= ENOUGH and not 0.05 < counts['FUZZ0'] / counts.total() < 0.95:
            failed += 1
            print(f'FAILED: {kind}: {counts["FUZZ0"]} of {counts.total()} inputs were good')
    for call in (call for _, calls in KINDS.values() for call in calls):
        if not failed and options.inputs >= ENOUGH and not good[call]:
            failed += 1
            print(f'FAILED: no input was good for {call}')
    print(f'{sum(c.total() for c in codes.values())} inputs in {time.monotonic() - start:.0f} s, '
          f'seed {options.seed}')
    sys.exit(failed != 0)


if __name__ == '__main__':
    main()
