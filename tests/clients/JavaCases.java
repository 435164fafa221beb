// The behaviours of cases.py, tried with kusto-data and kusto-ingest for Java.
// Takes the addresses as `name=value` arguments, prints {"name", "answer"} for each case, one on a line.

import com.azure.core.exception.AzureException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.microsoft.azure.kusto.data.Client;
import com.microsoft.azure.kusto.data.ClientFactory;
import com.microsoft.azure.kusto.data.ClientRequestProperties;
import com.microsoft.azure.kusto.data.auth.ConnectionStringBuilder;
import com.microsoft.azure.kusto.data.exceptions.KustoDataExceptionBase;
import com.microsoft.azure.kusto.ingest.ColumnMapping;
import com.microsoft.azure.kusto.ingest.IngestClient;
import com.microsoft.azure.kusto.ingest.IngestClientFactory;
import com.microsoft.azure.kusto.ingest.IngestionMapping.IngestionMappingKind;
import com.microsoft.azure.kusto.ingest.IngestionProperties;
import com.microsoft.azure.kusto.ingest.IngestionProperties.DataFormat;
import com.microsoft.azure.kusto.ingest.IngestionProperties.IngestionReportLevel;
import com.microsoft.azure.kusto.ingest.IngestionProperties.IngestionReportMethod;
import com.microsoft.azure.kusto.ingest.result.IngestionResult;
import com.microsoft.azure.kusto.ingest.source.BlobSourceInfo;
import com.microsoft.azure.kusto.ingest.source.FileSourceInfo;
import com.microsoft.azure.kusto.ingest.source.StreamSourceInfo;
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Callable;

public class JavaCases {
    static final long WAIT_MS = 20_000;
    static final String LINES = "{\"n\": 1, \"s\": \"x\"}\n{\"n\": 2, \"s\": \"y\"}\n";
    static final String MAPPING =
            "[{\"Column\": \"n\", \"Properties\": {\"Path\": \"$.n\"}}, {\"Column\": \"s\", \"Properties\": {\"Path\": \"$.s\"}}]";
    static final ObjectMapper JSON = new ObjectMapper();
    static final HttpClient HTTP = HttpClient.newHttpClient();

    static final Map<String, String> config = new HashMap<>();
    static Client query;
    static IngestClient queued;
    static IngestClient streaming;
    static IngestClient managed;

    interface Work {
        void run() throws Exception;
    }

    static ConnectionStringBuilder to(String url) {
        ConnectionStringBuilder builder = ConnectionStringBuilder.createWithAadAccessTokenAuthentication(url, "any token");
        builder.setApplicationNameForTracing("matrix");
        return builder;
    }

    static List<List<Object>> ask(String kql, ClientRequestProperties properties) throws Exception {
        boolean command = kql.startsWith(".");
        return (command ? query.executeMgmt("db", kql, properties) : query.executeQuery("db", kql, properties))
                .getPrimaryResults().getData();
    }

    static List<List<Object>> ask(String kql) throws Exception {
        return ask(kql, new ClientRequestProperties());
    }

    static String table(boolean withStreaming) throws Exception {
        String name = "Java_" + UUID.randomUUID().toString().substring(0, 8);
        ask(".create table " + name + " (n: long, s: string)");
        if (withStreaming) ask(".alter table " + name + " policy streamingingestion enable");
        return name;
    }

    static int rows(String name) throws Exception {
        return ((Number) ask(name + " | count").get(0).get(0)).intValue();
    }

    static JsonNode control(String method, String page, Map<String, Object> body) throws Exception {
        var publisher = body == null ? BodyPublishers.noBody() : BodyPublishers.ofString(JSON.writeValueAsString(body));
        var request = HttpRequest.newBuilder(URI.create(config.get("control") + "/local/" + page)).method(method, publisher);
        var reply = HTTP.send(request.build(), BodyHandlers.ofString());
        if (reply.statusCode() != 200) throw new IllegalStateException(reply.body());
        return JSON.readTree(reply.body());
    }

    static void fault(Object... wanted) throws Exception {
        Map<String, Object> body = new HashMap<>();
        for (int i = 0; i < wanted.length; i += 2) body.put((String) wanted[i], wanted[i + 1]);
        control("POST", "faults", body);
    }

    static IngestionProperties properties(String name, DataFormat format) {
        IngestionProperties properties = new IngestionProperties("db", name);
        properties.setDataFormat(format);
        properties.setFlushImmediately(true);
        return properties;
    }

