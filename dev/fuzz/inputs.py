"""Random inputs: good ones of each kind, and what is left of them after some mutations."""

import json
import random

NUMBERS = ['0', '1', '-1', '2', '9', '10', '1.5', '20', '32767', '32768', '2147483647', '2147483648',
           '9223372036854775807', '9223372036854775808', '-9223372036854775809', '1e3', '1e-3',
           '0.1e1', '1E400', '1e-400', '1e131071', '-0', '-0.0', '3.0000000000000000000000000001']
STRINGS = ['', ' ', 'a', 'mail', 'App.Worker', 'available', 'executing', 'a\nb', '\t', "it's", '"',
           '\\', '$1', '%s', '{}', 'null', 'NULL', 'é', 'İ', 'ß', '𝄞', '\u200b', '\ufeff', 'x' * 127,
           'x' * 128, 'y' * 300, 'z' * 9000, '\x7f', 'infinity', '-infinity', 'now', 'public', 'jobs']
TIMES = ['2024-02-29', '2024-01-02T03:04:05.678901Z', '2099-12-31T23:59:60+05:45', '2023-02-29',
         '24:00', '0001-01-01', '4713-01-01 BC', '294277-01-01', '9999-12-31T23:59:59.9999999Z',
         'epoch', 'today', '20240101', '2024-W01', '2024-001', 'J2451187', '2024-01-01T00:00:00+16',
         '2024-01-01 00:00 America/New_York', '1e5', '2024-1-1', '+2024-01-01', '１２３４-01-01',
         '202401-01-02', '0000-01-01', '0001-01-01T00:00:00+15', '9999-12-31T23:00:00-15', '10000-01-01']
INTERVALS = ['1 hour', '-5 minutes', 'PT1H', '1 day 02:00', '0', '1e9 years', '178000000 years',
             '1 mon -1 day', 'P1Y2M', '1:2:3.4567891', 'ago', '9999999999 days', '@ 1 minute', '1',
             '-2100 years', '8000 years', '7000 years']
TAGS = ['"A "', '"b"', '7', 'null', '"é"', '""', '"ÀÉIİ"', '"Ⱥẞ\u212b"', '"\U00010400ＡΣ"',
        '"\\u0130\\u212a"']
CHANGES = ['args', 'meta', 'max_attempts', 'priority', 'queue', 'worker', 'scheduled_at',
           'schedule_in', 'tags']
TIME_KEYS = ['inserted_at', 'scheduled_at', 'attempted_at', 'completed_at', 'cancelled_at',
             'discarded_at']
FILTERS = ['id', 'state', 'queue', 'worker', 'priority', 'attempt', 'max_attempts', 'args', 'meta',
           'tags', 'attempted_by', 'error', 'not', 'all'] + TIME_KEYS
ODD = ['"', "'", '%s', '%', '$1', '$$', '\\', '.', ' ', '\n', '\x01', '{}', '--', '/*', ';', 'A', 'é', '𝄞',
       'select', 'jobs', "E'", '"."']
STATES = ['available', 'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled',
          'suspended']
GOOD_FILTERS = ['{"all": true}', '{"queue": "mail"}', '{"state": ["available", "completed"]}',
                '{"id": [1, "3", 5, 7]}', '{"tags": "a", "args": {"n": 4}}',
                '{"error": "oops", "not": {"attempted_by": ["node-1", "x"]}}']
GOOD_CHANGES = ['{"priority": 1}', '{"schedule_in": 60, "tags": ["x"]}', '{"args": {}}', '{}']


