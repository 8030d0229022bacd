import aril.client.ArilClient;
import aril.client.Event;
import aril.client.Job;
import aril.client.JobStream;
import aril.client.Sampling;

/** Asks one question and prints the answer as it comes. */
public final class Hello {
    public static void main(String[] arguments) {
        Job job = Job.prompt("What does an aril carry?")
                .adapter("support")
                .sampling(Sampling.builder().maxTokens(64).temperature(0))
                .build();
        try (ArilClient client = ArilClient.builder("localhost:9092", "acme").open();
                JobStream answer = client.stream(job)) {
            for (Event event : answer) {
                if (event instanceof Event.Tokens tokens) {
                    System.out.print(tokens.text());
                } else if (event instanceof Event.Reset) {
                    System.out.println(); // what was printed is withdrawn, and comes anew
                } else if (event instanceof Event.Done done) {
                    System.out.println(done.text() + " [" + done.finishReason() + "]");
                }
            }
        }
    }
}
