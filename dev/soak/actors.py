"""Who works on the jobs: workers, the other parts of both Obans, a listener, managing clients.

Each actor lives through lost connections and restarts of the server, and keeps what it was told:
only what was told is held against the event log.
"""

import collections
import dataclasses
import json
import random
import select
import time

import psycopg

# The schemas of the statements of each Oban: fixtures/workers.sql.
OBANS = ('elixir', 'python')
# Who makes calls of ours, by the beginning of the name.
OURS = ('client', 'restarter')
# A connection that broke, or was refused while the server starts.
GONE = ('57P01', '57P02', '57P03', '08000', '08003', '08006', None)


class Actor:
    def __init__(self, name, place, seed, until):
        self.name = name
        self.place = place  # where to connect to, and the channel of signals
        self.prefix = place['prefix']
        self.oban = next((oban for oban in OBANS if name.endswith(oban)), None)
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


@dataclasses.dataclass
class Run:
    """One run of a job."""
    job: int
    attempt: int
    max_attempts: int
    meta: dict
    ends: float  # when its worker answers
    late: bool  # after its rescue
    told: bool = False  # to stop
    answered: bool = False


class Worker(Actor):
    """Fetches jobs, runs some at a time, and answers by their ids alone."""

    MOST = 6  # jobs at a time

    def run(self):
        self.executed = []  # (job, attempt)
        self.unanswered = []  # (job, answer) that returned no row
        self.asked = []  # (snapshot, job, whether it is cancelled)
        self.done = collections.Counter()
        self.running = []
        while self.going() or self.running:
            if self.going() and len(self.running) < self.MOST:
                self.fetch()
            self.hear()
            now = time.time()
            for run in [run for run in self.running if run.ends <= now or not self.going()]:
                self.running.remove(run)
                if not run.answered:
                    self.end(run)
            self.settle()
            if time.time() > self.until + 60:
                break
        return {'executed': self.executed, 'asked': self.asked, 'unanswered': self.unanswered,
                'done': self.done}

    def connect(self):
        """Signals that come between two connections are lost, as Oban's are."""
        if not super().connect():
            return False
        self.heard = []
        self.connection.add_notify_handler(lambda notify: self.heard.append(notify.payload))
        try:
            self.connection.execute(f'LISTEN "{self.prefix}.oban_signal"')
        except psycopg.Error:
            self.connection.close()
        return not self.connection.closed

    def fetch(self):
        rng = self.rng
        fetched = self.ask(f'SELECT id, attempt, max_attempts, meta FROM {self.oban}.fetch(%s)',
                           [self.MOST - len(self.running)], 'fetch')
        for job, attempt, max_attempts, meta in fetched or []:
            self.executed.append((job, attempt))
            if rng.random() < 0.03:
                continue  # it is lost, and rescued by and by
            # Some last until they have been rescued, and answer then.
            late = rng.random() < 0.03
            lasts = rng.uniform(0.5, 1.5) if late else rng.choice([0, 0.002, 0.01, 0.03])
            self.running.append(Run(job, attempt, max_attempts, meta, time.time() + lasts, late))

    def hear(self):
        """Waits a moment for signals, and does what they ask for."""
        if self.connection is None or self.connection.closed:
            time.sleep(0.005)
            return
        connection = self.connection.pgconn
        try:
            select.select([connection.socket], [], [], 0.003 if self.running else 0.02)
            connection.consume_input()
            while notice := connection.notifies():
                self.heard.append(notice.extra.decode())
        except psycopg.Error:
            self.connection.close()
            self.lost += 1
        for payload in self.heard:
            job = json.loads(payload).get('job_id') if payload.startswith('{') else None
            for run in [run for run in self.running if run.job == job]:
                self.kill(run)
        self.heard.clear()

    def end(self, run):
        """The run is over: it asks whether it is cancelled, perhaps, and answers."""
        if self.rng.random() < 0.3:
            told = self.ask('SELECT pg_current_snapshot()::text, oban_job_cancelled(%s)', [run.job])
            if told:
                self.asked.append((told[0][0], run.job, told[0][1]))
                run.told = run.told or told[0][1]
        if run.told:
            answer = self.rng.choice(['stop', 'stop', 'fail', 'complete'])
        else:
            answer = self.rng.choices(['complete', 'fail', 'snooze', 'discard', 'stop'],
                                      [55, 20, 15, 5, 5])[0]
        if answer == 'fail' and run.attempt >= run.max_attempts:
            answer = 'discard'
        if answer == 'snooze' and self.oban == 'elixir' and self.rng.random() < 0.4:
            answer = 'snooze_before'
        self.answer(run, answer)

    def statement(self, run, answer):
        """The statement of an answer, and its arguments."""
        arguments = [run.job]
        if answer.startswith('snooze'):
            arguments += [json.dumps(run.meta), self.rng.choice([0.1, 0.3])]
        elif answer == 'fail':
            arguments += [run.attempt, self.rng.choice([0.1, 0.3])]
        elif answer != 'complete':
            arguments.append(run.attempt)
        return (f'SELECT * FROM {self.oban}.{answer}({", ".join(["%s"] * len(arguments))})',
                arguments)

    def note(self, run, answer, rows):
        self.done[f'{self.oban} answers {answer}'] += 1
        self.done['late answers'] += run.late
        if not rows:
            self.unanswered.append((run.job, answer))

    def settle(self):
        pass


