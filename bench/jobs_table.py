"""A loaded oban_jobs table of either dialect, of which every job's state follows from its id."""
import itertools
import math
import os
import random
import subprocess
import threading

import psycopg

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures")

# How many of 1000 consecutive ids are in which state.
STATES = {"scheduled": 500, "available": 150, "retryable": 100, "executing": 10,
          "completed": 150, "cancelled": 50, "discarded": 40}
# Has no factor in common with 1000, so that the states lie scattered.
STRIDE = 387
STATE_OF = [state for state, jobs in STATES.items() for _ in range(jobs)]

# Oban for Elixir has an array of errors, and NULL for what has not been attempted.
EMPTY = {"elixir": ("ARRAY[]::jsonb[]", "ARRAY[error]", "NULL"),
         "python": ("'[]'::jsonb", "jsonb_build_array(error)", "'{}'::text[]")}

# What a job of each state has been through. {ids} gives the column id, {now} is a time in UTC.
ROWS = """
    INSERT INTO {table} (id, state, queue, worker, args, errors, attempt, max_attempts, priority,
        inserted_at, scheduled_at, attempted_at, attempted_by, completed_at, cancelled_at,
        discarded_at)
    OVERRIDING SYSTEM VALUE
    SELECT id, state::{schema}.oban_job_state,
        'queue' || id / 2 % 50, 'MyApp.Worker' || id / 5 % 20,
        jsonb_build_object('id', id, 'group', id / 10 % 100),
        CASE WHEN state IN ('retryable', 'discarded') THEN {errors} ELSE {no_errors} END,
        attempt, 20, id / 7 % 4, inserted, scheduled, attempted,
        CASE WHEN attempt > 0 THEN ARRAY['node' || id % 4] ELSE {nobody} END,
        CASE WHEN state = 'completed' THEN attempted + interval '2 seconds' END,
        CASE WHEN state = 'cancelled' THEN attempted + interval '2 seconds' END,
        CASE WHEN state = 'discarded' THEN attempted + interval '2 seconds' END
    FROM ({ids}) AS ids,
        LATERAL (SELECT id * {stride} % 1000 AS place, timestamp '{now}' AS now) AS places,
        LATERAL (SELECT {state} AS state,
            now - interval '30 days' + id % 864000 * interval '3 seconds' AS inserted,
            jsonb_build_object('at', now, 'attempt', 1, 'error', 'timeout') AS error) AS states,
        LATERAL (SELECT
            CASE state WHEN 'scheduled' THEN 0 WHEN 'available' THEN 0 WHEN 'retryable' THEN 2
                WHEN 'discarded' THEN 20 ELSE 1 END AS attempt,
            CASE WHEN state IN ('scheduled', 'retryable')
                THEN now + interval '1 day' + id % 604800 * interval '1 second'
                ELSE inserted END AS scheduled) AS attempts,
        LATERAL (SELECT CASE WHEN attempt > 0 THEN inserted + interval '1 second' END AS attempted)
            AS moments"""


def state_of(job):
    """The state that the job of that id was loaded in."""
    return STATE_OF[job * STRIDE % 1000]


