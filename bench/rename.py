"""A key of every job's args is renamed, beside workers, by a callable and by an UPDATE by hand.

Both go in batches of 10,000 jobs, lock in id order and commit each batch. They take turns over the
whole table, forth and back, while four workers fetch and answer what is available. In the end every
job must have the key that it had at first, and the workers' answers.
"""
import batches
from harness import CALL, MILLION, PLPGSQL, Measurement, Ratio
from jobs_table import JobsTable
from psycopg.types.json import Jsonb
from throughput import percentile
from workers import Workers

TABLES = MILLION

SCHEMA = "renames"
TURNS = (CALL, PLPGSQL, PLPGSQL, CALL)
KEYS = ("id", "job_id")
# One of four jobs is available, so that the workers do not run out of them.
ROWS = """
    INSERT INTO {table} (id, worker, state, attempt, args)
    SELECT id, 'Import', (CASE id % 4 WHEN 0 THEN 'available' ELSE 'completed' END)
           ::{schema}.oban_job_state, (id % 4 > 0)::integer, jsonb_build_object('id', id)
    FROM ({ids}) AS ids"""
FUNCTIONS = """
    CREATE FUNCTION {schema}.rename(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql STABLE
    RETURN jsonb_build_object('args', (job.args - (context ->> 'old'))
        || jsonb_build_object(context ->> 'new', job.args -> (context ->> 'old')));
    CREATE PROCEDURE {schema}.rename_in_batches(old text, new text, batch integer,
        INOUT affected bigint DEFAULT 0) LANGUAGE plpgsql AS $$
    DECLARE
        next bigint := 0;
        found bigint[];
    BEGIN
        LOOP
            found := ARRAY(SELECT id FROM {table} WHERE id > next ORDER BY id LIMIT batch
                           FOR NO KEY UPDATE);
            EXIT WHEN found = '{{}}';
            UPDATE {table} SET args = (args - old) || jsonb_build_object(new, args -> old)
            WHERE id = ANY (found);
            affected := affected + cardinality(found);
            next := found[cardinality(found)];
            COMMIT;
            RAISE NOTICE '% renamed', affected;
        END LOOP;
    END $$"""
STATEMENTS = {
    CALL: "CALL oban_update_in_batches_with('{{\"all\": true}}', '{schema}.rename', %(context)s, %(batch)s)",
    PLPGSQL: "CALL {schema}.rename_in_batches(%(old)s, %(new)s, %(batch)s)"}


class Jobs(JobsTable):
    """Jobs of which all have a key in their args."""

    def _rows(self, ids):
        return ROWS.format(table=self.name, schema=self.schema, ids=ids)

    def verify(self):
        """How many there are is seen by the calls."""


def measure(bench, table):
    """All turns, and what the workers met meanwhile."""
    jobs = Jobs(bench, "elixir", table.size, SCHEMA).load()
    batch = batches.QUICK_BATCH if bench.quick else batches.BATCH
    turns = {side: [] for side in STATEMENTS}
    try:
        with bench.connect(jobs) as by_call, bench.connect(jobs) as by_hand:
            connections = {CALL: by_call, PLPGSQL: by_hand}
            by_hand.execute(FUNCTIONS.format(schema=SCHEMA, table=jobs.name))
            with Workers(batches.WORKERS, jobs.name) as workers:
                for n, side in enumerate(TURNS[:2] if bench.quick else TURNS):
                    old, new = KEYS[n % 2], KEYS[1 - n % 2]
                    turns[side].append(batches.turn(
                        connections[side], side, STATEMENTS[side].format(schema=SCHEMA),
                        {"context": Jsonb({"old": old, "new": new}), "old": old, "new": new,
                         "batch": batch}, batch, jobs.size))
                    if n % 2:
                        jobs.written += 2 * jobs.size
                        jobs.settle()
            workers.check()
            (wrong,) = by_hand.execute(
                f"SELECT count(*) FROM {jobs.name} WHERE args IS DISTINCT FROM"
                f" jsonb_build_object('id', id)").fetchone()
            if wrong:
                raise RuntimeError(f"{wrong} jobs do not have the args that they had")
        yield from measurements(jobs, turns, workers)
    finally:
        jobs.drop()


def measurements(jobs, turns, workers):
    """Jobs a second, memory, and how long a worker's statements took."""
    def measurement(name, unit, figures, **options):
        return Measurement(
            "rename", f"rename a key, {name}", jobs.dialect, jobs.size, jobs.size, unit,
            {side: [figures(turn) for turn in some] for side, some in turns.items()},
            [Ratio(CALL, PLPGSQL, **options)], paired=False)

    def times(turn):
        found = workers.times_between(turn.start, turn.end)
        if not found:
            raise RuntimeError("workers did nothing beside some turn")
        return found

    yield measurement("jobs", "jobs/s", lambda turn: jobs.size / (turn.end - turn.start), at_least=True)
    yield measurement("longest batch", "ms", lambda turn: max(turn.batches))
    yield measurement("memory of the backend", "kB", lambda turn: turn.memory)
    yield measurement("workers' statements, 99th percentile", "ms",
                      lambda turn: percentile(times(turn), 0.99))
    yield measurement("workers' statements, longest", "ms", lambda turn: max(times(turn)))
