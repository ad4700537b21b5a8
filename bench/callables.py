"""Updates with a callable, and what one would write in its place.

Either appends a tag or merges a key into meta. `sql` and `plpgsql` are callables in that language;
`loop` is a loop in PL/pgSQL over the locked jobs with an UPDATE for each; `careless` is one UPDATE
of them all, without a lock before. Oban for Python calls a function in Python for each job.
"""
import committed
import oban_python
from harness import CARELESS, MILLION, OBAN_PYTHON, Measurement, Ratio
from timing import as_array, undone

TABLES = MILLION

BUDGETS = {1000: (6, 9), 10_000: (10, 7)}   # seconds, and how many rounds at least
QUICK_COUNTS = (1000,)
SQL, PLPGSQL, LOOP = "sql", "plpgsql", "loop"
BODIES = {SQL: "SELECT {}", PLPGSQL: "BEGIN RETURN {}; END"}
COUNTED = ", jobs counted"
# The column that changes, to what, and the same in Python.
CHANGES = {
    "append": ("tags", "array_append(job.tags, 'processed')",
               lambda job: {"tags": job.tags + ["processed"]}),
    "merge": ("meta", "job.meta || '{\"batch_id\": 7}'",
              lambda job: {"meta": {**job.meta, "batch_id": 7}})}


def measure(bench, table):
    """Each change, rolled back, and committed beside Oban for Python."""
    with bench.connect(table) as connection, oban_python.Oban(table) as oban:
        for name in CHANGES:
            install(connection, table, name)
            for count in QUICK_COUNTS if bench.quick else BUDGETS:
                yield compare(bench, table, connection, name, count)
            yield beside_oban(bench, table, connection, oban, name)


def install(connection, table, name):
    """Makes the callables and the loop."""
    column, value, _ = CHANGES[name]
    for language, body in BODIES.items():
        connection.execute(f"""
            CREATE FUNCTION {table.schema}.{name}_{language}(job oban_job) RETURNS jsonb
            LANGUAGE {language}
            AS $$ {body.format(f"jsonb_build_object('{column}', {value})")} $$""")
    connection.execute(f"""
        CREATE FUNCTION {table.schema}.{name}_{LOOP}(ids bigint[]) RETURNS bigint
        LANGUAGE plpgsql AS $$
        DECLARE
            job record;
            done bigint := 0;
        BEGIN
            FOR job IN SELECT id, {column} FROM {table.name} WHERE id = ANY (ids) ORDER BY id
                       FOR NO KEY UPDATE LOOP
                UPDATE {table.name} SET {column} = {value} WHERE id = job.id;
                done := done + 1;
            END LOOP;
            RETURN done;
        END $$""")


def compare(bench, table, connection, name, count):
    """The sides in turns, each over other jobs, rolled back."""
    column, value, _ = CHANGES[name]
    ids = "%(ids)s::bigint[]"
    statements = {
        language: f"SELECT count(*) FROM oban_update_many_jobs_with({ids},"
                  f" '{table.schema}.{name}_{language}')" for language in BODIES} | {
        LOOP: f"SELECT {table.schema}.{name}_{LOOP}({ids})",
        CARELESS: f"UPDATE {table.name} AS job SET {column} = {value} WHERE id = ANY ({ids})"}

    def side(statement):
        return lambda: undone(connection, statement, {"ids": as_array(table.draw(count))}, count)

    sides = {side_name: side(statement) for side_name, statement in statements.items()}
    values = bench.interleave(sides, *BUDGETS[count],
                              between=lambda: table.changed(count * len(sides)))
    return Measurement(
        "callables", name, table.dialect, table.size, count, "ms", values,
        [Ratio(SQL, LOOP, 0.5), Ratio(PLPGSQL, LOOP, 0.5), Ratio(SQL, CARELESS),
         Ratio(CARELESS, LOOP)])


def beside_oban(bench, table, connection, oban, name):
    """A thousand jobs, committed, through the driver that Oban has."""
    def whole(language):
        call = (f"SELECT {oban_python.HANDED_OVER} FROM oban_update_many_jobs_with(%s,"
                f" '{table.schema}.{name}_{language}')")
        return lambda ids: len(connection.execute(call, [ids]).fetchall())

    def counted(language):
        call = (f"SELECT count(*) FROM oban_update_many_jobs_with(%s,"
                f" '{table.schema}.{name}_{language}')")
        return lambda ids: connection.execute(call, [ids]).fetchone()[0]

    ours = {language: whole(language) for language in BODIES}
    ours |= {language + COUNTED: counted(language) for language in BODIES}
    sides = ours | {OBAN_PYTHON: lambda ids: len(oban.update(ids, CHANGES[name][2]))}
    values = committed.measure(bench, table, 1000, sides, len)
    return Measurement(
        "callables", f"{name}, committed", table.dialect, table.size, 1000, "ms", values,
        [Ratio(OBAN_PYTHON, side, 30, at_least=True) for side in ours], oban_python.NOTE)
