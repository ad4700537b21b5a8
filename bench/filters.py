"""Verbs over the jobs that a filter finds, a hundredth of the table, as calls and by hand."""
import random

from harness import CALL, CARELESS, CAREFUL, MILLION, STATES, Measurement, Ratio
from psycopg.types.json import Jsonb
from statements import SPARED
from timing import undone
from verb_sides import CHANGES, test, write

TABLES = MILLION

SECONDS, LEAST = 8, 9
GROUPS = 50     # of which one is drawn for each run
FILTERS = {
    "queue": ("state = 'scheduled' AND queue = %(queue)s",
              "jsonb_build_object('state', 'scheduled', 'queue', %(queue)s::text)"),
    "args": ("args @> %(args)s", "jsonb_build_object('args', %(args)s::jsonb)")}
# See jobs_table.py: the group, and the states that are found.
FOUND = {"queue": (lambda job: job // 2 % 50, {"scheduled"}),
         "args": (lambda job: job // 10 % 100, STATES.keys())}
NOTE = "By `queue`: one queue's scheduled jobs. By `args`: what they contain, with a GIN index."


def measure(bench, table):
    """Cancel and update, by either filter."""
    with bench.connect(table) as connection:
        for verb in ("cancel", "update"):
            for key in FILTERS:
                yield compare(bench, table, connection, verb, key)


def compare(bench, table, connection, verb, key):
    """The sides in turns, each with a queue or a group of its own, rolled back."""
    def side(statement):
        def run():
            group = random.randrange(GROUPS)
            drawn = {"queue": f"queue{group}", "args": Jsonb({"group": group})}
            return undone(connection, statement, drawn, changes(verb, table, key, group))
        return run

    sides = {name: side(statement) for name, statement in statements(verb, table, key).items()}
    count = table.size // 100
    values = bench.interleave(sides, SECONDS, LEAST,
                              between=lambda: table.changed(count * len(sides)))
    return Measurement("filters", f"{verb} by {key}", table.dialect, table.size, count, "ms",
                       values, [Ratio(CALL, CARELESS, 1.2), Ratio(CALL, CAREFUL)], NOTE)


def statements(verb, table, key):
    """The statement of each side."""
    condition, json = FILTERS[key]
    arguments = f"{json}, '{CHANGES}'" if verb == "update" else json
    return {
        CALL: f"SELECT oban_{verb}_all_jobs({arguments})",
        CARELESS: f"{write(verb, table)} WHERE {condition}{test(verb)}",
        CAREFUL: f"WITH locked AS MATERIALIZED (SELECT id FROM {table.name}"
                 f" WHERE {condition}{test(verb)} ORDER BY id FOR NO KEY UPDATE)"
                 f" {write(verb, table)} FROM locked WHERE job.id = locked.id"}


def changes(verb, table, key, group):
    """How many jobs the verb changes: it is the same in every thousand."""
    group_of, states = FOUND[key]
    return table.size // 1000 * sum(
        group_of(job) == group and table.state_of(job) in states - set(SPARED[verb])
        for job in range(1, 1001))
