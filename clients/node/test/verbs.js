#!/usr/bin/env node
// The verbs of oban_manage through node-postgres: which parameters need a cast, and what comes
// back.
//
// Prints TAP. Connects by PGHOST, PGPORT, PGUSER and PGDATABASE, and makes the schema client_node
// anew, with a jobs table of Oban for Elixir; psql must be on the PATH.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import pg from "pg";

const schema = "client_node";
const fixture = fileURLToPath(new URL("../../../fixtures/elixir.sql", import.meta.url));

let count = 0;
let failed = 0;

function same(got, expected, name) {
  const good = isDeepStrictEqual(got, expected);
  count += 1;
  if (!good) failed += 1;
  console.log(`${good ? "ok" : "not ok"} ${count} - ${name}`);
  if (!good) {
    console.log(`#      got: ${JSON.stringify(got)}\n# expected: ${JSON.stringify(expected)}`);
  }
}

function psql(...options) {
  const inherited = { stdio: ["ignore", "inherit", "inherit"] };
  execFileSync("psql", ["-XAtq", "-v", "ON_ERROR_STOP=1", ...options], inherited);
}

async function value(client, query, parameters) {
  const { rows } = await client.query({ text: query, values: parameters, rowMode: "array" });
  return rows[0][0];
}

async function sqlstate(client, query, parameters) {
  try {
    await client.query(query, parameters);
  } catch (error) {
    return error.code;
  }
  return null;
}

// One job of each state; their ids, which node-postgres gives as strings.
async function makeJobs(client, ...states) {
  const { rows } = await client.query(
    `INSERT INTO oban_jobs (state, queue, worker, args)
     SELECT state::oban_job_state, 'mail', 'Mailer', $2
     FROM unnest($1::text[]) WITH ORDINALITY AS s (state, place) ORDER BY place
     RETURNING id`,
    [states, { to: "ann@example.org" }],
  );
  return rows.map((row) => row.id);
}

async function stateOf(client, id) {
  const { rows } = await client.query("SELECT state FROM oban_jobs WHERE id = $1", [id]);
  return rows.length > 0 ? rows[0].state : "gone";
}

async function cancelRetryDelete(client) {
  for (const [verb, state, after] of [
    ["cancel", "available", "cancelled"],
    ["retry", "completed", "available"],
    ["delete", "available", "gone"],
  ]) {
    const [one, row, job, ...many] = await makeJobs(client, ...Array(7).fill(state));
    const numbers = many.map(Number);

    // node-postgres sends every parameter without a type.
    let query = `SELECT oban_${verb}_job($1)`;
    for (const untyped of [one, Number(one), many, null]) {
      const shown = JSON.stringify(untyped);
      same(await sqlstate(client, query, [untyped]), "42725", `${verb}: ${shown} is ambiguous`);
    }
    same(await stateOf(client, one), state, `${verb}: the job is as it was`);

    query = `SELECT oban_${verb}_job($1::bigint)`;
    same(await value(client, query, [one]), true, `${verb}: a cast to bigint, id as a string`);
    same(await stateOf(client, one), after, `${verb}: the job is ${after}`);
    same(await value(client, query, [Number(one)]), false, `${verb}: again, id as a number`);
    same(await value(client, query, [null]), false, `${verb}: null`);

    query = `SELECT oban_${verb}_job($1::bigint[])`;
    const two = await value(client, query, [many.slice(0, 2)]);
    same(two, 2, `${verb}: a cast to bigint[], and the count is a number`);

    query = `SELECT oban_${verb}_many_jobs($1)`;
    same(await value(client, query, [numbers]), 2, `${verb}_many_jobs: no cast needed`);
    same(await value(client, query, [[]]), 0, `${verb}_many_jobs: an empty array`);
    same(await value(client, query, [null]), 0, `${verb}_many_jobs: null`);
    const bad = await sqlstate(client, query, [["one"]]);
    same(bad, "22P02", `${verb}_many_jobs: what is no id gives 22P02`);

    query = `SELECT oban_${verb}_job(j) FROM oban_jobs j WHERE id = $1`;
    same(await value(client, query, [row]), true, `${verb}: a row of the table`);
    query = `SELECT oban_${verb}_job(oban_get_job($1))`;
    same(await value(client, query, [job]), true, `${verb}: an oban_job`);
  }

  // An explicit prefix, and more runs than it takes PostgreSQL to keep a generic plan.
  const ids = await makeJobs(client, ...Array(20).fill("scheduled"));
  const changed = [];
  for (const id of ids) {
    const { rows } = await client.query({
      name: "cancel",
      text: "SELECT oban_cancel_job($1::bigint, $2) AS cancelled",
      values: [id, schema],
    });
    changed.push(rows[0].cancelled);
  }
  same(changed, Array(20).fill(true), "a prepared statement with a prefix, twenty times");
}

