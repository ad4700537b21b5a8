#!/usr/bin/python3
"""Fuzz: random and mutated inputs, none of which may crash, hang, leak or raise an internal error.

    dev/fuzz/run.py [--inputs N] [--seed S]

JSON for changes and filters, arrays, schema names of any bytes (of no schema, and of that of the
jobs), the functions of pg_proc as callables, records of any type and arguments of triggers are tried
on jobs in every state, and what they did is taken back; procedures commit. The seed is printed; with
it the same inputs come again. An input fails when the connection is lost, when it takes longer than
TIMEOUT, or when its error is none that a wrong input of its kind has, or has no text. What the type's
own input function refuses is not counted. The backend's memory must stay level over all inputs, and
nearly so over the jobs of one call.

It wants a server with the extension (as libpq finds it), as a superuser of it, and makes its own
databases there: one in UTF8 with the table of Oban for Elixir, and one in SQL_ASCII, where text is
any bytes, with that of Oban for Python.
"""

import argparse
import collections
import itertools
import multiprocessing
import os
import re
import subprocess
import sys
import time

import psycopg

import peaks
from inputs import Inputs

HERE = os.path.dirname(os.path.abspath(__file__))
DATABASES = {'fuzz_utf8': ('UTF8', 'elixir'), 'fuzz_ascii': ('SQL_ASCII', 'python')}
BATCH = 250
LOOKING = multiprocessing.Lock()
ENOUGH = 100000  # inputs, for what is judged over all of them; memory takes more to level out
ENOUGH_MEMORY = 5 * ENOUGH
TIMEOUT = '60s'  # for a batch; an input takes some 0.2 ms
LOOKS = 60  # at the memory
# Each figure of fuzz.memory: by how much it may grow from the middle third of the looks to the last.
# That of the process is rough: one large input may raise it by some MB, for good.
ALLOWANCES = {'contexts': 2 * 2**20, 'caches': 2**20, 'number': 256, 'process': 20 * 2**20}

# A kind of input: how many of 1000, the SQL that makes of it ($1) what the calls take, the SQLSTATEs
# that the extension may answer with, and the calls.
Kind = collections.namedtuple('Kind', 'share conversions allowed calls')
# Wrong data, constraints of the table, no such job, JSON that is too deep.
JSON = '22|0A000|23514|P0002|54001'
LIMITS = ['NULL'] * 3 + ['0', '1', '2', '3', '2147483647', '-1']  # {limit} of a filter's calls
# {skips}: dry_run, skip_refused, skip_locked
SKIPS = ['false, true, false', 'false, true, true', 'false, false, true', 'true, true, true',
         'false, NULL, false']
