"""Retries of many jobs in batches, beside workers, by our procedure and by one in PL/pgSQL.

Both commit every 10,000 jobs, lock in id order and wake the queue. They take turns over jobs of
their own in one table, while four workers fetch and answer what is available, the jobs just retried
among them. In the end every job must be what the retries and the workers' answers make of it.
"""
import threading
import time
from typing import NamedTuple

from harness import CALL, MILLION, PLPGSQL, Measurement, Ratio
from jobs_table import JobsTable
from memory import resident
from psycopg.types.json import Jsonb
from throughput import percentile
from verb_sides import install
from workers import Workers

TABLES = MILLION

SCHEMA = "batches"
WORKERS = 4
BATCH, QUICK_BATCH = 10_000, 200
SECONDS_ALONE, QUICK_SECONDS_ALONE = 6, 0.5
ALONE = "alone"
# Which side retries the jobs of worker Import0, Import1 and so on: a tenth of the table each.
TURNS = (CALL, PLPGSQL, PLPGSQL, CALL, CALL, PLPGSQL)
GROUPS = len(TURNS)

# Six of ten jobs are discarded, one of fifty is available, the others are done.
ROWS = f"""
    INSERT INTO {{table}} (id, worker, state, attempt, max_attempts, args)
    SELECT id, CASE WHEN id % 10 < {GROUPS} THEN 'Import' || id % 10 ELSE 'Other' END,
           (CASE WHEN id % 10 < {GROUPS} THEN 'discarded' WHEN id % 50 = {GROUPS} THEN 'available'
                 ELSE 'completed' END)::{{schema}}.oban_job_state,
           CASE WHEN id % 10 < {GROUPS} THEN 3 WHEN id % 50 = {GROUPS} THEN 0 ELSE 1 END,
           CASE WHEN id % 10 < {GROUPS} THEN 3 ELSE 20 END, jsonb_build_object('id', id)
    FROM ({{ids}}) AS ids"""
# As they have to be in the end, if it were not for the workers' answers.
EXPECTED = """
    CREATE TABLE {schema}.expected AS
    SELECT id, CASE state WHEN 'discarded' THEN 'available' ELSE state::text END AS state, attempt,
           CASE state WHEN 'discarded' THEN 4 ELSE max_attempts END AS max_attempts
    FROM {table}"""
# A job that was answered twice breaks the primary key.
ANSWERS = "CREATE TABLE {schema}.answers (id bigint PRIMARY KEY, attempt integer, state text)"
WRONG = """
    SELECT count(*)
    FROM {schema}.expected LEFT JOIN {schema}.answers USING (id) FULL JOIN {table} AS job USING (id)
    WHERE (coalesce(answers.state, expected.state), coalesce(answers.attempt, expected.attempt),
           expected.max_attempts)
          IS DISTINCT FROM (job.state::text, job.attempt, job.max_attempts)"""


class Jobs(JobsTable):
    """Jobs of which most wait to be retried."""

    def _rows(self, ids):
        return ROWS.format(table=self.name, schema=self.schema, ids=ids)

    def verify(self):
        """That the groups are as large as they ought to be is seen by how many are retried."""


class Turn(NamedTuple):
    """What a call of a procedure took."""
    start: float    # of the monotonic clock, as the workers' moments
    end: float
    batches: list   # how long each took, in ms
    memory: int     # the most that the backend held, in kB


def measure(bench, table):
    """All turns, and what the workers met meanwhile."""
    jobs = Jobs(bench, "elixir", table.size, SCHEMA).load()
    try:
        with (bench.connect(jobs) as by_call, bench.connect(jobs) as by_hand):
            install(by_hand, jobs)
            by_hand.execute(EXPECTED.format(schema=SCHEMA, table=jobs.name))
            turns, spans, workers = run(bench, jobs, {CALL: by_call, PLPGSQL: by_hand})
            workers.check()
            account(by_hand, jobs, workers.report.answers)
        yield from measurements(jobs, turns, spans, workers)
    finally:
        jobs.drop()


