"""The verbs as calls, and as one would write them by hand.

In all of them {table} is the jobs table; {ids} gives one id, or an array of them where the text is
of many.
"""
NOW = "timezone('UTC', now())"
VERBS = ("cancel", "retry", "delete", "update")

# What each verb writes by hand, and the jobs that it leaves alone.
WRITES = {
    "cancel": f"UPDATE {{table}} AS job SET state = 'cancelled', cancelled_at = {NOW}",
    "retry": f"UPDATE {{table}} AS job SET state = 'available', scheduled_at = {NOW},"
             " max_attempts = greatest(max_attempts, attempt + 1),"
             " completed_at = NULL, cancelled_at = NULL, discarded_at = NULL",
    "delete": "DELETE FROM {table} AS job",
    "update": "UPDATE {table} AS job SET priority = 1"}
SPARED = {
    "cancel": ("completed", "discarded", "cancelled"),
    "retry": ("available", "executing"),
    "delete": ("executing",),
    "update": ()}
CALLS = {
    "cancel": "SELECT oban_cancel_job({ids})",
    "retry": "SELECT oban_retry_job({ids})",
    "delete": "SELECT oban_delete_job({ids})",
    # The jobs that it returns stay in the server.
    "update": """SELECT count(*) FROM oban_update_job({ids}, '{{"priority": 1}}')"""}


def call(verb, ids):
    """The call; the type of ids must be plain: bigint or bigint[]. Its first value is how many."""
    return CALLS[verb].format(ids=ids)


def careless(verb, table, ids, many=True):
    """The statement that anyone would write: no order among its locks, and nobody is told."""
    where = f"id = ANY ({ids})" if many else f"id = {ids}"
    return _whole(verb, f"{WRITES[verb].format(table=table)} WHERE {where}{_test(verb)}")


def careful(verb, table, ids):
    """The same after the jobs have been locked in the order of their ids."""
    lock, others = ("UPDATE", "USING") if verb == "delete" else ("NO KEY UPDATE", "FROM")
    locked = (f"locked AS MATERIALIZED (SELECT id FROM {table} WHERE id = ANY ({ids}){_test(verb)}"
              f" ORDER BY id FOR {lock})")
    return _whole(verb, f"{WRITES[verb].format(table=table)} {others} locked"
                        " WHERE job.id = locked.id", locked)


def changes(verb, state):
    """Does the verb change a job of that state?"""
    return state not in SPARED[verb]


def changed(cursor):
    """How many jobs a call, or a statement by hand, has changed."""
    return int(cursor.fetchone()[0]) if cursor.description else cursor.rowcount


def _test(verb):
    """The states that are left alone, as a further condition."""
    states = ", ".join(f"'{state}'" for state in SPARED[verb])
    return f" AND state NOT IN ({states})" if states else ""


def _whole(verb, write, first=None):
    """The statement that writes, after the CTE that comes first."""
    ctes = [first] if first else []
    if verb == "update":
        ctes.append(f"written AS ({write} RETURNING job.*)")
        write = "SELECT count(*) FROM written"
    return (f"WITH {', '.join(ctes)} " if ctes else "") + write
