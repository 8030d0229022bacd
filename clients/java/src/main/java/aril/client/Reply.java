package aril.client;

/**
 * One record of a reply topic. {@link #decode} reads one, {@link ReplyDeserializer} does it for
 * Kafka Streams and Connect; which records count is for a {@link VisibleStream} to say.
 */
public sealed interface Reply {
    /** A record of version 1 that a job's writer wrote. */
    sealed interface Written extends Reply {
        /** The job's id, which is the record's key too. */
        String job();

        Epoch epoch();

        /** The writer; another one for each process start. */
        String worker();
    }

    /**
     * A new owner takes the job over and keeps what is visible.
     *
     * @param alone the job runs with nothing beside it, since earlier writers crashed
     * @param baseDigest of the weights of its backbone; null: not told
     */
    record Claim(String job, Epoch epoch, String worker, boolean alone, String baseDigest)
            implements Written {}

    /** A writer stops on purpose. */
    record Release(String job, Epoch epoch, String worker) implements Written {}

    /** Tokens. {@code baseDigest} as in a claim. */
    record Tokens(String job, Epoch epoch, String worker, Event.Tokens event, String baseDigest)
            implements Written {}

    /** The end of a whole answer. */
    record Done(String job, Epoch epoch, String worker, Event.Done event) implements Written {}

    /** The end of a job without one. */
    record Failed(String job, Epoch epoch, String worker, Event.Failed event) implements Written {}

    /** To whoever sent a job again: the offset of its partition where the first answer begins. */
    record Redirect(String job, long replyFrom) implements Reply {}

    /**
     * To whoever sent a job whose id another job has: it is not answered.
     *
     * @param sha256 of the value of its record, in hexadecimal
     * @param replyFrom where its sender began to read; null: not told
     */
    record Conflict(String job, String sha256, Long replyFrom) implements Reply {}

    /** To be passed over: a kind that is not known here, or a notice that is not valid. */
    record Unknown(String kind) implements Reply {}

    /**
     * Returns the record that a reply's value is, in msgpack or JSON.
     *
     * @throws ReplyUnreadableException if it is none of version 1. With the code {@code
     *     UNSUPPORTED_VERSION} it may be an end that is not understood: a reader stops there. Else
     *     it is, for every reader, as if it were not there.
     */
    static Reply decode(byte[] value) {
        return ReplyDecoder.decode(value);
    }
}
