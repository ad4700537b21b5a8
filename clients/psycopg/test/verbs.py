#!/usr/bin/python3
"""The verbs of oban_manage through psycopg: which parameters need a cast, and what comes back.

Prints TAP. Connects by PGHOST, PGPORT, PGUSER and PGDATABASE, and makes the schema client_psycopg
anew, with a jobs table of Oban for Python; psql must be on the PATH.
"""

import datetime
import os
import re
import subprocess
import sys
import time

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

SCHEMA = "client_psycopg"
FIXTURE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../fixtures/python.sql")

count = 0
failed = 0


def same(got, expected, name):
    global count, failed
    count += 1
    # True == 1 and the like: a driver's types matter here.
    good = got == expected and type(got) is type(expected)
    failed += not good
    print(f"{'ok' if good else 'not ok'} {count} - {name}")
    if not good:
        print(f"#      got: {got!r}\n# expected: {expected!r}")


def sqlstate(connection, query, parameters):
    try:
        with connection.transaction():
            connection.execute(query, parameters)
    except psycopg.Error as error:
        return error.sqlstate
    return None


def value(connection, query, parameters=None, **options):
    return connection.execute(query, parameters, **options).fetchone()[0]


def make_jobs(connection, *states):
    """One job of each state; returns their ids."""
    return [
        value(
            connection,
            "INSERT INTO oban_jobs (state, queue, worker, args)"
            " VALUES (%s::oban_job_state, 'mail', 'Mailer', %s) RETURNING id",
            (state, Jsonb({"to": "ann@example.org"})),
        )
        for state in states
    ]


def state_of(connection, job_id):
    row = connection.execute("SELECT state FROM oban_jobs WHERE id = %s", (job_id,)).fetchone()
    return row[0] if row else "gone"


def cancel_retry_delete(connection):
    for verb, state, after in [
        ("cancel", "available", "cancelled"),
        ("retry", "completed", "available"),
        ("delete", "available", "gone"),
    ]:
        one, row, job, *many = make_jobs(connection, *[state] * 7)

        # psycopg sends an int as an integer type, and a list of them as an array of one.
        query = f"SELECT oban_{verb}_job(%s)"
        same(value(connection, query, (one,)), True, f"{verb}: an int needs no cast")
        same(state_of(connection, one), after, f"{verb}: the job is {after}")
        again = value(connection, query, (one,))
        same(again, False, f"{verb}: False for a job that it does not change")
        same(value(connection, query, (many[:2],)), 2, f"{verb}: a list gives an int")

        query = f"SELECT oban_{verb}_many_jobs(%s)"
        same(value(connection, query, (many,)), 2, f"{verb}_many_jobs: those that were left")
        same(value(connection, query, ([],)), 0, f"{verb}_many_jobs: an empty list")
        same(value(connection, query, (None,)), 0, f"{verb}_many_jobs: None needs no cast")

        query = f"SELECT oban_{verb}_job(j) FROM oban_jobs j WHERE id = %s"
        same(value(connection, query, (row,)), True, f"{verb}: a row of the table")
        query = f"SELECT oban_{verb}_job(oban_get_job(%s))"
        same(value(connection, query, (job,)), True, f"{verb}: an oban_job")

        # What psycopg sends without a type must be told apart.
        for untyped in (None, "1"):
            query = f"SELECT oban_{verb}_job(%s)"
            got = sqlstate(connection, query, (untyped,))
            same(got, "42725", f"{verb}: {untyped!r} without a cast is ambiguous")
        query = f"SELECT oban_{verb}_job(%s::bigint)"
        same(value(connection, query, (None,)), False, f"{verb}: None with a cast")

    # An explicit prefix, and more runs than it takes psycopg to prepare the statement and
    # PostgreSQL to keep a generic plan.
    ids = make_jobs(connection, *["scheduled"] * 20)
    changed = [
        value(connection, "SELECT oban_cancel_job(%s, %s)", (job_id, SCHEMA), prepare=True)
        for job_id in ids
    ]
    same(changed, [True] * 20, "a prepared statement with a prefix, twenty times")


