"""What was measured on: the machine, the server and how both are set up."""
import datetime
import os
import platform
import subprocess

# Where files lie and how text is sorted says nothing about speed, or is the same everywhere.
LEFT_OUT = ("unix_socket_directories", "listen_addresses", "log_timezone", "TimeZone",
            "default_text_search_config", "dynamic_shared_memory_type", "oban_manage.prefix")


def first_line(path, start):
    """The value of "start: value" in such a file of /proc, or ""."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith(start):
                return line.split(":", 1)[1].strip()
    return ""


def output_of(*command):
    """The first line that a command prints, or "" where there is no such command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.splitlines()[0].strip() if done.stdout else ""


def settings(connection):
    """Settings that are not as they are by default, by name."""
    return dict(connection.execute(
        "SELECT name, current_setting(name) FROM pg_settings"
        " WHERE source IN ('configuration file', 'command line', 'database', 'user', 'global')"
        " AND setting IS DISTINCT FROM boot_val AND name <> ALL (%s) AND name !~ '^(lc|log)_'"
        " ORDER BY name", [list(LEFT_OUT)]).fetchall())


def describe(connection, revision):
    """By name, what a reader has to know to compare with another run."""
    build = dict(connection.execute("SELECT name, setting FROM pg_config").fetchall())
    (version,) = connection.execute("SHOW server_version").fetchone()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "revision": revision,
        "cpu": first_line("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(first_line("/proc/meminfo", "MemTotal").split()[0]) / 2**20, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "system": operating_system(),
        "postgresql": version,
        "settings": settings(connection),
        "compiler": output_of(build["CC"].split()[0], "--version"),
        "flags": build["CFLAGS"],
        "python": platform.python_version(),
        "node": output_of("node", "--version"),
    }


def operating_system():
    """Its name as it gives it itself."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()
