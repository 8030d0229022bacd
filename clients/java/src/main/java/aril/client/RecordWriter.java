package aril.client;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;

/** Values that JSON can say to msgpack. */
final class RecordWriter {
    private RecordWriter() {}

    /**
     * Returns a map in msgpack, its fields in the map's order.
     *
     * @throws InvalidJobException if a text has half of a surrogate pair, or it is all too long
     */
    static byte[] write(Map<String, Object> fields) {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            put(packer, fields);
            byte[] data = packer.toByteArray();
            if (data.length > Limits.RECORD_BYTES) {
                throw Check.over(
                        ErrorCode.LIMIT_EXCEEDED,
                        "bytes in the record",
                        "",
                        Limits.RECORD_BYTES,
                        data.length);
            }
            return data;
        } catch (CharacterCodingException error) {
            throw new InvalidJobException("a text has half of a surrogate pair");
        } catch (IOException error) {
            throw new UncheckedIOException(error); // writing to memory
        }
    }

    private static void put(MessageBufferPacker packer, Object value) throws IOException {
        if (value == null) {
            packer.packNil();
        } else if (value instanceof String text) {
            putText(packer, text);
        } else if (value instanceof Boolean flag) {
            packer.packBoolean(flag);
        } else if (value instanceof Double || value instanceof Float) {
            packer.packDouble(((Number) value).doubleValue());
        } else if (value instanceof BigInteger integer) {
            packer.packBigInteger(integer);
        } else if (value instanceof Number integer) {
            packer.packLong(integer.longValue());
        } else if (value instanceof List<?> list) {
            packer.packArrayHeader(list.size());
            for (Object each : list) {
                put(packer, each);
            }
        } else if (value instanceof Map<?, ?> map) {
            packer.packMapHeader(map.size());
            for (Map.Entry<?, ?> entry : map.entrySet()) {
                putText(packer, (String) entry.getKey());
                put(packer, entry.getValue());
            }
        } else {
            throw new IllegalArgumentException("no record holds a " + value.getClass());
        }
    }

    /** The library's own packString writes a question mark for half of a pair. */
    private static void putText(MessageBufferPacker packer, String text) throws IOException {
        ByteBuffer bytes = StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(text));
        packer.packRawStringHeader(bytes.remaining());
        packer.writePayload(bytes.array(), bytes.position(), bytes.remaining());
    }
}