def update(connection):
    first, second, third = make_jobs(connection, "available", "scheduled", "executing")
    utc = datetime.timezone.utc

    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT * FROM oban_update_job(%s, %s)",
            (
                second,
                Jsonb(
                    {
                        "args": {"to": ["bob", "eve"]},
                        "tags": ["Urgent", "a"],
                        "priority": 2,
                        "scheduled_at": "2040-05-06T07:08:09Z",
                    }
                ),
            ),
        )
        job = cursor.fetchone()
        same(job["id"], second, "update: id is an int")
        same(job["state"], "scheduled", "update: state is text")
        same(job["args"], {"to": ["bob", "eve"]}, "update: args is a dict")
        same(job["meta"], {}, "update: meta is a dict")
        same(job["tags"], ["a", "urgent"], "update: tags are a list")
        same(job["errors"], [], "update: errors are a list")
        same(job["priority"], 2, "update: priority is an int")
        scheduled = datetime.datetime(2040, 5, 6, 7, 8, 9, tzinfo=utc)
        same(job["scheduled_at"].astimezone(utc), scheduled, "update: times know their zone")
        same(job["cancelled_at"], None, "update: no time is None")
        same(job["prefix"], SCHEMA, "update: the prefix is known")

        cursor.execute(
            "SELECT id, priority FROM oban_update_many_jobs(%s, %s)",
            ([third, first, third], Jsonb({"priority": 5})),
        )
        got = cursor.fetchall()
        expected = [{"id": first, "priority": 5}, {"id": third, "priority": 5}]
        same(got, expected, "update_many_jobs: a row a job, in id order")

        cursor.execute(
            "SELECT u.queue FROM oban_jobs j, oban_update_job(j, %s) u WHERE j.id = %s",
            (Jsonb({"queue": "slow"}), first),
        )
        same(cursor.fetchone(), {"queue": "slow"}, "update: a row of the table")
        same(
            value(connection, "SELECT (oban_get_job(%s)).queue", (first,)), "slow", "get: new queue"
        )
        cursor.execute("SELECT * FROM oban_get_job(%s)", (0,))
        same(set(cursor.fetchone().values()), {None}, "get: NULL for a job that is not there")

    same(value(connection, "SELECT oban_job_cancelled(%s)", (third,)), False, "cancelled: not yet")
    connection.execute("SELECT oban_cancel_job(%s)", (third,))
    same(value(connection, "SELECT oban_job_cancelled(%s)", (third,)), True, "cancelled: it is")
    same(value(connection, "SELECT oban_job_cancelled(%s)", (0,)), True, "cancelled: it is gone")
    query = "SELECT oban_job_cancelled(%s, attempt => %s)"
    same(value(connection, query, (first, 1)), True, "cancelled: it does not run with that attempt")

    # Text for the changes will do, for there is only jsonb to choose.
    changes = '{"worker": "Sender"}'
    got = value(connection, "SELECT (oban_update_job(%s, %s)).worker", (first, changes))
    same(got, "Sender", "update: changes as text need no cast")

    query = "SELECT oban_update_job(%s, %s)"
    for changes, code in [
        (Jsonb({"priority": 10}), "22023"),
        (Jsonb({"colour": "red"}), "22023"),
        ("{", "22P02"),
    ]:
        got = sqlstate(connection, query, (first, changes))
        same(got, code, f"update: {getattr(changes, 'obj', changes)} gives {code}")
    got = sqlstate(connection, query, (0, Jsonb({"priority": 1})))
    same(got, "P0002", "update: a missing job gives P0002")
    got = sqlstate(connection, "SELECT oban_cancel_job(%s, %s)", (first, "nowhere"))
    same(got, "3F000", "cancel: a missing schema gives 3F000")


