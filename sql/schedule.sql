-- The schedule: times as text, seconds and intervals from now, and which states a new schedule
-- moves. The session's TimeZone and DateStyle are far from UTC and ISO.
\getenv abs_srcdir PG_ABS_SRCDIR
\set helpers :abs_srcdir '/fixtures/regress.sql'
\set ECHO none
\i :helpers
\pset null NULL
CALL tools.make_jobs('ex14', 'py');
SHOW TimeZone;
SHOW DateStyle;

-- What is stored, in UTC. Without an offset a time is UTC.
CREATE FUNCTION tools.stored(job_id bigint, changes jsonb, prefix text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	job oban_job := oban_update_job(job_id, changes, prefix);
	stored timestamp;
BEGIN
	EXECUTE format('SELECT scheduled_at FROM %I.oban_jobs WHERE id = %s', prefix, job_id)
		INTO stored;
	-- The result is the same instant.
	ASSERT job.scheduled_at = stored AT TIME ZONE 'UTC';
	RETURN to_char(stored, 'YYYY-MM-DD HH24:MI:SS.US');
END $$;
SELECT t AS given, tools.stored(4, jsonb_build_object('scheduled_at', t), 'ex14') AS ex14,
	tools.stored(4, jsonb_build_object('scheduled_at', t), 'py') AS py
FROM unnest(ARRAY['2031-02-03T04:05:06Z', '2031-02-03T04:05:06', '2031-02-03 04:05:06',
	'2031-02-03T04:05:06+02:00', '2031-02-03T04:05:06-0530', '2031-02-03T04:05:06+05',
	'2031-02-03T04:05:06.123456Z', '2031-02-03T04:05:06.5', '2031-02-03', '2031-02-03T04:05',
	'2031-02-03T23:59:59.9999999Z', '1999-12-31T23:59:59-01:00',
	'2032-02-29t00:00:00z', '20310203T040506Z', '20310203T0405', '20310203T040506.25+0530',
	'20310203', '0001-01-01', '0001-01-01T05:45:00+05:45', '9999-12-31T23:59:59.999999',
	'99991231T180000-0559']) WITH ORDINALITY g(t, n) ORDER BY n;
-- The settings of the session do not matter.
SET TimeZone = 'America/New_York';
SET DateStyle = 'SQL, MDY';
SELECT t AS given, tools.stored(4, jsonb_build_object('scheduled_at', t), 'py')
FROM unnest(ARRAY['2031-02-03T04:05:06', '2031-03-09T02:30:00', '2031-02-03T04:05:06+02:00'])
	WITH ORDINALITY g(t, n) ORDER BY n;

-- schedule_in: from the transaction's now, in seconds or an interval. A day has 24 hours, although
-- within the year New York's clocks change twice.
CREATE FUNCTION tools.after(schedule_in jsonb, wanted interval) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	job oban_job := oban_update_job(4, jsonb_build_object('schedule_in', schedule_in), 'ex14');
	difference interval := job.scheduled_at AT TIME ZONE 'UTC' - (timezone('UTC', now()) + wanted);
BEGIN
	RETURN CASE WHEN difference = '0' THEN 'as wanted' ELSE 'off by ' || difference END;
END $$;
SELECT s AS schedule_in, tools.after(s, w) FROM (VALUES
	(1, jsonb '0', interval '0'), (2, '60', '1 minute'), (3, '-5', '-5 seconds'),
	(4, '1.5', '1.5 seconds'), (5, '0.000001', '1 microsecond'), (6, '-0.25', '-0.25 seconds'),
	(7, '1e3', '1000 seconds'), (8, '86400', '24 hours'), (9, '3e8', '300000000 seconds'),
	(10, '"5 minutes"', '5 minutes'), (11, '"-1 day"', '-1 day'), (12, '"200 days"', '200 days'),
	(13, '"1 month"', '1 month'), (14, '"PT5M"', '5 minutes'), (15, '"P1DT2H"', '1 day 2 hours'),
	(16, '"01:30:00"', '90 minutes'), (17, '"2 hours ago"', '-2 hours'), (18, '"0"', '0'),
	(19, '"1 year 2 days 00:00:00.5"', '1 year 2 days 0.5 seconds')) v(n, s, w)
ORDER BY n;
-- Each field has its own sign, whatever the session's IntervalStyle.
SET IntervalStyle = 'sql_standard';
SELECT tools.after('"-1 day 2 hours"', make_interval(days => -1, hours => 2)),
	tools.after('"1 month -3"', make_interval(months => 1, secs => -3));
SHOW IntervalStyle;
RESET IntervalStyle;
-- Large ones, which fit.
SELECT tools.after('"7900 years"', '7900 years'), tools.after('2e11', '55555555 hours 2000 seconds'),
	tools.after('-6e10', '-16666666 hours -2400 seconds');
SELECT tools.stored(4, '{"scheduled_at": "2031-01-01"}', 'ex14');

-- A new schedule moves an available job to scheduled when it lies in the future, and a scheduled
-- job to available when it does not; other states keep theirs.
CREATE FUNCTION tools.moved(job_id bigint, changes jsonb, prefix text)
	RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
	before text;
BEGIN
	CALL tools.make_jobs(prefix);
	before := (SELECT state FROM tools.model WHERE id = job_id);
	SELECT state INTO found FROM oban_update_job(job_id, changes, prefix);
	ASSERT tools.states(prefix) ~ (job_id || ' ' || found || '(,|$)'), 'state as returned';
	ASSERT (tools.rows(prefix) -> job_id::text ->> 'attempt')::int
		= (SELECT attempt FROM tools.model WHERE id = job_id), 'attempt kept';
	RETURN CASE WHEN found = before THEN '' ELSE found END;
END $$;
SELECT p AS prefix, m.state,
	tools.moved(m.id, '{"scheduled_at": "2098-01-01T00:00:00Z"}', p) AS future,
	tools.moved(m.id, '{"schedule_in": "1 second"}', p) AS soon,
	tools.moved(m.id, '{"schedule_in": 0}', p) AS now,
	tools.moved(m.id, '{"scheduled_at": "2024-01-01T00:00:00Z"}', p) AS past,
	tools.moved(m.id, '{"schedule_in": "-1 hour", "queue": "q"}', p) AS hour_ago,
	tools.moved(m.id, '{"queue": "q"}', p) AS no_schedule
FROM unnest('{ex9,ex14,py}'::text[]) p, tools.model m
WHERE m.state <> 'suspended' OR p <> 'ex9'
ORDER BY p, m.id;
-- Many at once: each by its own state.
CALL tools.make_jobs('ex14');
SELECT id, state, scheduled_at = now() AS now
FROM oban_update_many_jobs('{1,2,3,4,5,6,7,8}', '{"schedule_in": 0}', 'ex14');
SELECT string_agg(id || ' ' || state, ', ') AS states
FROM oban_update_many_jobs('{1,2,3,4,5,6,7,8}', '{"schedule_in": 600}', 'ex14');
-- Seconds around now, in a zone 14 hours off: what is the future is a matter of instants.
SET TimeZone = 'Pacific/Kiritimati';
SELECT tools.moved(1, '{"schedule_in": 5}', 'py') AS ahead,
	tools.moved(2, '{"schedule_in": -5}', 'py') AS behind;
SET TimeZone = 'Pacific/Pago_Pago';
SELECT tools.moved(1, '{"schedule_in": 5}', 'py') AS ahead,
	tools.moved(2, '{"schedule_in": -5}', 'py') AS behind;
-- A retry afterwards makes the job due now.
CALL tools.make_jobs('py');
SELECT state FROM oban_update_job(1, '{"schedule_in": "1 day"}', 'py');
SELECT oban_retry_job(1, 'py'), oban_retry_job(1, 'py') AS again, tools.states('py');

-- Times that go wrong at a separator, in the offset, and after it
SELECT time, tools.refusal(format('SELECT oban_update_job(2, %L, %L)',
	jsonb_build_object('scheduled_at', time), 'ex14'))
FROM unnest('{2031-02x03, 2031-02-03T10x00, 2031-02-03T10:00+1, 2031-02-03T10:00+01:0,
	2031-02-03T10:00+01:00x, 2031-02-03T10:00+0100x, 2031-02-03T10:00Zx}'::text[]) time;

DROP SCHEMA tools, ex9, ex11, ex14, py CASCADE;
