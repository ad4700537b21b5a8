"""What the guard of the jobs costs workers: they fetch jobs and complete them, with and without.

Clients of pgbench fetch one job of a queue, and then complete it by its id. Each statement has a
transaction of its own, as workers do it. "No guard" has no trigger at all: a disabled one still makes
PostgreSQL lock the row before it updates it, and that writes WAL.

A turn with the guard and one without make a round; the next round has them in the other order. Each
turn has a table that was just loaded, and handles as many jobs as every other turn, because a fetch
steps over the index entries of all jobs that were fetched since the last vacuum. A ratio is the
median of the ratios of the rounds.

The processor time of the server is what the guard costs where commits do not wait for a disk. It
needs fewer rounds than jobs a second, which depend on the disk and on what else the machine does.
"""
import os
import statistics
import time
from collections import defaultdict

import pgbench
from harness import GUARDED, UNGUARDED, Measurement, Ratio
from jobs_table import JobsTable
from workers import NOW

SCHEMA, QUEUE = "guarded", "guard"
CLIENTS = 4
AIM = 0.98
ROUNDS = 40
TURN = 2                            # seconds
TRIAL, QUICK_TURN = 500, 50         # jobs of each client
STATEMENTS, QUICK_STATEMENTS = 2000, 100
WARMING = 10    # of each client: a prepared statement is planned anew five times
NOTE = ("A ratio of the guard is the median of the ratios of the rounds. In brackets stands its"
        " interval of 95 % confidence.")

TRIGGER = """
    CREATE TRIGGER oban_guard BEFORE UPDATE OF state OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION oban_guard_job()"""

# Of four jobs three wait in the queue, the others are done.
ROWS = f"""
    INSERT INTO {{table}} (id, queue, worker, args, inserted_at, scheduled_at, state, attempt,
        attempted_at, completed_at)
    OVERRIDING SYSTEM VALUE
    SELECT id, CASE WHEN waits THEN '{QUEUE}' ELSE 'queue' || id % 50 END,
        'MyApp.Worker' || id % 20, jsonb_build_object('id', id, 'group', id / 10 % 100),
        inserted, inserted,
        (CASE WHEN waits THEN 'available' ELSE 'completed' END)::{{schema}}.oban_job_state,
        CASE WHEN waits THEN 0 ELSE 1 END,
        CASE WHEN NOT waits THEN inserted + interval '1 second' END,
        CASE WHEN NOT waits THEN inserted + interval '2 seconds' END
    FROM ({{ids}}) AS ids,
        LATERAL (SELECT id % 4 <> 0 AS waits,
            timestamp '{{now}}' - interval '30 days' + id * interval '3 seconds' AS inserted)
            AS jobs"""

# Either Oban locks its jobs in a CTE, and is given the whole rows.
FETCH = """
    WITH found AS {fence} (
        SELECT {found} FROM {table} WHERE state = 'available' AND queue = '{queue}'
        ORDER BY priority, scheduled_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE {table} AS job
    SET state = 'executing', attempt = attempt + 1, attempted_at = {now},
        attempted_by = ARRAY['node', 'a7c1f0de']
    FROM found WHERE job.id = found.id{further}
    RETURNING {columns}"""
FETCHES = {
    "elixir": {"fence": "MATERIALIZED", "found": "id",
               "further": " AND job.attempt < job.max_attempts"},
    "python": {"fence": "", "found": "priority, scheduled_at, id", "further": ""}}
# Neither asks for the state. Oban for Python has one statement for all answers.
COMPLETIONS = {
    "elixir": "UPDATE {table} SET state = 'completed', completed_at = {now} WHERE id = :id",
    "python": """
    UPDATE {table}
    SET state = 'completed', completed_at = {now}, cancelled_at = cancelled_at,
        discarded_at = discarded_at, scheduled_at = scheduled_at, attempt = attempt,
        errors = errors, meta = meta
    WHERE id = :id"""}

# The n-th of the jobs that wait.
NEXT_ID = """
\\set n :n + 1
\\set id :n + (:n - 1) / 3
"""


def TABLES(dialect, size):
    """Both dialects, the smallest."""
    return size == 100_000


def measure(bench, table):
    """The two sides in turns."""
    jobs = Jobs(bench, table.dialect, table.size, SCHEMA)
    try:
        yield from Comparison(bench, jobs).measure()
    finally:
        jobs.drop()


class Jobs(JobsTable):
    """Jobs of which most wait in one queue."""

    def _rows(self, ids):
        return ROWS.format(table=self.name, schema=self.schema, ids=ids, now=self.now)

    @property
    def waiting(self):
        """How many jobs wait in the queue when the table was loaded."""
        return self.size // 4 * 3

    def verify(self, completed=0):
        """Raises an error unless so many of those are completed by now, and the others wait."""
        expected = {"available": self.waiting - completed,
                    "completed": self.size - self.waiting + completed}
        with self.bench.connect(self) as connection:
            found = dict(connection.execute(
                f"SELECT state::text, count(*) FROM {self.name} GROUP BY state").fetchall())
        if found != expected:
            raise RuntimeError(f"{self.name}: {found} instead of {expected}")


