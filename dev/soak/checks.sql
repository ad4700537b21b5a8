-- What must hold of a round when it is over, each as a view of what does not: job, and what is wrong.
-- The views of round.sql, which need only the log, are asked again too.
--
-- The tables told, executed, unanswered, asked, heard and spells hold what the actors were told.
CREATE INDEX ON events (actor, job);
ANALYZE events, told, executed, unanswered, asked, heard;

-- Of each call and each job that it named: whether the job is refused to it, the last change before the call began, by its snapshot,
-- and whether somebody else changed the job before the client's next call. Its own are three at most.
CREATE TABLE named AS
	SELECT actor, form, verb, kind, outcome, sqlstate, later, n.job, s.seq, s.new_state AS state,
		form LIKE '%skipping%' AND coalesce(is_refused(s.became -> 'args'), true) AS is_refused,
		later IS NULL OR EXISTS (SELECT FROM (SELECT actor, xid FROM events e
				WHERE e.job = n.job AND e.seq > coalesce(s.seq, 0) ORDER BY e.seq LIMIT 4) e
			WHERE e.actor <> t.actor AND pg_visible_in_snapshot(xid, later)) AS touched
	FROM (SELECT *, lead(snapshot) OVER (PARTITION BY client ORDER BY began) AS later FROM told) t
		CROSS JOIN LATERAL (SELECT DISTINCT unnest(t.named) AS job) n
		LEFT JOIN LATERAL (SELECT seq, new_state, coalesce(became, was) AS became FROM events e
			WHERE e.job = n.job AND pg_visible_in_snapshot(xid, snapshot) ORDER BY seq DESC LIMIT 1) s ON true;
CREATE INDEX ON named (actor, job);

-- The outcomes that oban_manage_jobs told, of a dry run too.
CREATE TABLE outcomes AS
	SELECT actor, verb, kind, outcome AS told, (a ->> 0)::bigint AS job, a ->> 1 AS outcome,
		a ->> 2 AS old_state, a ->> 3 AS new_state
	FROM told CROSS JOIN jsonb_array_elements(answers) a WHERE kind IN ('outcomes', 'dry_run');
CREATE INDEX ON outcomes (actor, job);
ANALYZE named, outcomes;

CREATE VIEW checks."what a client was told is in the log" AS
	SELECT NULL::bigint AS job, format('%s: told %s and %s, the log has %s and %s', t.actor,
		t.count, t.jobs, count(e.job), array_agg(e.job ORDER BY e.job)) AS wrong
	FROM told t LEFT JOIN events e USING (actor)
	WHERE outcome = 'told' AND kind IN ('count', 'outcomes', 'jobs')
	GROUP BY t.actor, t.count, t.jobs
	HAVING count(e.job) <> t.count OR (t.jobs IS NOT NULL AND t.count > 0
		AND array_agg(e.job ORDER BY e.job) <> t.jobs);

CREATE VIEW checks."a call changes each job that it must" AS
	SELECT job, format('%s: the job was %s all the time, and is not changed', actor, state) AS wrong
	FROM named n WHERE outcome = 'told' AND kind IS DISTINCT FROM 'dry_run' AND NOT touched
		AND verb IS NOT NULL AND acts(verb, state)
		-- What was passed over has an outcome; of batches nobody knows what they did not lock.
		AND NOT is_refused AND form NOT LIKE '%skipping batches'
		AND NOT EXISTS (SELECT FROM outcomes o WHERE (o.actor, o.job, o.outcome) = (n.actor, n.job, 'locked'))
		AND NOT EXISTS (SELECT FROM events e WHERE (e.actor, e.job) = (n.actor, n.job));

CREATE VIEW checks."what a call passed over is as it was" AS
	SELECT job, format('%s: told %s, event %s from %s to %s', o.actor, o, seq, e.old_state, e.new_state) AS wrong
	FROM outcomes o JOIN events e USING (actor, job) WHERE o.outcome IN ('refused', 'locked', 'ignored', 'not_found');

CREATE VIEW checks."only what is refused is so, and only calls that pass over jobs say so" AS
	SELECT job, format('%s: told %s', actor, n.outcome) AS wrong
	FROM (SELECT o.*, form LIKE '%skipping%' AS skips, (SELECT is_refused(became -> 'args') FROM events e
			WHERE e.job = o.job ORDER BY seq LIMIT 1) AS is_refused
		FROM outcomes o JOIN told t USING (actor)) n
	WHERE (outcome IN ('refused', 'locked') AND NOT skips) OR (outcome = 'refused' AND NOT is_refused)
		OR (outcome IN ('cancelled', 'retried', 'deleted', 'updated') AND skips AND is_refused);

CREATE VIEW checks."a call changes only jobs that it names" AS
	SELECT e.job, format('%s: named %s, %s; event %s', t.actor, t.named, t.filter, e.seq) AS wrong
	FROM told t JOIN events e USING (actor)
	WHERE CASE WHEN t.filter IS NULL THEN e.job <> ALL (t.named)
		-- A scalar, any of an array, or what an object contains.
		ELSE EXISTS (SELECT FROM jsonb_each(t.filter) f
			WHERE NOT (f.value @> (e.was -> f.key) OR (e.was -> f.key) @> f.value)) END;

