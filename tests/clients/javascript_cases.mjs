// The behaviours of cases.py, tried with azure-kusto-data and azure-kusto-ingest for JavaScript.
// Takes a JSON object of addresses, prints {"name", "answer"} for each function of `cases`, one on a line.
import fs from "node:fs";
import path from "node:path";
import { randomUUID } from "node:crypto";
import { Readable } from "node:stream";
import { Client, ClientRequestProperties, KustoConnectionStringBuilder } from "azure-kusto-data";
import {
  BlobDescriptor,
  CompressionType,
  DataFormat,
  IngestClient,
  IngestStatusQueues,
  IngestionProperties,
  JsonColumnMapping,
  ManagedStreamingIngestClient,
  ReportLevel,
  ReportMethod,
  StreamDescriptor,
  StreamingIngestClient,
} from "azure-kusto-ingest";

const config = JSON.parse(process.argv[2]);
const WAIT_MS = 20_000;
const LINES = '{"n": 1, "s": "x"}\n{"n": 2, "s": "y"}\n';
const MAPPING = '[{"Column": "n", "Properties": {"Path": "$.n"}}, {"Column": "s", "Properties": {"Path": "$.s"}}]';

function to(url) {
  const builder = KustoConnectionStringBuilder.withAccessToken(`Data Source=${url}`, "any token");
  builder.applicationNameForTracing = "matrix";
  return builder;
}

const query = new Client(to(config.engine));
const queued = new IngestClient(to(config.dm));
const streaming = new StreamingIngestClient(to(config.engine));
const managed = new ManagedStreamingIngestClient(to(config.engine), to(config.dm));

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const file = (name) => path.join(config.files, name);
const stream = (text = LINES) => Readable.from(Buffer.from(text));
const text = (count) => (count === 1 ? "1 row" : `${count} rows`);

async function ask(kql, properties) {
  const reply = await query.execute("db", kql, properties);
  return [...reply.primaryResults[0].rows()].map((row) => row.toJSON());
}

async function table(withStreaming = false) {
  const name = `Js_${randomUUID().slice(0, 8)}`;
  await ask(`.create table ${name} (n: long, s: string)`);
  if (withStreaming) await ask(`.alter table ${name} policy streamingingestion enable`);
  return name;
}

const rows = async (name) => (await ask(`${name} | count`))[0].Count;

async function control(page, wanted) {
  const options = wanted && { method: "POST", body: JSON.stringify(wanted) };
  const reply = await fetch(`${config.control}/local/${page}`, options);
  if (!reply.ok) throw new Error(await reply.text());
  return reply.json();
}

const fault = (wanted) => control("faults", wanted);

function properties(name, format = DataFormat.CSV, more = {}) {
  return new IngestionProperties({ database: "db", table: name, format, flushImmediately: true, ...more });
}

// The number of rows, once they are as many as expected and a moment after that; or the code of a failure.
async function waited(name, count) {
  const deadline = Date.now() + WAIT_MS;
  while ((await rows(name)) < count && Date.now() < deadline) {
    const [failure] = await ask(`.show ingestion failures | where Table == '${name}' | project ErrorCode`);
    if (failure) return failure.ErrorCode;
    await pause(100);
  }
  await pause(500);
  return text(await rows(name));
}

// How the rows came: visible when the client returned, or by the queue.
async function byWay(name, count = 2) {
  const atOnce = await rows(name);
  if (atOnce) return `${text(atOnce)} at once`;
  const found = await waited(name, count);
  const sealed = (await control("batches")).batches.filter((batch) => batch.table === name);
  return sealed.length === 1 ? `${found} by the queue` : found;
}

async function refused(work) {
  try {
    await work();
  } catch (error) {
    const body = error.response?.data?.error;
    if (body) return `${error.response.status}, ${body["@permanent"] ? "permanent" : "transient"}`;
    return error.name === "Error" || error.name === "AxiosError" ? error.message : error.constructor.name;
  }
  return "not refused";
}

async function queuedFile(name, format) {
  const target = await table();
  await queued.ingestFromFile(file(name), properties(target, format));
  return waited(target, 2);
}

async function reported(target) {
  const source = randomUUID();
  const blob = new BlobDescriptor(config.blob, LINES.length, source);
  await queued.ingestFromBlob(blob, properties(target, DataFormat.JSON, { reportLevel: ReportLevel.FailuresAndSuccesses }));
  const queues = new IngestStatusQueues(queued);
  for (const deadline = Date.now() + WAIT_MS; Date.now() < deadline; await pause(100)) {
    const messages = [...(await queues.success.pop(16)), ...(await queues.failure.pop(16))];
    const mine = messages.find((message) => message.IngestionSourceId === source);
    if (mine) return mine;
  }
  return {};
}

