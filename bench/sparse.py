"""A procedure whose filter matches ten jobs of the whole table, by no index: how long it holds a lock.

A client updates the first of these jobs again and again meanwhile: as long as its slowest statement
takes, the job was locked at most. A batch that locked each job as it found it would hold the first one
while it reads the rest of the table.
"""
import threading
import time

from harness import CALL, MILLION, Measurement
from psycopg.types.json import Jsonb

TABLES = MILLION

RARE = 10
ROUNDS, QUICK_ROUNDS = 5, 2
WAIT = "longest wait for a job"


def measure(bench, table):
    """Updates, each of which writes what was there, so that the table stays what it is."""
    rare = list(range(table.size // RARE, table.size + 1, table.size // RARE))
    with bench.connect(table) as connection:
        before = connection.execute(
            f"SELECT id, worker FROM {table.name} WHERE id = ANY (%s)", [rare]).fetchall()
        connection.execute(f"UPDATE {table.name} SET worker = 'Rare' WHERE id = ANY (%s)", [rare])
        values = {CALL: [], WAIT: []}
        try:
            for _ in range(QUICK_ROUNDS if bench.quick else ROUNDS):
                with Client(bench, table, rare[0]) as client:
                    start = time.monotonic()
                    (affected,) = connection.execute(
                        "CALL oban_update_in_batches(%s, %s)",
                        [Jsonb({"worker": "Rare"}), Jsonb({"worker": "Rare"})]).fetchone()
                    end = time.monotonic()
                if affected != RARE:
                    raise RuntimeError(f"updated {affected} jobs instead of {RARE}")
                values[CALL].append((end - start) * 1000)
                values[WAIT].append(client.longest(start, end))
        finally:
            for job, worker in before:
                connection.execute(f"UPDATE {table.name} SET worker = %s WHERE id = %s", [worker, job])
            table.changed(3 * RARE)
    yield Measurement("sparse", "a batch by a sparse filter", table.dialect, table.size, RARE, "ms", values,
                      paired=False)


class Client:
    """Updates one job again and again, until the end of a "with"."""

    def __init__(self, bench, table, job):
        self.bench, self.table, self.job = bench, table, job
        self.times, self.error = [], None
        self.begun, self.done = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._update)

    def _update(self):
        try:
            with self.bench.connect(self.table) as connection:
                while not self.done.is_set():
                    start = time.monotonic()
                    connection.execute(f"UPDATE {self.table.name} SET meta = meta WHERE id = %s",
                                       [self.job], prepare=True)
                    self.times.append((start, time.monotonic()))
                    self.begun.set()
        except Exception as error:  # whoever waits must hear of it
            self.error = error
            self.begun.set()

    def __enter__(self):
        self.thread.start()
        self.begun.wait()
        return self

    def __exit__(self, *exception):
        self.done.set()
        self.thread.join()
        if self.error is not None:
            raise self.error

    def longest(self, start, end):
        """Of the statements that ran in some part of a span of time, in ms."""
        return max((after - before) * 1000 for before, after in self.times
                   if before < end and after > start)
