package aril.client;

import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;

/**
 * The values of a reply topic for Kafka Streams, Connect or a consumer of one's own.
 *
 * <p>Give the records of one job, in the order of the log, to a {@link VisibleStream}: records of
 * workers that crashed or were overtaken stand in the log, too, and only it tells which count.
 */
public final class ReplyDeserializer implements Deserializer<Reply> {
    /**
     * Returns the record, null for a record without a value.
     *
     * @throws SerializationException with a {@link ReplyUnreadableException} as its cause
     */
    @Override
    public Reply deserialize(String topic, byte[] data) {
        if (data == null) {
            return null;
        }
        try {
            return Reply.decode(data);
        } catch (ReplyUnreadableException error) {
            throw new SerializationException(topic + ": " + error.getMessage(), error);
        }
    }
}
