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
            if time.time() > self.until + 60 or self.errors:
                return


class Oban(Actor):
    """Makes jobs available whose time has come, deletes old ones, and adds new ones."""

    def run(self):
        done = {'stage': 0, 'prune': 0}
        while self.going():
            for name in ('stage', 'prune'):
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
        heard = []  # jobs
        spells = []  # [from, to] of listening
        while time.time() < self.until + 2:
            if self.ask(f'LISTEN "{self.place["channel"]}"') is None:
                continue
            spells.append([time.time(), 0])
            self.connection.add_notify_handler(
                lambda notify: heard.append(json.loads(notify.payload)['job_id']))
            while time.time() < self.until + 2:
                # What has been told by now comes with the answer.
                asked = time.time()
                if self.ask('SELECT 1') is None:
                    break
                spells[-1][1] = asked
                time.sleep(0.05)
        return {'heard': heard, 'spells': spells}


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

    def run(self):
        self.calls = []  # (actor, form, verb, kind, begin, end, told)
        while self.going():
            form, verb, query, kind = self.rng.choice(FORMS)
            actor = f'{self.name}/{len(self.calls)}'
            ids = self.ids()
            if self.ask("SELECT set_config('application_name', %s, false)", [actor]) is None:
                continue
            begin = time.time()
            errors = len(self.errors)
            rows = self.ask(query, {
                'id': ids[0], 'ids': ids, 'row': self.rng.randint(1, 60), 'filter': self.filter(ids),
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
            self.calls.append((actor, form, verb, kind, begin, time.time(), outcome, told))
            if form == 'trigger cancel':
                self.ask('INSERT INTO visits VALUES (%s, %s) ON CONFLICT DO NOTHING',
                         [self.rng.randint(1, 60), ids[0]])
        return {'calls': self.calls}

    def ids(self):
        """Ids in any order, mostly of the newest jobs, which all want."""
        rng = self.rng
        if not hasattr(self, 'last') or rng.random() < 0.05:
            rows = self.ask('SELECT coalesce(max(id), 1), count(*) FROM oban_jobs')
            self.last = rows[0][0] if rows else getattr(self, 'last', 1)
        count = rng.choice([1, 2, 5, 20, 100])
        return [max(1, self.last - int(rng.expovariate(1 / 300))) for _ in range(count)]

    def filter(self, ids):
        return json.dumps(self.rng.choice([
            {'queue': 'default', 'state': self.rng.choice(['available', 'executing', 'retryable'])},
            {'worker': 'Even', 'state': ['scheduled', 'cancelled', 'completed']},
            {'args': {'n': self.rng.randint(0, 9)}}, {'id': ids}, {'queue': 'slow'}]))

    def changes(self):
        return json.dumps(self.rng.choice([
            {'priority': self.rng.randint(0, 3)}, {'schedule_in': 0.1}, {'schedule_in': 0},
            {'queue': 'default'}, {'queue': 'slow'}, {'tags': ['B', 'a'], 'priority': 1}]))
