"""Calls beside what Oban for Python does for the same: by the same driver, and each commits."""
import time
from collections.abc import Callable

# Seconds, and how many rounds at least and at most, by the number of jobs.
BUDGETS = {1: (0.5, 20, 200), 10: (0.5, 10, 100), 100: (1.5, 5, 30), 1000: (6, 3, 8)}


def measure(bench, table, count, sides: dict[str, Callable[[list], int]],
            expected: Callable[[list], int]):
    """The values of the sides, in ms. A side takes the ids of jobs that nobody has had before, and
    returns how many it changed. Afterwards the jobs are what they were."""
    seconds, least, most = BUDGETS[count]
    left = table.draw(min(table.size, (most + 1) * len(sides) * count))
    used = []

    def run(name):
        ids = [left.pop() for _ in range(count)]
        used.extend(ids)
        start = time.perf_counter()
        changed = sides[name](ids)
        elapsed = (time.perf_counter() - start) * 1000
        if changed != expected(ids):
            raise RuntimeError(f"{name}: changed {changed} jobs, not {expected(ids)}")
        return elapsed

    values = bench.interleave({name: lambda name=name: run(name) for name in sides}, seconds, least,
                              most, lambda: table.changed(count * len(sides)))
    table.restore(used)
    return values