def callables(connection):
    connection.execute(
        """
        CREATE FUNCTION merge(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS
            $$ SELECT jsonb_build_object('meta', job.meta || coalesce(context, '{}'),
                                         'tags', job.tags || 'seen'::text) $$;
        CREATE FUNCTION twin(job oban_job) RETURNS jsonb LANGUAGE sql AS
            $$ SELECT '{"queue": "oban_job"}'::jsonb $$;
        CREATE FUNCTION twin(job jsonb) RETURNS jsonb LANGUAGE sql AS
            $$ SELECT '{"queue": "jsonb"}'::jsonb $$;
        CREATE FUNCTION complain(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
        BEGIN
            IF job.id = (context ->> 'about')::bigint THEN
                RAISE 'job % will not do', job.id USING ERRCODE = 'UE001';
            END IF;
            RETURN '{"priority": 9}';
        END $$;
        """
    )
    first, second, third = make_jobs(connection, "available", "scheduled", "executing")

    # The callable's name: psycopg sends a str without a type, so that it becomes what is wanted.
    query = "SELECT * FROM oban_update_job_with(%s, %s, %s)"
    with connection.cursor(row_factory=dict_row) as cursor:
        job = cursor.execute(query, (first, "merge", Jsonb({"batch": 7}))).fetchone()
    same(job["id"], first, "callable: the job comes back")
    same(job["meta"], {"batch": 7}, "callable: with what the context brought")
    same(job["tags"], ["seen"], "callable: and what the job had")

    query = "SELECT (oban_update_job_with(%s, %s)).queue"
    got = sqlstate(connection, query, (first, "twin"))
    same(got, "42725", "callable: a name of two functions is ambiguous")
    got = sqlstate(connection, query, (first, "twin(jsonb)"))
    same(got, "42883", "callable: regproc takes no signature")
    query = "SELECT (oban_update_job_with(%s, %s::regprocedure)).queue"
    got = value(connection, query, (first, "twin(jsonb)"))
    same(got, "jsonb", "callable: a signature needs a cast to regprocedure")

    # What has the type text needs a cast.
    query = "SELECT (oban_update_job_with(%s, %s::text, %s)).priority"
    got = sqlstate(connection, query, (first, "merge", Jsonb({})))
    same(got, "42883", "callable: text is no regproc")
    query = "SELECT (oban_update_job_with(%s, %s::text::regproc, %s)).tags"
    got = value(connection, query, (first, "merge", Jsonb({})))
    same(got, ["seen"], "callable: text with a cast to regproc")

    query = "SELECT id, meta FROM oban_update_many_jobs_with(%s, %s, %s)"
    got = connection.execute(query, ([third, first, third], "merge", Jsonb({"b": [1]}))).fetchall()
    expected = [(first, {"b": [1], "batch": 7}), (third, {"b": [1]})]
    same(got, expected, "callable, many jobs: a row a job, in id order")
    got = connection.execute(query, ([second], "merge", None)).fetchall()
    same(got, [(second, {})], "callable, many jobs: None for the context")
    got = connection.execute(query, ([], "merge", None)).fetchall()
    same(got, [], "callable, many jobs: an empty list")

    # Twenty times prepared, on a callable that sees what it did before.
    query = "SELECT (oban_update_job_with(%s, %s, %s)).meta"
    for n in range(20):
        got = value(connection, query, (second, "merge", Jsonb({str(n): n})), prepare=True)
    same(got, {str(n): n for n in range(20)}, "callable: prepared, twenty times")

    query = "SELECT id FROM oban_update_many_jobs_with(%s, %s, %s)"
    try:
        connection.execute(query, ([first, second], "complain", Jsonb({"about": second})))
        error = None
    except psycopg.Error as caught:
        error = caught
    same(getattr(error, "sqlstate", None), "UE001", "callable: its error has its own SQLSTATE")
    message = error.diag.message_primary
    same(message, f"job {second} will not do", "callable: and its own message")
    found = re.search(r"complain\(.*\) for job (\d+)", error.diag.context)
    same(found and found[1], str(second), "callable: the error's context names callable and job")
    got = value(connection, "SELECT (oban_get_job(%s)).priority", (first,))
    same(got, 0, "callable: nothing was changed")

    for name, code in [("nowhere", "42883"), (None, "22004"), ("every", "42809"), ("now", "42804")]:
        got = sqlstate(connection, query, ([first], name, None))
        same(got, code, f"callable: {name} gives {code}")
    got = sqlstate(connection, query, ([first, 0], "merge", Jsonb({})))
    same(got, "P0002", "callable: a missing job gives P0002")