async function update(client) {
  const [first, second, third] = await makeJobs(client, "available", "scheduled", "executing");

  // One job: the id needs a cast, the changes are an object.
  const changes = {
    args: { to: ["bob", "eve"] },
    tags: ["Urgent", "a"],
    priority: 2,
    scheduled_at: "2040-05-06T07:08:09Z",
  };
  const { rows } = await client.query("SELECT * FROM oban_update_job($1::bigint, $2)", [
    second,
    changes,
  ]);
  const [job] = rows;
  same(rows.length, 1, "update: one row");
  same(job.id, second, "update: id is a string, as any bigint");
  same(job.state, "scheduled", "update: state is text");
  same(job.args, { to: ["bob", "eve"] }, "update: args is an object");
  same(job.meta, {}, "update: meta is an object");
  same(job.tags, ["a", "urgent"], "update: tags are an array");
  same(job.errors, [], "update: errors are an array");
  same(job.priority, 2, "update: priority is a number");
  same(job.scheduled_at, new Date("2040-05-06T07:08:09Z"), "update: a time is a Date");
  same(job.cancelled_at, null, "update: no time is null");
  same(job.prefix, schema, "update: the prefix is known");

  let query = "SELECT oban_update_job($1, $2)";
  same(await sqlstate(client, query, [first, changes]), "42725", "update: an id is ambiguous");

  query = "SELECT id, priority FROM oban_update_many_jobs($1, $2)";
  const many = await client.query(query, [[third, first, third], { priority: 5 }]);
  same(
    many.rows,
    [
      { id: first, priority: 5 },
      { id: third, priority: 5 },
    ],
    "update_many_jobs: no cast needed, a row a job, in id order",
  );

  query = "SELECT u.queue FROM oban_jobs j, oban_update_job(j, $1) u WHERE j.id = $2";
  const queue = await value(client, query, [{ queue: "slow" }, first]);
  same(queue, "slow", "update: a row of the table");
  query = "SELECT (oban_get_job($1)).queue";
  same(await value(client, query, [first]), "slow", "get: needs no cast");
  query = "SELECT oban_job_cancelled($1)";
  same(await value(client, query, [third]), false, "cancelled: not yet, and needs no cast");
  const run = "SELECT oban_job_cancelled($1, attempt => $2)";
  same(await value(client, run, [third, 1]), true, "cancelled: it does not run with that attempt");
  await client.query("SELECT oban_cancel_many_jobs($1)", [[third]]);
  same(await value(client, query, [third]), true, "cancelled: it is");

  query = "SELECT oban_update_job($1::bigint, $2)";
  for (const [wrong, code] of [
    [{ priority: 10 }, "22023"],
    [{ colour: "red" }, "22023"],
    ["{", "22P02"],
    [null, "22004"],
  ]) {
    const got = await sqlstate(client, query, [first, wrong]);
    same(got, code, `update: ${JSON.stringify(wrong)} gives ${code}`);
  }
  const missing = await sqlstate(client, query, [0, { priority: 1 }]);
  same(missing, "P0002", "update: a missing job gives P0002");
  const nowhere = await sqlstate(client, "SELECT oban_cancel_many_jobs($1, 'nowhere')", [[first]]);
  same(nowhere, "3F000", "cancel: a missing schema gives 3F000");
}

