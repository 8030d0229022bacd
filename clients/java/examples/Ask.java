import aril.client.ArilClient;
import aril.client.ArilException;
import aril.client.ClientBuilder;
import aril.client.Event;
import aril.client.Job;
import aril.client.JobFailedException;
import aril.client.JobStream;
import aril.client.ResumeToken;
import aril.client.Sampling;
import aril.client.Signer;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import java.io.IOException;
import java.io.StringWriter;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/**
 * Asks one question and prints the answer as it comes, one JSON object a line.
 *
 * <pre>
 * java -cp 'target/aril-client-0.1.0.jar:target/libs/*' examples/Ask.java \
 *     bootstrap=localhost:9092 tenant=acme prompt='Hello!' adapter=support max_tokens=64
 * </pre>
 *
 * <p>Each line has the token to go on from; kill the program and give the last one as
 * {@code resume=TOKEN}. Exit code 1: the job ended in an error; 2: it could not be asked or read.
 */
public final class Ask {
    private final Map<String, String> given = new HashMap<>();

    private Ask(String[] arguments) {
        for (String each : arguments) {
            int at = each.indexOf('=');
            given.put(each.substring(0, at), each.substring(at + 1));
        }
    }

    public static void main(String[] arguments) throws IOException {
        System.exit(new Ask(arguments).run());
    }

    private int run() throws IOException {
        try (ArilClient client = builder().open();
                JobStream answer = given.containsKey("resume")
                        ? client.resume(ResumeToken.parse(given.get("resume")))
                        : client.stream(job())) {
            print(answer);
            return 0;
        } catch (JobFailedException error) {
            line(json -> {
                json.writeStringField("error", error.code().text());
                json.writeStringField("message", error.getMessage());
                json.writeBooleanField("retryable", error.retryable());
                json.writePOJOField("limit", error.limit());
                json.writePOJOField("given", error.given());
            });
            return 1;
        } catch (ArilException error) {
            System.err.println(error);
            return 2;
        }
    }

    /** With {@code env=true} the variables that workers read say where and who. */
    private ClientBuilder builder() {
        if (given.containsKey("env")) {
            return given.containsKey("tenant")
                    ? ArilClient.fromEnv(given.get("tenant"))
                    : ArilClient.fromEnv();
        }
        ClientBuilder builder = ArilClient.builder(given.get("bootstrap"), given.get("tenant"))
                .jobsTopic(given.getOrDefault("jobs_topic", "jobs"))
                .repliesPrefix(given.getOrDefault("replies_prefix", "replies."));
        if (given.containsKey("key")) {
            builder.signer(Signer.fromFile(Path.of(given.get("key")), given.get("key_id")));
        }
        return builder;
    }

    private Job job() {
        Sampling.Builder sampling = Sampling.builder()
                .maxTokens(Integer.parseInt(given.getOrDefault("max_tokens", "64")))
                .temperature(Double.parseDouble(given.getOrDefault("temperature", "1")))
                .ignoreEos(Boolean.parseBoolean(given.get("ignore_eos")));
        if (given.containsKey("seed")) {
            sampling.seed(Long.parseLong(given.get("seed")));
        }
        Job.Builder job = Job.prompt(given.get("prompt")).adapter(given.get("adapter"));
        return job.id(given.get("id")).sampling(sampling).build();
    }

    private void print(JobStream answer) throws IOException {
        int cancelAfter = Integer.parseInt(given.getOrDefault("cancel_after", "-1"));
        for (Event event : answer) {
            line(json -> {
                describe(json, event);
                json.writeStringField("token", answer.token().toString());
            });
            if (--cancelAfter == 0) {
                answer.cancel();
            }
        }
    }

    private static void describe(JsonGenerator json, Event event) throws IOException {
        if (event instanceof Event.Tokens tokens) {
            json.writeNumberField("index", tokens.index());
            int[] ids = tokens.ids().stream().mapToInt(Integer::intValue).toArray();
            json.writeFieldName("ids");
            json.writeArray(ids, 0, ids.length);
            json.writeStringField("text", tokens.text());
        } else if (event instanceof Event.Reset reset) {
            json.writeNumberField("withdrawn", reset.withdrawn());
        } else if (event instanceof Event.Done done) {
            json.writeStringField("text", done.text());
            json.writeStringField("finish_reason", done.finishReason().name());
            json.writeStringField("adapter", done.adapter());
            json.writeNumberField("seed", done.seed());
        }
    }

    /** What writes the fields of a line. */
    private interface Line {
        void write(JsonGenerator json) throws IOException;
    }

    private static void line(Line line) throws IOException {
        StringWriter text = new StringWriter();
        try (JsonGenerator json = new JsonFactory().createGenerator(text)) {
            json.writeStartObject();
            line.write(json);
            json.writeEndObject();
        }
        System.out.println(text);
        System.out.flush();
    }
}
