"""The jobs table that the benchmarks work on."""
import os
import subprocess

SCHEMA = "oban_bench"
TABLE = SCHEMA + ".oban_jobs"
HERE = os.path.dirname(os.path.abspath(__file__))


def make_schema(connection):
    """Makes the schema anew, with an empty jobs table of Oban for Elixir."""
    drop_schema(connection)
    subprocess.run(
        ["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-v", f"schema={SCHEMA}",
         "-f", os.path.join(HERE, "..", "fixtures", "elixir.sql")],
        check=True, env={**os.environ, "PGOPTIONS": "-c client_min_messages=warning"})


def drop_schema(connection):
    connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
