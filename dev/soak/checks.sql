-- What must hold of a round, each as a view of what does not: job, and what is wrong.
--
-- psql variables: guard, whether the jobs have oban_keep_cancelled; the tables told, executed, heard
-- and spells hold what the actors were told.
CREATE INDEX ON events (actor);

-- Who did it, as which verb: what a client calls has a name of its own.
CREATE VIEW happened AS
	SELECT e.*, t.form, t.outcome, coalesce(t.verb, substring(e.actor FROM '^[a-z]+')) AS by
	FROM events e LEFT JOIN told t USING (actor);

CREATE VIEW checks."the log of a job has no gap" AS
	SELECT job, format('event %s begins with %s/%s, after %s/%s', seq, old_state, old_attempt,
		before, attempt_before) AS wrong
	FROM (SELECT *, row_number() OVER w AS n, lag(new_state) OVER w AS before,
			lag(new_attempt) OVER w AS attempt_before FROM events WINDOW w AS (PARTITION BY job ORDER BY seq)) e
	WHERE CASE n WHEN 1 THEN old_state IS NOT NULL
		ELSE old_state IS NULL OR (old_state, old_attempt) IS DISTINCT FROM (before, attempt_before) END;

-- So no cancelled job is fetched unless it was retried or its own worker put it back, and no job that
-- is executing is deleted, retried, or fetched again.
CREATE VIEW checks."each change is one that its maker may make" AS
	SELECT job, format('event %s, %s: %s/%s to %s/%s', seq, actor, old_state, old_attempt, new_state,
		new_attempt) AS wrong
	FROM happened WHERE NOT coalesce(CASE
		WHEN by = 'worker' AND new_state = 'executing' THEN
			old_state = 'available' AND new_attempt = old_attempt + 1
		WHEN old_state IS NULL THEN by IN ('oban', 'psql')
		WHEN new_attempt <> old_attempt THEN false
		WHEN by = 'worker' THEN old_state IS NOT NULL AND new_state IN
			('completed', 'retryable', 'scheduled', 'discarded', 'cancelled') AND NOT
			(:'guard'::boolean AND old_state = 'cancelled' AND new_state IN ('retryable', 'scheduled'))
		WHEN by = 'oban' THEN CASE WHEN new_state IS NULL
			THEN old_state IN ('completed', 'cancelled', 'discarded')
			ELSE (old_state IN ('scheduled', 'retryable') AND new_state = 'available')
				OR (old_state = 'executing' AND new_state IN ('available', 'discarded')) END
		WHEN by = 'cancel' THEN new_state = 'cancelled'
			AND old_state NOT IN ('completed', 'discarded', 'cancelled')
		WHEN by = 'retry' THEN new_state = 'available' AND old_state NOT IN ('available', 'executing')
		WHEN by = 'delete' THEN new_state IS NULL AND old_state <> 'executing'
		WHEN by = 'update' THEN old_state = new_state OR (old_state IN ('available', 'scheduled')
			AND new_state IN ('available', 'scheduled')) END, false);

CREATE VIEW checks."what a client was told is in the log" AS
	SELECT NULL::bigint AS job, format('%s, %s: told %s and %s, the log has %s and %s', t.actor, t.form,
		t.count, t.jobs, count(e.job), array_agg(e.job ORDER BY e.job)) AS wrong
	FROM told t LEFT JOIN events e USING (actor)
	WHERE outcome = 'told' AND kind IS NOT NULL
	GROUP BY t.actor, t.form, t.count, t.jobs
	HAVING count(e.job) <> t.count OR (t.jobs IS NOT NULL AND t.count > 0
		AND array_agg(e.job ORDER BY e.job) <> t.jobs);

CREATE VIEW checks."the jobs that an update returned are as it wrote them" AS
	SELECT e.job, format('%s: told priority %s, the log has %s', t.actor, p.priority, e.priority) AS wrong
	FROM told t CROSS JOIN unnest(t.jobs, t.priorities) AS p(job, priority) JOIN events e
		ON (e.actor, e.job) = (t.actor, p.job)
	WHERE t.priorities IS NOT NULL AND p.priority <> e.priority;

CREATE VIEW checks."a call that was refused changed nothing" AS
	SELECT job, format('%s, %s: event %s', actor, form, seq) AS wrong
	FROM happened WHERE outcome = 'refused' AND form NOT LIKE '%batches';

CREATE VIEW checks."no update is lost" AS
	SELECT job, format('%s, %s: event %s made %s steps', actor, form, seq, steps) AS wrong
	FROM happened WHERE steps IS NOT NULL AND CASE WHEN form = 'trigger update_with' THEN steps < 1
		WHEN form LIKE 'update\_with%' THEN steps <> 1 ELSE steps <> 0 END;

CREATE VIEW checks."no attempt is executed twice" AS
	SELECT job, format('attempt %s, by %s', attempt, string_agg(worker, ', ')) AS wrong
	FROM executed GROUP BY job, attempt HAVING count(*) > 1;

CREATE VIEW checks."what a worker executes it has fetched" AS
	SELECT x.job, format('attempt %s, by %s', x.attempt, x.worker) AS wrong
	FROM executed x LEFT JOIN events e ON (e.job, e.new_attempt, e.actor) = (x.job, x.attempt, x.worker)
		AND e.new_state = 'executing' AND e.old_state = 'available'
	WHERE e.job IS NULL;

-- Also where the connection was lost, so that the client does not know whether it happened.
CREATE VIEW checks."a call happens wholly or not at all" AS
	SELECT min(e.job) AS job, format('%s, %s, %s: %s changes in %s transactions', t.actor, t.form,
		t.outcome, count(*), count(DISTINCT e.xid)) AS wrong
	FROM told t JOIN events e USING (actor)
	GROUP BY t.actor, t.form, t.outcome, t.named
	HAVING (count(DISTINCT e.xid) > 1 AND t.form NOT LIKE '%batches')
		OR (t.form ~ '^update(_with)? (array|many)$' AND array_agg(DISTINCT e.job ORDER BY e.job)
			<> ARRAY(SELECT DISTINCT unnest(t.named) ORDER BY 1));

CREATE VIEW checks."no batch is larger than it was asked to be" AS
	SELECT min(e.job) AS job, format('%s, %s: %s jobs', e.actor, e.form, count(*)) AS wrong
	FROM happened e WHERE e.form LIKE '%batches' GROUP BY e.actor, e.form, e.xid HAVING count(*) > 20;

-- At least those that were told while somebody listened, at most all.
CREATE VIEW checks."who listens hears of each executing job that is cancelled" AS
	SELECT job, format('heard %s times, cancelled while executing %s times, %s of them for sure', heard,
		cancelled, must) AS wrong
	FROM (SELECT e.job, count(*) AS cancelled, count(*) FILTER (WHERE e.outcome = 'told' AND EXISTS (
				SELECT FROM spells WHERE t.began > spells.began AND t.ended < spells.ended)) AS must
			FROM happened e JOIN told t USING (actor)
			WHERE e.by = 'cancel' AND e.old_state = 'executing' GROUP BY e.job) c
		FULL JOIN (SELECT job, count(*) AS heard FROM heard GROUP BY job) h USING (job)
	WHERE coalesce(heard, 0) NOT BETWEEN coalesce(must, 0) AND coalesce(cancelled, 0);
