// Makes Azurite keep what it has acknowledged when it is killed, as Azure does: `node --require durable.js azurite.js`.
//
// Azurite holds its state in LokiJS, which writes all of it to disk every five seconds: SIGKILL loses what was
// acknowledged since. Here every change is also appended to a journal beside the database's file, before the
// reply leaves. Loading a database is then: its file, then its journal. A line is one JSON list of operations
// that belong together:
//
//   ["put", collection, document]  ["del", collection, $loki]  ["add", name, collection]  ["drop", name]
//
// They say what is, not what to change, so a journal that has partly gone into the file already does no harm.
// What one request does to tables is one line, because a transaction must be there whole or not at all.
"use strict";

const { AsyncLocalStorage } = require("node:async_hooks");
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");

const azurite = path.dirname(require.resolve(process.argv[1]));
const Loki = require(require.resolve("lokijs", { paths: [azurite] }));
const adapter = Loki.LokiFsAdapter.prototype;
const requests = new AsyncLocalStorage();

const newest = (file) => `${file}.journal`; // changes since the last write of the file began
const older = (file) => `${file}.journal.old`; // changes that this write contains, until it is done

function append(file, operations) {
    fs.appendFileSync(newest(file), JSON.stringify(operations, Loki.prototype.serializeReplacer) + "\n");
}

function record(file, operation) {
    const request = requests.getStore();
    if (request && !request.answered && path.basename(file).includes("table")) {
        request.changes.push({ file, operation });
    } else {
        append(file, [operation()]);
    }
}

// Documents are written as they are when the reply leaves: another request may have changed them meanwhile,
// and must not be undone by an older state further down the journal.
function answer(request) {
    request.answered = true;
    const files = new Set(request.changes.map((change) => change.file));
    for (const file of files) {
        append(file, request.changes.filter((change) => change.file === file).map((change) => change.operation()));
    }
}

http.Server.prototype.emit = ((emit) => function (event, incoming, response, ...rest) {
    if (event !== "request") return emit.call(this, event, incoming, response, ...rest);
    const request = { changes: [], answered: false };
    const writeHead = response.writeHead;
    response.writeHead = function (...head) {
        if (!request.answered) answer(request);
        return writeHead.apply(this, head);
    };
    return requests.run(request, () => emit.call(this, event, incoming, response, ...rest));
})(http.Server.prototype.emit);

function watch(database, collection) {
    const { filename: file } = database;
    const put = (documents) => {
        for (const { $loki } of [].concat(documents)) {
            record(file, () => {
                const now = collection.get($loki);
                return now ? ["put", collection.name, now] : ["del", collection.name, $loki];
            });
        }
    };
    collection.on("insert", put);
    collection.on("update", put);
    // While this event is told, the document is still there.
    collection.on("delete", ({ $loki }) => record(file, () => ["del", collection.name, $loki]));
}

Loki.prototype.addCollection = ((addCollection) => function (name, options) {
    const known = this.getCollection(name);
    const collection = addCollection.call(this, name, options);
    if (!known && this.persistenceMethod === "fs") {
        if (!this.loadingFile) append(this.filename, [["add", name, collection]]);
        watch(this, collection);
    }
    return collection;
})(Loki.prototype.addCollection);

Loki.prototype.removeCollection = ((removeCollection) => function (name) {
    if (this.persistenceMethod === "fs") append(this.filename, [["drop", name]]);
    return removeCollection.call(this, name);
})(Loki.prototype.removeCollection);

Loki.prototype.loadJSONObject = ((loadJSONObject) => function (...given) {
    this.loadingFile = true;
    loadJSONObject.apply(this, given);
    this.loadingFile = false;
    // The file's indexes know nothing of the journal.
    for (const collection of this.collections) collection.ensureAllIndexes(true);
})(Loki.prototype.loadJSONObject);

adapter.saveDatabase = ((saveDatabase) => function (file, text, done) {
    // `text` was made in this very turn: it contains every change that stands in the journal now.
    if (fs.existsSync(newest(file))) {
        fs.appendFileSync(older(file), fs.readFileSync(newest(file)));
        fs.rmSync(newest(file));
    }
    saveDatabase.call(this, file, text, (fault) => {
        if (!fault) fs.rmSync(older(file), { force: true });
        done(fault);
    });
})(adapter.saveDatabase);

adapter.loadDatabase = ((loadDatabase) => function (file, done) {
    loadDatabase.call(this, file, (text) => {
        const lines = [older(file), newest(file)].flatMap(read);
        done(typeof text === "string" && text && lines.length ? replay(JSON.parse(text), lines) : text);
    });
})(adapter.loadDatabase);

function read(journal) {
    if (!fs.existsSync(journal)) return [];
    // What follows the last line break was being written at the moment of death, and was never acknowledged.
    return fs.readFileSync(journal, "utf8").split("\n").slice(0, -1);
}

function replay(database, lines) {
    const byId = (collection) => new Map(collection.data.map((document) => [document.$loki, document]));
    const documents = new Map(database.collections.map((collection) => [collection.name, byId(collection)]));
    for (const [what, name, value] of lines.flatMap((line) => JSON.parse(line))) {
        if (what === "add" && !documents.has(name)) {
            database.collections.push({ ...value, data: [] });
            documents.set(name, new Map());
        } else if (what === "drop") {
            database.collections = database.collections.filter((one) => one.name !== name);
            documents.delete(name);
        } else if (what === "put") {
            documents.get(name)?.set(value.$loki, value);
        } else if (what === "del") {
            documents.get(name)?.delete(value);
        }
    }
    for (const collection of database.collections) {
        // LokiJS looks documents up by bisection.
        collection.data = [...documents.get(collection.name).values()].sort((one, other) => one.$loki - other.$loki);
        collection.idIndex = null;
        collection.maxId = collection.data.reduce((most, { $loki }) => Math.max(most, $loki), collection.maxId || 0);
    }
    return JSON.stringify(database);
}
