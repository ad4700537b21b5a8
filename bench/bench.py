#!/usr/bin/python3 -B
"""Measures the extension on the server that PGHOST, PGPORT, PGUSER and PGDATABASE name.

Usage: bench/bench.py [--quick] [--output DIR] [--sizes N,N] [--revision TEXT] [SECTION…]
       bench/bench.py --redraw DIR

bench/run is what starts a server for it. Needs psycopg 3 and its pool, gnuplot, npm, pgbench and
psql, and a superuser on this machine; makes the extension in the database if it is not there, and
schemas of its own, which it drops. It fails when anything went wrong, but for no timing.
"""
import argparse
import contextlib
import importlib
import random
import sys
import tempfile
import time
import traceback

import psycopg

import machine
import report
from harness import DIALECTS, QUICK_SIZES, SIZES, Bench

# In this order on each table; those that spoil it come last.
SECTIONS = ("verbs", "filters", "callables", "triggers", "guard", "costs", "peers", "batches",
            "rename", "sparse",
            "refused", "throughput")


class Run:
    """Runs sections on the tables that they want, and keeps what they gave."""

    def __init__(self, bench, sections, sizes):
        self.bench, self.sizes = bench, sizes
        self.sections = {name: importlib.import_module(name) for name in sections}
        self.measurements, self.failures = [], []
        self.seconds = dict.fromkeys(("loading", *self.sections), 0.0)

    def everything(self):
        """All sections on all tables; what fails goes into failures."""
        for dialect in DIALECTS:
            for size in self.sizes:
                names = [name for name in self.sections if self.wants(name, dialect, size)]
                if names:
                    self.on_table(names, dialect, size)
        for name in self.sections:
            if not any(measurement.section == name for measurement in self.measurements):
                self.failed(f"{name}: gave no measurement")

    def wants(self, name, dialect, size):
        """Does the section want that table? One of an unusual size stands for all sizes."""
        sizes = [size] if size in SIZES else SIZES
        return any(self.sections[name].TABLES(dialect, one) for one in sizes)

    def on_table(self, names, dialect, size):
        """Those sections, on one table that is made for them."""
        table = None
        for name in names:
            try:
                if table is None:
                    table = self.timed("loading", self.bench.load, dialect, size)
                self.timed(name, self.measure, name, table)
                if name == names[-1] or spoils(self.sections[name]):
                    table.drop()
                    table = None
            except Exception:
                self.failed(f"{name}, {dialect}, {size:,} jobs:\n{traceback.format_exc()}")
                # Nobody knows what it is like now; another is made in its place.
                if table is not None:
                    with contextlib.suppress(psycopg.Error):
                        table.drop()
                table = None

    def failed(self, text):
        self.failures.append(text)
        print(text, file=sys.stderr, flush=True)

    def measure(self, name, table):
        """One section on one table, which it leaves as it was."""
        section, found = self.sections[name], 0
        for measurement in section.measure(self.bench, table):
            if not measurement.sides or not all(measurement.sides.values()):
                raise RuntimeError(f"{measurement.name}: a side without a value")
            if measurement.section != name:
                raise RuntimeError(f"{measurement.name}: of section {measurement.section}")
            self.measurements.append(measurement)
            found += 1
        if not found:
            raise RuntimeError("gave no measurement")
        if not spoils(section):
            table.settle()
            table.verify()

    def timed(self, name, function, *arguments):
        """Calls the function and adds its wall time to those of that name."""
        start = time.monotonic()
        try:
            return function(*arguments)
        finally:
            seconds = time.monotonic() - start
            self.seconds[name] += seconds
            table = arguments[-1].name if name != "loading" else "{}, {:,} jobs".format(*arguments)
            print(f"{name:10} {table:30} {seconds:7.1f} s", flush=True)


def spoils(section):
    """Does the section leave the table's jobs other than it found them?"""
    return getattr(section, "SPOILS", False)


def sizes_of(text):
    sizes = tuple(int(size) for size in text.split(","))
    if any(size < 1000 or size % 1000 for size in sizes):
        raise argparse.ArgumentTypeError("tables have thousands of jobs")
    return sizes


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="does the harness work?")
    parser.add_argument("--output", metavar="DIR", help="where the results go")
    parser.add_argument("--sizes", type=sizes_of, metavar="N,N",
                        help="of the tables, to try something out; other than the usual ones, each"
                             " stands for all")
    parser.add_argument("--revision", default="unknown", help="of the sources, for the report")
    parser.add_argument("--redraw", metavar="DIR",
                        help="draw the results there once more, and measure nothing")
    parser.add_argument("sections", nargs="*", metavar="SECTION",
                        help=f"all when none is named: {', '.join(SECTIONS)}")
    given = parser.parse_args()
    for name in given.sections:
        if name not in SECTIONS:
            parser.error(f"there is no section {name}, but: {', '.join(SECTIONS)}")
    return given


def run_sections(given):
    """Measures what is asked for: the results."""
    random.seed(1)
    bench = Bench(given.quick)
    with bench.connect(client_min_messages="warning") as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS oban_manage")
        described = machine.describe(connection, given.revision)
    sections = [name for name in SECTIONS if name in (given.sections or SECTIONS)]
    run = Run(bench, sections, given.sizes or (QUICK_SIZES if given.quick else SIZES))
    run.everything()
    results = report.results_of(run.measurements, described, run.seconds, given.quick, run.failures)
    if not given.sections:
        for aim in results["aims"]:
            if not aim["cells"] and not (aim["all_sizes"] and run.sizes != SIZES):
                run.failed(f"nothing has measured this aim: {aim['aim']}")
    return results


def main():
    given = arguments()
    if given.redraw:
        report.write(report.read(given.redraw), given.redraw)
        return 0
    results = run_sections(given)
    with tempfile.TemporaryDirectory() as directory:
        text = report.write(results, given.output or directory)
    print(f"\n{text}")
    for name, seconds in results["seconds"].items():
        if name != "loading":
            found = sum(one["section"] == name for one in results["measurements"])
            print(f"{name}: {found} measurements in {seconds:.0f} s")
    if results["failures"]:
        for failure in results["failures"]:
            print(f"FAILED: {failure.strip().splitlines()[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
