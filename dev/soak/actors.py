"""Who works on the jobs: workers, what else an Oban does, a listener, and clients that manage them.

Each actor lives through lost connections and restarts of the server, and keeps what it was told:
only what was told is held against the event log.
"""

import collections
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
        self.prefix = place['prefix']
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
                self.prepared = set()
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
        self.asked = []  # (snapshot, job, whether it is cancelled)
        while self.going():
            fetched = self.ask('SELECT * FROM public.fetch(%s)', [self.rng.randint(1, 5)])
            for job, attempt in fetched or []:
                self.executed.append((job, attempt))
            for job, attempt in fetched or []:
                self.work(job, attempt)
            if not fetched:
                time.sleep(0.02)
        return {'executed': self.executed, 'asked': self.asked}

    def work(self, job, attempt):
        rng = self.rng
        time.sleep(rng.choice([0, 0, 0.002, 0.01]))
        told = self.ask('SELECT pg_current_snapshot()::text, oban_job_cancelled(%s)', [job])
        if told:
            self.asked.append((told[0][0], job, told[0][1]))
            if told[0][1] and rng.random() < 0.7:
                return  # as a worker that asks does, it stops, and does not answer
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
        self.heard = []  # (channel, payload)
        self.spells = []  # [from, to] of listening
        signals, inserts = f'"{self.prefix}.oban_signal"', f'"{self.prefix}.oban_insert"'
        while time.time() < self.until + 2:
            if self.ask(f'LISTEN {signals}; LISTEN {inserts}') is None:
                continue
            self.spells.append([time.time(), 0])
            self.connection.add_notify_handler(self.hear)
            while time.time() < self.until + 2:
                # Signals come in the order of their commits: with this one all before it have come.
                if self.ask(f"NOTIFY {signals}, 'listener {time.time()}'") is None:
                    break
                time.sleep(0.05)
        return {'heard': self.heard, 'spells': self.spells}

    def hear(self, notify):
        if notify.payload.startswith('listener '):
            self.spells[-1][1] = float(notify.payload.split()[1])
        else:
            self.heard.append((notify.channel.removeprefix(f'{self.prefix}.'), notify.payload))


# The forms of calls. Of each: what it is called, which the event log has too, and so the checks; its
# verb; SQL with %(…)s, where @ stands for the prefix as an argument, or for nothing; what is told: a
# count of changed jobs, outcomes of oban_manage_jobs, or jobs; and what an application does before.
Form = collections.namedtuple('Form', 'name verb query kind setup', defaults=[None])
FORMS = []
for verb in ('cancel', 'retry', 'delete'):
    FORMS += [
        Form(f'{verb} id', verb, f'SELECT oban_{verb}_job(%(id)s::bigint@)::integer', 'count'),
        Form(f'{verb} record', verb,
             f'SELECT oban_{verb}_job(j)::integer FROM oban_jobs j WHERE id = %(id)s', 'count'),
        Form(f'{verb} oban_job', verb, f'SELECT oban_{verb}_job(j)::integer FROM oban_all_jobs('
             "jsonb_build_object('id', %(id)s)@) j", 'count'),
        Form(f'{verb} array', verb, f'SELECT oban_{verb}_job(%(ids)s::bigint[]@)', 'count'),
        Form(f'{verb} many', verb, f'SELECT oban_{verb}_many_jobs(%(ids)s@)', 'count'),
        Form(f'{verb} all', verb, f'SELECT oban_{verb}_all_jobs(%(filter)s, 60@)', 'count'),
        Form(f'{verb} manage', verb, f"SELECT * FROM oban_manage_jobs('{verb}', %(ids)s@)",
             'outcomes'),
        Form(f'dry_run {verb}', verb, f"SELECT * FROM oban_manage_jobs('{verb}', %(ids)s, "
             'dry_run => true@)', 'dry_run'),
        Form(f'{verb} batches', verb, f'CALL oban_{verb}_in_batches(%(filter)s, 20@)', 'count'),
    ]
for name, changes in (('update', '%(changes)s'), ('update_with', "'public.step'")):
    FORMS += [
        Form(f'{name} id', 'update',
             f'SELECT id, to_jsonb(u) FROM oban_{name[:6]}_job{name[6:]}(%(id)s::bigint, {changes}@) u',
             'jobs'),
        Form(f'{name} array', 'update', f'SELECT id, to_jsonb(u) FROM oban_{name[:6]}_job{name[6:]}('
             f'%(ids)s::bigint[], {changes}@) u', 'jobs'),
        Form(f'{name} record', 'update', 'SELECT (u).id, to_jsonb(u) FROM (SELECT '
             f'oban_{name[:6]}_job{name[6:]}(j, {changes}) AS u FROM oban_jobs j WHERE id = %(id)s '
             'OFFSET 0) s', 'jobs'),
        Form(f'{name} oban_job', 'update', 'SELECT (u).id, to_jsonb(u) FROM (SELECT '
             f'oban_{name[:6]}_job{name[6:]}(j, {changes}) AS u FROM oban_all_jobs('
             "jsonb_build_object('id', %(id)s)@) j OFFSET 0) s", 'jobs'),
    ]
