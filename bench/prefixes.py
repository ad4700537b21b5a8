"""Many prefixes in one backend, which keeps the plans of the last ones only.

One job of each is cancelled, by one prefix after the other, three times round, so that whatever is
kept for the prefixes used last is of no use. What the backend holds must not grow after the first
time round. By hand that is a prepared statement for each prefix.
"""
import time

import statements
from harness import CALL, CARELESS, Measurement, Ratio
from jobs_table import make_schema
from memory import resident

PREFIXES, QUICK_PREFIXES = 1000, 50
AT_ONCE = 50    # made or dropped in a transaction, as many locks as that takes
ROUNDS = 3
MARKS = (1, 100, 300)   # prefixes after which the memory is looked at, and at the end of each round
GROWTH = 1.1


def measure(bench, table):
    """Two backends in turns, one that calls and one with statements by hand."""
    count = QUICK_PREFIXES if bench.quick else PREFIXES
    names = [f"{table.schema}_prefix_{i}" for i in range(count)]
    template = f"{table.schema}_template"
    call = statements.call("cancel", "%s::bigint, %s::text")
    hand = statements.careless("cancel", "{name}.oban_jobs", "%s::bigint", many=False)
    try:
        make(bench, table.dialect, template, names)
        # On jobs of their own.
        with (Backend(bench, count, lambda name, i: (call, [i, name])) as calls,
              Backend(bench, count, lambda name, i: (
                  hand.replace("{name}", name), [i + ROUNDS])) as by_hand):
            for i in range(1, ROUNDS + 1):
                go_round(i, names, [calls, by_hand])
    finally:
        drop(bench, [*names, template])

    first, *later = (calls.contexts[end_of(i, count)] for i in range(1, ROUNDS + 1))
    if max(later) > GROWTH * first:
        raise RuntimeError(f"the backend's memory grew from {first} to {max(later)} MB")
    for i in range(ROUNDS):
        yield Measurement(
            "costs", f"many prefixes, round {i + 1}", table.dialect, 0, count, "ms",
            {CALL: calls.times[i], CARELESS: by_hand.times[i]}, [Ratio(CALL, CARELESS)])
    for what in "contexts", "resident":
        for side, backend in (CALL, calls), (CARELESS, by_hand):
            yield Measurement(
                "costs", f"many prefixes, memory ({what}), {side}", table.dialect, 0, count, "MB",
                {when: [value] for when, value in getattr(backend, what).items()}, [])


def end_of(i, count):
    """What the memory at the end of a round goes by."""
    return f"{count:,} prefixes, round {i}"


def go_round(i, names, backends):
    """The round of that number, with looks at the memory."""
    for backend in backends:
        backend.times.append([])
    for done, name in enumerate(names, 1):
        for backend in backends:
            backend.cancel(name, i)
        backends.reverse()
        if i == 1 and done in MARKS and done < len(names):
            for backend in backends:
                backend.look("1 prefix" if done == 1 else f"{done:,} prefixes")
    for backend in backends:
        backend.look(end_of(i, len(names)))


class Backend:
    """A backend that cancels jobs of one prefix after the other. Its commits do not wait for the
    disk, to show what is done in memory."""

    def __init__(self, bench, prefixes, statement):
        self.statement = statement
        self.connection = bench.connect(synchronous_commit="off")
        self.connection.prepared_max = prefixes + 10
        self.times = []         # of each round, in ms
        self.contexts = {}      # its memory contexts in MB, by when
        self.resident = {}      # its own resident memory in MB

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.connection.close()

    def cancel(self, name, i):
        """A job of that prefix, another one in each round."""
        start = time.perf_counter()
        cursor = self.connection.execute(*self.statement(name, i), prepare=True)
        self.times[-1].append((time.perf_counter() - start) * 1000)
        if statements.changed(cursor) != 1:
            raise RuntimeError(f"changed no job of {name}")

    def look(self, when):
        """How much memory it has now."""
        (held,) = self.connection.execute(
            "SELECT sum(total_bytes)::float8 FROM pg_backend_memory_contexts").fetchone()
        self.contexts[when] = held / 2**20
        self.resident[when] = resident(self.connection.info.backend_pid) / 1024


def make(bench, dialect, template, names):
    """Schemas with a few jobs each, by one template, whose enum they share."""
    drop(bench, [template])
    make_schema(dialect, template)
    with bench.connect(synchronous_commit="off") as connection:
        connection.execute(
            f"INSERT INTO {template}.oban_jobs (id, worker) OVERRIDING SYSTEM VALUE"
            f" SELECT i, 'MyApp.Worker' FROM generate_series(1, {2 * ROUNDS}) AS i")
        for start in range(0, len(names), AT_ONCE):
            connection.execute(";".join(
                f"CREATE SCHEMA {name};"
                f"CREATE TABLE {name}.oban_jobs (LIKE {template}.oban_jobs INCLUDING ALL);"
                f"INSERT INTO {name}.oban_jobs OVERRIDING SYSTEM VALUE"
                f" SELECT * FROM {template}.oban_jobs"
                for name in names[start:start + AT_ONCE]))


def drop(bench, names):
    """Drops schemas that may be there, the last one first."""
    with bench.connect(client_min_messages="warning", synchronous_commit="off") as connection:
        for start in range(0, len(names), AT_ONCE):
            connection.execute(";".join(f"DROP SCHEMA IF EXISTS {name} CASCADE"
                                        for name in names[start:start + AT_ONCE]))

