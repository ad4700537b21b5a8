"""What a call needs for each of its jobs until it ends: its peak over many jobs against that over few."""

import re
from concurrent.futures import ThreadPoolExecutor, wait

import psycopg

FEW, MANY = 5000, 50000
MOST = 64  # bytes for each job
MOST_OUTCOMES = 128  # where each job's outcome is kept until all are done
CALLS = {
    'cancel': 'SELECT public.oban_cancel_job({ids})',
    'retry': 'SELECT public.oban_retry_job({ids})',
    'delete': 'SELECT public.oban_delete_job({ids})',
    'update': """SELECT count(*) FROM public.oban_update_job({ids}, '{"tags": ["x"]}')""",
    'update_with': "SELECT count(*) FROM public.oban_update_job_with({ids}, 'callables.give', "
                   """'{"meta": {"a": 1}}')""",
    'update_all_with': """SELECT public.oban_update_all_jobs_with('{"all": true}', 'callables.give',
        '{"meta": {"a": 1}}', {count})""",
    'manage_all': """SELECT count(*) FROM public.oban_manage_all_jobs('cancel', '{"all": true}',
        NULL, {count}, skip_refused => true)""",
    'all_jobs': """SELECT count(*) FROM public.oban_all_jobs('{"all": true}', {count})""",
}


def anonymous_bytes(pid):
    with open(f'/proc/{pid}/status', encoding='ascii') as status:
        return int(re.search(r'RssAnon:\s+(\d+) kB', status.read())[1]) * 1024


def peak(database, call, count):
    """By how much a backend of its own grows in a call, which is taken back."""
    with psycopg.connect(dbname=database) as connection, ThreadPoolExecutor() as pool:
        def run(jobs):
            connection.execute(call.replace('{count}', str(jobs)).replace(
                '{ids}', f'ARRAY(SELECT generate_series(1, {jobs})::bigint)'))

        # Sorts and results go to files.
        connection.execute("SET work_mem = '64kB'")
        run(100)
        pid = connection.info.backend_pid
        before = most = anonymous_bytes(pid)
        running = pool.submit(run, count)
        while not running.done():
            most = max(most, anonymous_bytes(pid))
            wait([running], 0.0005)
        running.result()
        connection.rollback()
        return most - before


def measure(database):
    """Yields each call's name, its bytes for each further job, and how many they may be."""
    with psycopg.connect(dbname=database) as connection:
        connection.execute('CALL fuzz.fill(%s)', [MANY])
    for name, call in CALLS.items():
        few, many = (peak(database, call, count) for count in (FEW, MANY))
        yield name, (many - few) / (MANY - FEW), MOST_OUTCOMES if 'manage' in call else MOST
