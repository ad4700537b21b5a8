"""The verbs against the bulk operations of pg-boss and graphile-worker, on tables of their own.

The two are installed from npm and driven through their public API in one process of node, where
the calls of ours go through the same driver. Their tables hold the same jobs as ours, in the same
states as far as they have them. Every operation commits, and no job is used twice until it has
been made anew.
"""
import contextlib
import glob
import json
import os
import random
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

from harness import CALL, GRAPHILE, MILLION, PG_BOSS, Measurement, Ratio, state_of

TABLES = MILLION
SPOILS = True

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")
MODULES = os.path.join(HERE, "node_modules")
LOCK = os.path.join(HERE, "package-lock.json")
INSTALLED = os.path.join(MODULES, "installed-lock.json")

BOSS_SCHEMA = "peers_pg_boss"
GRAPHILE_SCHEMA = "peers_graphile"

# Jobs of one run: for how many seconds, and how many rounds at most.
ROUNDS = {1: (3, 500), 10: (3, 200), 100: (4, 100), 1000: (6, 30), 10_000: (10, 12)}
QUICK_COUNTS = (1, 100)
LEAST = 5

# {ids} is a condition on the jobs of ours that they are made from.
BOSS_ROWS = """
    INSERT INTO {table} (id, name, priority, data, state, retry_limit, retry_count, start_after,
        created_on, started_on, completed_on, keep_until, output, policy)
    SELECT md5(id::text)::uuid, 'jobs', priority, args,
        (CASE state WHEN 'executing' THEN 'active' WHEN 'completed' THEN 'completed'
            WHEN 'cancelled' THEN 'cancelled' WHEN 'discarded' THEN 'failed'
            WHEN 'retryable' THEN 'retry' ELSE 'created' END)::{schema}.job_state,
        max_attempts, attempt, scheduled_at AT TIME ZONE 'UTC', inserted_at AT TIME ZONE 'UTC',
        attempted_at AT TIME ZONE 'UTC',
        coalesce(completed_at, cancelled_at, discarded_at) AT TIME ZONE 'UTC',
        scheduled_at AT TIME ZONE 'UTC' + interval '14 days', errors[1], 'standard'
    FROM {jobs} AS job WHERE {ids}"""
# It keeps no jobs that have ended, but those that have failed for good. The lock of a job that is
# executing counts for four hours.
GRAPHILE_ROWS = """
    INSERT INTO {table} (id, task_id, payload, priority, run_at, attempts, max_attempts, last_error,
        created_at, updated_at, locked_at, locked_by)
    OVERRIDING SYSTEM VALUE
    SELECT job.id, task.id, args, priority, scheduled_at AT TIME ZONE 'UTC',
        CASE WHEN state IN ('completed', 'cancelled', 'discarded') THEN max_attempts
            ELSE attempt END,
        max_attempts, coalesce(errors[1]->>'error', CASE WHEN state IN ('completed', 'cancelled')
                                                    THEN state::text END),
        inserted_at AT TIME ZONE 'UTC', coalesce(attempted_at, inserted_at) AT TIME ZONE 'UTC',
        CASE state WHEN 'executing' THEN now() END, CASE state WHEN 'executing' THEN 'worker' END
    FROM {jobs} AS job JOIN {schema}._private_tasks AS task ON task.identifier = worker
    WHERE {ids}"""

