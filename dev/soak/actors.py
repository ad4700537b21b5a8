"""Who works on the jobs: workers, what else an Oban does, a listener, and clients that manage them.

Each actor lives through lost connections and restarts of the server, and keeps what it was told:
only what was told is held against the event log.
"""

import json
import random
import time

import psycopg

# A connection that broke, or was refused while the server starts.
GONE = ('57P01', '57P02', '57P03', '08000', '08003', '08006', None)


class Actor:
    def __init__(self, name, place, seed, until):
        self.name = name
        self.place = place  # where to connect to, and the channel of signals
        self.rng = random.Random(f'{seed}/{name}')
        self.until = until
        self.connection = None
        self.errors = []  # (what, SQLSTATE, message) of errors that a server raised
        self.lost = 0
        self.options = ''

    def going(self):
        return time.time() < self.until

    def connect(self):
        """Waits for the server, as a pool of connections does; False when the time is over."""
        while True:
            try:
                # By simple queries: their last word comes after the commit. Of a statement with
                # parameters it comes before, and a client may be told what is then lost.
                self.connection = psycopg.connect(
                    self.place['conninfo'], autocommit=True, application_name=self.name,
                    options=self.options,
                    cursor_factory=psycopg.ClientCursor)
                return True
            except psycopg.OperationalError:
                # The last answers of a worker must not be lost.
                if time.time() > self.until + 60:
                    return False
                time.sleep(0.1)

    def ask(self, query, arguments=None, what=None, again=True):
        """The rows; None when the connection was lost, or an error was raised, which is kept."""
        if self.connection is None or self.connection.closed:
            if not again or not self.connect():
                return None
        try:
            cursor = self.connection.execute(query, arguments)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            if error.sqlstate in GONE and self.connection.closed:
                self.lost += 1
            else:
                self.errors.append((what or query, error.sqlstate, str(error)))
            return None


class Worker(Actor):
    """Fetches some jobs at a time, works on each for a moment, and answers by its id."""

    def run(self):
        self.executed = []  # (job, attempt)
        self.killed = 0
        while self.going():
            fetched = self.ask('SELECT * FROM public.fetch(%s)', [self.rng.randint(1, 5)])
            for job, attempt in fetched or []:
                self.executed.append((job, attempt))
            for job, attempt in fetched or []:
                self.work(job, attempt)
            if not fetched:
                time.sleep(0.02)
        return {'executed': self.executed, 'killed': self.killed}

    def work(self, job, attempt):
        rng = self.rng
        time.sleep(rng.choice([0, 0, 0.002, 0.01]))
        told = self.ask('SELECT oban_job_cancelled(%s)', [job])
        if told and told[0][0] and rng.random() < 0.7:
            self.killed += 1  # as a worker that asks does, it stops, and does not answer
            return
        answer = rng.choices(['completed', 'retryable', 'scheduled', 'discarded', 'cancelled'],
                             [60, 15, 10, 10, 5])[0]
        # Again and again until it is written, as both Obans.
        while self.ask('SELECT public.answer(%s, %s)', [job, answer], 'answer') is None:
            failed = self.errors and self.errors[-1][1] not in ('40001', '40P01')
            if failed or time.time() > self.until + 60:
                return


class Oban(Actor):
    """Stages jobs, rescues those whose worker does not answer, prunes old ones, adds new ones."""

    def run(self):
        done = {'stage': 0, 'prune': 0, 'rescue': 0}
        while self.going():
            for name in done:
                rows = self.ask(f'SELECT public.{name}()')
                done[name] += rows[0][0] if rows else 0
            waiting = self.ask('SELECT count(*) FROM oban_jobs')
            if waiting and waiting[0][0] < 1500:
                self.ask('SELECT public.add_jobs(200)')
            time.sleep(0.05)
        return done


