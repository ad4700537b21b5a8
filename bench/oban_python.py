"""The statements that Oban for Python 0.6 sends, through its driver, psycopg 3's asynchronous pool.

What happens here happens there: a connection is taken from the pool for each step and given back,
which commits; an update reads one job after the other, changes the objects, and then writes one
after the other, always the same eight columns. The text is ours, the statements do what theirs do.
"""
import asyncio
import dataclasses
import json
from datetime import datetime, timezone

from psycopg.pq import __impl__ as LIBPQ_WRAPPER
from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

NOTE = ("What is committed goes through psycopg 3, here its implementation in "
        + {"python": "Python", "c": "C", "binary": "C"}[LIBPQ_WRAPPER]
        + ": Oban for Python's statements, and the calls beside them.")
NOW = "timezone('UTC', now())"
WRITTEN = ("args", "max_attempts", "meta", "priority", "queue", "scheduled_at", "tags", "worker")
RETURNED = (*WRITTEN, "state")
# What a call has to hand over of each job for the client to know as much as Oban's does.
HANDED_OVER = ", ".join(("id", *RETURNED))
JSON = ("args", "meta")


@dataclasses.dataclass(slots=True)
class Job:
    """A job as it comes from the table."""
    id: int
    state: str
    queue: str
    worker: str
    attempt: int
    max_attempts: int
    priority: int
    args: dict
    meta: dict
    errors: list
    tags: list
    attempted_by: list
    inserted_at: datetime
    attempted_at: datetime | None
    cancelled_at: datetime | None
    completed_at: datetime | None
    discarded_at: datetime | None
    scheduled_at: datetime

    def __post_init__(self):
        for name in TIMES:
            value = getattr(self, name)
            if value is not None and value.tzinfo is None:
                setattr(self, name, value.replace(tzinfo=timezone.utc))

    def updated(self, changes):
        """A copy with the changes, checked."""
        job = dataclasses.replace(self, **changes)
        job.tags = sorted({str(tag).strip().lower() for tag in job.tags if str(tag).strip()})
        if not (job.queue.strip() and job.worker.strip() and job.max_attempts > 0
                and 0 <= job.priority <= 9):
            raise ValueError("not a job")
        return job

    def written(self):
        """The parameters of the statement that writes the job."""
        values = {name: getattr(self, name) for name in WRITTEN}
        for name in JSON:
            values[name] = Jsonb(values[name])
        moment = values["scheduled_at"].astimezone(timezone.utc)
        return values | {"id": self.id, "scheduled_at": moment.replace(tzinfo=None)}


COLUMNS = tuple(field.name for field in dataclasses.fields(Job))
TIMES = tuple(name for name in COLUMNS if name.endswith("_at"))

GET = f"SELECT {', '.join(COLUMNS)} FROM {{table}} WHERE id = %s"
UPDATE = f"""
    UPDATE {{table}}
    SET {', '.join(f'{name} = %({name})s' for name in WRITTEN)},
        state = CASE
            WHEN state = 'available' AND %(scheduled_at)s > {NOW}
                THEN 'scheduled'::{{schema}}.oban_job_state
            WHEN state = 'scheduled' AND %(scheduled_at)s <= {NOW}
                THEN 'available'::{{schema}}.oban_job_state
            ELSE state END
    WHERE id = %(id)s
    RETURNING {', '.join(RETURNED)}"""
# An executing job stays so, but for the lock and a new version of the row.
CANCEL = f"""
    WITH found AS (
        SELECT id, state FROM {{table}}
        WHERE id = ANY (%(ids)s)
            AND state IN ('available', 'scheduled', 'suspended', 'executing', 'retryable')
        FOR UPDATE),
    changed AS (
        UPDATE {{table}} AS job
        SET state = CASE WHEN job.state = 'executing' THEN job.state
                         ELSE 'cancelled'::{{schema}}.oban_job_state END,
            cancelled_at = CASE WHEN job.state = 'executing' THEN job.cancelled_at ELSE {NOW} END,
            meta = CASE WHEN job.state = 'executing' THEN job.meta
                        ELSE job.meta || jsonb_build_object('cancel_attempted_at', {NOW}) END
        FROM found WHERE job.id = found.id
        RETURNING job.id, found.state AS before)
    SELECT id, before FROM changed"""
RETRY = f"""
    UPDATE {{table}}
    SET state = 'available'::{{schema}}.oban_job_state, scheduled_at = {NOW},
        max_attempts = greatest(max_attempts, attempt + 1),
        completed_at = NULL, cancelled_at = NULL, discarded_at = NULL,
        meta = jsonb_set(meta, '{{{{uniq_bmp}}}}', '[]'::jsonb)
    WHERE id = ANY (%(ids)s) AND state NOT IN ('available', 'executing')"""
DELETE = "DELETE FROM {table} WHERE id = ANY (%(ids)s) AND state <> 'executing'"
SIGNAL = """
    SELECT pg_notify(%s, payload) FROM json_array_elements_text(%s::json) AS payload"""


class Oban:
    """Oban on a table, with an event loop and a pool of its own that are there from the beginning.

    Its verbs are plain functions, which run one coroutine to its end.
    """

    def __init__(self, table):
        self.schema = table.schema
        self.get, self.update_one, self.cancel_many, self.retry_many, self.delete_many = (
            statement.format(table=table.name, schema=table.schema)
            for statement in (GET, UPDATE, CANCEL, RETRY, DELETE))
        self.loop = asyncio.new_event_loop()
        self.pool = self.loop.run_until_complete(self._open())

    @staticmethod
    async def _open():
        pool = AsyncConnectionPool(open=False)
        await pool.open(wait=True)
        return pool

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.loop.run_until_complete(self.pool.close())
        self.loop.close()

    def cancel(self, ids):
        """How many were cancelled; those that are executing are told, and counted."""
        return self.loop.run_until_complete(self._cancel(ids))

    def retry(self, ids):
        """How many were retried."""
        return self.loop.run_until_complete(self._write(self.retry_many, ids))

    def delete(self, ids):
        """How many were deleted."""
        return self.loop.run_until_complete(self._write(self.delete_many, ids))

    def update(self, ids, changes):
        """The jobs, after changes, which are a dict or a function of the job that returns one."""
        return self.loop.run_until_complete(self._update(ids, changes))

    async def _cancel(self, ids):
        async with self.pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(self.cancel_many, {"ids": ids})
            rows = await cursor.fetchall()
        executing = [job for job, before in rows if before == "executing"]
        if executing:
            payloads = [json.dumps({"action": "pkill", "job_id": job}) for job in executing]
            async with self.pool.connection() as connection:
                await connection.execute(SIGNAL, [f"{self.schema}.oban_signal", Jsonb(payloads)])
        return len(rows)

    async def _write(self, statement, ids):
        async with self.pool.connection() as connection, connection.transaction():
            return (await connection.execute(statement, {"ids": ids})).rowcount

    async def _get(self, job):
        async with self.pool.connection() as connection:
            async with connection.cursor(row_factory=class_row(Job)) as cursor:
                await cursor.execute(self.get, [job])
                return await cursor.fetchone()

    async def _update(self, ids, changes):
        found = [await self._get(job) for job in ids]
        if None in found:
            raise ValueError("no such job")
        jobs = [job.updated(changes(job) if callable(changes) else dict(changes)) for job in found]
        async with self.pool.connection() as connection, connection.transaction():
            for job in jobs:
                cursor = await connection.execute(self.update_one, job.written())
                for name, value in zip(RETURNED, await cursor.fetchone()):
                    setattr(job, name, value)
        return jobs