class Inputs:
    """Each method makes one input, as text without a byte that no text has."""

    def __init__(self, seed, any_bytes, functions, callables, names, relations):
        self.rng = random.Random(seed)
        self.any_bytes = any_bytes  # is a text, but then jsonb takes no \\u of more than ASCII
        self.functions = functions
        self.callables = callables
        self.names = names
        self.relations = relations

    # ---- JSON, written by hand, for Python would never write some of it

    def string(self, text=None):
        return json.dumps(self.rng.choice(STRINGS) if text is None else text,
                          ensure_ascii=not self.any_bytes and self.rng.random() < 0.5)

    def any_json(self, depth=0):
        rng = self.rng
        kind = rng.randrange(6 if depth < 4 else 4)
        if kind == 0:
            return rng.choice(['null', 'true', 'false'])
        if kind == 1:
            return rng.choice(NUMBERS)
        if kind in (2, 3):
            return self.string()
        inner = [self.any_json(depth + 1) for _ in range(rng.choice([0, 1, 1, 2, 5]))]
        if kind == 4:
            return '[' + ','.join(inner) + ']'
        return '{' + ','.join(f'{self.string()}:{v}' for v in inner) + '}'

    def any_object(self):
        return '{' + ','.join(f'{self.string()}:{self.any_json(2)}'
                              for _ in range(self.rng.randint(1, 3))) + '}'

    def list_of(self, make, most=4):
        return '[' + ','.join(make() for _ in range(self.rng.randint(1, most))) + ']'

    def one_or_list(self, make):
        return make() if self.rng.random() < 0.5 else self.list_of(make)

    def value(self, key):
        """A good value for a key, or one that is nearly good."""
        rng = self.rng
        if key in ('args', 'meta'):
            return self.any_object()
        if key == 'id' and rng.random() < 0.3:
            return rng.choice(['"1"', '"5"', '"007"', f'"{"9" * 40}"', '"-1"', '"1x"', '""'])
        if key in ('max_attempts', 'priority', 'attempt', 'id'):
            return rng.choice(['1', '2', '3', '5', '7'] + NUMBERS[:8])
        if key in ('queue', 'worker'):
            return self.string(rng.choice(['mail', 'App.Worker', 'other', 'é', 'x' * 127]))
        if key == 'attempted_by':
            return self.string(rng.choice(['node-1', 'x', 'é', ' ']))
        if key == 'error':
            return self.string(rng.choice(['oops', 'o', '%', 'é', '"', 'x' * 999]))
        if key == 'state':
            return self.string(rng.choice(STATES))
        if key == 'tags':
            return self.list_of(lambda: rng.choice(TAGS))
        if key == 'schedule_in':
            return rng.choice(['60', '-1.5', '0', '-95000000000', '26e10'] + [self.string(i) for i in INTERVALS])
        return self.string(rng.choice(TIMES[:3] if rng.random() < 0.7 else TIMES))

    def mutate(self, text):
        """Some characters cut, doubled, swapped or replaced."""
        rng = self.rng
        for _ in range(rng.choice([1, 1, 2, 5])):
            at = rng.randrange(len(text) + 1)
            to = min(len(text), at + rng.choice([1, 1, 2, 8]))
            text = rng.choice([
                text[:at] + text[to:], text[:to] + text[at:],
                text[:at] + rng.choice('{}[],:"\\ 09.-eEtfn\x01é') + text[at:],
                text[:at] + rng.choice(['\\u0000', '\\ud834', '\\udd1e', '9' * 40, '[' * 99]) + text[to:],
                text[:at] + text[at:to][::-1] + text[to:]])
        return text

    def object_of(self, keys, value):
        rng = self.rng
        chosen = rng.sample(keys, rng.choice([1, 1, 2, 2, 3, 6]))
        if rng.random() < 0.04:
            chosen.append(rng.choice(chosen + STRINGS))
        text = '{' + ','.join(
            f'{self.string(key)}:'
            f'{self.any_json() if rng.random() < 0.08 else value(key)}' for key in chosen) + '}'
        way = rng.random()
        if way < 0.08:
            return self.mutate(text)
        if way < 0.1:
            return self.any_json()
        if way < 0.101:
            return '[' * 30000 + ']' * 30000
        return text

    def changes(self):
        return self.object_of(CHANGES, self.value)

    def filter_value(self, key):
        if key == 'all':
            return 'true'
        if key == 'not':
            return self.filter()
        if key in TIME_KEYS:
            sides = self.rng.choice([['after'], ['before'], ['after', 'before']])
            return '{' + ','.join(f'"{s}":{self.value(key)}' for s in sides) + '}'
        if key == 'tags':
            return self.one_or_list(lambda: self.rng.choice(TAGS))
        return self.value(key) if key in ('args', 'meta', 'error') else \
            self.one_or_list(lambda: self.value(key))

    def filter(self):
        return self.object_of(FILTERS, self.filter_value)

    # ---- arrays

    def element(self):
        return self.rng.choice(['1', '2', '3', '4', '5', '8', '99', 'NULL', '-1'] * 3 + NUMBERS[:14])

    def array(self):
        rng = self.rng
        shape = rng.randrange(10)
        if shape == 0:
            return rng.choice(['{}', '{{}}', '{{},{}}', '[5:4]={}', '{NULL}', '{ }', '{""}', '', '{,}'])
        if shape == 1:
            least = rng.choice([-2147483648, -5, 0, 1, 7, 2147483645])
            count = rng.randint(1, 4)
            return f'[{least}:{least + count - 1}]=' \
                '{' + ','.join(self.element() for _ in range(count)) + '}'
        if shape == 2:
            deep = rng.randint(1, 7)
            return '{' * deep + f'{self.element()},{self.element()}' + '}' * deep
        if shape == 3:
            rows = [','.join(self.element() for _ in range(2)) for _ in range(rng.randint(1, 3))]
            return '{' + ','.join(f'{{{row}}}' for row in rows) + '}'
        if shape == 4 and rng.random() < 0.05:
            return '{' + ','.join(str(rng.randrange(9000)) for _ in range(5000)) + '}'
        text = '{' + ','.join(self.element() for _ in range(rng.choice([0, 1, 2, 3, 9]))) + '}'
        return self.mutate(text) if shape == 5 else text

    # ---- names

    def prefix(self):
        """Hex of arbitrary bytes, or of the schema's name with some of them changed."""
        rng = self.rng
        text = bytearray(rng.choice([b'jobs', b'jobs', b'public', b'pg_catalog', b'pg_temp', b'fuzz',
                                     b'"jobs"', b'JOBS', 'jöbs'.encode(), b'jobs.oban_jobs', b'']))
        for _ in range(rng.choice([0, 0, 0, 1, 2, 9])):
            text.insert(rng.randrange(len(text) + 1), rng.randrange(256))
        if rng.random() < 0.05:
            text *= rng.choice([20, 500, 20000])
        return text.hex()

    def schema(self):
        """Hex of a name that a schema can have; now and then it is too long."""
        rng = self.rng
        least, most = (1, 63) if rng.random() < 0.9 else (64, 99)
        name = b''
        while len(name) < least or rng.random() < 0.9:
            odd = rng.choice(ODD).encode()
            if rng.random() < 0.3:
                odd = bytes([rng.randrange(1, 256)]) if self.any_bytes else \
                    chr(rng.randrange(1, 0xd800)).encode()
            if len(name + odd) > most:
                break
            name += odd
        return name.hex()

    def callable(self):
        """The oid of a function, with a context after it."""
        rng = self.rng
        oid = rng.choice(self.callables if rng.random() < 0.5 else self.functions) \
            if rng.random() < 0.95 else rng.randrange(2**32)
        return f'{oid} {self.changes() if rng.random() < 0.8 else self.any_json()}'

    def record(self):
        """SQL that makes a record."""
        rng = self.rng
        way = rng.randrange(5)
        if way == 0:
            return f'SELECT r FROM {rng.choice(self.relations)} r LIMIT 1'
        if way == 1:
            return f'SELECT NULL::{rng.choice(self.relations)} AS r'
        if way == 2:
            # Not each by itself: PostgreSQL remembers every type of row that it has met.
            values = ["NULL", "1", "'x'::text", "'{1}'::bigint[]", "now()", "'jobs'::name", "1.5"] * 4
            first = rng.randrange(7)
            return f"SELECT ROW({', '.join(values[first:first + rng.choice([0, 1, 2, 19, 20])])}) AS r"
        fields = self.mutate('{"id": 4, "prefix": "jobs", "state": "available"}') if way == 3 else \
            f'{{"id": {rng.choice(NUMBERS)}, "prefix": {self.string()}}}'
        fields = fields.replace("'", "''")
        kind = rng.choice(['public.oban_job', 'jobs.oban_jobs'])
        return f"SELECT jsonb_populate_record(NULL::{kind}, '{fields}'::jsonb) AS r"

    def trigger(self):
        """Arguments of fuzz.fire, as an array's text."""
        rng = self.rng
        statement = rng.random() < 0.5
        tables = 'REFERENCING ' + rng.choice(['NEW TABLE AS n', 'OLD TABLE AS o']) \
            if statement and rng.random() < 0.9 else ''
        when = 'AFTER' if tables and rng.random() < 0.9 else rng.choice(['AFTER', 'BEFORE'])
        events = ['INSERT', 'UPDATE', 'UPDATE', 'DELETE']
        if rng.random() < 0.2:
            events = ['TRUNCATE', 'INSERT OR UPDATE']
        parts = [f'{when} {rng.choice(events)}', tables, 'STATEMENT' if statement else 'ROW']
        parts.append(rng.choice(['oban_cancel_job', 'oban_retry_job', 'oban_delete_job',
                                 'oban_update_job', 'oban_update_job_with', 'oban_guard_job']))
        column = rng.choice(['job', 'jobs', 'OLD.job', 'NEW.jobs', 'word', 'at', 'JOB', 'none'])
        parts.append(column if rng.random() < 0.8 else self.mutate(column))
        if parts[3] == 'oban_update_job':
            parts.append(self.changes())
        elif parts[3] == 'oban_update_job_with':
            parts.append(rng.choice(self.names + ['callables.give', 'callables.one_row', 'give',
                                                  'pg_catalog.jsonb_concat', self.string()]))
        if rng.random() < 0.3:
            parts.append(rng.choice(['jobs', 'nowhere', 'public', '']))
        quoted = (p.replace('\\', '\\\\').replace('"', '\\"') for p in parts)
        return '{' + ','.join(f'"{p}"' for p in quoted) + '}'

    def later(self):
        """When retried jobs are to run."""
        rng = self.rng
        time = rng.choice(TIMES[:3] if rng.random() < 0.5 else TIMES + STRINGS[-8:])
        return self.mutate(time) if rng.random() < 0.2 else time

    def action(self):
        """What to do, with changes after it or none."""
        rng = self.rng
        action = rng.choice(['cancel', 'retry', 'delete', 'update', 'update'])
        changes = self.changes() if (action == 'update') != (rng.random() < 0.1) else ''
        return f'{self.mutate(action) if rng.random() < 0.3 else action}|{changes}'

    def procedure(self, name):
        """The arguments of a CALL, each as bytes, which may be no text, or None."""
        rng = self.rng
        good = rng.random() < 0.7
        arguments = [rng.choice(GOOD_FILTERS) if good else self.filter()]
        if name == 'update_in_batches':
            arguments.append(rng.choice(GOOD_CHANGES) if good else self.changes())
        if name == 'update_in_batches_with':
            arguments += [str(rng.choice(self.callables)), rng.choice(GOOD_CHANGES)] if good else \
                self.callable().split(' ', 1)
        arguments.append(rng.choice(['1', '2', '3', '100'] if good else [
            None, '0', '-1', '2', '2147483647', '2147483648']))
        arguments.append(rng.choice(['0', '1 microsecond'] if good else [
            None, '-1 second', '-1 month 30 days', '00:00:00.001']))
        if name == 'retry_in_batches':
            arguments.append(rng.choice(['0', '1 hour', '3 days'] if good else [None] + INTERVALS))
        # max_jobs, skip_refused, skip_locked
        arguments.append(rng.choice([None, '1', '3', '9223372036854775807'] if good else
                                    [None, '0', '-1', '2', '9223372036854775808']))
        arguments += [rng.choice(['true', 'false'] if good else ['true', 'on', '', None])
                      for _ in range(2)]
        arguments = [None if a is None else a.encode() for a in arguments]
        if rng.random() < 0.2:
            arguments.append(bytes.fromhex(self.prefix()).replace(b'\0', b''))
        return arguments