class Comparison:
    """Clients and single statements, with the guard and without."""

    def __init__(self, bench, jobs):
        self.bench, self.jobs = bench, jobs
        with bench.connect() as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
        jobs.load()
        with bench.connect() as connection:
            columns = connection.execute(f"SELECT * FROM {jobs.name} LIMIT 0").description
        names = {"table": jobs.name, "queue": QUEUE, "now": NOW,
                 "columns": ", ".join(f"job.{column.name}" for column in columns)}
        self.fetch = FETCH.format(**FETCHES[jobs.dialect], **names)
        self.complete = COMPLETIONS[jobs.dialect].format(**names) + ";\n"
        self.calls = QUICK_TURN if bench.quick else TRIAL   # of each client
        self.statements = QUICK_STATEMENTS if bench.quick else STATEMENTS
        self.values = defaultdict(list)     # by what it is and side: one value a turn

    def run(self, script, clients, calls, **options):
        """So many transactions of each client, all of which must go well."""
        done = pgbench.run([script], clients, ("-t", calls), self.jobs.schema, warming=WARMING,
                           **options)
        if len(done.latencies) != clients * (calls - WARMING):
            raise RuntimeError(f"{done.deadlocks} deadlocks and {done.others} other failures")
        return done

    def turn(self, side):
        """Loads the table, then all that is measured of the side: jobs a second."""
        self.jobs.load()
        with self.bench.connect() as connection:
            if side == GUARDED:
                connection.execute(TRIGGER.format(table=self.jobs.name))
            (start,) = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
            jobs = CLIENTS * self.calls
            done, processor = processor_time(connection, lambda: self.run(
                f"{self.fetch}\n\\gset\n{self.complete}", CLIENTS, self.calls))
            for name, value in zip(("processor", "records", "images"),
                                   (processor * 1e6, *written(connection, start))):
                self.values[name, side].append(value / jobs)
            for name, one in self.single(jobs):
                self.values[name, side].append(statistics.median(one.latencies) * 1000)
        self.jobs.verify(jobs + self.statements)
        self.values["rate", side].append(done.rate)
        return done.rate

    def single(self, done):
        """A run of each statement by one client, whose commits do not wait for the disk. The first
        jobs of the queue are done, so many; the next are fetched in the order of their ids."""
        options = "-c synchronous_commit=off"
        yield "fetch", self.run(f"{self.fetch};\n", 1, self.statements, options=options)
        yield "complete", self.run(NEXT_ID + self.complete, 1, self.statements, options=options,
                                   n=done)

    def measure(self):
        """A trial that fixes how many jobs a turn has, then the rounds."""
        if not self.bench.quick:
            enough = int(self.turn(GUARDED) * TURN / CLIENTS)
            self.calls = min(max(TRIAL, enough), (self.jobs.waiting - self.statements) // CLIENTS)
            self.values.clear()
        self.bench.interleave({side: lambda side=side: self.turn(side)
                               for side in (GUARDED, UNGUARDED)}, 0, ROUNDS, ROUNDS)
        for key, name, unit, at_least in (
                ("rate", f"fetch and complete, {CLIENTS} clients", "jobs/s", True),
                ("processor", f"processor time of the server, {CLIENTS} clients", "µs/job", False),
                ("fetch", "fetch, 1 client, no wait for the disk", "µs", False),
                ("complete", "complete, 1 client, no wait for the disk", "µs", False),
                ("records", "WAL, without images of pages", "bytes/job", False),
                ("images", "WAL, images of pages", "bytes/job", False)):
            # The first round warmed up.
            yield Measurement(
                "guard", name, self.jobs.dialect, self.jobs.size, 0, unit,
                {side: self.values[key, side][1:] for side in (GUARDED, UNGUARDED)},
                [Ratio(GUARDED, UNGUARDED, AIM if key == "rate" else None, at_least,
                       by_rounds=True)], NOTE)


def written(connection, start):
    """What went into the WAL since then: bytes of records, and of images of pages in them."""
    return connection.execute(
        "SELECT sum(record_size)::bigint, sum(fpi_size)::bigint"
        " FROM pg_get_wal_stats(%s, pg_current_wal_flush_lsn(), true)", [start]).fetchone()


def processor_time(connection, function):
    """Calls the function: what it gives, and the seconds of processor time of the backends that
    began and ended meanwhile."""
    parent = int(stat(connection.info.backend_pid)[1])
    before, start = children(parent), time_of_ended(parent)
    given = function()
    for _ in range(500):
        if children(parent) <= before:
            return given, time_of_ended(parent) - start
        time.sleep(0.01)
    raise RuntimeError("backends do not end")


def stat(process):
    """What Linux tells of a process in /proc/PID/stat, from its state on."""
    with open(f"/proc/{process}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()


def children(process):
    with open(f"/proc/{process}/task/{process}/children", encoding="utf-8") as file:
        return set(file.read().split())


def time_of_ended(process):
    """Processor time of its children that have ended, in seconds."""
    return sum(int(ticks) for ticks in stat(process)[13:15]) / os.sysconf("SC_CLK_TCK")
