"""What calls cost besides time: memory, WAL, the first one in a backend, many prefixes in one."""
import memory
import new_backends
import prefixes
import wal


def TABLES(dialect, size):
    """A table in the middle, of both dialects for the WAL."""
    return size == 1_000_000


def measure(bench, table):
    """Everything; what does not depend on the table's indexes, for one dialect only."""
    yield from wal.measure(bench, table)
    if table.dialect == "elixir":
        yield from new_backends.measure(bench, table)
        yield from memory.measure(bench, table)
        yield from prefixes.measure(bench, table)