WAITING = ("scheduled", "available", "retryable")
ENDED = ("completed", "cancelled", "discarded")
# By name: the states of the jobs that are taken, all of which every side changes; the sides; what
# is compared with what.
VERBS = {
    "cancel": (WAITING, (CALL, PG_BOSS, GRAPHILE),
               "Waiting jobs: oban_cancel_many_jobs, pg-boss's cancel, graphile-worker's"
               " permanentlyFailJobs, by {versions}. pg-boss returns the ids, graphile-worker the"
               " whole rows, and it takes such a job out of two of its four indexes; Oban's table"
               " has six, two of them GIN, and each gets an entry."),
    "retry": (("discarded",), (CALL, PG_BOSS, GRAPHILE),
              "Jobs that have used up their attempts: oban_retry_many_jobs, pg-boss's retry,"
              " graphile-worker's rescheduleJobs to now and with one more attempt, which returns"
              " the whole rows. The first alone wakes queues."),
    "resume": (("cancelled",), (CALL, PG_BOSS, GRAPHILE),
               "Cancelled jobs: oban_retry_many_jobs, pg-boss's resume, graphile-worker's"
               " rescheduleJobs as for retry."),
    "update": (WAITING, (CALL, GRAPHILE),
               "Waiting jobs: oban_update_many_jobs of scheduled_at and priority,"
               " graphile-worker's rescheduleJobs with runAt and priority. Both return the whole"
               " rows. pg-boss updates one job at a time."),
    "delete": (WAITING + ENDED, (CALL, PG_BOSS, GRAPHILE),
               "Jobs that are not executing: oban_delete_many_jobs, pg-boss's deleteJob (which"
               " would delete executing ones too), graphile-worker's completeJobs, which returns"
               " the whole rows."),
}


def install():
    """Installs what package-lock.json says, unless that is there: the node to run it with."""
    with open(LOCK, "rb") as lock:
        wanted = lock.read()
    try:
        with open(INSTALLED, "rb") as installed:
            current = installed.read() == wanted
    except FileNotFoundError:
        current = False
    if not current:
        try:
            done = subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts",
                 "--fetch-retry-maxtimeout=10000"],
                cwd=HERE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, timeout=600)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"npm cannot install pg-boss and graphile-worker: {error}") from None
        if done.returncode:
            raise RuntimeError(f"npm could not install pg-boss and graphile-worker:\n{done.stdout}")
        with open(INSTALLED, "wb") as installed:
            installed.write(wanted)
    # Debian's is too old for both. There are packages for two kinds of machine, of which npm takes
    # the one that fits, but not every npm links it; other machines have to have their own.
    packaged = glob.glob(os.path.join(MODULES, "node-linux-*", "bin", "node"))
    node = packaged[0] if packaged else shutil.which("node")
    if node is None:
        raise RuntimeError("There is no node to run pg-boss and graphile-worker with.")
    return node