    static StreamSourceInfo stream(String text) {
        return new StreamSourceInfo(new ByteArrayInputStream(text.getBytes(StandardCharsets.UTF_8)));
    }

    static FileSourceInfo file(String name) {
        return new FileSourceInfo(config.get("files") + "/" + name);
    }

    static String text(int count) {
        return count == 1 ? "1 row" : count + " rows";
    }

    /** The number of rows, once they are as many as expected and a moment after that; or the code of a failure. */
    static String waited(String name, int count) throws Exception {
        for (long deadline = System.currentTimeMillis() + WAIT_MS; rows(name) < count && System.currentTimeMillis() < deadline; ) {
            var failures = ask(".show ingestion failures | where Table == '" + name + "' | project ErrorCode");
            if (!failures.isEmpty()) return (String) failures.get(0).get(0);
            Thread.sleep(100);
        }
        Thread.sleep(500);
        return text(rows(name));
    }

    /** How the rows came: visible when the client returned, or by the queue. */
    static String byWay(String name, int count) throws Exception {
        int atOnce = rows(name);
        if (atOnce > 0) return text(atOnce) + " at once";
        String found = waited(name, count);
        int sealed = 0;
        for (JsonNode batch : control("GET", "batches", null).get("batches"))
            if (batch.get("table").asText().equals(name)) sealed++;
        return sealed == 1 ? found + " by the queue" : found;
    }

    static String refused(Work work) throws Exception {
        try {
            work.run();
        } catch (AzureException error) {
            for (Throwable cause = error; cause != null; cause = cause.getCause())
                if (cause instanceof KustoDataExceptionBase told)
                    return told.getClass().getSimpleName() + ", " + (told.isPermanent() ? "permanent" : "transient");
            return error.getClass().getSimpleName();
        }
        return "not refused";
    }

    static String queuedFile(String name, DataFormat format) throws Exception {
        String target = table(false);
        queued.ingestFromFile(file(name), properties(target, format));
        return waited(target, 2);
    }

    static String byManaged(Object... wanted) throws Exception {
        String target = table(true);
        if (wanted.length > 0) fault(wanted);
        managed.ingestFromStream(stream(LINES), properties(target, DataFormat.JSON));
        return byWay(target, 2);
    }

    static String queryTypes() throws Exception {
        var row = ask("print b=true, i=int(7), l=9007199254740993, r=1.5, s='x', t=datetime(2020-01-02T03:04:05Z), p=1d,"
                + " g=guid(11111111-2222-4333-8444-555555555555), d=dynamic({'k': [1]}), none=long(null)").get(0);
        String expected = "[true, 7, 9007199254740993, 1.5, x, 2020-01-02T03:04:05Z, 1.00:00:00,"
                + " 11111111-2222-4333-8444-555555555555, {\"k\":[1]}, null]";
        return row.toString().equals(expected) ? "as written" : row.toString();
    }

    static String queryParameters() throws Exception {
        ClientRequestProperties asked = new ClientRequestProperties();
        asked.setParameter("s", "a b");
        asked.setParameter("n", 5L);
        var row = ask("declare query_parameters(s: string, n: long); print s, n", asked).get(0);
        return row.get(0) + " " + row.get(1);
    }

    static String requestProperties() throws Exception {
        ClientRequestProperties asked = new ClientRequestProperties();
        asked.setClientRequestId("matrix;" + UUID.randomUUID());
        ask("print 1", asked);
        int found = 0;
        for (JsonNode one : control("GET", "requests", null).get("requests"))
            if (one.get("client_request_id").asText().equals(asked.getClientRequestId())
                    && one.get("application").asText().equals("matrix")) found++;
        return found == 1 ? "yes" : "found " + found;
    }

    static String serverTimeout() throws Exception {
        ClientRequestProperties asked = new ClientRequestProperties();
        // Its own range for a timeout begins at one minute.
        asked.setOption("servertimeout", "00:00:00.05");
        String numbers = "range %s from 1 to 100000 step 1 | extend k = 1";
        String slow = numbers.formatted("a") + " | join kind=inner (" + numbers.formatted("b") + ") on k | summarize sum(a * b)";
        return refused(() -> ask(slow, asked));
    }

    static String unknownOption() throws Exception {
        ClientRequestProperties asked = new ClientRequestProperties();
        asked.setOption("surprise", true);
        return refused(() -> ask("print 1", asked));
    }

