"""A retry in batches of jobs of which one in a thousand is refused by a unique index.

Each turn begins with a table that was loaded anew. The jobs that are refused lie scattered: each has
the key of a job that is executing. On the other sides the executing jobs have keys of their own.
"""
import random
import time

from harness import CLEAN, MILLION, REFUSED, Measurement, Ratio
from jobs_table import JobsTable
from psycopg.types.json import Jsonb

TABLES = MILLION

SCHEMA = "refused"
UNASKED = "without skip_refused"    # over the same jobs as CLEAN
ROUNDS = 3
BATCH, QUICK_BATCH = 10_000, 2000
FILTER = Jsonb({"state": "discarded"})
NAMED = 10      # of refused jobs, in warnings
NOTE = "Of 1,000 jobs one is refused. Each turn has a new table."

# Those after the discarded ones are executing, one for each of the keys.
ROWS = """
    INSERT INTO {table} (id, worker, state, attempt, max_attempts, args)
    SELECT id, 'Import', (CASE WHEN id > {jobs} THEN 'executing' ELSE 'discarded' END)
           ::{schema}.oban_job_state, 3, 3,
           jsonb_build_object('key', CASE WHEN id > {jobs} THEN ('{{{keys}}}'::bigint[])[id - {jobs}]
                                          ELSE id END)
    FROM ({ids}) AS ids"""
INDEX = """
    CREATE UNIQUE INDEX refused_key ON {table} ((args ->> 'key'))
    WHERE state IN ('available', 'scheduled', 'executing', 'retryable')"""


class Jobs(JobsTable):
    """Discarded jobs, and a few that are executing, which have these keys."""

    def __init__(self, bench, jobs, keys):
        super().__init__(bench, "elixir", jobs + len(keys), SCHEMA)
        self.jobs, self.keys = jobs, keys

    def _rows(self, ids):
        return ROWS.format(table=self.name, schema=self.schema, jobs=self.jobs, ids=ids,
                           keys=",".join(map(str, self.keys)))

    def verify(self):
        """How many are retried is seen by the call."""


def measure(bench, table):
    """The sides in turns."""
    jobs = table.size * 3 // 10
    refused = jobs // 1000
    colliding = sorted(random.sample(range(1, jobs + 1), refused))
    harmless = range(jobs + 1, jobs + refused + 1)

    def side(keys, skip_refused, expected):
        def run():
            return retry(bench, Jobs(bench, jobs, keys), skip_refused, expected)
        return run

    values = bench.interleave({
        REFUSED: side(colliding, True, jobs - refused),
        CLEAN: side(harmless, True, jobs),
        UNASKED: side(harmless, False, jobs)}, 0, ROUNDS, ROUNDS)
    yield Measurement("refused", "retry in batches", table.dialect, jobs + refused, jobs, "ms", values,
                      [Ratio(REFUSED, CLEAN, None if bench.quick else 1.3), Ratio(CLEAN, UNASKED)],
                      NOTE)


def retry(bench, jobs, skip_refused, expected):
    """One call, on a new table, in ms."""
    warnings = []
    try:
        jobs.load()
        with bench.connect(jobs, client_min_messages="warning") as connection:
            connection.execute(INDEX.format(table=jobs.name))
            connection.execute("CHECKPOINT")
            connection.add_notice_handler(warnings.append)
            start = time.perf_counter()
            (affected,) = connection.execute(
                "CALL oban_retry_in_batches(%s, %s, skip_refused => %s)",
                [FILTER, QUICK_BATCH if bench.quick else BATCH, skip_refused]).fetchone()
            took = (time.perf_counter() - start) * 1000
    finally:
        jobs.drop()
    refused = jobs.jobs - expected
    if affected != expected or len(warnings) != min(refused, NAMED) + (refused > 0):
        raise RuntimeError(f"retried {affected} jobs instead of {expected}, with {len(warnings)} warnings")
    return took
