"""Calls by several clients at a time, alone and beside workers; here a count is one of clients.

A turn cancels and then retries the same jobs, so that the next turn finds them as this one did.
How many they are is fixed before by a short trial of both sides, for the slowest of its statements
to take about TURN seconds; so every side and every turn changes as many, and all of them, which is
checked by the server's count of written rows. Ids come from pgbench's permutation of all jobs
that can be cancelled: no two clients take the same.
"""
import random
import statistics
import time
from collections import defaultdict

import overlapping
import pgbench
from clients import store_sets, stored_set, written
from harness import CALL, CARELESS, MILLION, Measurement, Ratio
from jobs_table import STRIDE, state_of
from statements import call, careless
from workers import Workers

TABLES = MILLION
SPOILS = True

CLIENTS = (1, 2, 4, 8, 16)
QUICK_CLIENTS = (1, 4)
IDS = (1, 100)
# Calls that a client makes before it is measured, and that it must make then at least, by ids. A
# prepared statement by hand is planned anew five times.
WARMING = {1: 5, 100: 2}
LEAST, QUICK_LEAST = 10, 2
# By hand as well, but it wakes the queues of what it has retried, as the call does: transactions
# that NOTIFY commit one after the other, each of them waiting for the disk.
NOTIFYING = "careless, notifying"
VERBS = ("cancel", "retry")
TURN = 0.5      # seconds
ROUNDS = 3
WORKERS = 2
# For the workers, in a queue of their own; more than they can do beside one comparison.
QUEUE = "throughput"
QUEUED, QUICK_QUEUED = 20_000, 5000
ALONE, BESIDE_CALL, BESIDE_CARELESS = "alone", "beside call", "beside careless"

# Of 1000 places (see jobs_table.py) the first 750 have scheduled, available and retryable jobs;
# 0 would be job 0.
PLACES = range(1, 750)
PLACE_TO_ID = pow(STRIDE, -1, 1000)
DRAW_ONE = f"""
\\set n :n + 1
\\set i permute(:client_id * :calls + :n, :pool, :seed)
\\set id :i / {len(PLACES)} * 1000 + (:i % {len(PLACES)} + 1) * {PLACE_TO_ID} % 1000
"""
DRAW_SET = """
\\set n :n + 1
\\set i permute(:client_id * :calls + :n, :pool, :seed)
"""