class JobsTable:
    """A loaded oban_jobs table, in a schema of its own; its ids are 1 to size."""

    def __init__(self, bench, dialect, size, schema):
        self.bench, self.dialect, self.size, self.schema = bench, dialect, size, schema
        self.name = f"{schema}.oban_jobs"
        self.states = STATES
        self.written = 0

    @staticmethod
    def state_of(job):
        """The state that the job of that id was loaded in."""
        return state_of(job)

    @staticmethod
    def count(ids, states):
        """How many of those jobs were loaded in one of those states."""
        return sum(state_of(job) in states for job in ids)

    def draw(self, count, states=None):
        """Distinct random ids, in random order, of jobs in any state or in those states."""
        if states is None:
            return random.sample(range(1, self.size + 1), count)
        places = [job for job in range(1, 1001) if state_of(job) in states]
        chosen = random.sample(range(self.size // 1000 * len(places)), count)
        return [i // len(places) * 1000 + places[i % len(places)] for i in chosen]

    def changed(self, count):
        """To be told that so many rows have been written (rolled back or not): vacuums when a
        fifth of the table has been. To be called between rounds, not within one."""
        self.written += count
        if self.written >= self.size / 5:
            self.settle()

    def settle(self):
        """Vacuums when anything has been written."""
        if self.written:
            with self.bench.connect(self) as connection:
                connection.execute(f"VACUUM {self.name}")
            self.written = 0

    def restore(self, ids):
        """Makes those jobs again what they were when they were loaded."""
        with self.bench.connect(self) as connection, connection.transaction():
            connection.execute(f"DELETE FROM {self.name} WHERE id = ANY (%s::bigint[])", [ids])
            array = "{" + ",".join(map(str, ids)) + "}"
            connection.execute(self._rows(f"SELECT unnest('{array}'::bigint[]) AS id"))
        self.changed(2 * len(ids))

    def load(self):
        """Makes the schema, the table and its jobs, and verifies them."""
        self.drop()
        make_schema(self.dialect, self.schema)
        with self.bench.connect(self) as connection:
            (self.now,) = connection.execute("SELECT timezone('UTC', now())").fetchone()
            connection.execute(f"ALTER TABLE {self.name} SET (autovacuum_enabled = off,"
                               " toast.autovacuum_enabled = off)")
            indexes = connection.execute(
                "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
                " WHERE indrelid = %s::regclass AND NOT indisprimary", [self.name]).fetchall()
            for index, _ in indexes:
                connection.execute(f"DROP INDEX {index}")
            half = self.size // 2
            self._at_once([self._rows(f"SELECT generate_series({first}::bigint, {last}) AS id")
                           for first, last in ((1, half), (half + 1, self.size))])
            # The dearest first.
            self._at_once(sorted((definition for _, definition in indexes),
                                 key=lambda definition: "USING gin (args)" not in definition))
            connection.execute(f"VACUUM (ANALYZE, FREEZE) {self.name}")
            connection.execute("CHECKPOINT")
        self.verify()
        return self

    def drop(self):
        """Drops the schema and all in it."""
        with self.bench.connect() as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")

    def verify(self):
        """Raises an error when the ids, or how many jobs there are of any state, are others."""
        expected = {state: jobs * self.size // 1000 for state, jobs in STATES.items()}
        with self.bench.connect(self) as connection:
            found = dict(connection.execute(
                f"SELECT state::text, count(*) FROM {self.name} GROUP BY state").fetchall())
            (ids,) = connection.execute(
                f"SELECT ARRAY[min(id), max(id)] FROM {self.name}").fetchone()
        if found != expected or ids != [1, self.size]:
            raise RuntimeError(f"{self.name}: {found}, ids {ids} instead of {expected}")

    def _rows(self, ids):
        no_errors, errors, nobody = EMPTY[self.dialect]
        bounds = ",".join(str(bound) for bound in itertools.accumulate(STATES.values()))
        state = (f"('{{{','.join(STATES)}}}'::text[])"
                 f"[1 + width_bucket(place, '{{{bounds}}}'::bigint[])]")
        return ROWS.format(table=self.name, schema=self.schema, ids=ids, now=self.now,
                           stride=STRIDE, state=state, errors=errors, no_errors=no_errors,
                           nobody=nobody)

    def _at_once(self, statements):
        """Executes the statements on two connections, for two cores."""
        left, errors = list(reversed(statements)), []

        def work():
            try:
                with self.bench.connect(
                        self, maintenance_work_mem="1GB", max_parallel_maintenance_workers=1,
                        synchronous_commit="off") as connection:
                    while left and not errors:
                        connection.execute(left.pop())
            except psycopg.Error as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]


def make_schema(dialect, schema):
    """Makes a schema with an empty jobs table, as that dialect's migrations leave it."""
    subprocess.run(
        ["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-v", f"schema={schema}",
         "-f", os.path.join(FIXTURES, f"{dialect}.sql")],
        check=True, env={**os.environ, "PGOPTIONS": "-c client_min_messages=warning"})


assert len(STATE_OF) == 1000 and math.gcd(STRIDE, 1000) == 1