class ElixirWorker(Worker):
    """Of Oban for Elixir: each run is a task, which a signal kills."""

    def answer(self, run, answer):
        run.answered = True
        statement, arguments = self.statement(run, answer)
        # Again and again until it is written; whether to a row, it does not ask.
        while (rows := self.ask(statement, arguments, answer)) is None:
            if time.time() > self.until + 60:
                return
        self.note(run, answer, rows)
        # A task that is killed when its answer is just written answers twice.
        if answer != 'stop' and self.rng.random() < 0.2:
            run.ends = time.time() + 0.03
            self.running.append(run)

    def kill(self, run):
        """Who sees the task go answers for it, at once."""
        if run in self.running:
            self.running.remove(run)
        self.done['runs killed'] += 1
        if run.answered:
            self.done['runs answered twice'] += 1
        time.sleep(self.rng.choice([0, 0, 0.001, 0.005]))
        self.answer(run, 'stop')


class PythonWorker(Worker):
    """Of Oban for Python: a run sees that it is told to stop. Answers are sent together, in one
    transaction, and again and again until each has returned its row."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.pending = []  # [run, answer, how often it was sent]

    def answer(self, run, answer):
        self.pending.append([run, answer, 0])

    def kill(self, run):
        run.told = True
        self.done['runs told'] += 1

    def settle(self):
        """Sends all answers once, and in the end until they are written."""
        while self.pending and time.time() < self.until + 60:
            self.send()
            if self.going():
                break

    def send(self):
        results = []
        if self.ask('BEGIN') is None:
            return
        for run, answer, _ in self.pending:
            results.append(self.ask(*self.statement(run, answer), answer, again=False))
            if results[-1] is None:
                self.ask('ROLLBACK', again=False)
                return
        if self.ask('COMMIT', again=False) is None:
            return
        pending, self.pending = self.pending, []
        for (run, answer, times), rows in zip(pending, results):
            if rows or times == 5:
                self.note(run, answer, rows)
            else:
                self.pending.append([run, answer, times + 1])


class Part(Actor):
    """A part of an Oban that does the same again and again."""

    def run(self):
        self.done = collections.Counter()
        while self.going():
            self.step()
            time.sleep(self.PAUSE * self.rng.uniform(0.5, 1.5))
        return {'done': self.done}

    def call(self, what, *arguments):
        rows = self.ask(f'SELECT * FROM {self.oban}.{what}({", ".join(["%s"] * len(arguments))})',
                        arguments, what)
        self.done[f'{self.oban} {what}'] += len(rows or [])


class Stager(Part):
    PAUSE = 0.05

    def step(self):
        self.call('stage')


class Pruner(Part):
    PAUSE = 0.2

    def step(self):
        self.call('prune', '3 s', 30)


class Rescuer(Part):
    PAUSE = 0.2

    def step(self):
        self.call('rescue', '0.5 s')


class Manager(Part):
    """Uses the Oban's own bulk calls."""
    PAUSE = 0.1

    def step(self):
        rows = self.ask('SELECT id FROM oban_jobs TABLESAMPLE SYSTEM (20) ORDER BY random() LIMIT 5'
                        if self.rng.random() < 0.5 else
                        "SELECT id FROM oban_jobs WHERE state IN ('executing', 'available') "
                        'ORDER BY priority, scheduled_at, id LIMIT 5')
        verb = self.rng.choices(['cancel_all', 'retry_all', 'delete_all'], [4, 4, 1])[0]
        self.call(verb, [row[0] for row in rows or []])


class Adder(Part):
    """Adds jobs when few are left."""
    PAUSE = 0.1

    def step(self):
        waiting = self.ask('SELECT count(*) FROM oban_jobs')
        if waiting and waiting[0][0] < 1500:
            self.ask('SELECT public.add_jobs(200)')


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