def percentile(values, share):
    """The value that so large a share of the values does not exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def measure(bench, table):
    """Each number of clients and of ids, alone and beside workers; then overlapping sets."""
    assert {state_of(place * PLACE_TO_ID % 1000) for place in PLACES} == {
        "scheduled", "available", "retryable"}
    # Every job that can be cancelled.
    drawn = table.draw(table.size // 1000 * len(PLACES) // 100 * 100,
                       ("scheduled", "available", "retryable"))
    with bench.connect(table) as connection:
        store_sets(connection, table, "sets",
                   [drawn[i:i + 100] for i in range(0, len(drawn), 100)])
    for workers in (0, WORKERS):
        for ids in IDS:
            for clients in QUICK_CLIENTS if bench.quick else CLIENTS:
                yield from Comparison(bench, table, clients, ids, workers).measure()
    yield from overlapping.measure(bench, table)


def check_written(connection, table, before, expected):
    """So many rows, and no others; backends that end tell a little later."""
    for _ in range(100):
        found = written(connection, table) - before
        if found == expected:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{found} rows were written, not {expected}")


class Comparison:
    """Calls and careless statements of so many clients, each of so many ids, in turns."""

    def __init__(self, bench, table, clients, ids, workers):
        self.bench, self.table = bench, table
        self.clients, self.ids, self.workers = clients, ids, workers
        self.pool = table.size // 1000 * len(PLACES) if ids == 1 else \
            table.size // 1000 * len(PLACES) // 100
        self.sides = (CALL, CARELESS) if ids > 1 or workers else (CALL, CARELESS, NOTIFYING)
        self.warming = WARMING[ids]
        # Of each client, for the trial.
        trial = 200 // (5 if bench.quick else 1) // (1 if ids == 1 else 10)
        self.calls = self.warming + max(5, trial // clients)
        self.seconds = TURN / 5 if bench.quick else TURN
        self.expected = self.unsettled = 0
        self.values = defaultdict(list)     # by what it is and side: one value a round
        self.windows = defaultdict(list)    # by side: from when to when it ran, in each round

    def script(self, side, verb):
        """For pgbench, one call a transaction."""
        ids = ":id::bigint" if self.ids == 1 else stored_set(self.table, "sets")
        statement = (call(verb, ids) if side == CALL else
                     careless(verb, self.table.name, ids, many=self.ids > 1))
        if side == NOTIFYING and verb == "retry":
            statement = (
                f"WITH retried AS ({statement} RETURNING queue) SELECT pg_notify("
                f"'{self.table.schema}.oban_insert', json_build_object('queue', queue)::text)"
                " FROM (SELECT DISTINCT queue FROM retried) AS queues")
        return f"{DRAW_ONE if self.ids == 1 else DRAW_SET}{statement};\n"

    def turn(self, side):
        """Cancels, then retries the same: the runs, by verb."""
        seed, runs = random.randrange(1, 2**31), {}
        for verb in VERBS:
            runs[verb] = one = pgbench.run(
                [self.script(side, verb)], self.clients, ("-t", self.calls), self.table.schema,
                warming=self.warming, n=-1, calls=self.calls, pool=self.pool, seed=seed)
            if len(one.latencies) != self.clients * (self.calls - self.warming):
                raise RuntimeError(f"{side}, {verb}: {one.deadlocks} deadlocks and {one.others}"
                                   f" other failures among {len(one.latencies)} calls")
            self.expected += self.clients * self.calls * self.ids
        self.unsettled += 2 * self.clients * self.calls * self.ids
        return runs

    def side(self, side):
        """A turn that is kept: calls a second."""
        runs = self.turn(side)
        for verb, one in runs.items():
            self.values[verb, "rate", side].append(one.rate)
            self.values[verb, "median", side].append(statistics.median(one.latencies))
            self.values[verb, "p99", side].append(percentile(one.latencies, 0.99))
        self.windows[f"beside {side}"].append([(one.start, one.end) for one in runs.values()])
        return sum(one.rate for one in runs.values()) / len(runs)

    def alone(self):
        """The workers have the server to themselves."""
        start = time.monotonic()
        time.sleep(self.seconds)
        self.windows[ALONE].append([(start, time.monotonic())])
        return self.seconds

    def settle(self):
        """Between rounds."""
        self.table.changed(self.unsettled)
        self.unsettled = 0

    def interleave(self):
        """A trial that fixes how many calls a turn makes, then the rounds."""
        slowest = min(one.rate for side in self.sides for one in self.turn(side).values())
        least = QUICK_LEAST if self.bench.quick else LEAST
        self.calls = min(self.pool // self.clients,
                         self.warming + max(least, int(slowest * self.seconds / self.clients)))
        sides = {side: lambda side=side: self.side(side) for side in self.sides}
        if self.workers:
            sides[ALONE] = self.alone
        self.bench.interleave(sides, 0, ROUNDS, ROUNDS, self.settle)

    def measure(self):
        with self.bench.connect(self.table) as connection:
            before = written(connection, self.table)
            if not self.workers:
                self.interleave()
                check_written(connection, self.table, before, self.expected)
                yield from self.measurements()
                return
            self.enqueue(connection)
            with Workers(self.workers, self.table.name, QUEUE) as workers:
                self.interleave()
            workers.check()
            # Each job was written when it was fetched, and when it was answered.
            self.expected += 2 * len(workers.report.answers)
            check_written(connection, self.table, before, self.expected)
            if not self.queued(connection):
                raise RuntimeError("the workers ran out of jobs")
            yield from self.measurements()
            yield from self.of_workers(workers)

    def queued(self, connection):
        """How many jobs the workers have."""
        return connection.execute(
            f"SELECT count(*) FROM {self.table.name} WHERE state = 'available' AND queue = %s",
            [QUEUE]).fetchone()[0]

    def enqueue(self, connection):
        """Tops up what the workers have."""
        connection.execute(
            f"INSERT INTO {self.table.name} (id, queue, worker, args) OVERRIDING SYSTEM VALUE"
            f" SELECT (SELECT max(id) FROM {self.table.name}) + i, '{QUEUE}', 'MyApp.Worker',"
            " jsonb_build_object('id', i) FROM generate_series(1, %s) AS i",
            [(QUICK_QUEUED if self.bench.quick else QUEUED) - self.queued(connection)])

    def measurement(self, name, unit, sides, ratios):
        """The first round warmed up."""
        return Measurement(
            "throughput", name, self.table.dialect, self.table.size, self.clients, unit,
            {side: values[1:] for side, values in sides.items()}, ratios)

    def measurements(self):
        """Of the clients."""
        beside = " beside workers" if self.workers else ""
        many = "1 id" if self.ids == 1 else f"{self.ids} ids"
        for verb in VERBS:
            for what, unit, at_least in (("rate", "calls/s", True), ("median", "ms", False),
                                         ("p99", "ms", False)):
                name = f"{verb} {many}{beside}" + ("" if what == "rate" else f", {what}")
                # In cancel nothing notifies.
                sides = self.sides if verb == "retry" else (CALL, CARELESS)
                yield self.measurement(
                    name, unit, {side: self.values[verb, what, side] for side in sides},
                    [Ratio(CALL, side, at_least=at_least) for side in sides[1:]])

    def of_workers(self, workers):
        """Of the workers: their statements in each of the turns."""
        rates, p99s = {}, {}
        for side in (ALONE, BESIDE_CALL, BESIDE_CARELESS):
            rates[side], p99s[side] = [], []
            for windows in self.windows[side]:
                times = [workers.times_between(*window) for window in windows]
                every = [one for some in times for one in some]
                if not every:
                    raise RuntimeError(f"workers {side}: no statement")
                rates[side].append(len(every) / sum(end - start for start, end in windows))
                p99s[side].append(percentile(every, 0.99))
        many = "1 id" if self.ids == 1 else f"{self.ids} ids"
        for name, unit, values, at_least in (("", "statements/s", rates, True),
                                             (", p99", "ms", p99s, False)):
            yield self.measurement(
                f"workers, beside clients with {many}{name}", unit, values,
                [Ratio(BESIDE_CALL, ALONE, at_least=at_least),
                 Ratio(BESIDE_CALL, BESIDE_CARELESS, at_least=at_least)])