class Listener(Actor):
    """Hears the signals; knows when its connection was there."""

    def run(self):
        self.heard = []  # jobs
        self.spells = []  # [from, to] of listening
        channel = self.place['channel']
        while time.time() < self.until + 2:
            if self.ask(f'LISTEN "{channel}"') is None:
                continue
            self.spells.append([time.time(), 0])
            self.connection.add_notify_handler(self.hear)
            while time.time() < self.until + 2:
                # Signals come in the order of their commits: with this one all before it have come.
                if self.ask(f"""NOTIFY "{channel}", '{{"listener": {time.time()}}}'""") is None:
                    break
                time.sleep(0.05)
        return {'heard': self.heard, 'spells': self.spells}

    def hear(self, notify):
        payload = json.loads(notify.payload)
        if 'listener' in payload:
            self.spells[-1][1] = payload['listener']
        else:
            self.heard.append(payload['job_id'])


# The forms of calls. Of each: what it is called in the report, SQL with %(…)s, and what is told:
# a count of changed jobs, outcomes of oban_manage_jobs, or updated jobs.
FORMS = []
for verb in ('cancel', 'retry', 'delete'):
    FORMS += [
        (f'{verb} id', verb, f'SELECT oban_{verb}_job(%(id)s::bigint)::integer', 'count'),
        (f'{verb} record', verb,
         f'SELECT oban_{verb}_job(j)::integer FROM oban_jobs j WHERE id = %(id)s', 'count'),
        (f'{verb} array', verb, f'SELECT oban_{verb}_job(%(ids)s::bigint[])', 'count'),
        (f'{verb} many', verb, f'SELECT oban_{verb}_many_jobs(%(ids)s)', 'count'),
        (f'{verb} all', verb, f'SELECT oban_{verb}_all_jobs(%(filter)s, 40)', 'count'),
        (f'{verb} manage', verb, f"SELECT * FROM oban_manage_jobs('{verb}', %(ids)s)", 'outcomes'),
        (f'{verb} batches', verb, f'CALL oban_{verb}_in_batches(%(filter)s, 20)', 'count'),
    ]
for name, target in (('id', '%(id)s::bigint'), ('array', '%(ids)s::bigint[]')):
    FORMS += [
        (f'update {name}', 'update', f'SELECT id, priority FROM oban_update_job({target}, '
         '%(changes)s)', 'jobs'),
        (f'update_with {name}', 'update', 'SELECT id, priority FROM oban_update_job_with('
         f"{target}, 'public.step')", 'jobs'),
    ]
FORMS += [
    ('update record', 'update', 'SELECT (u).id, (u).priority FROM (SELECT oban_update_job(j, '
     '%(changes)s) AS u FROM oban_jobs j WHERE id = %(id)s OFFSET 0) s', 'jobs'),
    ('update many', 'update',
     'SELECT id, priority FROM oban_update_many_jobs(%(ids)s, %(changes)s)', 'jobs'),
    ('update all', 'update', 'SELECT oban_update_all_jobs(%(filter)s, %(changes)s, 40)', 'count'),
    ('update manage', 'update', "SELECT * FROM oban_manage_jobs('update', %(ids)s, %(changes)s)",
     'outcomes'),
    ('update batches', 'update', 'CALL oban_update_in_batches(%(filter)s, %(changes)s, 20)',
     'count'),
    ('update_with many', 'update', 'SELECT id, priority FROM oban_update_many_jobs_with(%(ids)s, '
     "'public.step_json', '{}')", 'jobs'),
    ('update_with record', 'update', 'SELECT (u).id, (u).priority FROM (SELECT oban_update_job_with'
     "(j, 'public.step') AS u FROM oban_jobs j WHERE id = %(id)s OFFSET 0) s", 'jobs'),
    ('trigger cancel', 'cancel', 'DELETE FROM visits WHERE id = %(row)s', None),
    ('trigger update', 'update', 'UPDATE visits SET id = id WHERE id = %(row)s', None),
    ('trigger retry', 'retry', 'INSERT INTO orders SELECT n, %(ids)s FROM generate_series('
     '%(row)s, %(row)s + 2) n ON CONFLICT DO NOTHING', None),
    ('trigger update_with', 'update', 'UPDATE orders SET id = id WHERE id BETWEEN %(row)s AND '
     '%(row)s + 2', None),
    ('trigger delete', 'delete', 'DELETE FROM orders WHERE id BETWEEN %(row)s AND %(row)s + 2', None),
    ('read', None, 'SELECT count(*) FROM oban_all_jobs(%(filter)s), oban_get_job(%(id)s)', None),
]