class Watcher(Actor):
    """Looks for calls of ours that wait for each other: a deadlock of no others."""

    def run(self):
        self.cycles = []
        before = {}
        while self.going():
            rows = self.ask("SELECT pid, application_name, pg_blocking_pids(pid), left(query, 500) "
                            "FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            waits = {pid: blockers for pid, name, blockers, _ in rows or [] if name.startswith(OURS)}
            cycles = {pid: waits for pid in waits if pid in self.reached(waits, waits[pid])}
            # The processes are looked at one after the other: what is still so is a deadlock.
            for pid in cycles.keys() & before.keys():
                if cycles[pid][pid] == before[pid][pid] and len(self.cycles) < 3:
                    self.cycles.append('\n'.join(
                        f'{name} ({pid}) waits for {blockers}: {query}'
                        for pid, name, blockers, query in rows))
            before = cycles
            time.sleep(0.03)
        return {'cycles': self.cycles}

    def reached(self, waits, pids):
        """The processes that these wait for in the end."""
        found = set()
        left = list(pids)
        while left:
            pid = left.pop()
            if pid not in found:
                found.add(pid)
                left += waits.get(pid, [])
        return found


# The forms of calls. Of each: what it is called, which the event log has too, and so the checks; its
# verb; SQL with %(…)s, where @ stands for the prefix as an argument, or for nothing; what is told: a
# count of changed jobs, outcomes of oban_manage_jobs, or jobs; and what an application does before.
# "Skipping" forms pass over jobs that others hold, and those that a trigger of round.sql refuses them.
SKIP = 'skip_refused => true, skip_locked => true'
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
        Form(f'{verb} skipping batches', verb, f'CALL oban_{verb}_in_batches(%(filter)s, 20, {SKIP}@)',
             'count'),
        *(Form(f'{verb} {name}', verb, f"SELECT * FROM oban_manage_{jobs}, {skip}@)", 'outcomes')
          for name, jobs, skip in (
              ('skipping', f"jobs('{verb}', %(ids)s", SKIP),
              ('manage_all', f"all_jobs('{verb}', %(filter)s", 'max_jobs => 60'),
              ('skipping manage_all', f"all_jobs('{verb}', %(filter)s", f'max_jobs => 60, {SKIP}'))),
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
    Form('update skipping', 'update',
         f"SELECT * FROM oban_manage_jobs('update', %(ids)s, %(changes)s, {SKIP}@)", 'outcomes'),
    Form('update skipping manage_all', 'update', "SELECT * FROM oban_manage_all_jobs('update', "
         f'%(filter)s, %(changes)s, 60, {SKIP}@)', 'outcomes'),
    Form('dry_run retry manage_all', 'retry', "SELECT * FROM oban_manage_all_jobs('retry', %(filter)s, "
         'max_jobs => 60, dry_run => true@)', 'dry_run'),
    Form('update skipping batches', 'update', 'CALL oban_update_in_batches(%(filter)s, %(changes)s, '
         f'20, {SKIP}@)', 'count'),
    Form('update_with all', 'update',
         "SELECT oban_update_all_jobs_with(%(filter)s, 'public.step', max_jobs => 60@)", 'count'),
    Form('update_with batches', 'update', "CALL oban_update_in_batches_with(%(filter)s, "
         "'public.step_json', '{}', 20@)", 'count'),
    Form('update_with skipping batches', 'update', "CALL oban_update_in_batches_with(%(filter)s, "
         f"'public.step', batch_size => 20, {SKIP}@)", 'count'),
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


class Restarter(Actor):
    """Cancels a job that is executing and retries it, mostly in one transaction, so that its worker
    hears of it when it waits again. The two calls are told of as a client's are.

    One job at a time: of several, the retry might lock one below those that the cancel has locked.
    """

    def run(self):
        self.calls = []
        while self.going():
            rows = self.ask("SELECT id FROM oban_jobs WHERE state = 'executing' "
                            'ORDER BY attempted_at DESC LIMIT 1')
            if rows:
                self.restart([row[0] for row in rows], self.rng.random() < 0.8)
            time.sleep(self.rng.uniform(0, 0.05))
        return {'calls': self.calls}

    def restart(self, ids, together):
        calls = []
        if together and self.ask('BEGIN') is None:
            return
        for verb in ('cancel', 'retry'):
            actor = f'{self.name}/{len(self.calls) + len(calls)} {verb}'
            before = self.ask("SELECT pg_current_snapshot()::text FROM set_config("
                              "'application_name', %s, false)", [actor], again=False)
            began = time.time()
            rows = before and self.ask(f'SELECT oban_{verb}_job(%s::bigint[])', [ids], actor,
                                       again=False)
            if not rows:
                break
            calls.append(Call(actor, self.name, f'{verb} restart', verb, 'count', began, time.time(),
                              before[0][0], 'told', None, False, None, None, None, rows[0][0], None,
                              None))
        if together:
            sure = len(calls) == 2 and self.ask('COMMIT', again=False) is not None
            if not sure:
                self.ask('ROLLBACK', again=False)
                calls = [call._replace(outcome='unknown', count=None) for call in calls]
            # Their signals are sent by the commit.
            calls = [call._replace(ended=time.time()) for call in calls]
        self.calls += calls