    static String management() throws Exception {
        String name = table(false);
        ask(".alter table " + name + " policy ingestionbatching @'{\"MaximumNumberOfItems\": 5}'");
        var results = query.executeMgmt("db", ".show table " + name + " cslschema").getPrimaryResults();
        results.next();
        String schema = results.getString("Schema");
        ask(".drop table " + name);
        return schema;
    }

    static String refusedAfter(Object... wanted) throws Exception {
        fault(wanted);
        return refused(() -> ask("print 1"));
    }

    static String queuedBlob() throws Exception {
        String name = table(false);
        queued.ingestFromBlob(new BlobSourceInfo(config.get("blob")), properties(name, DataFormat.JSON));
        return waited(name, 2);
    }

    static String queuedFiles() throws Exception {
        String name = table(false);
        for (String one : List.of("rows.csv", "rows.csv.gz")) queued.ingestFromFile(file(one), properties(name, DataFormat.CSV));
        return waited(name, 4);
    }

    static String queuedStream() throws Exception {
        String name = table(false);
        queued.ingestFromStream(stream(LINES), properties(name, DataFormat.JSON));
        return waited(name, 2);
    }

    static String queuedMapping() throws Exception {
        String name = table(false);
        ask(".create table " + name + " ingestion json mapping 'M' '" + MAPPING + "'");
        IngestionProperties byName = properties(name, DataFormat.JSON);
        byName.setIngestionMapping("M", IngestionMappingKind.JSON);
        ColumnMapping[] columns = {new ColumnMapping("n", "long"), new ColumnMapping("s", "string")};
        for (ColumnMapping column : columns) column.setPath("$." + column.getColumnName());
        IngestionProperties inline = properties(name, DataFormat.JSON);
        inline.setIngestionMapping(columns, IngestionMappingKind.JSON);
        for (IngestionProperties one : List.of(byName, inline))
            queued.ingestFromStream(stream("{\"n\": 1, \"s\": \"x\"}"), one);
        return waited(name, 2);
    }

    static String queuedOnce() throws Exception {
        String name = table(false);
        for (int time = 0; time < 2; time++) {
            IngestionProperties once = properties(name, DataFormat.CSV);
            once.setIngestByTags(List.of("a"));
            once.setIngestIfNotExists(List.of("a"));
            queued.ingestFromStream(stream("1,x\n"), once);
            waited(name, 1);
        }
        return text(rows(name));
    }

    static String resourcesThrottled() throws Exception {
        String name = table(false);
        fault("do", "throttle", "role", "dm", "contains", "ingestion resources", "count", 2);
        try (IngestClient fresh = IngestClientFactory.createClient(to(config.get("dm")), null, false)) {
            fresh.ingestFromStream(stream(LINES), properties(name, DataFormat.JSON));
        }
        return waited(name, 2);
    }

    static String statusTable() throws Exception {
        String name = table(false);
        IngestionProperties watched = properties(name, DataFormat.JSON);
        watched.setReportLevel(IngestionReportLevel.FAILURES_AND_SUCCESSES);
        watched.setReportMethod(IngestionReportMethod.TABLE);
        // Held up, so that the first look comes before its end.
        fault("do", "delay_blob", "table", name, "delay_s", 8);
        IngestionResult result = queued.ingestFromBlob(new BlobSourceInfo(config.get("blob")), watched);
        String first = result.getIngestionStatusCollection().get(0).getStatus();
        String last = first;
        for (long deadline = System.currentTimeMillis() + WAIT_MS; last.equals("Pending") && System.currentTimeMillis() < deadline; ) {
            Thread.sleep(200);
            last = result.getIngestionStatusCollection().get(0).getStatus();
        }
        return first + ", then " + last;
    }

    static String streamed(Work work, String name) throws Exception {
        String answer = refused(work);
        return answer.equals("not refused") ? byWay(name, 2) : answer;
    }

    static String streamingFile(String source, DataFormat format) throws Exception {
        String name = table(true);
        return streamed(() -> streaming.ingestFromFile(file(source), properties(name, format)), name);
    }

    static String streamingBlob() throws Exception {
        String name = table(true);
        var blob = new BlobSourceInfo(config.get("blob"));
        return streamed(() -> streaming.ingestFromBlob(blob, properties(name, DataFormat.JSON)), name);
    }

    static String streamingStream(boolean allowed) throws Exception {
        String name = table(allowed);
        return streamed(() -> streaming.ingestFromStream(stream(LINES), properties(name, DataFormat.JSON)), name);
    }

