"""What the extension aims at, and whether the results of a run meet it.

Each aim is judged over all cells that measure it, a cell being a verb, dialect, size of table and
number of jobs; it is met when every cell meets it.
"""
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from harness import (ARRAY, CALL, CARELESS, CAREFUL, CLEAN, FIRST, GRAPHILE, GUARDED, OBAN_PYTHON,
                     PG_BOSS, REFUSED, SECOND, SIZES, UNGUARDED)


@dataclass(frozen=True)
class Aim:
    """A figure of every cell that is at most the limit, or at least."""
    text: str
    limit: float
    cells: Callable             # of the results' measurements: (where, figure)s
    unit: str = "×"
    at_least: bool = False
    all_sizes: bool = False     # needs tables of more than one size
    besides: tuple = ()         # name of other cells to be told of as well, and these
    digits: int = 2


def where(one):
    """Names the cell of a measurement."""
    parts = [one["name"], one["dialect"]]
    parts += [f"{one['size']:,} rows"] if one["size"] else []
    parts += [f"{one['count']:,} job" + "s" * (one["count"] != 1)] if one["count"] else []
    return ", ".join(part for part in parts if part)


def median(one, side):
    return one["sides"][side]["median"]


def cost(one, ours, theirs):
    """What ours costs in relation to theirs: below 1 when ours is better, whatever the unit."""
    ratio = median(one, ours) / median(one, theirs)
    return 1 / ratio if one["unit"].endswith("/s") else ratio


def rivals(one, theirs, counted):
    """Our sides of the measurement that were measured against theirs: those that hand over the jobs
    that they have updated, or those that count them."""
    ours = {ratio["ours"] if ratio["theirs"] == theirs else ratio["theirs"]
            for ratio in one["ratios"] if theirs in (ratio["ours"], ratio["theirs"])}
    if not ours and {CALL, theirs} <= one["sides"].keys():
        ours = {CALL}
    return sorted(side for side in ours if side.endswith("counted") == counted)


def costs(section, theirs, counts=lambda count: True, speed_up=False, name="", counted=False):
    """Cells: what ours costs against theirs, or how many times as fast it is."""
    def cells(measurements):
        for one in measurements:
            if one["section"] == section and counts(one["count"]) and one["name"].startswith(name):
                for ours in rivals(one, theirs, counted):
                    label = where(one) + (f" ({ours})" if ours != CALL else "")
                    ratio = cost(one, ours, theirs)
                    yield label, 1 / ratio if speed_up else ratio
    return cells


def flatness(side):
    """Cells: how many times as long the side took on one size of table as on another."""
    def cells(measurements):
        times = {}
        for one in measurements:
            if (one["section"] == "verbs" and one["count"] in (1000, 10_000)
                    and one["size"] in SIZES and {side, CARELESS} <= one["sides"].keys()):
                key = f"{one['name']}, {one['dialect']}, {one['count']:,} jobs"
                times.setdefault(key, []).append(median(one, side))
        for key, medians in times.items():
            if len(medians) > 1:
                yield key, max(medians) / min(medians)
    return cells


def memory(measurements):
    """Cells: the highest that a backend took for a call, in the size of the array."""
    return costs("costs", ARRAY, name="memory")(measurements)


def first_call(measurements):
    """Cells: by how much the first call in a backend takes longer than the second."""
    for one in measurements:
        if one["section"] == "costs" and {FIRST, SECOND} <= one["sides"].keys():
            yield where(one), median(one, FIRST) - median(one, SECOND)


def guarded(figure):
    """Cells: what workers get done with the guard, in relation to without; or an end of its
    interval."""
    def cells(measurements):
        for one in measurements:
            if one["section"] == "guard" and one["unit"] == "jobs/s":
                for ratio in one["ratios"]:
                    if (ratio["ours"], ratio["theirs"]) == (GUARDED, UNGUARDED):
                        yield where(one), ratio[figure]
    return cells


def refused(measurements):
    """Cells: what a call costs of which some jobs are refused, against one of which none is."""
    for one in measurements:
        if one["section"] == "refused":
            yield where(one), cost(one, REFUSED, CLEAN)


def set_of_ids(count):
    return 10 <= count <= 100_000


def thousand(count):
    return count == 1000


def by_dict(counted):
    return costs("verbs", OBAN_PYTHON, thousand, True, "update", counted)


def by_callable(counted):
    return costs("callables", OBAN_PYTHON, thousand, True, counted=counted)


AIMS = (
    Aim("1 id, against the careless statement", 1.05,
        costs("verbs", CARELESS, lambda count: count == 1)),
    Aim("10 to 100,000 ids, against the careless statement", 1.10,
        costs("verbs", CARELESS, set_of_ids)),
    Aim("10 to 100,000 ids, against the careful statement", 1.0,
        costs("verbs", CAREFUL, set_of_ids)),
    Aim("update of 1,000 jobs by dict, times as fast as Oban for Python", 50, by_dict(False),
        at_least=True, besides=("with the jobs counted only", by_dict(True))),
    Aim("update of 1,000 jobs by callable, times as fast as Oban for Python", 30,
        by_callable(False), at_least=True,
        besides=("with the jobs counted only", by_callable(True))),
    Aim("time per job, against pg-boss", 1.0, costs("peers", PG_BOSS)),
    Aim("time per job, against graphile-worker", 1.0, costs("peers", GRAPHILE)),
    Aim(f"time per id, {SIZES[0]:,} to {SIZES[-1]:,} rows, slowest to fastest table", 1.2,
        flatness(CALL), all_sizes=True, besides=("the careless statement", flatness(CARELESS))),
    Aim("peak extra memory for 1,000,000 ids, against the array", 3.0, memory),
    Aim("first call in a backend, over the second", 2.0, first_call, unit=" ms"),
    Aim("a retry in batches that passes over one refused job in 1,000, against none refused", 1.3,
        refused),
    Aim("jobs that workers fetch and complete with the guard, against without", 0.98,
        guarded("ratio"), at_least=True, digits=3,
        besides=("the lower end of the interval", guarded("low"))),
)


def judge(measurements):
    """Of each aim: how many cells there are, how many met it, the typical one and the worst."""
    found = []
    for aim in AIMS:
        cells = list(aim.cells(measurements))
        judged = {"aim": aim.text, "limit": aim.limit, "at_least": aim.at_least, "unit": aim.unit,
                  "cells": len(cells), "all_sizes": aim.all_sizes, "digits": aim.digits}
        if cells:
            by_figure = sorted(cells, key=lambda cell: cell[1], reverse=aim.at_least)
            good = sum(meets(aim, figure) for _, figure in cells)
            judged |= {"good": good, "met": good == len(cells),
                       "typical": statistics.median(figure for _, figure in cells),
                       "worst": by_figure[-1][1], "worst_cell": by_figure[-1][0]}
        others = [figure for _, figure in aim.besides[1](measurements)] if aim.besides else []
        if others:
            worst = min(others) if aim.at_least else max(others)
            judged["remark"] = (f"{aim.besides[0]}: typically {statistics.median(others):.3g},"
                                f" at worst {worst:.3g}")
        found.append(judged)
    return found


def meets(aim, figure):
    return figure >= aim.limit if aim.at_least else figure <= aim.limit
