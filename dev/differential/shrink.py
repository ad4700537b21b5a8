"""From a case that differs to the smallest jobs and call that still do."""

import json
import time

from parts import fewer

PLAIN = {'queue': 'default', 'worker': 'W', 'attempt': 0, 'max_attempts': 20, 'priority': 0,
         'args': {}, 'meta': {}, 'tags': [], 'errors': [], 'attempted_by': [],
         'inserted_at': '2024-01-02 00:00:00', 'scheduled_at': '2024-01-02 00:00:00',
         'attempted_at': None, 'completed_at': None, 'cancelled_at': None, 'discarded_at': None}


def fails(referee, jobs, calls):
    """What differs in the last call, when the ones before it agree."""
    referee.connection.close()
    referee.connect()  # without the plans of before
    try:
        referee.set_jobs(jobs)
    except Exception:  # jobs that the table does not take
        return None
    for call in calls[:-1]:
        if referee.play(call)[2]:
            return None
    return referee.play(calls[-1])[2]


def smaller(jobs, calls):
    for less in fewer(calls[:-1]):
        yield jobs, less + calls[-1:]
    for less in fewer(jobs):
        yield less, calls
    for n, call in enumerate(calls):
        for less in call.smaller():
            yield jobs, calls[:n] + [less] + calls[n + 1:]
    for n, job in enumerate(jobs):
        for key, value in PLAIN.items():
            if job[key] != value:
                yield jobs[:n] + [{**job, key: value}] + jobs[n + 1:], calls


def before_last(referee, jobs, calls):
    """The jobs as they were before the last call."""
    referee.set_jobs(jobs)
    for call in calls[:-1]:
        referee.play(call)
    return referee.rows()


def difference(differs):
    """Only what is not the same on both sides."""
    differs = dict(differs)
    lines = []
    for what in ('', ' calls', ' result', ' notifications', ' moved', ' others'):
        got, wanted = differs.get('got' + what), differs.get('wanted' + what)
        if not what:
            what = ' jobs'
            rows = [{r['id']: r for r in side or []} for side in (got, wanted)]
            got, wanted = ([row for i, row in rows[a].items() if rows[b].get(i) != row]
                           for a, b in ((0, 1), (1, 0)))
        if got != wanted:
            lines += [f'  got{what}: {json.dumps(got, ensure_ascii=False)}',
                      f'  wanted{what}: {json.dumps(wanted, ensure_ascii=False)}']
    return lines


def shrink(referee, jobs, calls, differs, tries=2000, seconds=120):
    """A report of the smallest case found."""
    note = ''
    end = time.monotonic() + seconds
    seen = fails(referee, jobs, calls)
    if not seen:
        note = '  (only after the cases before it: nothing to shrink)'
    else:
        differs = seen
        alone = before_last(referee, jobs, calls), calls[-1:]
        if fails(referee, *alone):
            jobs, calls = alone
        progress = True
        while progress:
            progress = False
            for candidate in smaller(jobs, calls):
                tries -= 1
                if tries < 0 or time.monotonic() > end:
                    break
                found = fails(referee, *candidate)
                if found:
                    (jobs, calls), differs, progress = candidate, found, True
                    break
    lines = ['  jobs:'] + ['    ' + json.dumps(job, ensure_ascii=False) for job in jobs] + \
        ['  calls:']
    for call in calls:
        lines.append('    ' + call.render(call.got, 'public', referee.schema) +
                     (f'  with {call.settings}' if call.settings else ''))
    return '\n'.join(filter(None, [note, *lines, *difference(differs)]))