def run(bench, jobs, connections):
    """The turns of each side, the spans in which workers were alone, and the workers."""
    batch, alone = ((QUICK_BATCH, QUICK_SECONDS_ALONE) if bench.quick else (BATCH, SECONDS_ALONE))
    turns = {side: [] for side in connections}
    spans = []

    def leave_alone():
        start = time.monotonic()
        time.sleep(alone)
        spans.append((start, time.monotonic()))

    with Workers(WORKERS, jobs.name) as workers:
        leave_alone()
        for group, side in enumerate(TURNS):
            turns[side].append(retry(connections[side], side, f"Import{group}", batch,
                                     jobs.size // 10))
        leave_alone()
    return turns, spans, workers


def retry(connection, side, worker, batch, expected):
    """A turn: the discarded jobs of that worker."""
    statement, what = {
        CALL: ("CALL oban_retry_in_batches(%s, %s)",
               Jsonb({"worker": worker, "state": "discarded"})),
        PLPGSQL: (f"CALL {SCHEMA}.retry_in_batches(%s, %s)", worker)}[side]
    return turn(connection, side, statement, [what, batch], batch, expected)


def turn(connection, side, statement, parameters, batch, expected):
    """A CALL that has a NOTICE for each batch."""
    moments = []

    def on_batch(_):
        moments.append(time.monotonic())

    connection.add_notice_handler(on_batch)
    with Memory(connection.info.backend_pid) as memory:
        start = time.monotonic()
        (affected,) = connection.execute(statement, parameters).fetchone()
        end = time.monotonic()
    connection.remove_notice_handler(on_batch)
    if affected != expected or len(moments) != -(-expected // batch):
        raise RuntimeError(f"{side}: changed {affected} of {expected} jobs"
                           f" in {len(moments)} batches of {batch}")
    times = [(after - before) * 1000 for before, after in zip([start, *moments], moments)]
    return Turn(start, end, times, memory.highest)


class Memory:
    """Watches what a process holds beside the shared buffers, in kB, until the end of a "with"."""

    def __init__(self, pid):
        self.pid, self.highest = pid, resident(pid)
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)

    def _watch(self):
        while not self.done.wait(0.05):
            self.highest = max(self.highest, resident(self.pid))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.done.set()
        self.thread.join()
        self.highest = max(self.highest, resident(self.pid))


def account(connection, jobs, answers):
    """Fails when any job is not what it has to be."""
    connection.execute(ANSWERS.format(schema=SCHEMA))
    with connection.cursor() as cursor:
        with cursor.copy(f"COPY {SCHEMA}.answers FROM STDIN") as copy:
            for answer in answers:
                copy.write_row(answer)
    (wrong,) = connection.execute(WRONG.format(schema=SCHEMA, table=jobs.name)).fetchone()
    if wrong:
        raise RuntimeError(f"{wrong} jobs are not what they have to be")


def measurements(jobs, turns, spans, workers):
    """Jobs a second, how long a batch took and a worker's statements beside it, memory."""
    retried = jobs.size // 10

    def measurement(name, unit, sides, **options):
        return Measurement("batches", name, jobs.dialect, jobs.size, retried, unit, sides,
                           [Ratio(CALL, PLPGSQL, **options)], paired=False)

    yield measurement("retry in batches", "jobs/s", {
        side: [retried / (turn.end - turn.start) for turn in some] for side, some in turns.items()},
        at_least=True)
    yield measurement("a batch", "ms", {
        side: [took for turn in some for took in turn.batches] for side, some in turns.items()})
    yield measurement("memory of the backend", "kB", {
        side: [turn.memory for turn in some] for side, some in turns.items()})
    spans = {side: [(turn.start, turn.end) for turn in some] for side, some in turns.items()} | {
        ALONE: spans}
    times = {side: [workers.times_between(*span) for span in some] for side, some in spans.items()}
    if not all(span for some in times.values() for span in some):
        raise RuntimeError("workers did nothing beside some turn")
    yield measurement("workers' statements, 99th percentile", "ms", {
        side: [percentile(span, 0.99) for span in some] for side, some in times.items()})
    yield measurement("workers' statements, longest", "ms", {
        side: [max(span) for span in some] for side, some in times.items()})