FORMS += [
    Form('update many', 'update',
         'SELECT id, to_jsonb(u) FROM oban_update_many_jobs(%(ids)s, %(changes)s@) u', 'jobs'),
    Form('update all', 'update', 'SELECT oban_update_all_jobs(%(filter)s, %(changes)s, 60@)', 'count'),
    Form('update manage', 'update',
         "SELECT * FROM oban_manage_jobs('update', %(ids)s, %(changes)s@)", 'outcomes'),
    Form('dry_run update', 'update', "SELECT * FROM oban_manage_jobs('update', %(ids)s, %(changes)s, "
         'dry_run => true@)', 'dry_run'),
    Form('update batches', 'update', 'CALL oban_update_in_batches(%(filter)s, %(changes)s, 20@)',
         'count'),
    Form('update_with many', 'update', 'SELECT id, to_jsonb(u) FROM oban_update_many_jobs_with('
         "%(ids)s, 'public.step_json', '{}'@) u", 'jobs'),
    Form('trigger cancel', 'cancel', 'DELETE FROM visits WHERE id = %(row)s', None,
         'INSERT INTO visits VALUES (%(row)s, %(id)s)'),
    Form('trigger update', 'update', 'UPDATE visits SET id = id WHERE id = %(row)s', None,
         'INSERT INTO visits VALUES (%(row)s, %(id)s)'),
    Form('trigger retry', 'retry', 'INSERT INTO orders VALUES (%(row)s, %(half)s), (%(row)s + 1, '
         '%(ids)s)', None),
]
for verb, statement in (('update_with', 'UPDATE invoices SET id = id'), ('delete', 'DELETE FROM invoices')):
    FORMS.append(Form(
        f'trigger {verb}', verb[:6], statement + ' WHERE id BETWEEN %(row)s AND %(row)s + 2', None,
        'INSERT INTO invoices VALUES (%(row)s, %(ids)s), (%(row)s + 1, %(half)s), '
        '(%(row)s + 2, %(ids)s)'))
# These see exactly what their snapshot does.
FORMS += [
    Form('read job', None, 'SELECT pg_current_snapshot()::text, jsonb_agg(to_jsonb(j)) '
         'FROM oban_get_job(%(id)s@) j WHERE id IS NOT NULL', 'read'),
    Form('read all', None, 'SELECT pg_current_snapshot()::text, jsonb_agg(to_jsonb(j)) '
         "FROM oban_all_jobs(jsonb_build_object('id', %(ids)s)@) j", 'read'),
]
PARAMETERS = {'id': 'bigint', 'ids': 'bigint[]', 'half': 'bigint[]', 'row': 'bigint',
              'filter': 'jsonb', 'changes': 'jsonb', 'prefix': 'text'}
DONE = {'cancelled', 'retried', 'deleted', 'updated'}

# What is kept of a call: the column of the table told.
Call = collections.namedtuple('Call', 'actor client form verb kind began ended snapshot outcome '
                              'sqlstate quiet named filter changes count jobs answers')


