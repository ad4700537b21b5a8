"""How much longer the first call takes in a new backend than the second.

That is: to load the library, to read the catalogues, and to make the plan. Beside it stands the
hand-written statement, prepared as the call is, with what PostgreSQL itself does for the first
time; and the call in a backend that has loaded the library as it started.
"""
import statements
from harness import CALL, CARELESS, FIRST, SECOND, Measurement, Ratio, rolled_back

BACKENDS = 30
PRELOADED = "preloaded"


def measure(bench, table):
    """Each verb, for one id and for a hundred."""
    for verb in statements.VERBS:
        for count in 1, 100:
            yield first_calls(bench, table, verb, count)


def first_calls(bench, table, verb, count):
    """New backends in turns; each executes its side's statement twice."""
    ids = "%s::bigint[]" if count > 1 else "%s::bigint"
    call = statements.call(verb, ids)
    sides = {CALL: (call, {}),
             CARELESS: (statements.careless(verb, table.name, ids, many=count > 1), {}),
             PRELOADED: (call, {"session_preload_libraries": "oban_manage"})}
    states = [state for state in table.states if statements.changes(verb, state)]
    times = {side: [] for side in sides}

    def run(side):
        statement, settings = sides[side]
        drawn = table.draw(2 * count, states)
        with bench.connect(table, **settings) as connection:
            times[side].append([
                one(connection, statement, drawn[:count] if count > 1 else drawn[0]),
                one(connection, statement, drawn[count:] if count > 1 else drawn[1])])
        return times[side][-1][0]

    def one(connection, statement, drawn):
        elapsed, rows, affected = rolled_back(connection, statement, [drawn])
        changed = int(rows[0][0]) if rows else affected
        if changed != count:
            raise RuntimeError(f"changed {changed} jobs, not {count}: {statement}")
        return elapsed

    bench.interleave({side: lambda side=side: run(side) for side in sides}, 0, BACKENDS, BACKENDS,
                     lambda: table.changed(2 * count * len(sides)))
    values = {}
    for side, pairs in times.items():
        prefix = "" if side == CALL else f"{side} "
        for i, which in enumerate((FIRST, SECOND)):
            values[prefix + which] = [pair[i] for pair in pairs[1:]]
    return Measurement(
        "costs", f"first call, {verb}", table.dialect, table.size, count, "ms", values,
        [Ratio(FIRST, SECOND), Ratio(FIRST, f"{CARELESS} {FIRST}"),
         Ratio(FIRST, f"{PRELOADED} {FIRST}")])
