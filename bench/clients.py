"""What the comparisons of several clients have in common."""


def store_sets(connection, table, name, sets):
    """Puts sets of ids into a side table, for pgbench, which has no arrays."""
    name = f"{table.schema}.{name}"
    connection.execute(f"CREATE TABLE {name} (i integer, ids bigint[])")
    with connection.cursor().copy(f"COPY {name} FROM STDIN") as copy:
        for row in enumerate(sets):
            copy.write_row(row)
    connection.execute(f"ALTER TABLE {name} ADD PRIMARY KEY (i)")
    connection.execute(f"VACUUM ANALYZE {name}")


def stored_set(table, name):
    """In a script of pgbench: the set whose number is :i, by the side table's primary key."""
    return f"(SELECT ids FROM {table.schema}.{name} WHERE i = :i)::bigint[]"


def written(connection, table):
    """How many rows of the jobs table have been updated, as far as backends have told."""
    return connection.execute("SELECT pg_stat_get_tuples_updated(%s::regclass)",
                              [table.name]).fetchone()[0]