class Client(Actor):
    """Calls one form after the other, each under an application name of its own."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        number = int(self.name.removeprefix('client'))
        # Nobody else's: the application's own rows are not what is tried here.
        self.rows = range(number * 100, number * 100 + 20)
        # Some find the jobs in the order of the disk, unless they sort.
        self.options = ['', '-c enable_indexscan=off', '',
                        '-c enable_indexscan=off -c enable_bitmapscan=off'][number % 4]
        self.known = [1]

    def run(self):
        self.calls = []  # (actor, form, verb, kind, begin, end, outcome, ids, told)
        while self.going():
            form, verb, query, kind = self.rng.choice(FORMS)
            # Else few jobs would live long enough to be run.
            if verb == 'delete' and self.rng.random() < 0.5:
                continue
            actor = f'{self.name}/{len(self.calls)}'
            ids = self.ids()
            row = self.rng.choice(self.rows)
            if verb == 'delete':
                ids = ids[:2]
            if self.ask("SELECT set_config('application_name', %s, false)", [actor]) is None:
                continue
            begin = time.time()
            errors = len(self.errors)
            rows = self.ask(query, {
                'id': ids[0], 'ids': ids, 'row': row, 'filter': self.filter(ids, verb),
                'changes': self.changes()}, actor, again=False)
            outcome = 'told' if rows is not None else \
                'refused' if len(self.errors) > errors else 'unknown'
            told = None
            if rows is not None and kind == 'count':
                told = sum(row[0] for row in rows)
            elif rows is not None and kind == 'outcomes':
                done = {'cancelled', 'retried', 'deleted', 'updated'}
                told = sorted(row[0] for row in rows if row[1] in done)
            elif rows is not None and kind == 'jobs':
                told = sorted(row for row in rows if row[0] is not None)
            self.calls.append((actor, form, verb, kind, begin, time.time(), outcome, ids, told))
            if form == 'trigger cancel':
                self.ask('INSERT INTO visits VALUES (%s, %s) ON CONFLICT DO NOTHING',
                         [row, ids[0]])
        return {'calls': self.calls}

    def ids(self):
        """Ids in any order, many of those jobs that the workers take next, or have just taken."""
        rng = self.rng
        if rng.random() < 0.15:
            rows = self.ask("""
                (SELECT id FROM oban_jobs WHERE state = 'available' AND queue = 'default'
                 ORDER BY priority, scheduled_at, id LIMIT 40)
                UNION (SELECT id FROM oban_jobs WHERE state = 'executing' LIMIT 20)
                UNION (SELECT id FROM oban_jobs ORDER BY id DESC OFFSET 200 LIMIT 20)""")
            self.known = [row[0] for row in rows or []] or self.known
        return rng.choices(self.known, k=rng.choice([1, 2, 5, 20, 60]))

    def filter(self, ids, verb):
        rng = self.rng
        if verb == 'delete':
            return json.dumps(rng.choice([
                {'id': ids}, {'args': {'n': rng.randint(0, 9)}, 'queue': 'slow'},
                {'args': {'n': rng.randint(0, 9)}, 'state': ['cancelled', 'completed']}]))
        return json.dumps(rng.choice([
            {'queue': 'default', 'state': rng.choice(['available', 'executing', 'retryable'])},
            {'worker': 'Even', 'state': ['scheduled', 'cancelled', 'completed']},
            {'args': {'n': rng.randint(0, 9)}}, {'id': ids}, {'queue': 'slow'}]))

    def changes(self):
        return json.dumps(self.rng.choice([
            {'priority': self.rng.randint(0, 3)}, {'schedule_in': 0.1}, {'schedule_in': 0},
            {'queue': 'default'}, {'queue': 'slow'}, {'tags': ['B', 'a'], 'priority': 1}]))
