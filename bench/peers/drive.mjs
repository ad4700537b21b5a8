// Runs operations of pg-boss, of graphile-worker and of the extension, and times them.
//
// Usage: node --expose-gc drive.mjs JOBS_SCHEMA PG_BOSS_SCHEMA GRAPHILE_SCHEMA
//
// Connects by PGHOST, PGPORT, PGUSER and PGDATABASE. Makes the tables of the two, and then
// prints {versions}; from then on a line {side, verb, ids} of JSON is answered by {ms, changed}.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { makeWorkerUtils, Logger } from "graphile-worker";
import pg from "pg";
import { PgBoss } from "pg-boss";

const QUEUE = "jobs";
const DAY = 86_400_000;
// One connection a side, which stays: none is made while the clock runs.
const POOL = {
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT ?? 5432),
  user: process.env.PGUSER,
  database: process.env.PGDATABASE,
  max: 1,
  idleTimeoutMillis: 0,
};

const [jobsSchema, bossSchema, graphileSchema] = process.argv.slice(2);

// As in the SQL that loads pg-boss's table.
function uuid(id) {
  const hex = createHash("md5").update(String(id)).digest("hex");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

// node-postgres gives a bigint as a string, so that is how programs hold ids.
const asStrings = (ids) => ids.map(String);

function makePool(options) {
  const pool = new pg.Pool({ ...POOL, ...options });
  pool.on("error", (error) => console.error(error));
  pool.on("connect", (client) => client.on("error", (error) => console.error(error)));
  return pool;
}

// As both libraries do, without a name for the statement, that is, parsed each time.
function makeExtension() {
  const pool = makePool({ options: `-c oban_manage.prefix=${jobsSchema}` });

  function verb(name) {
    return async (ids) => {
      const one = ids.length === 1;
      const query = one
        ? `SELECT oban_${name}_job($1::bigint) AS changed`
        : `SELECT oban_${name}_many_jobs($1::bigint[]) AS changed`;
      const { rows } = await pool.query(query, [one ? ids[0] : ids]);
      return Number(rows[0].changed);
    };
  }

  async function update(ids) {
    const changes = { scheduled_at: new Date(Date.now() + DAY).toISOString(), priority: 5 };
    const one = ids.length === 1;
    const query = one
      ? "SELECT * FROM oban_update_job($1::bigint, $2::jsonb)"
      : "SELECT * FROM oban_update_many_jobs($1::bigint[], $2::jsonb)";
    const { rows } = await pool.query(query, [one ? ids[0] : ids, changes]);
    return rows.length;
  }

  return {
    toIds: asStrings,
    verbs: {
      cancel: verb("cancel"),
      retry: verb("retry"),
      resume: verb("retry"),
      delete: verb("delete"),
      update,
    },
  };
}

// Without what it does besides, at intervals, and with a table for the queue alone, which has the
// fewest indexes.
async function makePgBoss() {
  const boss = new PgBoss({
    ...POOL,
    schema: bossSchema,
    supervise: false,
    schedule: false,
    registerInstance: false,
    openTelemetry: { enabled: false },
    queueCacheIntervalSeconds: 3600,
  });
  boss.on("error", (error) => console.error(error));
  await boss.start();
  await boss.createQueue(QUEUE, { partition: true });

  const verb = (name) => async (ids) => (await boss[name](QUEUE, ids)).affected;
  return {
    toIds: (ids) => ids.map(uuid),
    verbs: {
      cancel: verb("cancel"),
      retry: verb("retry"),
      resume: verb("resume"),
      delete: verb("deleteJob"),
    },
  };
}

async function makeGraphile() {
  const toLog = () => (level, message) => {
    if (level === "error" || level === "warning") console.error(message);
  };
  const utils = await makeWorkerUtils({
    pgPool: makePool(),
    schema: graphileSchema,
    logger: new Logger(toLog),
  });
  await utils.migrate();

  const later = () => ({ runAt: new Date(Date.now() + DAY), priority: 5 });
  // A job that has failed for good has used up its 20 attempts.
  const again = () => ({ runAt: new Date(), maxAttempts: 21 });
  const reschedule = (options) => async (ids) =>
    (await utils.rescheduleJobs(ids, options())).length;
  return {
    toIds: asStrings,
    verbs: {
      cancel: async (ids) => (await utils.permanentlyFailJobs(ids, "cancelled")).length,
      retry: reschedule(again),
      resume: reschedule(again),
      delete: async (ids) => (await utils.completeJobs(ids)).length,
      update: reschedule(later),
    },
  };
}

async function run(sides, { side, verb, ids }) {
  const { toIds, verbs } = sides[side];
  const converted = toIds(ids);
  const operation = verbs[verb];
  // So that what one side leaves is not swept up in another's time.
  if (ids.length >= 100) global.gc();
  const start = process.hrtime.bigint();
  const changed = await operation(converted);
  const elapsed = process.hrtime.bigint() - start;
  return { ms: Number(elapsed) / 1e6, changed };
}

async function versions() {
  const { dependencies } = JSON.parse(await readFile(new URL("package.json", import.meta.url)));
  const all = Object.entries({ ...dependencies, node: process.versions.node });
  return all.map(([name, version]) => `${name} ${version}`).join(", ");
}

const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

const sides = {
  call: makeExtension(),
  "pg-boss": await makePgBoss(),
  "graphile-worker": await makeGraphile(),
};
say({ versions: await versions() });
for await (const line of createInterface({ input: process.stdin })) {
  say(await run(sides, JSON.parse(line)));
}
process.exit(); // The pools would keep it alive.