KINDS = {
    'changes': Kind(262, ['$1::jsonb'], JSON, [
        'SELECT public.oban_update_job(4, {input})',
        "SELECT FROM public.oban_update_many_jobs('{1,3,5,7}', {input})",
        "SELECT FROM public.oban_manage_jobs('update', '{2,4,99}', {input})",
        "SELECT FROM public.oban_manage_jobs('update', '{2,4,99}', {input}, dry_run => true)",
        """SELECT public.oban_update_all_jobs('{"all": true}', {input}, {limit})""",
        """SELECT FROM public.oban_manage_all_jobs('update', '{"all": true}', {input}, {limit}, {skips})""",
        "SELECT FROM public.oban_manage_jobs('update', '{2,3,4,6,99}', {input}, skip_refused => true)",
        """SELECT public.oban_update_all_jobs_with('{"all": true}', 'callables.some', {input}, {limit})""",
        "SELECT public.oban_update_job(j, {input}) FROM jobs.oban_jobs j",
        "SELECT FROM public.oban_update_many_jobs_with('{1,3,5}', 'callables.give', {input})",
        "SELECT FROM public.oban_update_many_jobs_with('{1,2,3,4,5}', 'callables.some', {input})",
        "SELECT public.oban_update_job_with(6, 'callables.give_row', {input})",
        "SELECT public.oban_update_job_with(j, 'callables.give_json', {input}) FROM jobs.oban_jobs j"]),
    'filter': Kind(280, ['$1::jsonb'], JSON, [
        'SELECT FROM public.oban_all_jobs({input}, {limit})',
        'SELECT public.oban_cancel_all_jobs({input}, {limit})',
        'SELECT public.oban_retry_all_jobs({input}, {limit})',
        'SELECT public.oban_delete_all_jobs({input}, {limit})',
        """SELECT public.oban_update_all_jobs({input}, '{"schedule_in": 5}', {limit})""",
        "SELECT public.oban_update_all_jobs_with({input}, 'callables.one', NULL, {limit})",
        """SELECT FROM public.oban_manage_all_jobs('update', {input}, '{"queue": "x"}', {limit}, {skips})""",
        "SELECT FROM public.oban_manage_all_jobs('delete', {input}, NULL, {limit}, {skips})"]),
    'array': Kind(190, ['$1::bigint[]', '$1::integer[]', '$1::smallint[]'], 'P0002', [
        'SELECT public.oban_cancel_job({input})',
        'SELECT public.oban_retry_job({input})',
        'SELECT public.oban_delete_many_jobs({input})',
        """SELECT public.oban_update_job({input}, '{"priority": 1}')""",
        "SELECT FROM public.oban_update_many_jobs_with({input}, 'callables.give', '{}')",
        "SELECT FROM public.oban_manage_jobs('retry', {input})",
        "SELECT FROM public.oban_manage_jobs('cancel', {input}, NULL, false, NULL, true, true)",
        'SELECT public.oban_job_cancelled(i, attempt => (i % 100000)::integer) '
        'FROM unnest({input}) i']),
    'later': Kind(20, ['$1::timestamptz'], '22008|22023', [
        'SELECT public.oban_retry_job(4, scheduled_at => {input})',
        "SELECT public.oban_retry_many_jobs('{2,4,6,7,99}', NULL, {input})",
        'SELECT public.oban_retry_job(j, {input}) FROM jobs.oban_jobs j',
        """SELECT public.oban_retry_all_jobs('{"all": true}', {limit}, scheduled_at => {input})"""]),
    'prefix': Kind(60, ['fuzz.text_of($1)'], '3F000|42P01|42501', [
        'SELECT public.oban_cancel_job(1, {input})',
        'SELECT public.oban_get_job(4, {input})',
        "SELECT set_config('oban_manage.prefix', {input}, true), "
        "public.oban_delete_many_jobs('{2,4}')"]),
    'schema': Kind(3, ['fuzz.rename(fuzz.text_of($1))'], '3F000', [
        'SELECT fuzz.try_schema(fuzz.text_of($1))']),
    # What functions raise by themselves is FUZZ1 or an error of jsonb.
    'callable': Kind(75, ["split_part($1, ' ', 1)::oid::regproc, substr($1, strpos($1, ' '))::jsonb"],
                     JSON + '|42804|42809|42883|42501|27000|FUZZ1', [
        'SELECT public.oban_update_job_with(4, {input})',
        "SELECT FROM public.oban_update_many_jobs_with('{1,2,5}', {input})",
        'SELECT public.oban_update_job_with(j, {input}) FROM jobs.oban_jobs j',
        "SELECT FROM public.oban_update_many_jobs_with('{1,2,5}', "
        "split_part($1, ' ', 1)::oid::regproc)",
        """SELECT public.oban_update_all_jobs_with('{"all": true}', {input}, {limit})"""]),
    'record': Kind(40, ['fuzz.make_record($1)'], JSON + '|42804|42809|42501|42P01|3F000', [
        'SELECT fuzz.try_record($1)']),
    'action': Kind(30, ["split_part($1, '|', 1), '{1,2,NULL,99}', "
                        "nullif(substr($1, strpos($1, '|') + 1), '')::jsonb"], JSON, [
        'SELECT FROM public.oban_manage_jobs({input})',
        'SELECT FROM public.oban_manage_jobs({input}, true)',
        'SELECT FROM public.oban_manage_jobs({input}, skip_refused => true, skip_locked => true)',
        """SELECT FROM public.oban_manage_all_jobs(split_part($1, '|', 1), '{"all": true}', """
        """nullif(substr($1, strpos($1, '|') + 1), '')::jsonb, {limit}, {skips})"""]),
    'trigger': Kind(10, ['fuzz.make_trigger($1::text[])'],
                    JSON + '|42P17|42703|42804|42809|42883|42P01|42602|39P01|3F000|27000|FUZZ1', [
        'SELECT fuzz.fire($1::text[])']),
    # These are called by the client.
    'procedure': Kind(30, None, JSON + '|3F000|42P01|42804|42809|42883|42501|27000|FUZZ1', [
        'cancel_in_batches', 'retry_in_batches', 'delete_in_batches', 'update_in_batches',
        'update_in_batches_with']),
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
        own = " WHERE pronamespace = 'callables'::regnamespace"
        self.inputs = Inputs(f'{seed}/{database}', DATABASES[database][0] == 'SQL_ASCII', *(
            self.run(f'SELECT array_agg({column} ORDER BY oid) FROM {table}').fetchone()[0]
            for column, table in (('oid::bigint', 'pg_proc'), ('oid::bigint', 'pg_proc' + own),
                                  ('oid::regprocedure::text', 'pg_proc' + own),
                                  ('oid::regclass::text', "pg_class WHERE relkind IN ('r', 'v', 'c')"))))
        self.codes = collections.defaultdict(collections.Counter)
        self.good = collections.Counter()  # by call
        self.emptied = False  # by a procedure
        self.memory = []
        self.figures = ''

    def connect(self):
        self.connection = psycopg.connect(dbname=self.database, autocommit=True,
                                          client_encoding='utf8')
        self.run = self.connection.execute
        self.run(f"SET statement_timeout = '{TIMEOUT}'")
        self.run('SET client_min_messages = error')

    def reached(self):
        return sum(counts.total() - counts['refused'] for counts in self.codes.values())

    def play(self, kind, call, inputs):
        """Plays a batch; returns how many of its inputs were good."""
        allowed = f'^(FUZZ0|refused|{KINDS[kind].allowed})'
        if kind == 'procedure':
            return sum(self.play_procedure(call, given, allowed) for given in inputs)
        rng = self.inputs.rng
        conversion = rng.choice(KINDS[kind].conversions)
        with self.connection.transaction():
            if kind != 'trigger':  # which takes DDL
                self.run('SET LOCAL ROLE regress_oban_fuzz')
            codes, bad = self.run('SELECT * FROM fuzz.play(%s, %s, %s, %s)', [
                self.fill(call, conversion),
                conversion, inputs, allowed]).fetchone()
        if bad:
            raise Bad(f'{kind}: {bad}')
        self.codes[kind].update(codes)
        return codes.get('FUZZ0', 0)

    def fill(self, call, conversion):
        rng = self.inputs.rng
        return call.replace('{input}', conversion).replace('{limit}', rng.choice(LIMITS)).replace(
            '{skips}', rng.choice(SKIPS))

    def play_procedure(self, name, arguments, allowed):
        """One CALL, which commits."""
        places = ', '.join(f'${n + 1}' for n in range(len(arguments)))
        self.run('CALL fuzz.fill()')
        result = self.connection.pgconn.exec_params(
            f'CALL public.oban_{name}({places})'.encode(), arguments)
        if self.connection.pgconn.status != psycopg.pq.ConnStatus.OK:
            raise psycopg.OperationalError(result.error_message.decode(errors='replace'))
        code, context = ((result.error_field(field) or b'').decode(errors='replace') for field in (
            psycopg.pq.DiagnosticField.SQLSTATE, psycopg.pq.DiagnosticField.CONTEXT))
        if context.startswith('unnamed portal parameter'):
            code = 'refused'
        if not re.match(allowed, code or 'FUZZ0'):
            raise Bad(f'{name} of {arguments}: {code} {result.error_message}')
        self.codes['procedure'][code or 'FUZZ0'] += 1
        return not code

    def one_by_one(self, kind, call, inputs):
        """Raises which input of the batch ends the connection.

        A backend that crashes takes those of the other players with it: one looks at a time.
        """
        with LOOKING:
            for given in inputs:
                try:
                    self.connect_again()
                    self.play(kind, call, [given])
                except psycopg.OperationalError as error:
                    raise Bad(f'{kind}, {call!r} of {given!r}: {error}') from error
        raise Lost(f'{kind}, {call!r}: the connection was lost, but by none of the inputs alone')

    def connect_again(self):
        """After a crash the server takes a while."""
        for _ in range(120):
            try:
                return self.connect()
            except psycopg.OperationalError:
                time.sleep(0.5)
        raise RuntimeError('the server does not come back')

    def play_all(self, total):
        """Plays until so many inputs have reached the extension."""
        kinds = list(KINDS)
        weights = [KINDS[kind].share for kind in kinds]
        calls = {kind: itertools.cycle(KINDS[kind].calls) for kind in kinds}
        for batch in itertools.count():
            reached = self.reached()
            if reached >= total:
                break
            # At first each kind once, however few inputs there are.
            kind = kinds[batch] if batch < len(kinds) else self.inputs.rng.choices(kinds, weights)[0]
            call = next(calls[kind])
            if batch % 20 == 0:
                self.run('TRUNCATE jobs.oban_jobs')
            if batch % 20 == 0 or self.emptied:
                self.run('CALL fuzz.fill()')
            self.emptied = kind == 'procedure'
            if reached * LOOKS >= total * len(self.memory):
                self.look_at_memory()
            inputs = [getattr(self.inputs, kind)(*[call] * self.emptied) for _ in range(BATCH)]
            try:
                self.good[call] += self.play(kind, call, inputs)
            except psycopg.OperationalError:
                self.one_by_one(kind, call, inputs)
        if total * len(DATABASES) >= ENOUGH_MEMORY:
            self.check_memory()
            self.check_peaks()

    def look_at_memory(self):
        """Without the names that were not found: PostgreSQL remembers them until these tables change."""
        for table in ('pg_namespace', 'pg_enum', 'pg_proc', 'pg_type'):
            self.run(f'VACUUM FULL {table}')
        self.memory.append(self.run('SELECT * FROM fuzz.memory()').fetchone())

    def check_memory(self):
        """The last third of the inputs needs no more than the middle one; the first fills the caches."""
        third = LOOKS // 3
        for n, (name, allowance) in enumerate(ALLOWANCES.items()):
            middle, last = (max(m[n] for m in part)
                            for part in (self.memory[third:-third], self.memory[-third:]))
            self.figures += f', {name} {middle} to {last}'
            if last > middle + allowance:
                raise Bad(f'memory: {name} grew from {middle} to {last}')

    def check_peaks(self):
        for verb, growth, most in peaks.measure(self.database):
            self.figures += f', {verb} {growth:.0f} bytes a job'
            if growth > most:
                raise Bad(f'memory: {verb} takes {growth:.0f} bytes for each job of a call')


class Bad(Exception):
    """An input that fails, or a memory that grows."""


class Lost(Exception):
    """A connection that ended without fault of its own inputs."""


def work(database, seed, total):
    """Plays; returns what came of it, and an error's kind and text, or None."""
    player = Player(database, seed)
    try:
        player.play_all(total)
        failure = None
    except psycopg.OperationalError as error:
        failure = Lost.__name__, str(error)
    except Exception as error:
        failure = type(error).__name__, str(error)
    return {k: dict(v) for k, v in player.codes.items()}, player.good, player.figures, failure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--inputs', type=int, default=1000000)
    parser.add_argument('--seed', default=str(int(time.time())))
    options = parser.parse_args()
    print(f'seed {options.seed}', flush=True)
    start = time.monotonic()
    codes, good, failures = collections.defaultdict(collections.Counter), collections.Counter(), []
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
                failures.append((database, *failure))
            else:
                passed = sum(n for c in found.values() for code, n in c.items() if code != 'refused')
                print(f'{database}: {passed} inputs passed{figures}')
    # A crash in one database ends the connections of the other.
    for database, kind, text in failures:
        if kind != Lost.__name__ or all(f[1] == kind for f in failures):
            print(f'FAILED: --inputs {options.inputs} --seed {options.seed}: {database}: {kind}: {text}')
    judged = not failures and options.inputs >= ENOUGH
    for kind, counts in sorted(codes.items()):
        print(f'    {kind}: ' + ', '.join(f'{c.replace("FUZZ0", "fine")} {n}'
                                          for c, n in counts.most_common()))
        # What is always refused, or never, tests nothing.
        if judged and not 0.05 < counts['FUZZ0'] / counts.total() < 0.95:
            failures.append(kind)
            print(f'FAILED: {kind}: {counts["FUZZ0"]} of {counts.total()} inputs were good')
    for call in (call for kind in KINDS.values() for call in kind.calls):
        if judged and not good[call]:
            failures.append(call)
            print(f'FAILED: no input was good for {call}')
    refused = sum(c['refused'] for c in codes.values())
    print(f'{sum(c.total() for c in codes.values()) - refused} inputs in '
          f'{time.monotonic() - start:.0f} s, {refused} more that PostgreSQL refused, seed {options.seed}')
    sys.exit(bool(failures))


if __name__ == '__main__':
    main()
