"""Clients that take their sets of ids, each in random order, out of the same thousand jobs.

So they wait for each other, and lock each other out where a statement's locks have no order.
Deadlocks are counted, and only with the extension are they a failure. A careless statement has an
order as long as it finds the rows by the index; the other one here, a join, has none.
"""
import random
import time
from dataclasses import replace

import pgbench
from clients import store_sets, stored_set, written
from harness import CALL, CARELESS, Measurement, Ratio
from statements import call, careless

JOIN = "join"
VERBS = ("cancel", "retry")     # half of the calls each
CLIENTS = 8
JOBS = 1000
SETS = 1000
TURN = 2            # seconds
QUICK_CALLS = 5    # of each client
ROUNDS = 2


def measure(bench, table):
    """Calls a second, and deadlocks."""
    jobs = table.draw(min(JOBS, table.size // 10), ("available",))
    statements = sides(table)
    deadlocks = {side: [] for side in statements}

    def turn(side):
        before = so_far(connection, table)
        # Each deadlock takes a second to be found; what the harness does is shown by less.
        run = pgbench.run(
            [f"\\set i random(0, {SETS - 1})\n{statement};\n" for statement in statements[side]],
            CLIENTS, ("-t", QUICK_CALLS) if bench.quick else ("-T", TURN), table.schema,
            options="-c deadlock_timeout=100ms" if bench.quick else "")
        rows, locked_out = (now - then for now, then in zip(so_far(connection, table), before))
        if run.others or not rows or (side == CALL and locked_out):
            raise RuntimeError(f"{side} on overlapping sets: {locked_out} deadlocks,"
                               f" {run.others} other failures, {rows} rows written")
        deadlocks[side].append(locked_out)
        table.changed(rows)
        return run.rate

    with bench.connect(table) as connection:
        store_sets(connection, table, "overlapping",
                   [random.sample(jobs, 100) for _ in range(SETS)])
        rates = bench.interleave({side: lambda side=side: turn(side) for side in statements},
                                 0, ROUNDS, ROUNDS)
    found = Measurement(
        "throughput", "overlapping sets of 100 ids", table.dialect, table.size, CLIENTS, "calls/s",
        rates, [Ratio(CALL, theirs, at_least=True) for theirs in (CARELESS, JOIN)],
        note=f"Overlapping sets: out of {len(jobs)} jobs, in random order; half of the calls"
             " cancel, half retry. join: UPDATE … FROM unnest(ids).")
    yield found
    yield replace(found, name=f"{found.name}, deadlocks", unit="deadlocks/turn", ratios=[],
                  sides={side: [float(count) for count in counts[-len(rates[side]):]]
                         for side, counts in deadlocks.items()})


def sides(table):
    """The statements of each side, one of each verb."""
    ids = stored_set(table, "overlapping")
    by_hand = [careless(verb, table.name, "{ids}") for verb in VERBS]
    return {
        CALL: [call(verb, ids) for verb in VERBS],
        CARELESS: [statement.replace("{ids}", ids) for statement in by_hand],
        JOIN: [statement.replace("WHERE id = ANY ({ids})",
                                 f"FROM unnest({ids}) AS ids (id) WHERE job.id = ids.id")
               for statement in by_hand]}


def so_far(connection, table):
    """Rows written and deadlocks, by the server, once all clients have gone: pgbench does not tell
    of deadlocks after its last second."""
    for _ in range(100):
        (running,) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'"
            " AND datname = current_database()").fetchone()
        if not running:
            break
        time.sleep(0.1)
    (deadlocks,) = connection.execute(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    return written(connection, table), deadlocks