async function callables(client) {
  await client.query(`
    CREATE FUNCTION merge(job oban_job, context jsonb) RETURNS jsonb LANGUAGE sql AS
      $$ SELECT jsonb_build_object('meta', job.meta || coalesce(context, '{}'),
                                   'tags', job.tags || 'seen'::text) $$;
    CREATE FUNCTION twin(job oban_job) RETURNS jsonb LANGUAGE sql AS
      $$ SELECT '{"queue": "oban_job"}'::jsonb $$;
    CREATE FUNCTION twin(job jsonb) RETURNS jsonb LANGUAGE sql AS
      $$ SELECT '{"queue": "jsonb"}'::jsonb $$;
    CREATE FUNCTION complain(job oban_job, context jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
      IF job.id = (context ->> 'about')::bigint THEN
        RAISE 'job % will not do', job.id USING ERRCODE = 'UE001';
      END IF;
      RETURN '{"priority": 9}';
    END $$;
  `);
  const [first, second, third] = await makeJobs(client, "available", "scheduled", "executing");

  // The id needs its cast, the callable's name and the context none.
  let query = "SELECT * FROM oban_update_job_with($1::bigint, $2, $3)";
  const { rows } = await client.query(query, [first, "merge", { batch: 7 }]);
  same(rows[0].id, first, "callable: the job comes back");
  same(rows[0].meta, { batch: 7 }, "callable: with what the context brought");
  same(rows[0].tags, ["seen"], "callable: and what the job had");

  query = "SELECT oban_update_job_with($1, $2, $3)";
  const untyped = await sqlstate(client, query, [first, "merge", {}]);
  same(untyped, "42725", "callable: an id without a cast is ambiguous");
  query = "SELECT (oban_update_job_with($1::bigint, $2)).queue";
  const twins = await sqlstate(client, query, [first, "twin"]);
  same(twins, "42725", "callable: a name of two functions is ambiguous");
  const signature = await sqlstate(client, query, [first, "twin(jsonb)"]);
  same(signature, "42883", "callable: regproc takes no signature");
  query = "SELECT (oban_update_job_with($1::bigint, $2::regprocedure)).queue";
  const chosen = await value(client, query, [first, "twin(jsonb)"]);
  same(chosen, "jsonb", "callable: a signature needs a cast to regprocedure");

  // What has the type text needs a cast.
  query = "SELECT (oban_update_job_with($1::bigint, $2::text, $3)).tags";
  const text = await sqlstate(client, query, [first, "merge", {}]);
  same(text, "42883", "callable: text is no regproc");
  query = "SELECT (oban_update_job_with($1::bigint, $2::text::regproc, $3)).tags";
  const cast = await value(client, query, [first, "merge", {}]);
  same(cast, ["seen"], "callable: text with a cast to regproc");

  query = "SELECT id, meta FROM oban_update_many_jobs_with($1, $2, $3)";
  const many = await client.query(query, [[third, first, third], "merge", { b: [1] }]);
  same(
    many.rows,
    [
      { id: first, meta: { b: [1], batch: 7 } },
      { id: third, meta: { b: [1] } },
    ],
    "callable, many jobs: no cast needed, a row a job, in id order",
  );
  const none = await client.query(query, [[second], "merge", null]);
  same(none.rows, [{ id: second, meta: {} }], "callable, many jobs: null for the context");
  const empty = await client.query(query, [[], "merge", null]);
  same(empty.rows, [], "callable, many jobs: an empty array");

  // Twenty times prepared, on a callable that sees what it did before.
  const expected = {};
  let meta = null;
  for (let n = 0; n < 20; n += 1) {
    expected[n] = n;
    const result = await client.query({
      name: "merge",
      text: "SELECT (oban_update_job_with($1::bigint, $2, $3)).meta",
      values: [second, "merge", { [n]: n }],
    });
    meta = result.rows[0].meta;
  }
  same(meta, expected, "callable: prepared, twenty times");

  query = "SELECT id FROM oban_update_many_jobs_with($1, $2, $3)";
  let error = {};
  try {
    await client.query(query, [[first, second], "complain", { about: second }]);
  } catch (caught) {
    error = caught;
  }
  same(error.code, "UE001", "callable: its error has its own SQLSTATE");
  same(error.message, `job ${second} will not do`, "callable: and its own message");
  const [, named] = /complain\(.*\) for job (\d+)/.exec(error.where) ?? [];
  same(named, second, "callable: the error says where, with callable and job");
  const priority = await value(client, "SELECT (oban_get_job($1)).priority", [first]);
  same(priority, 0, "callable: nothing was changed");

  for (const [name, code] of [
    ["nowhere", "42883"],
    [null, "22004"],
    ["every", "42809"],
    ["now", "42804"],
  ]) {
    const got = await sqlstate(client, query, [[first], name, null]);
    same(got, code, `callable: ${name} gives ${code}`);
  }
  const missing = await sqlstate(client, query, [[first, 0], "merge", {}]);
  same(missing, "P0002", "callable: a missing job gives P0002");
}