async function byManaged(wanted) {
  const target = await table(true);
  if (wanted) await fault({ on: "streaming", ...wanted });
  await managed.ingestFromStream(stream(), properties(target, DataFormat.JSON));
  return byWay(target);
}

const cases = {
  async query_types() {
    const [row] = await ask(
      "print b=true, i=int(7), l=9007199254740993, r=1.5, s='x', t=datetime(2020-01-02T03:04:05Z), p=1d," +
        " g=guid(11111111-2222-4333-8444-555555555555), d=dynamic({'k': [1]}), none=long(null)",
    );
    const expected = {
      ...{ b: true, i: 7, l: 9007199254740992, r: 1.5, s: "x", t: "2020-01-02T03:04:05.000Z" },
      ...{ p: 86_400_000, g: "11111111-2222-4333-8444-555555555555", d: { k: [1] }, none: null },
    };
    const found = JSON.parse(JSON.stringify(row));
    return JSON.stringify(found) === JSON.stringify(expected) ? "long to 53 bits" : JSON.stringify(found);
  },
  async query_parameters() {
    const asked = new ClientRequestProperties();
    asked.setParameter("s", "a b");
    asked.setParameter("n", 5);
    return Object.values((await ask("declare query_parameters(s: string, n: long); print s, n", asked))[0]).join(" ");
  },
  async request_properties() {
    const asked = new ClientRequestProperties();
    asked.clientRequestId = `matrix;${randomUUID()}`;
    await ask("print 1", asked);
    const found = (await control("requests")).requests.filter((one) => one.client_request_id === asked.clientRequestId);
    return found.length === 1 && found[0].application === "matrix" ? "yes" : JSON.stringify(found);
  },
  async server_timeout() {
    const asked = new ClientRequestProperties();
    asked.setTimeout(50);
    const numbers = (name) => `range ${name} from 1 to 100000 step 1 | extend k = 1`;
    return refused(() => ask(`${numbers("a")} | join kind=inner (${numbers("b")}) on k | summarize sum(a * b)`, asked));
  },
  async unknown_option() {
    const asked = new ClientRequestProperties();
    asked.setOption("surprise", true);
    return refused(() => ask("print 1", asked));
  },
  semantic_error: () => refused(() => ask("print a = 1 | where b == 1")),
  async management() {
    const name = await table();
    await ask(`.alter table ${name} policy ingestionbatching @'{"MaximumNumberOfItems": 5}'`);
    const [shown] = await ask(`.show table ${name} cslschema`);
    await ask(`.drop table ${name}`);
    return shown.Schema;
  },
  async throttled() {
    await fault({ do: "throttle", on: "query" });
    return refused(() => ask("print 1"));
  },
  async unavailable() {
    await fault({ do: "status", status: 503, on: "query" });
    return refused(() => ask("print 1"));
  },
  async dropped() {
    await fault({ do: "drop", on: "query" });
    return refused(() => ask("print 1"));
  },
  async queued_blob() {
    const name = await table();
    await queued.ingestFromBlob(new BlobDescriptor(config.blob, LINES.length), properties(name, DataFormat.JSON));
    return waited(name, 2);
  },
  async queued_file() {
    const name = await table();
    for (const one of ["rows.csv", "rows.csv.gz"]) await queued.ingestFromFile(file(one), properties(name));
    return waited(name, 4);
  },
  async queued_stream() {
    const name = await table();
    await queued.ingestFromStream(stream(), properties(name, DataFormat.JSON));
    return waited(name, 2);
  },
  queued_tsv: () => queuedFile("rows.tsv", DataFormat.TSV),
  queued_avro: () => queuedFile("rows.avro", DataFormat.AVRO),
  queued_parquet: () => queuedFile("rows.parquet", DataFormat.PARQUET),
  async queued_mapping() {
    const name = await table();
    await ask(`.create table ${name} ingestion json mapping 'M' '${MAPPING}'`);
    const inline = [JsonColumnMapping.withPath("n", "$.n", "long"), JsonColumnMapping.withPath("s", "$.s", "string")];
    for (const mapping of [{ ingestionMappingReference: "M" }, { ingestionMappingColumns: inline }])
      await queued.ingestFromStream(stream('{"n": 1, "s": "x"}'), properties(name, DataFormat.JSON, mapping));
    return waited(name, 2);
  },
  async queued_once() {
    const name = await table();
    for (let time = 0; time < 2; time++) {
      const once = properties(name, DataFormat.CSV, { ingestByTags: ["a"], ingestIfNotExists: '["a"]' });
      await queued.ingestFromStream(stream("1,x\n"), once);
      await waited(name, 1);
    }
    return text(await rows(name));
  },
  async resources_throttled() {
    const name = await table();
    await fault({ do: "throttle", role: "dm", contains: "ingestion resources", count: 2 });
    const fresh = new IngestClient(to(config.dm));
    await fresh.ingestFromStream(stream(), properties(name, DataFormat.JSON));
    fresh.close();
    return waited(name, 2);
  },
  async success_queue() {
    const message = await reported(await table());
    return message.SucceededOn ? "the source's id" : JSON.stringify(message);
  },
  async failure_queue() {
    return (await reported("NoSuchTable")).ErrorCode ?? "nothing";
  },
  async status_table() {
    const name = await table();
    const watched = { reportLevel: ReportLevel.FailuresAndSuccesses, reportMethod: ReportMethod.Table };
    // Without a flush the blob waits for its batch, so that the first look comes before its end.
    await ask(`.alter table ${name} policy ingestionbatching '{"MaximumBatchingTimeSpan": "00:30:00"}'`);
    const asked = properties(name, DataFormat.JSON, { ...watched, flushImmediately: false });
    const blob = new BlobDescriptor(config.blob, LINES.length);
    await fault({ do: "delay_blob", table: name, delay_s: 8 });
    const result = await queued.ingestFromBlob(blob, asked);
    const first = (await result.getIngestionStatusCollection()).Status;
    let last = first;
    for (const deadline = Date.now() + WAIT_MS; last === "Pending" && Date.now() < deadline; await pause(200))
      last = (await result.getIngestionStatusCollection()).Status;
    return `${first}, then ${last}`;
  },
  async streaming_stream() {
    const name = await table(true);
    await streaming.ingestFromStream(stream(), properties(name, DataFormat.JSON));
    return byWay(name);
  },
  async streaming_file() {
    const name = await table(true);
    await streaming.ingestFromFile(file("rows.csv"), properties(name));
    return byWay(name);
  },
  async streaming_blob() {
    const name = await table(true);
    await streaming.ingestFromBlob(new BlobDescriptor(config.blob, LINES.length), properties(name, DataFormat.JSON));
    return byWay(name);
  },
  async streaming_avro() {
    const name = await table(true);
    const answer = await refused(() => streaming.ingestFromFile(file("rows.avro"), properties(name, DataFormat.AVRO)));
    return answer === "not refused" ? byWay(name) : answer;
  },
  async streaming_off() {
    const name = await table();
    return refused(() => streaming.ingestFromStream(stream(), properties(name, DataFormat.JSON)));
  },
  managed_small: () => byManaged(),
  managed_once_throttled: () => byManaged({ do: "throttle" }),
  managed_throttled: () => byManaged({ do: "throttle", count: null }),
  managed_unavailable: () => byManaged({ do: "status", status: 503, count: null }),
  async managed_large() {
    const name = await table(true);
    const large = new StreamDescriptor(fs.createReadStream(file("large.csv")), randomUUID(), CompressionType.None);
    await managed.ingestFromStream(large, properties(name));
    return byWay(name, 1);
  },
  async managed_permanent() {
    const name = await table();
    const answer = await refused(() => managed.ingestFromStream(stream(), properties(name, DataFormat.JSON)));
    return answer === "not refused" ? byWay(name) : answer;
  },
  async managed_lost_reply() {
    const name = await table(true);
    await fault({ do: "lose_reply", on: "streaming" });
    const answer = await refused(() => managed.ingestFromStream(stream(), properties(name, DataFormat.JSON)));
    const found = await waited(name, 2);
    return answer === "not refused" ? found : `${answer}, ${found}`;
  },
};

for (const [name, run] of Object.entries(cases)) {
  let answer;
  try {
    answer = await run();
  } catch (error) {
    answer = `failed: ${error.constructor.name}: ${String(error.message).slice(0, 200)}`;
  }
  await fetch(`${config.control}/local/faults`, { method: "DELETE" });
  console.log(JSON.stringify({ name, answer }));
}
for (const client of [query, queued, streaming, managed]) client.close();