class Driver:
    """The process of node that runs the operations."""

    def __init__(self, node, jobs_schema):
        self.process = subprocess.Popen(
            [node, "--expose-gc", "drive.mjs", jobs_schema, BOSS_SCHEMA, GRAPHILE_SCHEMA],
            cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = self._answer()["versions"]

    def run(self, side, verb, ids):
        """Runs an operation on those jobs, all of which it has to change: ms."""
        # When node has ended, _answer says so.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"side": side, "verb": verb, "ids": ids}) + "\n")
            self.process.stdin.flush()
        answer = self._answer()
        if answer["changed"] != len(ids):
            raise RuntimeError(
                f"peers: {verb} by {side} changed {answer['changed']} of {len(ids)} jobs")
        return answer["ms"]

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"peers: node has ended, with status {self.process.wait()}")
        return json.loads(line)

    def close(self):
        """Lets node end."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class PeerTable:
    """The jobs of one of the two, made from those of ours."""

    def __init__(self, bench, jobs, schema, name, rows, id_of):
        self.bench, self.name, self.id_of = bench, f"{schema}.{name}", id_of
        self.rows = rows.format(table=self.name, schema=schema, jobs=jobs.name, ids="{ids}")

    def load(self):
        """Like JobsTable: with the indexes made last."""
        with self.connect(maintenance_work_mem="1GB", synchronous_commit="off") as connection:
            connection.execute(f"ALTER TABLE {self.name} SET (autovacuum_enabled = off,"
                               " toast.autovacuum_enabled = off)")
            indexes = connection.execute(
                "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
                " WHERE indrelid = %s::regclass AND NOT indisprimary AND NOT EXISTS"
                " (SELECT FROM pg_constraint WHERE conindid = indexrelid)", [self.name]).fetchall()
            for index, _ in indexes:
                connection.execute(f"DROP INDEX {index}")
            connection.execute(self.rows.format(ids="true"))
            for _, definition in indexes:
                connection.execute(definition)
            connection.execute(f"VACUUM (ANALYZE, FREEZE) {self.name}")

    def restore(self, ids):
        """Makes those jobs again what they were, after those of ours."""
        with self.connect() as connection, connection.transaction():
            connection.execute(
                f"DELETE FROM {self.name} WHERE id IN"
                f" (SELECT {self.id_of} FROM unnest(%s::bigint[]) AS id)", [ids])
            connection.execute(self.rows.format(ids="job.id = ANY (%s::bigint[])"), [ids])

    def connect(self, **settings):
        """Without foreign keys, for what is loaded keeps them."""
        return self.bench.connect(session_replication_role="replica", **settings)


class Rounds:
    """Which jobs a round takes, for every side the same."""

    def __init__(self, jobs, peers):
        self.jobs, self.peers = jobs, peers
        self.used, self.written = set(), 0

    def choose(self, states):
        """From now on, of jobs in those states."""
        self.states = states
        self.left = [job for job in range(1, self.jobs.size + 1)
                     if job not in self.used and state_of(job) in states]
        random.shuffle(self.left)

    def next(self, count):
        """The jobs of the next round."""
        if len(self.left) < count:
            self._restore()
        if self.written >= self.jobs.size / 5:
            self._vacuum()
        self.ids = [self.left.pop() for _ in range(count)]
        self.used.update(self.ids)
        self.written += count

    def _restore(self):
        spent = [job for job in self.used if state_of(job) in self.states]
        self.jobs.restore(spent)
        for peer in self.peers:
            peer.restore(spent)
        self.used.difference_update(spent)
        self._vacuum()
        self.choose(self.states)

    def _vacuum(self):
        with self.jobs.bench.connect() as connection:
            for table in (self.jobs, *self.peers):
                connection.execute(f"VACUUM {table.name}")
        self.written = 0


def make_peers(bench, jobs):
    """Loads both tables, on two connections, for two cores."""
    with bench.connect() as connection:
        (partition,) = connection.execute(
            f"SELECT table_name FROM {BOSS_SCHEMA}.queue WHERE name = 'jobs'").fetchone()
        connection.execute(f"INSERT INTO {GRAPHILE_SCHEMA}._private_tasks (identifier)"
                           f" SELECT DISTINCT worker FROM {jobs.name}")
    peers = [PeerTable(bench, jobs, BOSS_SCHEMA, partition, BOSS_ROWS, "md5(id::text)::uuid"),
             PeerTable(bench, jobs, GRAPHILE_SCHEMA, "_private_jobs", GRAPHILE_ROWS, "id")]
    with ThreadPoolExecutor() as pool:
        list(pool.map(PeerTable.load, peers))
    with bench.connect() as connection:
        connection.execute("CHECKPOINT")
    return peers


def drop(bench):
    """Drops what the two have made."""
    with bench.connect(client_min_messages="warning") as connection:
        for schema in (BOSS_SCHEMA, GRAPHILE_SCHEMA):
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def compare(bench, rounds, driver, verb, count):
    """One verb on so many jobs: a Measurement."""
    _, sides, note = VERBS[verb]
    seconds, most = ROUNDS[count]
    rounds.next(count)
    values = bench.interleave(
        {side: lambda side=side: driver.run(side, verb, rounds.ids) for side in sides},
        seconds, LEAST, most, between=lambda: rounds.next(count))
    return Measurement(
        "peers", verb, rounds.jobs.dialect, rounds.jobs.size, count, "ms", values,
        [Ratio(CALL, side, 1.0) for side in sides[1:]], note.format(versions=driver.versions))


def measure(bench, table):
    """Yields a Measurement for each verb and number of jobs."""
    node = install()
    drop(bench)
    driver = Driver(node, table.schema)
    try:
        rounds = Rounds(table, make_peers(bench, table))
        for verb, (states, _, _) in VERBS.items():
            rounds.choose(states)
            for count in QUICK_COUNTS if bench.quick else ROUNDS:
                yield compare(bench, rounds, driver, verb, count)
    finally:
        driver.close()
        drop(bench)