CREATE VIEW checks."an update writes the keys that it names and nothing else" AS
	SELECT job, format('%s: %s, event %s: %s to %s', actor, changes, seq, was, became) AS wrong
	FROM (SELECT e.*, t.changes, (t.changes ->> 'schedule_in')::float8 AS wait
		FROM events e JOIN told t USING (actor) WHERE e.by = 'update') e
	WHERE became IS DISTINCT FROM was || CASE
		WHEN changes IS NULL THEN jsonb_build_object('meta', became -> 'meta')
		WHEN wait IS NULL THEN changes || CASE WHEN changes ? 'tags' THEN '{"tags": ["a", "b"]}' ELSE '{}' END::jsonb
		ELSE jsonb_build_object('scheduled_at', at + make_interval(secs => wait), 'state', CASE
			WHEN old_state = 'available' AND wait > 0 THEN 'scheduled'
			WHEN old_state = 'scheduled' AND wait <= 0 THEN 'available' ELSE old_state END) END;

-- In UTC the times of an oban_job are those of its row.
CREATE VIEW checks."the jobs that an update returned are as it wrote them" AS
	SELECT job, format('%s: told %s, the log has %s', actor, told, became) AS wrong
	FROM (SELECT e.actor, e.job, e.became, replace((a -> 1)::text, '+00:00"', '"')::jsonb AS told
		FROM told t CROSS JOIN jsonb_array_elements(t.answers) a JOIN events e
			ON (e.actor, e.job) = (t.actor, (a ->> 0)::bigint) WHERE t.kind = 'jobs') u
	WHERE told - 'prefix' <> became;

CREATE VIEW checks."a job that was read is as the log has it" AS
	SELECT n.job, format('%s: told %s, the log has %s', n.actor, told, became) AS wrong
	FROM named n LEFT JOIN events e USING (seq) LEFT JOIN (SELECT actor, (a ->> 0)::bigint AS job,
			replace((a -> 1)::text, '+00:00"', '"')::jsonb AS told
		FROM told CROSS JOIN jsonb_array_elements(answers) a WHERE kind = 'read') r
		ON (r.actor, r.job) = (n.actor, n.job)
	WHERE kind = 'read' AND outcome = 'told' AND told - 'prefix' IS DISTINCT FROM became;

CREATE VIEW checks."a worker is told whether its job is cancelled" AS
	SELECT a.job, format('told %s, but the job was %s', cancelled, new_state) AS wrong
	FROM asked a LEFT JOIN LATERAL (SELECT new_state FROM events e
		WHERE e.job = a.job AND pg_visible_in_snapshot(xid, snapshot) ORDER BY seq DESC LIMIT 1) s ON true
	WHERE cancelled IS DISTINCT FROM coalesce(new_state = 'cancelled', true);

CREATE VIEW checks."the states of an outcome are those of the log" AS
	SELECT job, format('%s: told %s, event %s from %s to %s', o.actor, o, seq, e.old_state, e.new_state) AS wrong
	FROM outcomes o JOIN events e USING (actor, job)
	WHERE (o.old_state, o.new_state) IS DISTINCT FROM (e.old_state, e.new_state);

CREATE VIEW checks."an outcome is what the job's state asks for" AS
	SELECT job, format('%s: told %s, but the job was %s', o.actor, o, n.state) AS wrong
	FROM named n LEFT JOIN outcomes o USING (actor, job)
	-- By a filter, a job that is not there has no outcome.
	WHERE n.kind IN ('outcomes', 'dry_run') AND n.outcome IN ('told', 'rolled back')
		AND ((o.job IS NULL AND form NOT LIKE '%manage_all')
		OR (o.outcome IN ('ignored', 'not_found', 'refused', 'locked') AND o.new_state IS DISTINCT FROM o.old_state)
		OR (NOT touched AND (o.old_state IS DISTINCT FROM n.state OR o.outcome NOT IN ('locked', CASE
			WHEN n.state IS NULL THEN 'not_found' WHEN NOT acts(n.verb, n.state) THEN 'ignored'
			WHEN is_refused THEN 'refused'
			ELSE CASE n.verb WHEN 'cancel' THEN 'cancelled' WHEN 'retry' THEN 'retried' ELSE n.verb || 'd' END END))));

CREATE VIEW checks."a call that was refused or rolled back changed nothing" AS
	SELECT job, format('%s: event %s', actor, seq) AS wrong
	FROM told t JOIN events e USING (actor)
	WHERE outcome = 'rolled back' OR (outcome = 'refused' AND t.form NOT LIKE '%batches');