async function filters(client) {
  const ids = await makeJobs(client, "available", "scheduled", "executing", "completed");
  const everything = { id: ids.map(Number) };

  // The filter is an object, and needs no cast. Its ids may be the strings that the driver gives.
  let query = "SELECT id, state FROM oban_all_jobs($1)";
  const { rows } = await client.query(query, [{ ...everything, args: { to: "ann@example.org" } }]);
  same(
    rows,
    ["available", "scheduled", "executing", "completed"].map((state, n) => ({ id: ids[n], state })),
    "filter: the jobs that match, in id order",
  );
  const byStrings = await client.query(query, [{ id: ids }]);
  same(byStrings.rows, rows, "filter: ids as strings, as the driver gives them");
  const byString = await client.query(query, [{ id: ids[1] }]);
  same(byString.rows, [rows[1]], "filter: one id as a string");
  same(await sqlstate(client, query, [{ id: ["one"] }]), "22023", "filter: a string that is no id");
  query = "SELECT count(*)::int FROM oban_all_jobs($1, $2)";
  same(await value(client, query, [everything, 2]), 2, "filter: at most so many");

  query = "SELECT oban_cancel_all_jobs($1)";
  same(await value(client, query, [everything]), "3", "filter: cancel, the count is a string");
  same(await value(client, query, [everything]), "0", "filter: nothing is left to cancel");
  query = "SELECT oban_retry_all_jobs($1, $2)";
  same(await value(client, query, [everything, 1]), "1", "filter: retry at most one");
  same(await value(client, query, [everything, null]), "3", "filter: null for no limit");
  query = "SELECT oban_update_all_jobs($1, $2)";
  same(await value(client, query, [everything, { queue: "slow" }]), "4", "filter: update");
  query = "SELECT oban_delete_all_jobs($1, prefix => $2)";
  const slow = { ...everything, queue: "slow" };
  same(await value(client, query, [slow, schema]), "4", "filter: delete, with a prefix");

  // Values that look like SQL are values; other filters each time, prepared.
  const [odd] = await makeJobs(client, "scheduled");
  const worker = "O'Mailer\"; DROP TABLE oban_jobs; --\\";
  await client.query("UPDATE oban_jobs SET worker = $1 WHERE id = $2", [worker, odd]);
  const found = [];
  for (const name of Array(4).fill([worker, "nobody"]).flat()) {
    const result = await client.query({
      name: "by_worker",
      text: "SELECT id FROM oban_all_jobs($1)",
      values: [{ worker: name }],
    });
    found.push(result.rows.map((row) => row.id));
  }
  same(found, Array(4).fill([[odd], []]).flat(), "filter: quotes are no matter, prepared");

  query = "SELECT oban_delete_all_jobs($1)";
  for (const [wrong, code] of [
    [{}, "22023"],
    [{ colour: "red" }, "22023"],
    ["[]", "22023"],
    [{ id: null }, "22023"],
    ["{", "22P02"],
    [null, "22004"],
  ]) {
    const got = await sqlstate(client, query, [wrong]);
    same(got, code, `filter: ${JSON.stringify(wrong)} gives ${code}`);
  }
}

async function outcomes(client) {
  const ids = await makeJobs(client, "available", "executing", "completed");

  let query = `SELECT job_id, outcome, old_state, new_state
    FROM oban_manage_jobs($1, $2, dry_run => $3)`;
  for (const dryRun of [true, false]) {
    const { rows } = await client.query(query, ["cancel", [...ids].reverse(), dryRun]);
    same(
      rows,
      [
        { job_id: ids[0], outcome: "cancelled", old_state: "available", new_state: "cancelled" },
        { job_id: ids[1], outcome: "cancelled", old_state: "executing", new_state: "cancelled" },
        { job_id: ids[2], outcome: "ignored", old_state: "completed", new_state: "completed" },
      ],
      `outcomes: no cast needed, dry run ${dryRun}`,
    );
    const after = dryRun ? "available" : "cancelled";
    same(await stateOf(client, ids[0]), after, `outcomes: the job is ${after}`);
  }
  const deleted = await client.query(query, ["delete", [ids[0], 0], false]);
  same(
    deleted.rows,
    [
      { job_id: "0", outcome: "not_found", old_state: null, new_state: null },
      { job_id: ids[0], outcome: "deleted", old_state: "cancelled", new_state: null },
    ],
    "outcomes: null for no state",
  );

  query = "SELECT * FROM oban_manage_jobs($1, $2, $3)";
  const updated = await client.query(query, ["update", [ids[1]], { priority: 4 }]);
  const { outcome, reason } = updated.rows[0];
  same(outcome, "updated", "outcomes: update");
  same(typeof reason === "string" && reason !== "", true, "outcomes: the reason is text");
  for (const [action, changes, code] of [
    ["explode", null, "22023"],
    [null, null, "22004"],
    ["update", null, "22004"],
    ["cancel", { priority: 4 }, "22023"],
  ]) {
    const got = await sqlstate(client, query, [action, ids, changes]);
    same(got, code, `outcomes: ${action} with ${JSON.stringify(changes)} gives ${code}`);
  }
}

