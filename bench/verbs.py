"""Each verb by ids, as a call and as one would write it by hand, and as Oban for Python does it."""
import committed
import oban_python
import one_id
from harness import ALL, CALL, CARELESS, CAREFUL, OBAN_PYTHON, PLPGSQL, Measurement, Ratio
from psycopg.types.json import Jsonb
from statements import VERBS
from timing import as_array, undone
from verb_sides import changes, install, statements

TABLES = ALL

# Seconds, and how many rounds at least, by the number of ids.
BUDGETS = {10: (2, 20), 100: (3, 20), 1000: (4, 7), 10_000: (6, 5), 100_000: (6, 3)}
QUICK_COUNTS = (10, 1000)
RATIOS = [Ratio(CALL, CARELESS, 1.10), Ratio(CALL, CAREFUL, 1.0), Ratio(CALL, PLPGSQL)]
NOTE = "Many ids: prepared, with plans that are made for any array; rolled back."
CHANGES = {"priority": 1, "meta": {"a": 1}}
COUNTED = "call, jobs counted"


def measure(bench, table):
    """Each verb: over one id, over many, and beside Oban for Python."""
    # By hand with plans for any array, as PostgreSQL makes them after five executions: for a long
    # array, the others take longer. The extension itself decides how its queries are planned.
    with (bench.connect(table) as by_call,
          bench.connect(table, plan_cache_mode="force_generic_plan") as by_hand,
          oban_python.Oban(table) as oban):
        install(by_hand, table)
        for verb in VERBS:
            yield one_id.measure(bench, table, verb)
            for count in QUICK_COUNTS if bench.quick else BUDGETS:
                if count <= table.size:
                    yield over_many(bench, table, verb, count, by_call, by_hand)
            for count in (1, *QUICK_COUNTS) if bench.quick else committed.BUDGETS:
                yield beside_oban(bench, table, verb, count, by_call, oban)


def over_many(bench, table, verb, count, by_call, by_hand):
    """The sides in turns, each over other jobs, rolled back."""
    def side(connection, statement):
        def run():
            ids = table.draw(count)
            return undone(connection, statement, {"ids": as_array(ids)}, changes(verb, table, ids))
        return run

    sides = {name: side(by_call if name == CALL else by_hand, statement)
             for name, statement in statements(verb, table, "%(ids)s::bigint[]", True).items()}
    values = bench.interleave(sides, *BUDGETS[count],
                              between=lambda: table.changed(count * len(sides)))
    return Measurement("verbs", verb, table.dialect, table.size, count, "ms", values, RATIOS, NOTE)


def beside_oban(bench, table, verb, count, connection, oban):
    """Committed, through the driver that Oban has."""
    if verb == "update":
        def execute(what):
            return lambda ids: connection.execute(
                f"SELECT {what} FROM oban_update_many_jobs(%s, %s)", [ids, Jsonb(CHANGES)])

        whole, counted = execute(oban_python.HANDED_OVER), execute("count(*)")
        sides = {CALL: lambda ids: len(whole(ids).fetchall()),
                 COUNTED: lambda ids: counted(ids).fetchone()[0],
                 OBAN_PYTHON: lambda ids: len(oban.update(ids, CHANGES))}
    else:
        call = f"SELECT oban_{verb}_many_jobs(%s)"
        sides = {CALL: lambda ids: connection.execute(call, [ids]).fetchone()[0],
                 OBAN_PYTHON: lambda ids: getattr(oban, verb)(ids)}
    values = committed.measure(bench, table, count, sides, lambda ids: changes(verb, table, ids))
    aim = 50 if (verb, count) == ("update", 1000) else None
    ratios = [Ratio(OBAN_PYTHON, side, aim, at_least=True) for side in sides if side != OBAN_PYTHON]
    return Measurement("verbs", f"{verb}, committed", table.dialect, table.size, count, "ms",
                       values, ratios, oban_python.NOTE)
