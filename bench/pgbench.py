"""Runs of pgbench, by their logs."""
import os
import subprocess
import tempfile
import time
from typing import NamedTuple


class Run(NamedTuple):
    """What a run of pgbench's log tells."""
    start: float      # the moments of the monotonic clock between which its transactions ran
    end: float
    latencies: list   # of the transactions that went well, in ms, less each client's first,
    by_script: dict   # and the same by the number of their script
    deadlocks: int    # how many that failed with one
    others: int       # how many failed otherwise

    @property
    def rate(self):
        """How many went well in a second."""
        return len(self.latencies) / (self.end - self.start)


def run(scripts, clients, limit, prefix, warming=0, options="", **variables):
    """Prepared scripts (texts; of several, each transaction draws one), by so many clients.

    limit is ("-t", transactions of each client) or ("-T", seconds). The first transactions of each
    client, so many as are warming up, do not count: they make plans. options are the server's, as
    in -c name=value, the variables the scripts'.
    """
    with tempfile.TemporaryDirectory() as directory:
        command = ["pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", "2",
                   limit[0], str(limit[1]), "-l", f"--log-prefix={directory}/log",
                   "--failures-detailed"]
        for i, script in enumerate(scripts):
            with open(f"{directory}/{i}.sql", "w", encoding="utf-8") as file:
                file.write(script)
            command += ["-f", file.name]
        for name, value in variables.items():
            command += ["-D", f"{name}={value}"]
        environment = {**os.environ, "PGOPTIONS": f"-c oban_manage.prefix={prefix} {options}"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            raise RuntimeError(f"pgbench failed:\n{done.stderr}")
        lines = []
        for name in os.listdir(directory):
            if name.startswith("log"):
                with open(f"{directory}/{name}", encoding="utf-8") as log:
                    lines += [line.split() for line in log]
    return _read(lines, warming)


def _read(lines, warming):
    """The log: client, number, microseconds or why it failed, script, time of day when it ended."""
    offset = time.time() - time.monotonic()
    latencies, by_script, ends, starts, failures = [], {}, [], [], []
    for _, number, elapsed, script, seconds, microseconds, *_ in lines:
        if elapsed.isdigit() and int(number) <= warming:
            continue
        ends.append(int(seconds) + int(microseconds) / 1e6 - offset)
        if elapsed.isdigit():
            latencies.append(int(elapsed) / 1000)
            by_script.setdefault(int(script), []).append(latencies[-1])
            starts.append(ends[-1] - latencies[-1] / 1000)
        else:
            failures.append(elapsed)
    if not latencies:
        raise RuntimeError("no transaction of pgbench went well")
    deadlocks = failures.count("deadlock")
    return Run(min(starts), max(ends), latencies, by_script, deadlocks, len(failures) - deadlocks)