async function batches(client) {
  const ids = await makeJobs(client, ...Array(5).fill("scheduled"));
  const everything = { id: ids.map(Number) };
  const notices = [];
  client.on("notice", ({ message }) => notices.push(message));

  const { rows } = await client.query("CALL oban_cancel_in_batches($1, $2)", [everything, 2]);
  same(rows, [{ affected: "5" }], "batches: affected is a string in the row of the CALL");
  const progress = /^cancelled (\d) of about 5 jobs, \d+ per second, .* left$/;
  same(
    notices.map((notice) => progress.exec(notice)?.[1]),
    ["2", "4", "5"],
    "batches: a notice for each",
  );

  let query = "CALL oban_retry_in_batches($1, $2, pause => $3, spread => $4)";
  const retried = await value(client, query, [everything, 2, "1 millisecond", "1 hour"]);
  same(retried, "5", "batches: intervals as text");
  const states = await client.query("SELECT state FROM oban_jobs WHERE id = ANY ($1) ORDER BY id", [
    ids,
  ]);
  same(
    states.rows.map((row) => row.state),
    ["available", ...Array(4).fill("scheduled")],
    "batches: a retry that is spread",
  );
  const { rows: updated } = await client.query({
    name: "update_in_batches",
    text: "CALL oban_update_in_batches($1, $2, prefix => $3)",
    values: [everything, { queue: "slow" }, schema],
  });
  same(updated, [{ affected: "5" }], "batches: prepared, with a prefix");

  query = "CALL oban_delete_in_batches($1)";
  await client.query("BEGIN");
  same(await sqlstate(client, query, [everything]), "25001", "batches: not in a transaction");
  await client.query("ROLLBACK");
  const several = "SELECT 1; CALL oban_delete_in_batches('{\"all\": true}')";
  same(await sqlstate(client, several), "25001", "batches: not among several statements");
  same(await value(client, query, [everything]), "5", "batches: on its own");
  same(await stateOf(client, ids[0]), "gone", "batches: the jobs are gone");
}

async function transactions(client, listener) {
  const [id] = await makeJobs(client, "executing");
  const heard = [];
  listener.on("notification", ({ channel, payload }) => heard.push([channel, payload]));
  await listener.query(`LISTEN "${schema}.oban_signal"`);

  await client.query("BEGIN");
  const changed = await value(client, "SELECT oban_cancel_job($1::bigint)", [id]);
  same(changed, true, "in a transaction: changed");
  await client.query("ROLLBACK");
  same(await stateOf(client, id), "executing", "rolled back: as it was");

  await client.query("BEGIN");
  await client.query("SELECT oban_cancel_job($1::bigint)", [id]);
  await client.query("COMMIT");
  same(await stateOf(client, id), "cancelled", "committed: cancelled");

  const deadline = Date.now() + 30000;
  while (heard.length === 0 && Date.now() < deadline) await listener.query("SELECT 1");
  await listener.query("SELECT 1");
  same(
    heard,
    [[`${schema}.oban_signal`, `{"action":"pkill","job_id":${id}}`]],
    "the worker is told of the commit, and of nothing else",
  );
}

psql(
  ...["-c", "SET client_min_messages = warning"],
  ...["-c", "CREATE EXTENSION IF NOT EXISTS oban_manage"],
  ...["-c", `DROP SCHEMA IF EXISTS ${schema} CASCADE`],
);
psql("-v", `schema=${schema}`, "-v", "version=14", "-f", fixture);

const options = `-c search_path=${schema},public -c oban_manage.prefix=${schema}`;
const client = new pg.Client({ options });
const listener = new pg.Client();
await client.connect();
await listener.connect();
try {
  await cancelRetryDelete(client);
  await update(client);
  await callables(client);
  await filters(client);
  await outcomes(client);
  await batches(client);
  await transactions(client, listener);
  await client.query(`DROP SCHEMA ${schema} CASCADE`);
} finally {
  await client.end();
  await listener.end();
}
console.log(`1..${count}`);
process.exitCode = failed > 0 ? 1 : 0;
