"""Worker loops as Oban's: fetch what is available, answer each job by its id, until told to stop.

A worker is a process of its own, so that neither another worker nor who measures beside it waits
for Python's lock. The moments are of the monotonic clock, which all processes of a machine share.
"""
import multiprocessing
import time
from queue import Empty
from typing import NamedTuple

import psycopg

NOW = "timezone('UTC', now())"
FETCH = f"""
    UPDATE {{table}} AS job
    SET state = 'executing', attempt = attempt + 1, attempted_at = {NOW},
        attempted_by = ARRAY['node']
    FROM (SELECT id FROM {{table}} WHERE state = 'available' AND queue = %s
          ORDER BY priority, scheduled_at, id LIMIT %s FOR UPDATE SKIP LOCKED) AS found
    WHERE job.id = found.id
    RETURNING job.id, job.attempt, job.max_attempts"""
# Like Oban's, it does not ask for the state.
ANSWER = f"""
    UPDATE {{table}}
    SET state = %s, completed_at = CASE WHEN %s = 'completed' THEN {NOW} END
    WHERE id = %s"""
JOB_SECONDS = 0.001  # what running a job takes


class Report(NamedTuple):
    """What workers have done, or one of them."""
    times: list    # (when it began, how long it took) of each statement, in seconds
    answers: list  # (job, attempt, state)
    errors: list   # as texts; a worker ends with its first


def work(begun, stop, results, table, queue="default", at_once=10, dsn=""):
    """The worker: puts its Report into results, whatever happens, once stop is set.

    begun, stop and results are a Semaphore, which is released after the first fetch, an Event and a
    Queue of multiprocessing's context "spawn". Of ten answers one is a failure: retryable, or
    discarded where that was the last attempt.
    """
    times, answers, errors = [], [], []
    fetch, answer = FETCH.format(table=table), ANSWER.format(table=table)

    def timed(statement, parameters):
        start = time.monotonic()
        cursor = connection.execute(statement, parameters, prepare=True)
        times.append((start, time.monotonic() - start))
        return cursor

    try:
        with psycopg.connect(dsn, autocommit=True, application_name="worker") as connection:
            while not stop.is_set():
                fetched = timed(fetch, [queue, at_once]).fetchall()
                if len(times) == 1:
                    begun.release()
                if not fetched:
                    time.sleep(0.01)
                for job, attempt, max_attempts in fetched:
                    time.sleep(JOB_SECONDS)
                    state = ("completed" if len(answers) % 10
                             else "retryable" if attempt < max_attempts else "discarded")
                    timed(answer, [state, state, job])
                    answers.append((job, attempt, state))
    except Exception as error:  # Whatever it is: who waits for the results must hear of it.
        errors.append(repr(error))
    results.put(Report(times, answers, errors))


class Workers:
    """So many workers on a queue, from the beginning of a "with", when each has fetched once, to
    its end; then their report."""

    def __init__(self, count, table, queue="default"):
        context = multiprocessing.get_context("spawn")
        self.begun = context.Semaphore(0)
        self.stop, self.results = context.Event(), context.Queue()
        arguments = (self.begun, self.stop, self.results, table, queue)
        self.processes = [context.Process(target=work, args=arguments, daemon=True)
                          for _ in range(count)]
        self.report = None

    def __enter__(self):
        for process in self.processes:
            process.start()
        # One that has failed does not keep us: that shows in the end.
        for _ in self.processes:
            while (not self.begun.acquire(timeout=0.1) and self.results.empty()
                   and all(process.is_alive() for process in self.processes)):
                pass
        return self

    def __exit__(self, *exception):
        self.stop.set()
        reports = [self._next_report() for _ in self.processes]
        for process in self.processes:
            process.join()
        self.report = Report(*(sum(parts, []) for parts in zip(*reports)))

    def _next_report(self):
        """Waits for a report, as long as there is a worker to wait for."""
        for _ in range(60):
            alive = any(process.is_alive() for process in self.processes)
            try:
                return self.results.get(timeout=1)
            except Empty:
                if not alive:
                    break
        raise RuntimeError("a worker has not reported what it did")

    def check(self):
        """After the end: fails where a worker met an error or got a job twice, or none got any."""
        _, answers, errors = self.report
        if errors:
            raise RuntimeError(f"a worker met an error: {errors[0]}")
        if not answers:
            raise RuntimeError("the workers found no jobs")
        if len({(job, attempt) for job, attempt, _ in answers}) != len(answers):
            raise RuntimeError("a job was handed out twice")

    def times_between(self, start, end):
        """How long the statements took that ran in some part of a span of time, in ms."""
        return [elapsed * 1000 for when, elapsed in self.report.times
                if when < end and when + elapsed > start]