    static String managedLarge() throws Exception {
        String name = table(true);
        managed.ingestFromFile(file("large.csv"), properties(name, DataFormat.CSV));
        return byWay(name, 1);
    }

    static String managedPermanent() throws Exception {
        String name = table(false);
        return streamed(() -> managed.ingestFromStream(stream(LINES), properties(name, DataFormat.JSON)), name);
    }

    static String managedLostReply() throws Exception {
        String name = table(true);
        fault("do", "lose_reply", "on", "streaming");
        String answer = refused(() -> managed.ingestFromStream(stream(LINES), properties(name, DataFormat.JSON)));
        String found = waited(name, 2);
        return answer.equals("not refused") ? found : answer + ", " + found;
    }

    static Map<String, Callable<String>> cases() {
        Map<String, Callable<String>> cases = new LinkedHashMap<>();
        cases.put("query_types", JavaCases::queryTypes);
        cases.put("query_parameters", JavaCases::queryParameters);
        cases.put("request_properties", JavaCases::requestProperties);
        cases.put("server_timeout", JavaCases::serverTimeout);
        cases.put("unknown_option", JavaCases::unknownOption);
        cases.put("semantic_error", () -> refused(() -> ask("print a = 1 | where b == 1")));
        cases.put("management", JavaCases::management);
        cases.put("throttled", () -> refusedAfter("do", "throttle", "on", "query"));
        cases.put("unavailable", () -> refusedAfter("do", "status", "status", 503, "on", "query"));
        cases.put("dropped", () -> refusedAfter("do", "drop", "on", "query"));
        cases.put("queued_blob", JavaCases::queuedBlob);
        cases.put("queued_file", JavaCases::queuedFiles);
        cases.put("queued_stream", JavaCases::queuedStream);
        cases.put("queued_tsv", () -> queuedFile("rows.tsv", DataFormat.TSV));
        cases.put("queued_avro", () -> queuedFile("rows.avro", DataFormat.AVRO));
        cases.put("queued_parquet", () -> queuedFile("rows.parquet", DataFormat.PARQUET));
        cases.put("queued_mapping", JavaCases::queuedMapping);
        cases.put("queued_once", JavaCases::queuedOnce);
        cases.put("resources_throttled", JavaCases::resourcesThrottled);
        cases.put("status_table", JavaCases::statusTable);
        cases.put("streaming_stream", () -> streamingStream(true));
        cases.put("streaming_file", () -> streamingFile("rows.csv", DataFormat.CSV));
        cases.put("streaming_blob", JavaCases::streamingBlob);
        cases.put("streaming_avro", () -> streamingFile("rows.avro", DataFormat.AVRO));
        cases.put("streaming_off", () -> streamingStream(false));
        cases.put("managed_small", () -> byManaged());
        cases.put("managed_once_throttled", () -> byManaged("do", "throttle", "on", "streaming"));
        cases.put("managed_throttled", () -> byManaged("do", "throttle", "on", "streaming", "count", null));
        cases.put("managed_unavailable", () -> byManaged("do", "status", "status", 503, "on", "streaming", "count", null));
        cases.put("managed_large", JavaCases::managedLarge);
        cases.put("managed_permanent", JavaCases::managedPermanent);
        cases.put("managed_lost_reply", JavaCases::managedLostReply);
        return cases;
    }

    public static void main(String[] arguments) throws Exception {
        for (String argument : arguments) {
            String[] parts = argument.split("=", 2);
            config.put(parts[0], parts[1]);
        }
        query = ClientFactory.createClient(to(config.get("engine")));
        queued = IngestClientFactory.createClient(to(config.get("dm")), null, false);
        streaming = IngestClientFactory.createStreamingIngestClient(to(config.get("engine")), null, false);
        managed = IngestClientFactory.createManagedStreamingIngestClient(to(config.get("dm")), to(config.get("engine")), null, false);
        for (var one : cases().entrySet()) {
            String answer;
            try {
                answer = one.getValue().call();
            } catch (Exception error) {
                answer = "failed: " + error.getClass().getSimpleName() + ": " + String.valueOf(error.getMessage());
                answer = answer.substring(0, Math.min(answer.length(), 200));
            }
            control("DELETE", "faults", null);
            System.out.println(JSON.writeValueAsString(Map.of("name", one.getKey(), "answer", answer)));
        }
        System.exit(0);
    }
}
