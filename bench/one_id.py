"""A verb over one id: prepared statements by pgbench, each in a transaction that is committed."""
import statistics

import pgbench
from harness import CALL, CARELESS, CAREFUL, PLPGSQL, Measurement, Ratio
from verb_sides import check, statements

SECONDS, LEAST = 8, 6
A_TURN, A_QUICK_TURN = 500, 40
WARM_UP = 10    # of each turn, for the plan is not yet made, or not yet kept
STRIDE = 7919   # has no factor in common with the size of any table, so that no job is met twice
NOTE = ("One id: prepared, by pgbench, committed; a value is the median of a turn of"
        f" {A_TURN} transactions, each over another job.")


def measure(bench, table, verb):
    """The sides in turns; afterwards the jobs are what they were."""
    turn = A_QUICK_TURN if bench.quick else A_TURN
    used = []

    def side(statement):
        # A colon before a letter would begin a variable.
        script = f"\\set n :n + 1\n\\set id (:n * {STRIDE}) % {table.size} + 1\n{statement};\n"

        def run():
            first = len(used) + 1
            ids = [n * STRIDE % table.size + 1 for n in range(first, first + turn)]
            done = pgbench.run([script], 1, ("-t", turn), table.schema, n=len(used))
            if len(done.latencies) != turn:
                raise RuntimeError(f"{verb}: {turn - len(done.latencies)} transactions failed")
            check(connection, verb, table, ids)
            used.extend(ids)
            return statistics.median(done.latencies[WARM_UP:])
        return run

    sides = {name: side(statement)
             for name, statement in statements(verb, table, ":id::bigint", many=False).items()}
    most = table.size // (turn * len(sides)) - 1
    with bench.connect(table) as connection:
        values = bench.interleave(sides, SECONDS, min(LEAST, most), most,
                                  lambda: table.changed(turn * len(sides)))
    table.restore(used)
    return Measurement(
        "verbs", verb, table.dialect, table.size, 1, "ms", values,
        [Ratio(CALL, CARELESS, 1.05), Ratio(CALL, CAREFUL), Ratio(CALL, PLPGSQL)], NOTE)
