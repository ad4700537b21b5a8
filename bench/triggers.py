"""Rows of an application are deleted, and their jobs cancelled by a trigger or by hand.

`statement` is a statement trigger of ours; `row` is a row trigger in PL/pgSQL that does the same:
it locks the job, cancels it and tells its worker; `bare row` is one with nothing but the UPDATE;
`hand` is no trigger, but one UPDATE over what the DELETE returns.
"""
from harness import MILLION, Measurement, Ratio
from timing import as_array, undone
from verb_sides import changes, check, test, write

TABLES = MILLION

COUNT, QUICK_COUNT = 10_000, 1000
SECONDS, LEAST = 15, 9
STATEMENT, ROW, BARE_ROW, HAND = "statement", "row", "bare row", "hand"
RATIOS = [Ratio(STATEMENT, ROW, 1 / 3), Ratio(STATEMENT, BARE_ROW), Ratio(STATEMENT, HAND, 1.3),
          Ratio(HAND, BARE_ROW)]

TRIGGERS = {
    STATEMENT: """
        CREATE TRIGGER cancel AFTER DELETE ON {parents} REFERENCING OLD TABLE AS deleted
            FOR EACH STATEMENT EXECUTE FUNCTION oban_cancel_job('job_id')""",
    ROW: """
        CREATE FUNCTION {schema}.cancel() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            before text;
        BEGIN
            SELECT state INTO before FROM {schema}.oban_jobs WHERE id = OLD.job_id{test}
                FOR NO KEY UPDATE;
            IF FOUND THEN
                {cancel} WHERE id = OLD.job_id;
                IF before = 'executing' THEN
                    PERFORM pg_notify('{schema}.oban_signal',
                                      format('{{"action":"pkill","job_id":%s}}', OLD.job_id));
                END IF;
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER cancel AFTER DELETE ON {parents}
            FOR EACH ROW EXECUTE FUNCTION {schema}.cancel()""",
    BARE_ROW: """
        CREATE FUNCTION {schema}.cancel_bare() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            {cancel} WHERE id = OLD.job_id{test};
            RETURN NULL;
        END $$;
        CREATE TRIGGER cancel AFTER DELETE ON {parents}
            FOR EACH ROW EXECUTE FUNCTION {schema}.cancel_bare()""",
    HAND: ""}


def measure(bench, table):
    """The sides in turns, each over other rows, rolled back."""
    count = QUICK_COUNT if bench.quick else COUNT

    def side(name, statement):
        def run():
            ids = table.draw(count)
            # By hand it is the jobs that are counted, else the rows.
            expected = changes("cancel", table, ids) if name == HAND else count
            return undone(connection, statement, {"ids": as_array(ids)}, expected,
                          lambda: check(connection, "cancel", table, ids))
        return run

    with bench.connect(table) as connection:
        sides = {name: side(name, statement) for name, statement in statements(table).items()}
        for name in sides:
            install(connection, table, name)
        values = bench.interleave(sides, SECONDS, LEAST,
                                  between=lambda: table.changed(count * len(sides)))
        for name in sides:
            connection.execute(f"DROP TABLE {parents_of(table, name)}")
    yield Measurement("triggers", "delete and cancel", table.dialect, table.size, count, "ms",
                      values, RATIOS)


def parents_of(table, name):
    """The side's own rows, one for each job."""
    return f"{table.schema}.parents_{name.replace(' ', '_')}"


def install(connection, table, name):
    """Makes the side's rows and its trigger."""
    parents = parents_of(table, name)
    connection.execute(f"""
        CREATE TABLE {parents} (id bigint PRIMARY KEY, job_id bigint)
            WITH (autovacuum_enabled = off);
        INSERT INTO {parents} SELECT i, i FROM generate_series(1, {table.size}) AS i""")
    connection.execute(f"VACUUM (ANALYZE, FREEZE) {parents}")
    if TRIGGERS[name]:
        connection.execute(TRIGGERS[name].format(
            schema=table.schema, parents=parents, test=test("cancel"),
            cancel=write("cancel", table)))


def statements(table):
    """The statement of each side."""
    deletes = {name: f"DELETE FROM {parents_of(table, name)} WHERE id = ANY (%(ids)s::bigint[])"
               for name in TRIGGERS}
    # The fastest that was found: in one statement, and with an array in place of a join.
    deletes[HAND] = (f"WITH gone AS ({deletes[HAND]} RETURNING job_id) {write('cancel', table)}"
                     f" WHERE id = ANY (ARRAY(SELECT job_id FROM gone)){test('cancel')}")
    return deletes
