"""How many bytes and records a job costs in the WAL, right after a checkpoint and later.

After a checkpoint the first change of each page puts the whole page into the WAL (a full page
image). So each side runs twice on the same ids, both times rolled back: after a checkpoint, where
the bytes are told apart by the number of images; and again, with the pages written already. What
the backend itself has written is in EXPLAIN (ANALYZE, WAL), with all that a function has done.
"""
import statements
from harness import CALL, CAREFUL, CARELESS, Measurement, Ratio

IDS, QUICK_IDS = 10_000, 1000
# It is the same each time, but for how the pages are filled.
ROUNDS = {"elixir": 2, "python": 1}


def measure(bench, table):
    """Each verb."""
    ids = QUICK_IDS if bench.quick else IDS
    array = "%(ids)s::bigint[]"
    for verb in statements.VERBS:
        sides = {CALL: statements.call(verb, array),
                 CARELESS: statements.careless(verb, table.name, array),
                 CAREFUL: statements.careful(verb, table.name, array)}
        found = {side: [] for side in sides}
        for _ in range(ROUNDS[table.dialect]):
            for side, statement in sides.items():
                found[side].append(twice(bench, table, verb, statement, ids))
        for name, unit, value in (
                ("WAL, {}", "bytes/job", lambda fresh, later: later["WAL Bytes"]),
                ("WAL records, {}", "records/job", lambda fresh, later: later["WAL Records"]),
                ("WAL after a checkpoint, {}", "bytes/job",
                 lambda fresh, later: fresh["WAL Bytes"]),
                ("full page images after a checkpoint, {}", "images/job",
                 lambda fresh, later: fresh["WAL FPI"])):
            yield Measurement(
                "costs", name.format(verb), table.dialect, table.size, ids, unit,
                {side: [value(*pair) / ids for pair in pairs] for side, pairs in found.items()},
                [Ratio(CALL, CARELESS), Ratio(CALL, CAREFUL)])


def twice(bench, table, verb, statement, count):
    """What the statement wrote to the WAL after a checkpoint, and what when it was run again."""
    ids = table.draw(count, [state for state in table.states if statements.changes(verb, state)])
    with bench.connect(table) as connection:
        connection.execute("CHECKPOINT")
        pair = [explained(connection, table, verb, statement, ids) for _ in range(2)]
    table.changed(2 * count)
    return pair


def explained(connection, table, verb, statement, ids):
    """Runs it, sees that it has written those jobs, and rolls it back: the root of its plan."""
    connection.execute("BEGIN")
    ((plan,),) = connection.execute(
        f"EXPLAIN (ANALYZE, WAL, TIMING OFF, FORMAT JSON) {statement}", {"ids": ids}).fetchall()
    written, there = connection.execute(
        "SELECT count(*) FILTER (WHERE xmin = pg_current_xact_id()::xid), count(*)"
        f" FROM {table.name} WHERE id = ANY (%s::bigint[])", [ids]).fetchone()
    connection.execute("ROLLBACK")
    changed = len(ids) - there if verb == "delete" else written
    if changed != len(ids):
        raise RuntimeError(f"changed {changed} jobs, not {len(ids)}: {statement}")
    return plan[0]["Plan"]
