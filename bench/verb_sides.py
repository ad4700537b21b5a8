"""The sides of the comparison of the verbs by id: their statements, and what they must change."""
import os

from harness import CALL, CARELESS, CAREFUL, PLPGSQL
from jobs_table import STATES
from statements import SPARED, WRITES

CHANGES = '{"priority": 1, "meta": {"a": 1}}'
COLUMNS = ("id", "state", "queue", "worker", "attempt", "max_attempts", "priority", "args", "meta",
           "tags", "errors", "attempted_by", "inserted_at", "scheduled_at", "attempted_at",
           "completed_at", "cancelled_at", "discarded_at")
UPDATED = "priority = 1 AND meta = '{\"a\": 1}'"
# What is true of jobs after a verb, and of those that were in which states before.
AFTER = {"cancel": ("state = 'cancelled'", STATES.keys() - {"completed", "discarded"}),
         "retry": ("state = 'available'", STATES.keys() - {"executing"}),
         "delete": ("true", {"executing"}),
         "update": (UPDATED, STATES.keys())}


def statements(verb, table, ids, many):
    """The statement of each side; ids is how it names the id, or the array of ids."""
    where = (f"id = ANY ({ids})" if many else f"id = {ids}") + test(verb)
    arguments = f"{ids}, '{CHANGES}'" if verb == "update" else ids
    select = "SELECT * FROM" if verb == "update" else "SELECT"
    function = f"{table.schema}.{verb}_{'many' if many else 'one'}"
    lock = "UPDATE" if verb == "delete" else "NO KEY UPDATE"
    # What arrives at the client are the same jobs as from the call.
    returning = f" RETURNING {', '.join(f'job.{name}' for name in COLUMNS)}" * (verb == "update")
    return {
        CALL: f"{select} oban_{verb}_job({arguments})",
        CARELESS: f"{write(verb, table)} WHERE {where}{returning}",
        # Of the forms in which one can write it this one was the fastest.
        CAREFUL: f"WITH locked AS MATERIALIZED (SELECT id FROM {table.name} WHERE {where}"
                 f" ORDER BY id FOR {lock})"
                 f" {write(verb, table)} {'USING' if verb == 'delete' else 'FROM'} locked"
                 f" WHERE job.id = locked.id{returning}",
        PLPGSQL: f"{select} {function}({arguments})"}


def write(verb, table):
    """What a verb writes by hand, up to the WHERE."""
    if verb == "update":
        return f"UPDATE {table.name} AS job SET priority = 1, meta = '{{\"a\": 1}}'"
    return WRITES[verb].format(table=table.name)


def test(verb):
    """The states that a verb leaves alone, as a further condition."""
    states = ", ".join(f"'{state}'" for state in SPARED[verb])
    return f" AND state NOT IN ({states})" if states else ""


def changes(verb, table, ids):
    """How many of those jobs, as they were loaded, the verb changes."""
    return table.count(ids, STATES.keys() - set(SPARED[verb]))


def check(connection, verb, table, ids):
    """Fails when those jobs, as they were loaded before, are not as the verb leaves them."""
    condition, states = AFTER[verb]
    (found,) = connection.execute(
        f"SELECT count(*) FROM {table.name} WHERE id = ANY (%s::bigint[]) AND {condition}",
        [ids]).fetchone()
    if found != table.count(ids, states):
        raise RuntimeError(f"{verb} of {len(ids)} jobs: {found} are as it leaves them,"
                           f" not {table.count(ids, states)}")


def install(connection, table):
    """Makes the functions in PL/pgSQL in the table's schema."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "plpgsql.sql")
    with open(path, encoding="utf-8") as file:
        connection.execute(file.read().replace("{schema}", table.schema))