-- As all that are named are updated, or none.
CREATE VIEW checks."who is told that a job is missing named one that was" AS
	SELECT NULL::bigint AS job, format('%s: named %s', actor, array_agg(job)) AS wrong
	FROM named n WHERE sqlstate = 'P0002' GROUP BY actor, form
	HAVING NOT bool_or(state IS NULL OR later IS NULL OR EXISTS (SELECT FROM events e
			WHERE e.job = n.job AND new_state IS NULL AND pg_visible_in_snapshot(xid, later))) OR form !~ '^update(_with)? (id|array|many|record|oban_job)$';

CREATE VIEW checks."no update is lost" AS
	SELECT job, format('%s: %s steps', actor, steps) AS wrong
	FROM (SELECT t.actor, t.form, t.named, e.job, sum(coalesce((became #>> '{meta,steps}')::integer, 0)
			- coalesce((was #>> '{meta,steps}')::integer, 0)) AS steps
		FROM told t JOIN events e USING (actor) WHERE t.verb <> 'delete' GROUP BY t.actor, e.job) e
	-- Of the three rows two name all, one the first half.
	WHERE steps <> CASE WHEN form = 'trigger update_with' THEN
			2 + (job = ANY (named[1:cardinality(named) / 2]))::integer
		WHEN form LIKE 'update\_with%' THEN 1 ELSE 0 END;

-- A snooze gives the attempt back, so that a later run has its number. Where the connection was
-- lost, a worker does not know what it has fetched.
CREATE VIEW checks."what a worker executes it has fetched" AS
	SELECT x.job, format('attempt %s, by %s: %s times, fetched %s times', x.attempt, x.worker, times,
		coalesce(fetched, 0)) AS wrong
	FROM (SELECT worker, job, attempt, count(*) AS times FROM executed GROUP BY 1, 2, 3) x
		LEFT JOIN (SELECT actor, job, new_attempt, count(*) AS fetched FROM changes WHERE fetched
			GROUP BY 1, 2, 3) e ON (e.actor, e.job, e.new_attempt) = (x.worker, x.job, x.attempt)
	WHERE times > coalesce(fetched, 0);

-- Oban for Python repeats an answer for ever that returns no row.
CREATE VIEW checks."an answer returns its row, unless the job was deleted" AS
	SELECT job, format('%s, by %s', answer, worker) AS wrong
	FROM unanswered u WHERE NOT EXISTS (SELECT FROM events e WHERE e.job = u.job AND new_state IS NULL);

-- Also where the connection was lost, so that the client does not know whether it happened.
CREATE VIEW checks."a call happens wholly or not at all" AS
	SELECT min(e.job) AS job, format('%s, %s: %s changes in %s transactions', t.actor,
		t.outcome, count(*), count(DISTINCT e.xid)) AS wrong
	FROM told t JOIN events e USING (actor)
	GROUP BY t.actor, t.form, t.outcome, t.named
	HAVING (count(DISTINCT e.xid) > 1 AND t.form NOT LIKE '%batches')
		OR (t.form ~ '^update(_with)? (array|many)$' AND array_agg(DISTINCT e.job ORDER BY e.job)
			<> ARRAY(SELECT DISTINCT unnest(t.named) ORDER BY 1));

CREATE VIEW checks."no batch is larger than it was asked to be" AS
	SELECT min(job) AS job, format('%s: %s jobs', actor, count(*)) AS wrong
	FROM events WHERE form LIKE '%batches' GROUP BY actor, xid HAVING count(*) > 20;

-- Each signal at least as often as calls told of it while somebody listened, at most as often as it
-- was due; a queue is woken once a transaction. An update that names the queue in which an available
-- job already is may wake it, and need not.
CREATE VIEW checks."who listens hears of what is cancelled or made available" AS
	SELECT NULL::bigint AS job, format('%s %s: heard %s times, due %s times, %s of them for sure', channel,
		payload, heard, due, sure) AS wrong
	FROM (SELECT channel, payload, count(*) AS due, count(*) FILTER (WHERE sure) AS sure
		FROM (SELECT xid, CASE by WHEN 'cancel' THEN 'oban_signal' ELSE 'oban_insert' END AS channel,
				CASE by WHEN 'cancel' THEN format('{"action":"pkill","job_id":%s}', e.job)
					ELSE format('{"queue":%s}', became -> 'queue') END AS payload,
				bool_or(outcome = 'told' AND (by = 'cancel' OR old_state <> new_state
					OR was -> 'queue' <> became -> 'queue') AND EXISTS (SELECT FROM spells
					WHERE t.began > spells.began AND t.ended < spells.ended)) AS sure
			FROM events e JOIN told t USING (actor)
			WHERE NOT quiet AND CASE by WHEN 'cancel' THEN old_state = 'executing'
				ELSE new_state = 'available' AND (old_state <> 'available' OR changes ? 'queue') END
			GROUP BY 1, 2, 3) d
		GROUP BY channel, payload) d
		FULL JOIN (SELECT channel, payload, count(*) AS heard FROM heard GROUP BY 1, 2) h USING (channel, payload)
	WHERE coalesce(heard, 0) NOT BETWEEN coalesce(sure, 0) AND coalesce(due, 0);
