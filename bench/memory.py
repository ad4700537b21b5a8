"""How much memory a backend takes at most for a call with a million ids.

What is measured is the backend's own resident memory (RssAnon of /proc/PID/status: neither shared
buffers nor files), every two milliseconds; the highest that it was during the call, less the
highest that it was when it merely had the array, which is an expression that both share. The array
lies uncompressed in a side table: as a parameter it would come with what the driver's format costs,
twice the array for text, which is freed before the call and which the call's own memory would then
be taken from unseen. Each side has a backend of its own, which is warm: it has made its plans for a
small array.

A million jobs are written in each run, which does not depend on the indexes of their table for its
memory; so it has the primary key alone, and nothing of it goes to the WAL. One of a hundred jobs is
executing: cancel tells its worker. The jobs that update returns stay in the server on either side.
"""
import threading

import statements
from harness import ARRAY, CALL, CARELESS, Measurement, Ratio
from jobs_table import make_schema

IDS, QUICK_IDS = 1_000_000, 100_000
WARM = 100
SAMPLE = 0.002  # seconds
SMALL, LARGE = 0, 1


def measure(bench, table):
    """Each verb, once: it takes the same each time."""
    schema = f"{table.schema}_memory"
    ids = QUICK_IDS if bench.quick else IDS
    with bench.connect() as connection:
        try:
            load(connection, table.dialect, schema, ids)
            for verb in statements.VERBS:
                of_side = {
                    side: extra(bench, connection, schema, verb, ids, statement)
                    for side, statement in (
                        (CALL, statements.call(verb, "{ids}")),
                        (CARELESS, statements.careless(verb, f"{schema}.oban_jobs", "{ids}")))}
                yield Measurement(
                    "costs", f"memory, {verb}", table.dialect, 0, ids, "kB",
                    {CALL: [of_side[CALL]], CARELESS: [of_side[CARELESS]], ARRAY: [ids * 8 / 1024]},
                    [Ratio(CALL, ARRAY, None if bench.quick else 3.0), Ratio(CALL, CARELESS)],
                    note="highest extra memory of the backend; table without secondary indexes")
        finally:
            connection.execute("SET client_min_messages = warning")
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def load(connection, dialect, schema, ids):
    """A lean jobs table, and the arrays of ids in random order."""
    connection.execute("SET client_min_messages = warning")
    connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    make_schema(dialect, schema)
    jobs = f"{schema}.oban_jobs"
    for (index,) in connection.execute(
            "SELECT indexrelid::regclass::text FROM pg_index"
            " WHERE indrelid = %s::regclass AND NOT indisprimary", [jobs]).fetchall():
        connection.execute(f"DROP INDEX {index}")
    connection.execute(f"ALTER TABLE {jobs} SET UNLOGGED, SET (autovacuum_enabled = off)")
    connection.execute(
        f"INSERT INTO {jobs} (id, state, worker) OVERRIDING SYSTEM VALUE"
        f" SELECT id, CASE WHEN id % 100 = 0 THEN 'executing' ELSE 'scheduled' END"
        f"::{schema}.oban_job_state, 'MyApp.Worker' FROM generate_series(1, {ids}) AS id")
    connection.execute(f"CREATE TABLE {schema}.drawn (i integer, ids bigint[])")
    connection.execute(f"ALTER TABLE {schema}.drawn ALTER ids SET STORAGE EXTERNAL")
    for i, count in (SMALL, WARM), (LARGE, ids):
        connection.execute(f"INSERT INTO {schema}.drawn SELECT {i}, array_agg(id ORDER BY random())"
                           f" FROM generate_series(1, {count}) AS id")
    connection.execute(f"VACUUM ANALYZE {jobs}")


def extra(bench, connection, schema, verb, ids, statement):
    """What the statement took at most, beyond the array, in kB."""
    array = f"(SELECT ids FROM {schema}.drawn WHERE i = %s)::bigint[]"
    statement = statement.replace("{ids}", array)
    expected = ids if statements.changes(verb, "executing") else ids - ids // 100
    with bench.connect(**{"oban_manage.prefix": schema}) as backend:
        for i in SMALL, LARGE:
            before = highest(backend, f"SELECT cardinality({array})", i, None)
            after = highest(backend, statement, i, expected if i == LARGE else None)
    connection.execute(f"VACUUM {schema}.oban_jobs")
    return after - before


def highest(backend, statement, i, expected):
    """The highest resident memory while a statement runs, which is rolled back, in kB."""
    pid, seen, done = backend.info.backend_pid, [], threading.Event()

    def sample():
        while not done.is_set():
            seen.append(resident(pid))
            done.wait(SAMPLE)

    sampler = threading.Thread(target=sample)
    backend.execute("BEGIN")
    sampler.start()
    try:
        changed = statements.changed(backend.execute(statement, [i], prepare=True))
    finally:
        done.set()
        sampler.join()
    backend.execute("ROLLBACK")
    if expected not in (None, changed):
        raise RuntimeError(f"changed {changed} jobs, not {expected}: {statement}")
    return max(seen)


def resident(pid):
    """What a process holds beside shared memory and files, in kB."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))
