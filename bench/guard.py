"""What the guard of the jobs costs workers: they fetch jobs and complete them, with and without.

Clients of pgbench fetch one job of a queue, and then complete it by its id. Each statement has a
transaction of its own, as workers do it. "No guard" has no trigger at all: a disabled one still makes
PostgreSQL lock the row before it updates it, and that writes WAL.

There are two tables, one with the guard and one without, and each client draws for each job which of
them it takes. So both sides meet the same machine at the same time, and 2 % can be told from noise.
Jobs a second are those of so many clients that take as long for a job as these did on the average,
less the slowest hundredth, which waited for a checkpoint or another process. A round has tables that
were just loaded, because a fetch steps over the index entries of all jobs that were fetched since the
last vacuum.

WAL is measured by rounds in which only one side works.
"""
import os
import statistics
import time
from collections import defaultdict

import pgbench
from harness import GUARDED, UNGUARDED, Measurement, Ratio
from jobs_table import JobsTable
from workers import NOW

SCHEMAS = {GUARDED: "guarded", UNGUARDED: "unguarded"}
QUEUE = "guard"
CLIENTS = 4
AIM = 0.98
ROUNDS, ALONE = 12, 2               # of both sides, and of each alone
JOBS, QUICK_JOBS = 5000, 50         # of each client in a round
STATEMENTS, QUICK_STATEMENTS = 5000, 100
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
    """The two sides, on tables of their own."""
    jobs = {side: Jobs(bench, table.dialect, table.size, schema)
            for side, schema in SCHEMAS.items()}
    try:
        yield from Comparison(bench, jobs).measure()
    finally:
        for one in jobs.values():
            one.drop()


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
        if self.completed() != completed:
            raise RuntimeError(f"{self.name}: {self.completed()} jobs, not {completed}")

    def completed(self):
        """How many of those are completed by now; the others wait."""
        with self.bench.connect(self) as connection:
            found = dict(connection.execute(
                f"SELECT state::text, count(*) FROM {self.name} GROUP BY state").fetchall())
        if sum(found.values()) != self.size or set(found) != {"available", "completed"}:
            raise RuntimeError(f"{self.name}: {found}")
        return self.waiting - found["available"]


class Comparison:
    """Clients and single statements, with the guard and without."""

    def __init__(self, bench, jobs):
        self.bench, self.jobs = bench, jobs
        self.any = jobs[GUARDED]
        with bench.connect() as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
        self.any.load()
        with bench.connect() as connection:
            columns = connection.execute(f"SELECT * FROM {self.any.name} LIMIT 0").description
        self.fetch, self.complete = {}, {}
        for side, table in jobs.items():
            names = {"table": table.name, "queue": QUEUE, "now": NOW,
                     "columns": ", ".join(f"job.{column.name}" for column in columns)}
            self.fetch[side] = FETCH.format(**FETCHES[table.dialect], **names)
            self.complete[side] = COMPLETIONS[table.dialect].format(**names) + ";\n"
        self.calls = QUICK_JOBS if bench.quick else JOBS    # of each client
        self.statements = QUICK_STATEMENTS if bench.quick else STATEMENTS
        self.values = defaultdict(list)     # by what it is and side: one value a round

    def run(self, scripts, clients, calls, **options):
        """So many transactions of each client, all of which must go well."""
        done = pgbench.run(scripts, clients, ("-t", calls), self.any.schema, warming=WARMING,
                           **options)
        if len(done.latencies) != clients * (calls - WARMING):
            raise RuntimeError(f"{done.deadlocks} deadlocks and {done.others} other failures")
        return done

    def load(self, sides):
        """The tables of those sides, as each round begins with them."""
        for side in sides:
            self.jobs[side].load()
        if GUARDED in sides:
            with self.bench.connect() as connection:
                connection.execute(TRIGGER.format(table=self.jobs[GUARDED].name))

    def job(self, side):
        """The script that fetches a job and completes it."""
        return f"{self.fetch[side]}\n\\gset\n{self.complete[side]}"

    def together(self, name, scripts, clients, calls, **options):
        """Clients that draw a side for each transaction: the mean latency of each."""
        done = self.run([scripts[side] for side in SCHEMAS], clients, calls, **options)
        for number, side in enumerate(SCHEMAS):
            latencies = sorted(done.by_script[number])
            mean = statistics.fmean(latencies[:len(latencies) * 99 // 100])
            self.values[name, side].append(clients * 1000 / mean if name == "rate"
                                           else mean * 1000)

    def round(self, sides):
        """Everything that both sides do at the same time."""
        self.load(sides)
        self.together("rate", {side: self.job(side) for side in sides}, CLIENTS, self.calls)
        completed = sum(jobs.completed() for jobs in self.jobs.values())
        if completed != CLIENTS * self.calls:
            raise RuntimeError(f"{completed} jobs were completed")
        # Commits do not wait for the disk. The jobs that are completed here still wait.
        options = "-c synchronous_commit=off"
        self.together("complete", {side: NEXT_ID + self.complete[side] for side in sides}, 1,
                      self.statements, options=options, n=CLIENTS * self.calls)
        self.together("fetch", {side: f"{self.fetch[side]};\n" for side in sides}, 1,
                      self.statements, options=options)

    def alone(self, side):
        """What one side writes to the WAL, and what its backends take of the processor."""
        self.load([side])
        calls = self.calls // 2
        with self.bench.connect() as connection:
            (start,) = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
            _, processor = processor_time(
                connection, lambda: self.run([self.job(side)], CLIENTS, calls))
            for name, value in zip(("processor", "records", "images"),
                                   (processor * 1e6, *written(connection, start))):
                self.values[name, side].append(value / CLIENTS / calls)
        self.jobs[side].verify(CLIENTS * calls)

    def measure(self):
        """The rounds of both, and those of one side or the other."""
        sides = list(SCHEMAS)
        for number in range(1 + (2 if self.bench.quick else ROUNDS)):
            self.round(sides[::-1] if number % 2 else sides)
            if number == 0:
                self.values.clear()     # it warmed up
        for number in range(1 if self.bench.quick else ALONE):
            for side in sides[::-1] if number % 2 else sides:
                self.alone(side)
        for key, name, unit, at_least in (
                ("rate", f"fetch and complete, {CLIENTS} clients", "jobs/s", True),
                ("fetch", "fetch, 1 client, no wait for the disk", "µs", False),
                ("complete", "complete, 1 client, no wait for the disk", "µs", False),
                ("processor", f"processor time of the server, {CLIENTS} clients", "µs/job", False),
                ("records", "WAL, without images of pages", "bytes/job", False),
                ("images", "WAL, images of pages", "bytes/job", False)):
            yield Measurement(
                "guard", name, self.any.dialect, self.any.size, 0, unit,
                {side: self.values[key, side] for side in (GUARDED, UNGUARDED)},
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
