"""Random jobs and random calls, good and broken, from a seeded generator.

"kind" is what the report counts a call under. In its text @m is the schema of the functions, of the
extension or of the model, @t that of the table, and <name> a part.
"""

from parts import Call, Ids, Json, Null, Option, Raw, Spec, quote, quote_name

STATES = ['available', 'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled',
          'suspended']
QUEUES = ['default', 'mail', 'Ünï "q"', "o'clock\\", 'tab\there']
WORKERS = ['App.Worker', 'App.Mailer', "It's"]
WHIMS = ['Keeps', 'Waits', 'Hurries']  # workers whose jobs a trigger gives another state
# Workers whose jobs are refused: by a trigger, or by a constraint that waits. One stops the whole call.
REFUSED = ['Refuses', 'Refuses', 'Refuses later', 'Refuses later', 'Defers', 'Defers', 'Breaks']
LIVE = ['available', 'scheduled', 'executing', 'retryable']
TAGS = ['a', 'b', 'urgent', 'New', 'é', '', 'ÀÉ', 'İsIı', 'ΑΣ', 'ẞŸ', 'Ⱥ', 'ЖＦ', '\U00010400']
PAST = ['2024-01-02 03:04:05.678901', '2024-02-29 00:00:00', '1999-12-31 23:59:59.999999']
FUTURE = ['2099-01-02 00:00:00', '2150-06-07 08:09:10.5']
ISO = ['2024-01-02T03:04:05.678901Z', '2024-01-02T03:04:05+02:00', '2099-01-02', '2024-02-29',
       '2099-01-02T00:00:00', '2024-01-02 08:49:05.678901+05:45', '2099-12-31T23:30:00-0800',
       '20240102T030405Z', '2024-01-02t03:04z', '20240102', '2024-02-29T00:00Z',
       '1999-12-31T23:59:59.999999', '2150-06-07T08:09:10.5Z', '0001-01-01', '9999-12-31T23:59:59.999999Z']
NO_TIME = ['infinity', '-infinity', 'tomorrow', 'now', '', 'x', '2024-13-01', '2023-02-29',
           '2024-01-01T25:00:00Z', 'epoch', '1/2/2024', 5, True, None, {}, [], '102024-01-02',
           '10000-01-01', '0000-12-31', '0044-03-15 BC', '0001-01-01T00:00+00:01', '9999-12-31T24:00']
# When retried jobs are to run
LATER = ['NULL', 'now()', "now() + interval '1 microsecond'", "now() - interval '1 hour'",
         "now() + interval '2 hours'", "'2099-01-02 00:00:00+00'", "'1999-12-31 23:59+00'",
         "'9999-12-31 23:59:59.999999+00'", "'0001-01-01 00:00+00'"]
NEVER = ["'infinity'", "'-infinity'", "'10000-01-01 00:00+00'", "'0044-03-15 00:00+00 BC'"]
SCALARS = [None, True, False, 0, 1, -1, 1.5, '', 'x', [], {}, [1], {'a': 1}]
ODD_IDS = [0, -1, 99, 2**31, 2**63 - 1, -2**63]
TIMES = ['inserted_at', 'scheduled_at', 'attempted_at', 'completed_at', 'cancelled_at',
         'discarded_at']
OBJECTS = [{}, {'a': 1}, {'a': 1, 'b': [1, 2]}, {'a': {'b': 'c'}}, {'uniq_bmp': [1, 2]},
           {'uniq_bmp': None, 'a': 1}, {'x': 'é\n"'}, {'n': 1.50}]
ONLY = [{'only': 1}, {'only': 'x', 'a': 1}]  # args of which there may be one job that waits or runs