class Client(Actor):
    """Calls one form after the other, each under an application name of its own."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        number = int(self.name.removeprefix('client'))
        # Some find the jobs in the order of the disk, unless they sort.
        self.options = ['', '-c enable_indexscan=off', '',
                        '-c enable_indexscan=off -c enable_bitmapscan=off'][number % 4]
        self.prepares = number // 4 % 2 == 0
        self.quiet = number % 8 == 7
        if self.quiet:
            self.options += ' -c oban_manage.notify=off'
        # The triggers of some tables have the prefix as an argument; the others need the setting.
        self.forms = FORMS
        self.argument = ''
        if number >= 8:
            self.options += ' -c oban_manage.prefix=nowhere'
            self.argument = ', prefix => %(prefix)s'
            self.forms = [form for form in FORMS if form.name != 'trigger retry']
        self.row = number * 10 ** 9
        self.known = [1]

    def run(self):
        self.calls = []
        while self.going():
            form = self.rng.choice(self.forms)
            # Else few jobs would live long enough to be run.
            if form.verb != 'delete' or self.rng.random() < 0.5:
                self.call(form)
        return {'calls': self.calls}

    def call(self, form):
        actor = f'{self.name}/{len(self.calls)} {form.name}'
        ids = self.ids()
        if form.verb == 'delete':
            ids = self.next_jobs() if self.rng.random() < 0.5 else ids[:2]
        self.row += 3
        values = {'id': ids[0], 'ids': ids, 'half': ids[:len(ids) // 2], 'row': self.row,
                  'filter': json.dumps(self.filter(form, ids)), 'changes': json.dumps(self.changes()),
                  'prefix': self.prefix}
        if form.setup and self.ask(form.setup, values) is None:
            return
        before = self.ask("SELECT set_config('application_name', %s, false), "
                          'pg_current_snapshot()::text', [actor])
        if before is None:
            return
        began = time.time()
        errors = len(self.errors)
        batches = form.query.startswith('CALL')
        rolled_back = not batches and self.rng.random() < 0.06
        if rolled_back:
            self.ask('BEGIN', again=False)
        rows = self.ask(self.text(form), values, actor, again=False)
        if rolled_back:
            self.ask('ROLLBACK', again=False)
        refused = len(self.errors) > errors
        told = rows is not None
        snapshot, count, jobs, answers = before[0][1], None, None, None
        if told and form.kind == 'count':
            count = sum(row[0] for row in rows)
        elif told and form.kind in ('outcomes', 'dry_run'):
            answers = rows
            jobs = sorted(row[0] for row in rows if row[1] in DONE)
        elif told and form.kind == 'jobs':
            answers = [row for row in rows if row[0] is not None]
            jobs = sorted(row[0] for row in answers)
        elif told and form.kind == 'read':
            snapshot = rows[0][0]
            answers = [(job['id'], job) for job in rows[0][1] or []]
        named = ids
        if form.name.split()[1] in ('id', 'record', 'oban_job', 'job') or 'visits' in form.query:
            named = ids[:1]
        elif '%(filter)s' in form.query:
            named = json.loads(values['filter']).get('id')
        self.calls.append(Call(
            actor, self.name, form.name, form.verb, form.kind, began, time.time(), snapshot,
            'refused' if refused else 'unknown' if not told else
            'rolled back' if rolled_back else 'told',
            self.errors[-1][1] if refused else None, self.quiet, named,
            values['filter'] if '%(filter)s' in form.query else None,
            values['changes'] if '%(changes)s' in form.query else
            '{"schedule_in": 0.2}' if form.name == 'trigger update' else None,
            len(jobs) if jobs is not None and form.kind != 'dry_run' else count, jobs,
            None if answers is None else json.dumps(answers)))

    def text(self, form):
        """The call as it stands, or as a statement that the session has prepared."""
        query = form.query.replace('@', self.argument)
        if not self.prepares or query.startswith('CALL'):
            return query
        if form.name not in self.prepared:
            numbers = {name: f'${n}' for n, name in enumerate(PARAMETERS, 1)}
            self.ask(f'PREPARE "{form.name}" ({", ".join(PARAMETERS.values())}) AS '
                     + query % numbers, again=False)
            self.prepared.add(form.name)
        return f'EXECUTE "{form.name}" ({", ".join(f"%({name})s" for name in PARAMETERS)})'

    def next_jobs(self):
        """Those that the workers take next."""
        rows = self.ask("""SELECT id FROM oban_jobs WHERE state = 'available' AND queue = 'default'
            ORDER BY priority, scheduled_at, id LIMIT 3""")
        return [row[0] for row in rows or []] or self.known[:2]

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

    def filter(self, form, ids):
        rng = self.rng
        few = [{'id': ids}, {'args': {'n': rng.randint(0, 49)}}]
        # A procedure has no bound: were it to match more, the workers would have nothing to do.
        if form.name.endswith('batches'):
            return rng.choice(few)
        if form.verb == 'delete':
            return rng.choice([
                {'id': ids}, {'args': {'n': rng.randint(0, 49)}, 'queue': 'slow'},
                {'args': {'n': rng.randint(0, 49)}, 'state': ['cancelled', 'completed']}])
        return rng.choice([
            *few, {'queue': 'default', 'state': rng.choice(['available', 'executing', 'retryable'])},
            {'worker': 'Even', 'state': ['scheduled', 'cancelled', 'completed']}, {'queue': 'slow'}])

    def changes(self):
        rng = self.rng
        return rng.choice([
            {'priority': rng.randint(0, 3)}, {'schedule_in': 0.1}, {'schedule_in': 0},
            {'queue': 'default'}, {'queue': 'slow'}, {'tags': ['B', 'a'], 'priority': 1},
            {'max_attempts': rng.randint(10000, 10009), 'worker': rng.choice(['Even', 'Odd'])}])
