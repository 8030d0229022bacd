package aril.client;

import java.util.Map;

/** How a client connects; what is left out is as a deployment has it by default. */
public final class ClientBuilder {
    /** Events that one job may be ahead of its caller: a few screens of text. */
    private static final int INBOX_EVENTS = 512;

    final String tenant;
    String jobsTopic = "jobs";
    Signer signer;
    int inboxEvents = INBOX_EVENTS;
    private final String bootstrap;
    private String repliesPrefix = "replies.";
    private Map<String, ?> kafka = Map.of();

    ClientBuilder(String bootstrap, String tenant) {
        if (!Limits.isTenant(tenant)) {
            throw new IllegalArgumentException(
                    "'" + tenant + "' is not a tenant's name (lower case, digits, -)");
        }
        this.bootstrap = bootstrap;
        this.tenant = tenant;
    }

    /** Where jobs are sent; {@code jobs.<tenant>} where a deployment gives each one its own. */
    public ClientBuilder jobsTopic(String topic) {
        jobsTopic = topic;
        return this;
    }

    public ClientBuilder repliesPrefix(String prefix) {
        repliesPrefix = prefix;
        return this;
    }

    /** Settings for the Kafka library: {@code security.protocol}, {@code sasl.*}, {@code ssl.*}. */
    public ClientBuilder kafka(Map<String, ?> settings) {
        kafka = settings;
        return this;
    }

    /** Signs every job and cancel, where workers ask for that. */
    public ClientBuilder signer(Signer key) {
        signer = key;
        return this;
    }

    /** Bounds how many events of a job wait for its caller; beyond it the log is read again. */
    public ClientBuilder inboxEvents(int most) {
        if (most < 1) {
            throw new IllegalArgumentException("an inbox holds 1 event or more, not " + most);
        }
        inboxEvents = most;
        return this;
    }

    /**
     * Connects.
     *
     * @throws BrokerUnavailableException if the brokers cannot be reached or refuse
     * @throws TopicMissingException if the jobs topic or the tenant's reply topic does not exist
     * @throws IllegalArgumentException for a Kafka setting that the client chooses itself
     */
    public ArilClient open() {
        KafkaSettings settings = new KafkaSettings(bootstrap, kafka);
        String replyTopic = repliesPrefix + tenant;
        return new ArilClient(this, new KafkaTransport(settings, jobsTopic, replyTopic));
    }
}
