"""What the sections of the benchmark have in common: tables, taking turns, measurements.

A section is a module with TABLES (ALL, MILLION or a function of dialect and size), which tells the
tables that it wants, and measure(bench, table), which yields Measurements. It leaves the table's
jobs as they were loaded, or says SPOILS = True, and the next section gets a new table. When a side
changes another number of jobs than it ought to, or a worker fails, it raises an error.
"""
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from jobs_table import STATES, JobsTable, make_schema, state_of  # noqa: F401, for the sections

DIALECTS = ("elixir", "python")
SIZES = (100_000, 1_000_000, 10_000_000)
QUICK_SIZES = (20_000,)

# Names of sides that the tables and the aims of the report know. Sections may have others besides.
CALL = "call"                   # the extension
CARELESS = "careless"           # UPDATE … WHERE id = ANY, no order
CAREFUL = "careful"             # the same after an ordered lock in a CTE
PLPGSQL = "plpgsql"             # a PL/pgSQL function of the same contract
OBAN_PYTHON = "oban python"     # the statements that Oban for Python sends
PG_BOSS = "pg-boss"             # sections of peers: this or the next against CALL
GRAPHILE = "graphile-worker"
ARRAY = "array"                 # section "costs", name "memory": CALL against the ids' array alone
FIRST = "first"                 # section "costs", name "first call": FIRST against SECOND, in ms
SECOND = "second"
GUARDED = "guard"               # section "guard": the same statements of workers on both
UNGUARDED = "no guard"
REFUSED = "refused"             # section "refused": some jobs of a call are refused, or none
CLEAN = "clean"


def ALL(dialect, size):
    """For TABLES: every dialect and size."""
    return dialect in DIALECTS and size in SIZES


def MILLION(dialect, size):
    """For TABLES: one table in the middle."""
    return dialect == "elixir" and size == 1_000_000


@dataclass(frozen=True)
class Ratio:
    """Ours divided by theirs, of medians."""
    ours: str
    theirs: str
    aim: float | None = None
    at_least: bool = False      # else at most
    by_rounds: bool = False     # the median of the rounds' ratios, which a slow drift leaves alone


@dataclass
class Measurement:
    """What the sides of one comparison gave."""
    section: str
    name: str
    dialect: str                # "" and 0 where there is no jobs table
    size: int
    count: int                  # jobs of one run, or clients
    unit: str                   # of the values: "ms", "jobs/s", "kB", "bytes/job", …
    sides: dict[str, list[float]]   # every value, in the order in which they were measured
    ratios: list[Ratio] = field(default_factory=list)
    note: str = ""
    paired: bool = True         # the values at one place of two sides are of one round


class Bench:
    """The server that is measured on, by libpq's environment."""

    def __init__(self, quick=False):
        self.quick = quick

    def connect(self, table=None, **settings):
        """A connection in autocommit; the calls' prefix is the table's schema."""
        if table is not None:
            settings = {"oban_manage.prefix": table.schema, **settings}
        options = " ".join("-c {}={}".format(name, str(value).replace(" ", "\\ "))
                           for name, value in settings.items())
        return psycopg.connect(autocommit=True, options=options)

    def load(self, dialect, size, schema=None):
        """A new JobsTable. Who asks for one drops it."""
        return JobsTable(self, dialect, size, schema or f"{dialect}_{size}").load()

    def interleave(self, sides: dict[str, Callable[[], float]], seconds: float, least: int,
                   most: int = 1000, between: Callable[[], None] | None = None):
        """Runs the sides in turns, each round in another order: the values of each side.

        The first round warms up and does not count. Then come at least `least` rounds and at most
        `most`, until the seconds are over; with --quick two. `between` is called after each round.
        """
        values = {side: [] for side in sides}
        order = list(sides)
        least, most = (2, 2) if self.quick else (least, max(least, most))
        start = None
        rounds = -1
        while rounds < least or (rounds < most and time.monotonic() - start < seconds):
            for side in order:
                value = sides[side]()
                if rounds >= 0:
                    values[side].append(value)
            order.append(order.pop(0))
            rounds += 1
            if between is not None:
                between()
            start = start or time.monotonic()
        return values


def timed(connection, statement, parameters):
    """Executes a prepared statement and fetches what it gives: (ms, rows, rows affected)."""
    start = time.perf_counter()
    cursor = connection.execute(statement, parameters, prepare=True)
    rows = cursor.fetchall() if cursor.description else []
    return (time.perf_counter() - start) * 1000, rows, cursor.rowcount


def rolled_back(connection, statement, parameters):
    """The same, in a transaction that is rolled back."""
    connection.execute("BEGIN")
    try:
        return timed(connection, statement, parameters)
    finally:
        connection.execute("ROLLBACK")