def filters(connection):
    ids = make_jobs(connection, "available", "scheduled", "executing", "completed")
    everything = Jsonb({"id": ids})

    # The filter: a Jsonb, or text, for there is only jsonb to choose.
    query = "SELECT id, state, args FROM oban_all_jobs(%s)"
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(query, (Jsonb({"id": ids, "args": {"to": "ann@example.org"}}),))
        states = [(job["id"], job["state"], job["args"]["to"]) for job in cursor.fetchall()]
    expected = [
        (job_id, state, "ann@example.org")
        for job_id, state in zip(ids, ["available", "scheduled", "executing", "completed"])
    ]
    same(states, expected, "filter: the jobs that match, in id order")
    got = value(connection, "SELECT count(*) FROM oban_all_jobs(%s)", (f'{{"id": {ids}}}',))
    same(got, 4, "filter: text needs no cast")
    got = value(connection, "SELECT count(*) FROM oban_all_jobs(%s, %s)", (everything, 2))
    same(got, 2, "filter: at most so many")

    query = "SELECT oban_cancel_all_jobs(%s)"
    same(value(connection, query, (everything,)), 3, "filter: cancel gives an int")
    same(value(connection, query, (everything,)), 0, "filter: nothing is left to cancel")
    query = "SELECT oban_retry_all_jobs(%s, %s)"
    same(value(connection, query, (everything, 1)), 1, "filter: retry at most one")
    same(value(connection, query, (everything, None)), 3, "filter: None for no limit")
    query = "SELECT oban_update_all_jobs(%s, %s)"
    got = value(connection, query, (everything, Jsonb({"queue": "slow"})))
    same(got, 4, "filter: update")
    query = "SELECT oban_delete_all_jobs(%s, prefix => %s)"
    got = value(connection, query, (Jsonb({"id": ids, "queue": "slow"}), SCHEMA))
    same(got, 4, "filter: delete, with a prefix")

    # Values that look like SQL are values; other filters each time, prepared.
    (odd,) = make_jobs(connection, "scheduled")
    worker = "O'Mailer\"; DROP TABLE oban_jobs; --\\"
    connection.execute("UPDATE oban_jobs SET worker = %s WHERE id = %s", (worker, odd))
    query = "SELECT array_agg(id) FROM oban_all_jobs(%s)"
    got = [
        value(connection, query, (Jsonb({"worker": name}),), prepare=True)
        for name in [worker, "nobody", worker] * 4
    ]
    same(got, [[odd], None, [odd]] * 4, "filter: quotes are no matter, prepared")

    query = "SELECT oban_delete_all_jobs(%s)"
    for wrong, code in [
        (Jsonb({}), "22023"),
        (Jsonb({"colour": "red"}), "22023"),
        (Jsonb([]), "22023"),
        (Jsonb({"id": None}), "22023"),
        ("{", "22P02"),
        (None, "22004"),
    ]:
        got = sqlstate(connection, query, (wrong,))
        same(got, code, f"filter: {getattr(wrong, 'obj', wrong)} gives {code}")


def outcomes(connection):
    ids = make_jobs(connection, "available", "executing", "completed")
    query = (
        "SELECT job_id, outcome, old_state, new_state"
        " FROM oban_manage_jobs(%s, %s, dry_run => %s)"
    )
    expected = [
        (ids[0], "cancelled", "available", "cancelled"),
        (ids[1], "cancelled", "executing", "cancelled"),
        (ids[2], "ignored", "completed", "completed"),
    ]
    for dry_run in (True, False):
        got = connection.execute(query, ("cancel", ids[::-1], dry_run)).fetchall()
        same(got, expected, f"outcomes: dry_run {dry_run}")
        after = "available" if dry_run else "cancelled"
        same(state_of(connection, ids[0]), after, f"outcomes: the job is {after}")
    got = connection.execute(query, ("delete", [ids[0], 0], False)).fetchall()
    expected = [(0, "not_found", None, None), (ids[0], "deleted", "cancelled", None)]
    same(got, expected, "outcomes: None for no state")
    same(connection.execute(query, ("delete", [], False)).fetchall(), [], "outcomes: an empty list")

    query = "SELECT * FROM oban_manage_jobs(%s, %s, %s)"
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query, ("update", [ids[1]], Jsonb({"priority": 4}))).fetchone()
    reason = row.pop("reason")
    same(type(reason) is str and reason != "", True, "outcomes: the reason is text")
    expected = {"job_id": ids[1], "outcome": "updated"}
    expected |= {"old_state": "cancelled", "new_state": "cancelled"}
    same(row, expected, "outcomes: update, by name")
    for action, changes, code in [
        ("explode", None, "22023"),
        (None, None, "22004"),
        ("update", None, "22004"),
        ("cancel", Jsonb({"priority": 4}), "22023"),
    ]:
        got = sqlstate(connection, query, (action, ids, changes))
        same(got, code, f"outcomes: {action} with {getattr(changes, 'obj', changes)} gives {code}")


