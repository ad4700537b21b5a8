"""Times of statements that are undone."""
import time


def as_array(ids):
    """An array of bigint as a parameter, so that no time goes into making its text."""
    return "{" + ",".join(map(str, ids)) + "}"


def undone(connection, statement, parameters, expected, check=None):
    """How long the prepared statement took, in ms.

    Fails when it changed another number of jobs than expected, by its only column or by how many
    rows it affected or returned. `check` is called before all is undone.
    """
    connection.execute("BEGIN")
    try:
        # When this returns, all rows have arrived. To make Python's objects of them is left out: it
        # takes longer than many an update, and is the same whoever has made it.
        start = time.perf_counter()
        cursor = connection.execute(statement, parameters, prepare=True)
        elapsed = (time.perf_counter() - start) * 1000
        is_count = cursor.description and len(cursor.description) == 1
        changed = cursor.fetchone()[0] if is_count else cursor.rowcount
        if changed != expected:
            raise RuntimeError(f"changed {changed} jobs, not {expected}: {statement}")
        if check is not None:
            check()
    finally:
        connection.execute("ROLLBACK")
    return elapsed
