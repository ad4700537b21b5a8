"""The plots of a run's results. Each is drawn when something that it shows was measured."""
import os

import gnuplot
from gnuplot import Panel, Series, short
from harness import (CALL, CARELESS, CAREFUL, DIALECTS, GRAPHILE, OBAN_PYTHON, PG_BOSS, PLPGSQL)

BLUE, DARK_BLUE, LIGHT_BLUE = "#2b7bba", "#08306b", "#85bcdb"
GREY, ORANGE, GREEN, RED, PURPLE = "#777777", "#e6842a", "#3f9c46", "#c8372d", "#7e57a8"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, GREY)
# What is far above leaves the plot, lest the rest of it be flat.
HIGHEST_RATIO = 2
COLOUR_OF = {CALL: BLUE, CARELESS: GREY, CAREFUL: GREEN, PLPGSQL: ORANGE, OBAN_PYTHON: RED,
             PG_BOSS: ORANGE, GRAPHILE: GREEN}


def median(one, side):
    return one["sides"][side]["median"]


class Plots:
    """Draws into a directory, and remembers what."""

    def __init__(self, measurements, directory):
        self.measurements, self.directory = measurements, directory
        self.drawn = []     # (section, file, title)

    def some(self, section, **wanted):
        """The measurements of a section that have those values, in the order of count and size."""
        found = [one for one in self.measurements if one["section"] == section
                 and all(one[key] == value for key, value in wanted.items())]
        return sorted(found, key=lambda one: (one["count"], one["size"]))

    def lines(self, section, file, title, panels, *axes, **options):
        """Draws what there is of the panels: those with lines, and the lines with points."""
        panels = [Panel(panel.title, [series for series in panel.series if series.points])
                  for panel in panels]
        panels = [panel for panel in panels if panel.series]
        if panels:
            gnuplot.lines(os.path.join(self.directory, file), title, panels, *axes, **options)
            self.drawn.append((section, file, title))

    def ratios(self):
        """To the careless statement, by the number of ids: a plot a verb."""
        verbs = dict.fromkeys(one["name"] for one in self.some("verbs") if CARELESS in one["sides"])
        for verb in verbs:
            panels = []
            for dialect in DIALECTS:
                cells = self.some("verbs", name=verb, dialect=dialect)
                sizes = sorted({one["size"] for one in cells})
                middle = sizes[len(sizes) // 2] if sizes else 0
                series = [ratio_series(f"{what}, {short(middle)} rows", cells, middle, side,
                                       COLOUR_OF[side], "-", 1.2)
                          for what, side in (("careful", CAREFUL), ("PL/pgSQL", PLPGSQL))]
                shades = (LIGHT_BLUE, BLUE, DARK_BLUE) if len(sizes) > 1 else (BLUE,)
                series += [ratio_series(f"call, {short(size)} rows", cells, size, CALL, shade)
                           for size, shade in zip(sizes, shades)]
                panels.append(Panel(dialect, series))
            ratios = [y for panel in panels for series in panel.series for _, y in series.points]
            bottom, top = min([0.9, *ratios]), min(max([1.2, *ratios]), HIGHEST_RATIO)
            self.lines("verbs", f"ratio_{verb.replace(' ', '_')}.svg",
                       f"{verb}: time in relation to the careless statement", panels,
                       "jobs in one call", f"ratio (up to {HIGHEST_RATIO:g})", level=1,
                       y_range=f"[{bottom - 0.02:.2f}:{top + 0.02:.2f}]")

    def time_by_size(self):
        """Of one id."""
        panels = []
        for count in (1000, 10_000):
            for dialect in DIALECTS:
                cells = [one for one in self.some("verbs", dialect=dialect, count=count)
                         if CARELESS in one["sides"]]
                verbs = list(dict.fromkeys(one["name"] for one in cells))
                series = []
                for side, dash in ((CALL, ""), (CARELESS, "-")):
                    for verb, colour in zip(verbs, COLOURS):
                        points = [(one["size"], median(one, side) * 1000 / count) for one in cells
                                  if one["name"] == verb and side in one["sides"]]
                        series.append(Series(f"{verb}, {side}", points, colour, dash))
                panels.append(Panel(f"{dialect}, {count:,} ids", series))
        self.lines("verbs", "time_by_size.svg", "Time per id, by the size of the table", panels,
                   "rows", "µs per id", y_range="[0:*]")

    def throughput(self):
        """By clients, alone and beside workers."""
        self.by_clients("", "throughput.svg", "Throughput, by the number of clients",
                        "calls per second")

    def latency(self):
        """How long the calls took but for the slowest hundredth."""
        self.by_clients(", p99", "latency.svg",
                        "99th percentile of the latency, by the number of clients", "ms")

    def by_clients(self, what, file, title, ylabel):
        """A panel for each verb and number of ids."""
        panels = []
        for verb in ("cancel", "retry"):
            for many in ("1 id", "100 ids"):
                series = []
                for beside, dash in (("", ""), (" beside workers", "-")):
                    cells = self.some("throughput", name=f"{verb} {many}{beside}{what}")
                    series += [Series(side + beside, points_of(cells, side), COLOUR_OF[side], dash)
                               for side in (CALL, CARELESS)]
                panels.append(Panel(f"{verb}, {many} a call", series))
        self.lines("throughput", file, title, panels, "clients", ylabel, base=2, y_range="[0:*]")

    def workers(self):
        """What workers got done."""
        panels = []
        for many in ("1 id", "100 ids"):
            cells = self.some("throughput", name=f"workers, beside clients with {many}")
            sides = dict.fromkeys(side for one in cells for side in one["sides"])
            panels.append(Panel(f"{many} a call", [
                Series(side, points_of(cells, side), colour)
                for side, colour in zip(sides, (GREEN, BLUE, GREY))]))
        self.lines("throughput", "workers.svg", "Statements of workers, by the number of clients",
                   panels, "clients", "statements per second", base=2, y_range="[0:*]")

    def peers(self):
        """Time per job, by the number of jobs."""
        panels = []
        for verb in dict.fromkeys(one["name"] for one in self.some("peers")):
            cells = self.some("peers", name=verb)
            panels.append(Panel(verb, [
                Series(side, [(one["count"], median(one, side) * 1000 / one["count"])
                              for one in cells if side in one["sides"]], COLOUR_OF[side])
                for side in (CALL, PG_BOSS, GRAPHILE)]))
        self.lines("peers", "peers.svg", "Time per job, against other queues", panels,
                   "jobs in one call", "µs per job", log_y=True, columns=3)

    def wal(self):
        """Bytes."""
        self.costs("bytes/job", "wal.svg", "WAL per job")

    def memory(self):
        """Beside the array of ids."""
        self.costs("kB", "memory.svg", "Highest extra memory of the backend")

    def costs(self, unit, file, title):
        """Bars: a panel for each kind and dialect, a group for each verb."""
        kinds = {}
        for one in self.some("costs", unit=unit):
            kind, _, verb = one["name"].rpartition(", ")
            kind = f"{kind}, {one['dialect']}, {one['count']:,} jobs"
            kinds.setdefault(kind, {})[verb] = one
        panels = []
        for kind, verbs in kinds.items():
            sides = dict.fromkeys(side for one in verbs.values() for side in one["sides"])
            panels.append(Panel(kind, [
                Series(side, [median(one, side) if side in one["sides"] else None
                              for one in verbs.values()], COLOUR_OF.get(side, colour))
                for side, colour in zip(sides, COLOURS)]))
        if panels:
            gnuplot.bars(os.path.join(self.directory, file), title, panels,
                         [list(verbs) for verbs in kinds.values()], unit)
            self.drawn.append(("costs", file, title))


def points_of(cells, side):
    return [(one["count"], median(one, side)) for one in cells if side in one["sides"]]


def ratio_series(title, cells, size, side, colour, dash="", width=2):
    """The side's times in relation to the careless statement's."""
    points = [(one["count"], median(one, side) / median(one, CARELESS)) for one in cells
              if one["size"] == size and {side, CARELESS} <= one["sides"].keys()]
    return Series(title, points, colour, dash, width)


def draw(measurements, directory):
    """All plots of the sections that were measured: (section, file, title) of each, and the names
    of those of which nothing was there to be drawn."""
    plots, missing = Plots(measurements, directory), []
    for section, plot in (
            ("verbs", plots.ratios), ("verbs", plots.time_by_size), ("peers", plots.peers),
            ("throughput", plots.throughput), ("throughput", plots.latency),
            ("throughput", plots.workers), ("costs", plots.wal), ("costs", plots.memory)):
        before = len(plots.drawn)
        if plots.some(section):
            plot()
            if len(plots.drawn) == before:
                missing.append(plot.__name__)
    return plots.drawn, missing