class Generator:
    def __init__(self, rng, table):
        self.rng = rng
        self.states = table['states']
        self.small = table['small']
        self.nullable = table['nullable']
        self.schema = table['schema']
        self.partitions = table.get('partitions', [])
        self.refused = 0  # how many of the jobs are refused

    def chance(self, probability):
        return self.rng.random() < probability

    def some(self, values, least=1, most=3):
        return [self.rng.choice(values) for _ in range(self.rng.randint(least, most))]

    # ---- jobs

    def job(self, job_id):
        rng = self.rng
        attempt = rng.choice([0, 0, 1, 2, 3, 20])
        most = max(1, attempt + rng.choice([0, 0, 1, 5, 17]))
        if self.chance(0.03):
            most = 32767 if self.small else 2147483647
            attempt = most - rng.choice([0, 0, 1])
        errors = [{'at': '2024-01-03T00:00:00Z', 'attempt': 1, 'error': 'oops'}][:rng.randint(0, 1)]
        job = {
            'id': job_id, 'state': rng.choice(self.states), 'queue': rng.choice(QUEUES),
            'worker': rng.choice(WHIMS if self.chance(0.15) else
                                 REFUSED if self.chance(self.refused) else WORKERS),
            'attempt': attempt, 'max_attempts': most,
            'priority': rng.randint(0, 3), 'args': rng.choice(OBJECTS), 'meta': rng.choice(OBJECTS),
            'tags': sorted(set(self.some(TAGS, 0))), 'errors': errors,
            'attempted_by': self.some(['node-1', 'b'], 0, 2),
            'inserted_at': rng.choice(PAST), 'scheduled_at': rng.choice(PAST + FUTURE),
            'attempted_at': None, 'completed_at': None, 'cancelled_at': None, 'discarded_at': None,
        }
        for name in TIMES[2:]:
            if self.chance(0.3):
                job[name] = rng.choice(PAST + FUTURE)
        if self.chance(0.05):
            job['meta'] = rng.choice([['uniq_bmp'], 'uniq_bmp', 7, None])
        if self.nullable:
            for name in ('meta', 'tags', 'attempted_by'):
                if self.chance(0.1):
                    job[name] = None
        if job['meta'] is None and not self.nullable:
            job['meta'] = {}
        return job

    def jobs(self):
        ids = self.rng.sample(range(1, 13), self.rng.randint(1, 8))
        if self.chance(0.05):
            ids.append(2**63 - 1)
        self.refused = self.rng.choice([0, 0.1, 0.4])
        jobs = [self.job(i) for i in ids]
        if self.chance(0.3):
            self.name(jobs, 0.5)
        return jobs

    def name(self, jobs, share):
        """Gives some of the jobs names, of which the first that waits or runs has each alone."""
        seen = set()
        for job in jobs:
            args = self.rng.choice(ONLY)
            if self.chance(share) and not (job['state'] in LIVE and args['only'] in seen):
                job['args'] = args
                seen.update([args['only']] * (job['state'] in LIVE))

    # ---- arguments

    def job_id(self):
        return self.rng.choice(ODD_IDS) if self.chance(0.08) else self.rng.randint(1, 12)

    def ids(self, ids):
        """Ids, some present, some named twice, some NULL."""
        chosen = [self.job_id() for _ in range(self.rng.choice([0, 1, 2, 3, 5, 9]))]
        if self.chance(0.6):
            chosen = [i for i in chosen if i in ids]
        if chosen and self.chance(0.2):
            chosen.append(chosen[0])
        if self.chance(0.1):
            chosen.insert(self.rng.randint(0, len(chosen)), None)
        return [None, None] if self.chance(0.01) else chosen

    def part(self, name, part):
        self.parts[name] = part
        return f'<{name}>'

    def array(self, ids):
        """The ids as an array of some shape."""
        shape = self.rng.choice(['flat'] * 18 + ['bounds', 'deep'])
        return self.part('ids', Ids(ids, shape))

    def prefix(self):
        """The last argument: mostly none."""
        text = ''
        if self.chance(0.15):
            name = self.rng.choice([self.schema] * 6 + ['nowhere', 'model', ''])
            text = f', prefix => {quote(name)}'
        return self.part('prefix', Option(text))

    def changes_part(self):
        changes = self.changes()
        if isinstance(changes, dict) and self.chance(0.05):
            changes['args'] = self.rng.choice(ONLY)
        return self.part('changes', Json(changes))

    def filter_part(self):
        return self.part('filter', Json(self.filter()))

    def changes(self, broken=None):
        """A JSON object of changes, or something that is none."""
        rng = self.rng
        broken = self.chance(0.15) if broken is None else broken
        good = {
            'args': lambda: rng.choice(OBJECTS), 'meta': lambda: rng.choice(OBJECTS),
            'max_attempts': lambda: rng.choice([1, 2, 3, 4, 20, 25, 32767, Raw('21.0'),
                                                Raw('2e1')] + ([] if self.small else [2147483647])),
            'priority': lambda: rng.choice([0, 1, 3, 9, Raw('2.0')]),
            'queue': lambda: rng.choice(QUEUES + [' padded ', 'q' * 127]),
            'worker': lambda: rng.choice(WORKERS),
            'scheduled_at': lambda: rng.choice(ISO),
            'schedule_in': lambda: rng.choice([
                0, 60, -60, 0.5, -1.25, 1e6, Raw('3600.000001'), Raw('0.0000016'), Raw('-0.0000016'),
                '5 minutes', '-1 day', '1 month', '-1 day 2:00', '1 month -3 days',
                '1 day 02:00', '0', 'PT1H', '2 weeks ago', Raw('2e11')]),
            'tags': lambda: self.some(TAGS + [' Urgent ', 'B\n', '\t', 7, Raw('1.50'), True, None],
                                      0, 5),
        }
        bad = {
            'args': SCALARS[:11] + [[1]], 'meta': SCALARS[:11] + [[1]],
            'max_attempts': [0, -1, 1.5, '5', None, 32768, 2**31, 2**64 + 1, Raw('1e400'), {}],
            'priority': [10, -1, 0.5, '1', None, True, Raw('1e30'), [1], 2**32],
            'queue': ['', ' ', '\t\n', 5, None, [], 'q' * 128], 'worker': ['', '  ', 5, None, {}],
            'scheduled_at': NO_TIME,
            'schedule_in': ['soon', '', None, True, {}, [], Raw('1e400'), Raw('1e20'), -1e15,
                            '1000000 years', 'infinity', -95000000000, 26e10, '8000 years',
                            '-2100 years'],
            'tags': ['a', 5, None, {}, [['a']], [{}], ['t' * 256], ['t' * 255]],
            'prio': [1], 'id': [5], 'state': ['available'], 'Queue': ['x'], '': [1],
        }
        if broken and self.chance(0.15):
            return rng.choice([Null, None, [], 'x', 5, True, [{'priority': 1}]])
        keys = rng.sample(list(good), rng.choice([0, 1, 1, 1, 2, 3]))
        if 'scheduled_at' in keys and 'schedule_in' in keys and not broken:
            keys.remove('schedule_in')
        changes = {key: good[key]() for key in keys}
        if broken:
            key = rng.choice(list(bad))
            changes[key] = rng.choice(bad[key])
        return changes

    def filter(self, depth=1):
        """A JSON object that is a filter, or something that is none."""
        rng = self.rng
        good = {
            'id': lambda: rng.choice([1, 2, 5, [1, 2, 3, 4, 5, 6], [7, 99, 7], Raw('3.0'), 2**64,
                                      [2**63 - 1, 1], -1, '2', ['1', 3, '5', '007'],
                                      ['9223372036854775807', '1' * 40]]),
            'state': lambda: rng.choice([rng.choice(self.states), self.some(self.states)]),
            'queue': lambda: rng.choice([rng.choice(QUEUES), self.some(QUEUES), 'none', '']),
            'worker': lambda: rng.choice([rng.choice(WORKERS), self.some(WORKERS)]),
            'priority': lambda: rng.choice([0, 1, [0, 2], 99999, 65536, 2**32, [2**40, 1]]),
            'attempt': lambda: rng.choice([0, [1, 2, 3, 20], Raw('0.0'), Raw('1e400')]),
            'max_attempts': lambda: rng.choice([20, [1, 5, 6, 7], 40000]),
            'args': lambda: rng.choice(OBJECTS[1:]), 'meta': lambda: rng.choice(OBJECTS[1:]),
            'tags': lambda: rng.choice(['a', 'URGENT', 'é', 'É', ['a', 'b'], ['b', 'b'], ['new']]),
            'attempted_by': lambda: rng.choice(['node-1', 'b', ['node-1', 'b'], ['nobody'], 'B']),
            'error': lambda: rng.choice(['oops', 'oo', 'Oops', 'attempt', 'o' * 9]),
            'all': lambda: True,
        }
        for name in TIMES:
            good[name] = lambda: {key: rng.choice(ISO) for key in
                                  rng.choice([['after'], ['before'], ['after', 'before']])}
        bad = {
            'id': [None, 1.5, '-1', '', ' 1', '1.0', [], [1, None], [1, 'x'], {}, True, [[1]]],
            'state': ['' if 'suspended' in self.states else 'suspended', 'Available', 'nonsense', None, [], ['available', None], 5, {}],
            'queue': [None, 5, [], ['default', 5], {}, True], 'worker': [None, 1, [], {}, [None]],
            'priority': [0.5, '0', None, [], [0.5]], 'attempt': ['x', None, {}],
            'max_attempts': [True, [], 'x'], 'args': [{}, [], None, 'a', [1], 5],
            'meta': [{}, [], None, 1, True], 'tags': ['', ' ', [], [None], 5, True, None, [['a']], {},
                                                    ['a', 7], ['a', None], ['a', ' ']],
            'attempted_by': ['', '\t', [], [None], 5, {}, ['b', 5]],
            'error': ['', None, 5, ['oops'], {}, True],
            'not': [{}, None, 'x', [], True, {'unknown': 1}, {'id': 'x'},
                    {'not': {'not': {'not': {'all': True}}}}, {'not': {}}],
            'all': [False, None, 1, 'true', [], {}], 'unknown': [1], 'State': ['available'], '': [1],
        }
        for name in TIMES:
            bad[name] = [{}, None, '2024-01-01', {'after': None}, {'since': '2024-01-01'}, [], 5,
                         {'after': rng.choice(NO_TIME)}, {'before': 5, 'after': '2024-01-01'}]
        if self.chance(0.03):
            return rng.choice([Null if depth == 1 else None, None, {}, [], 'x', 5, True,
                               [{'all': True}]])
        if self.chance(0.3 / depth):
            return {'all': True}
        found = {key: good[key]() for key in rng.sample(list(good), rng.choice([1, 1, 1, 2, 3]))}
        if depth < 3 and self.chance(0.2):
            found['not'] = self.filter(depth + 1)
        if self.chance(0.15):
            key = rng.choice(list(bad))
            found[key] = rng.choice(bad[key])
        return found

    def later(self, verb):
        """When retried jobs are to run: mostly now."""
        text = ''
        if verb == 'retry' and self.chance(0.4):
            text = f', scheduled_at => {self.rng.choice(NEVER if self.chance(0.1) else LATER)}'
        return self.part('later', Option(text))

    def max_jobs(self):
        text = '' if self.chance(0.6) else \
            f", max_jobs => {self.rng.choice(['NULL', '0', '1', '2', '3', '100', '-1'])}"
        return self.part('max_jobs', Option(text))

    def instance(self, ids, expression):
        """SQL that calls with an instance j of some job; what is no job is refused."""
        rng = self.rng
        job_id = rng.choice(ids) if ids and self.chance(0.8) else self.job_id()
        sources = [f'@t.oban_jobs j WHERE j.id = {job_id}'] * 4 + \
            [f'@m.oban_get_job({job_id}) j'] * 3 + [
                '(SELECT NULL::public.oban_job AS j) s', '(SELECT NULL::@t.oban_jobs AS j) s']
        wrong = ['(SELECT ROW(5) AS j) s', '(SELECT 5::bigint AS id) j', 'differ.numbers j']
        if self.chance(0.04):
            return f'SELECT {expression} AS v FROM {rng.choice(wrong)}', \
                "SELECT model.refuse('42804')"
        if self.chance(0.2):
            # One that was never read, and whose job there may not be
            job = {'id': None if self.chance(0.1) else job_id, 'state': rng.choice(self.states)}
            kind = rng.choice(['public.oban_job', '@t.oban_jobs'])
            if kind == 'public.oban_job':
                job['prefix'] = rng.choice([self.schema, self.schema, None, 'nowhere', 'model'])
            sources = [f'jsonb_populate_record(NULL::{kind}, {Json(job).sql()}) j']
        text = f'SELECT {expression} AS v FROM {rng.choice(sources)}'
        if self.partitions and self.chance(0.2):
            # As a row of a partition, where it is
            partition = f'{quote_name(self.schema)}.{rng.choice(self.partitions)}'
            return f'SELECT {expression} AS v FROM {partition} j WHERE j.id = {job_id}', \
                f'SELECT {expression} AS v FROM twin.oban_jobs j WHERE j.id = {job_id} ' \
                f'AND EXISTS (SELECT FROM {partition} p WHERE p.id = {job_id})'
        return text, text

    def callable_and_context(self, ids):
        rng = self.rng
        name = rng.choice(['pick', 'pick_row', 'pick_json'] * 4 +
                          ['tag', 'tag_row', 'tag_json', 'later', 'merge', 'nothing', 'divides',
                           'keeps_log', 'keeps_log', 'strict'])
        if self.chance(0.07):
            name = rng.choice(['gives_text', 'gives_set', 'takes_id', 'takes_text', 'takes_none',
                               'takes_three', 'is_aggregate', '', '-'])
        context = Null if self.chance(0.1) else {'more': 1}
        if name.startswith('pick') and self.chance(0.95):
            context = {str(i): self.changes(self.chance(0.05)) for i in ids if self.chance(0.8)}
            context = {i: None if c is Null else c for i, c in context.items()}
        elif name == 'keeps_log' and self.chance(0.1):
            context = {str(rng.randint(1, 12)): 1}
        reg = {'': 'NULL::regproc', '-': '0::regproc'}.get(name, f"'@t.{name}'::regproc")
        return reg, context

    # ---- calls

    def large_case(self, number):
        """More jobs than a callable's are locked or written at once, in calls over all of them."""
        ids = self.rng.sample(range(1, 3000), 1200)
        self.parts = {}
        if self.chance(0.5):
            return self.large_refused_case(ids, number)
        calls = []
        for name in self.rng.sample(['tag', 'tag_row', 'later', 'merge', 'nothing', 'pick'], number):
            array = self.part('ids', Ids(ids))
            # Each job its own changes, and so its own set of columns
            context = {str(i): self.changes(False) for i in ids} if name == 'pick' else {}
            context = self.part(f'context of {name}', Json(context))
            calls.append(Call(*self.both('update_with many',
                f"SELECT * FROM @m.oban_update_many_jobs_with({array}, '@t.{name}'::regproc, "
                f"context => {context})"), self.parts, {}))
        return [self.job(i) for i in ids], calls

    def large_refused_case(self, ids, number):
        """Calls over all of these jobs, some of which are refused, lonely ones or many together."""
        rng = self.rng
        jobs = []
        for job_id in ids:
            if self.chance(0.01):
                self.refused = rng.choice([0, 0, 0.02, 0.9])
            jobs.append(self.job(job_id))
            if jobs[-1]['worker'] == 'Breaks':
                jobs[-1]['worker'] = 'Refuses'
        self.name(jobs, 0.02)
        calls = []
        for verb in rng.sample(['cancel', 'retry', 'delete', 'update'], number):
            changes = ''', changes => '{"priority": 3, "max_attempts": 21}' '''
            skip = f"{changes if verb == 'update' else ''}, skip_refused => true"
            everything = self.part('filter', Json({'all': True}))
            kind, text = rng.choice([
                ('manage', f"SELECT * FROM @m.oban_manage_jobs('{verb}', "
                 f"{self.part('ids', Ids(ids))}{skip})"),
                ('manage_all', f"SELECT * FROM @m.oban_manage_all_jobs('{verb}', {everything}{skip})"),
                ('batches', f'CALL @m.oban_{verb}_in_batches({everything}, batch_size => '
                 f'{rng.choice([100, 1000, 5000])}{skip})')])
            settings = {'differ.refuses': 'on'}
            if kind == 'batches':
                settings['differ.defers'] = 'on'
            calls.append(Call(*self.both(f'{kind} {verb}', text), self.parts, settings))
        return jobs, calls

    def call(self, jobs):
        """One call over a table that these jobs are in, or were."""
        ids = [job['id'] for job in jobs]
        self.skips = False
        kind = self.rng.choice(
            ['cancel', 'retry', 'delete'] * 3 + ['update'] * 5 + ['update_with'] * 4 +
            ['cancel_all', 'retry_all', 'delete_all', 'update_all', 'update_all', 'all_jobs',
             'all_jobs', 'update_all_with', 'manage', 'manage', 'manage', 'manage_all', 'manage_all',
             'manage_all', 'read', 'batches', 'batches', 'batches', 'trigger', 'trigger', 'answer'])
        self.parts = {}
        verb, _, everything = kind.partition('_all')
        made = self.call_verb_all(verb) if everything == '' and kind.endswith('_all') and \
            verb not in ('update', 'manage') else \
            getattr(self, f'call_{kind}', self.call_verb)(kind, ids)
        settings = {}
        if self.chance(0.1):
            settings['oban_manage.notify'] = 'off'
        if self.chance(0.3):
            settings['TimeZone'] = self.rng.choice(['UTC', 'America/New_York', 'Asia/Kathmandu'])
        if self.chance(0.1):
            settings['DateStyle'] = 'German, DMY'
        if self.chance(0.1):
            settings['IntervalStyle'] = 'sql_standard'
        if self.chance(0.15):
            settings['plan_cache_mode'] = 'force_generic_plan'
        if self.chance(0.1):
            settings['differ.decoy'] = 'on'
        if self.chance(0.9 if self.skips else 0.05):
            settings['differ.refuses'] = 'on'
            if kind == 'batches':
                settings['differ.defers'] = 'on'
        return Call(*made, self.parts, settings)

    def both(self, kind, text):
        return kind, text, text

    def target(self, ids):
        """The first argument of a call by id or by array, and what form that is."""
        form = self.rng.choice(['id', 'id', 'array', 'array', 'many'])
        if form == 'id':
            one = 'NULL' if self.chance(0.03) else \
                self.rng.choice(ids) if ids and self.chance(0.8) else self.job_id()
            return form, f'({one})::bigint'
        return form, self.array(Null if self.chance(0.03) else self.ids(ids))

    def call_verb(self, verb, ids):
        if self.chance(0.25):
            got, wanted = self.instance(ids, f'@m.oban_{verb}_job(j{self.later(verb)})')
            return f'{verb} record', got, wanted
        form, target = self.target(ids)
        name = f'oban_{verb}_many_jobs' if form == 'many' else f'oban_{verb}_job'
        return self.both(f'{verb} {form}',
                         f'SELECT @m.{name}({target}{self.prefix()}{self.later(verb)}) AS v')

    def call_update(self, _, ids):
        changes = self.changes_part()
        if self.chance(0.2):
            got, wanted = self.instance(ids, f'@m.oban_update_job(j, {changes})')
            return 'update record', got, wanted
        form, target = self.target(ids)
        name = 'oban_update_many_jobs' if form == 'many' else 'oban_update_job'
        return self.both(f'update {form}',
                         f'SELECT * FROM @m.{name}({target}, {changes}{self.prefix()})')

    def with_callable(self, ids):
        reg, context = self.callable_and_context(ids)
        if context is not Null:
            return reg, f", context => {self.part('context', Json(context))}"
        return reg, ''

    def call_update_with(self, _, ids):
        reg, context = self.with_callable(ids)
        if self.chance(0.2):
            got, wanted = self.instance(ids, f'@m.oban_update_job_with(j, {reg}{context})')
            return 'update_with record', got, wanted
        form, target = self.target(ids)
        name = 'oban_update_many_jobs_with' if form == 'many' else 'oban_update_job_with'
        return self.both(f'update_with {form}',
                         f'SELECT * FROM @m.{name}({target}, {reg}{context}{self.prefix()})')

    def call_verb_all(self, verb):
        text = f'{self.filter_part()}{self.max_jobs()}{self.prefix()}{self.later(verb)}'
        return self.both(f'{verb}_all', f'SELECT @m.oban_{verb}_all_jobs({text}) AS v')

    def call_update_all(self, _, __):
        text = f'{self.filter_part()}, {self.changes_part()}' \
            f'{self.max_jobs()}{self.prefix()}'
        return self.both('update_all', f'SELECT @m.oban_update_all_jobs({text}) AS v')

    def call_update_all_with(self, _, ids):
        reg, context = self.with_callable(ids)
        text = f'{self.filter_part()}, {reg}{context}{self.max_jobs()}{self.prefix()}'
        return self.both('update_all_with', f'SELECT @m.oban_update_all_jobs_with({text}) AS v')

    def call_all_jobs(self, _, __):
        text = f'{self.filter_part()}{self.max_jobs()}{self.prefix()}'
        return self.both('all_jobs', f'SELECT * FROM @m.oban_all_jobs({text})')

    def skipping(self):
        """The arguments that have jobs passed over: nobody holds any."""
        given = {'skip_refused': self.rng.choice(['true', 'true', 'false', None]),
                 'skip_locked': self.rng.choice(['true', 'false', None, None])}
        if self.chance(0.02):
            given[self.rng.choice(list(given))] = 'NULL'
        self.skips = given['skip_refused'] == 'true'
        return ''.join(self.part(name, Option(f', {name} => {value}'))
                       for name, value in given.items() if value)

    def managing(self):
        """The arguments that both functions with outcomes have, around those that say which jobs."""
        rng = self.rng
        action = rng.choice(['cancel', 'retry', 'delete', 'update', 'update', 'update'])
        with_changes = action == 'update'
        if self.chance(0.04):
            action = rng.choice(['Cancel', '', 'destroy', None])
        if self.chance(0.04):
            with_changes = not with_changes
        changes = f', changes => {self.changes_part()}' if with_changes else ''
        dry = self.part('dry', Option(', dry_run => NULL' if self.chance(0.02) else rng.choice(
            ['', '', ', dry_run => false', ', dry_run => true'])))
        kind = action if action in ('cancel', 'retry', 'delete') else 'update'
        return kind, 'NULL' if action is None else quote(action), f'{changes}{dry}{self.skipping()}'

    def call_manage(self, _, ids):
        kind, action, rest = self.managing()
        ids = self.array(Null if self.chance(0.03) else self.ids(ids))
        return self.both(f'manage {kind}',
                         f'SELECT * FROM @m.oban_manage_jobs({action}, {ids}{rest}{self.prefix()})')

    def call_manage_all(self, _, __):
        kind, action, rest = self.managing()
        text = f'{action}, {self.filter_part()}{rest}{self.max_jobs()}{self.prefix()}'
        return self.both(f'manage_all {kind}', f'SELECT * FROM @m.oban_manage_all_jobs({text})')

    def call_read(self, _, ids):
        target = f"({self.rng.choice(ids + [self.job_id(), 'NULL'])})::bigint"
        if self.chance(0.5):
            form = self.rng.choice(['SELECT * FROM {}', 'SELECT {} AS v'])
            return self.both('get', form.format(f'@m.oban_get_job({target}{self.prefix()})'))
        attempt = self.part('attempt', Option(self.rng.choice(
            ['', '', *(f', attempt => {n}' for n in ('NULL', 0, 1, 2, 3, 20, -1, 32768))])))
        return self.both('job_cancelled',
                         f'SELECT @m.oban_job_cancelled({target}{self.prefix()}{attempt}) AS v')

    def call_batches(self, _, ids):
        rng = self.rng
        verb = rng.choice(['cancel', 'retry', 'retry', 'delete', 'update', 'update', 'update_with'])
        options = {'batch_size': rng.choice(['1', '2', '3', '3', '100']), 'pause': "'0'",
                   'spread': rng.choice(["'0'", "'10 minutes'", "'3 days'", "'1 month'"]),
                   'max_jobs': rng.choice(['1', '2', '3', '5', 'NULL'])}
        for name in options:
            if self.chance(0.03):
                options[name] = rng.choice(['NULL', "'-1 s'" if name in ('pause', 'spread') else '0'])
        if verb != 'retry':
            del options['spread']
        given = ''.join(self.part(name, Option(f', {name} => {value}'))
                        for name, value in options.items()
                        if self.chance(0.3 if name == 'max_jobs' else 0.8))
        what = f', {self.changes_part()}' if verb == 'update' else ''
        if verb == 'update_with':
            what = ', ' + ''.join(self.with_callable(ids))
        jobs = self.filter_part() if self.chance(0.6) else self.part('filter', Json({'all': True}))
        name = verb.replace('_with', '') + '_in_batches' + '_with' * verb.endswith('_with')
        return self.both(f'batches {verb}', f'CALL @m.oban_{name}({jobs}{what}{given}'
                         f'{self.skipping()}{self.prefix()})')

    def row(self, row_id, ids):
        """A row of an application's table, which names jobs."""
        rng = self.rng
        few = [i for i in self.ids(ids) if i is None or -2**15 <= i < 2**15]
        row = {'id': row_id, 'word': rng.choice(['x', 'é"', None]), 'few': few}
        for name in ('job', 'next_job'):
            row[name] = None if self.chance(0.1) else rng.choice(ids + [self.job_id()])
        for name in ('jobs', 'next_jobs'):
            row[name] = None if self.chance(0.1) else self.ids(ids)
        if self.chance(0.05):
            row['jobs'] = [[1, 2], [row['job'], None]]
        return row

    def call_trigger(self, _, ids):
        """A trigger of an application's table, with one mistake at most."""
        rng = self.rng
        verb = rng.choice(['cancel_job', 'retry_job', 'delete_job', 'update_job', 'update_job_with',
                           'update_job_with'])
        event = rng.choice(['INSERT', 'UPDATE', 'DELETE'])
        level = rng.choice(['ROW', 'STATEMENT'])
        timing = rng.choice(['BEFORE', 'AFTER', 'INSTEAD OF']) if level == 'ROW' else 'AFTER'
        versions = {'INSERT': ['NEW'], 'UPDATE': ['OLD', 'NEW'], 'DELETE': ['OLD']}[event]
        version = rng.choice(versions)
        column = rng.choice(['job', 'job', 'jobs', 'jobs', 'few', 'next_job', 'id'])
        plain = version == versions[-1] and self.chance(0.6)
        spec = {
            'timing': timing, 'event': event, 'level': level, 'function': f'oban_{verb}',
            'relation': 'app_view' if timing == 'INSTEAD OF' else 'app',
            'tables': [v for v in versions if v == version or self.chance(0.5)]
                      if level == 'STATEMENT' else [],
            'column': column if plain else f"{rng.choice([version, version.lower()])}.{column}",
            'rows': [self.row(n, ids) for n in range(1, 1 + rng.choice([0, 1, 2, 3, 5]))]}
        if verb == 'update_job':
            spec['changes'] = Null
            while spec['changes'] in (Null, None):
                spec['changes'] = self.changes()
        if verb == 'update_job_with':
            spec['callable'] = rng.choice(['merge', 'merge', 'tag', 'tag_row', 'later', 'nothing',
                                           'keeps_log', 'keeps_log', 'divides'])
        if self.chance(0.1):
            spec['prefix'] = self.schema
        elif self.chance(0.1):
            spec.update(rng.choice([
                {'prefix': 'nowhere'}, {'prefix': 'model'}, {'prefix': self.schema, 'more': 'x'},
                {'column': 'word'}, {'column': 'none'}, {'column': 'JOB'}, {'tables': []},
                {'column': 'NEW.job' if event == 'DELETE' else 'OLD.job'},
                {'callable': 'takes_text'} if verb == 'update_job_with' else {},
                {'bare': True} if verb == 'update_job_with' else {},
                {'event': 'TRUNCATE', 'level': 'STATEMENT', 'timing': 'AFTER', 'relation': 'app',
                 'tables': []}]))
        spec = self.part('spec', Spec(spec))
        return f'trigger {verb} {level.lower()}', f'SELECT differ.fire({spec}) AS v', \
            f'SELECT model.fire({spec}) AS v'

    def call_answer(self, _, ids):
        """What a worker writes when it is done, on a table with the guard."""
        rng = self.rng
        spec = {'answer': {'state': rng.choice(self.states + ['retryable', 'scheduled'] * 4),
                           'meta': rng.choice(OBJECTS)},
                'ids': [i for i in self.ids(ids) if i is not None],
                'attempt': rng.choice([-1, 0, 0, 1]), 'max_attempts': rng.choice([0, 0, 1])}
        if self.chance(0.6):
            spec['entry'] = rng.choice([1, 1, 2, 3, '1', '2', 0, -1, None, 'x', {}, 1.5])
        if self.chance(0.6):
            spec['answer']['scheduled_at'] = rng.choice(PAST + FUTURE)
        if self.chance(0.3):
            spec['clear'] = True
        if self.chance(0.1):
            spec['off'] = True
        spec = self.part('spec', Spec(spec))
        return 'answer', f'SELECT differ.answer({spec}) AS v', f'SELECT model.answer({spec}) AS v'