def batches(connection):
    # A connection must be in autocommit: psycopg begins a transaction otherwise.
    ids = make_jobs(connection, *["scheduled"] * 5)
    everything = Jsonb({"id": ids})
    notices = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))

    row = connection.execute("CALL oban_cancel_in_batches(%s, %s)", (everything, 2)).fetchone()
    same(row, (5,), "batches: affected is an int in the row of the CALL")
    progress = re.compile(r"cancelled (\d) of about 5 jobs, \d+ per second, .* left$")
    done = [progress.match(notice) for notice in notices]
    same([match and match[1] for match in done], ["2", "4", "5"], "batches: a notice for each")

    query = "CALL oban_retry_in_batches(%s, %s, pause => %s, spread => %s)"
    pause = datetime.timedelta(milliseconds=1)
    hour = datetime.timedelta(hours=1)
    same(value(connection, query, (everything, 2, pause, hour)), 5, "batches: intervals")
    got = connection.execute("SELECT state FROM oban_jobs WHERE id = ANY (%s) ORDER BY id", (ids,))
    expected = [("available",)] + [("scheduled",)] * 4
    same(got.fetchall(), expected, "batches: a retry that is spread")
    query = "CALL oban_update_in_batches(%s, %s, prefix => %s)"
    got = value(connection, query, (everything, Jsonb({"queue": "slow"}), SCHEMA), prepare=True)
    same(got, 5, "batches: prepared, with a prefix")

    query = "CALL oban_delete_in_batches(%s)"
    same(sqlstate(connection, query, (everything,)), "25001", "batches: not in a transaction")
    with psycopg.connect() as other:
        try:
            other.execute(query, (everything,))
            error = None
        except psycopg.Error as caught:
            error = caught.sqlstate
    same(error, "25001", "batches: not without autocommit")
    same(value(connection, query, (everything,)), 5, "batches: in autocommit")
    same(state_of(connection, ids[0]), "gone", "batches: the jobs are gone")


def transactions(connection):
    (job_id,) = make_jobs(connection, "executing")
    with psycopg.connect(autocommit=True) as listener:
        heard = []
        listener.add_notify_handler(lambda told: heard.append((told.channel, told.payload)))
        listener.execute(f'LISTEN "{SCHEMA}.oban_signal"')

        with connection.transaction() as transaction:
            changed = value(connection, "SELECT oban_cancel_job(%s)", (job_id,))
            same(changed, True, "in a transaction: changed")
            raise psycopg.Rollback(transaction)
        same(state_of(connection, job_id), "executing", "rolled back: as it was")

        with connection.transaction():
            connection.execute("SELECT oban_cancel_job(%s)", (job_id,))
        same(state_of(connection, job_id), "cancelled", "committed: cancelled")

        deadline = time.monotonic() + 30
        while not heard and time.monotonic() < deadline:
            listener.execute("SELECT 1")
        listener.execute("SELECT 1")
        expected = [(f"{SCHEMA}.oban_signal", f'{{"action":"pkill","job_id":{job_id}}}')]
        same(heard, expected, "the worker is told of the commit, and of nothing else")


def main():
    subprocess.run(
        ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1"]
        + ["-c", "SET client_min_messages = warning"]
        + ["-c", "CREATE EXTENSION IF NOT EXISTS oban_manage"]
        + ["-c", f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"],
        check=True,
    )
    subprocess.run(
        ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-v", f"schema={SCHEMA}", "-f", FIXTURE],
        check=True,
    )
    options = f"-c search_path={SCHEMA},public -c oban_manage.prefix={SCHEMA}"
    with psycopg.connect(autocommit=True, options=options) as connection:
        cancel_retry_delete(connection)
        update(connection)
        callables(connection)
        filters(connection)
        outcomes(connection)
        batches(connection)
        transactions(connection)
        connection.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
    print(f"1..{count}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
