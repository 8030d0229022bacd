package aril.client;

import java.io.IOException;
import java.math.BigInteger;
import java.nio.charset.CodingErrorAction;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessageUnpacker;
import org.msgpack.value.ValueType;

/** One msgpack map, with keys that are text and occur once, and without extension types. */
final class MsgpackReader {
    /** By itself the library mends text that is not UTF-8. */
    private static final MessagePack.UnpackerConfig CONFIG = new MessagePack.UnpackerConfig()
            .withActionOnMalformedString(CodingErrorAction.REPORT)
            .withActionOnUnmappableString(CodingErrorAction.REPORT);

    private final ShapeBudget budget = new ShapeBudget();
    private final MessageUnpacker unpacker;
    private final int size;
    private long promised;

    private MsgpackReader(byte[] data) {
        unpacker = CONFIG.newUnpacker(data);
        size = data.length;
    }

    static Map<String, Object> read(byte[] data) {
        MsgpackReader reader = new MsgpackReader(data);
        try {
            Object value = reader.value(1);
            if (reader.unpacker.getTotalReadBytes() != data.length) {
                throw RecordReader.malformed("bytes follow the record");
            }
            if (!(value instanceof Map)) {
                throw RecordReader.malformed("the record is not a map");
            }
            @SuppressWarnings("unchecked") // keys are checked where they are read
            Map<String, Object> map = (Map<String, Object>) value;
            return map;
        } catch (MessagePackException | IOException error) {
            throw RecordReader.malformed("the record is not well-formed msgpack");
        }
    }

    private Object value(int depth) throws IOException {
        return switch (unpacker.getNextFormat().getValueType()) {
            case NIL -> {
                unpacker.unpackNil();
                yield null;
            }
            case BOOLEAN -> unpacker.unpackBoolean();
            case INTEGER -> integer();
            case FLOAT -> unpacker.unpackDouble();
            case STRING -> text();
            case BINARY -> {
                budget.text();
                yield unpacker.readPayload(within(unpacker.unpackBinaryHeader()));
            }
            case ARRAY -> array(depth);
            case MAP -> map(depth);
            case EXTENSION -> throw RecordReader.malformed("extension types are not allowed");
        };
    }

    private Object integer() throws IOException {
        return switch (unpacker.getNextFormat()) {
            case UINT64 -> {
                BigInteger value = unpacker.unpackBigInteger();
                yield value.bitLength() < Long.SIZE ? (Object) value.longValue() : value;
            }
            default -> unpacker.unpackLong();
        };
    }

    private String text() throws IOException {
        budget.text();
        return unpacker.unpackString();
    }

    private List<Object> array(int depth) throws IOException {
        int length = unpacker.unpackArrayHeader();
        count(length, depth);
        List<Object> list = new ArrayList<>(length);
        for (int at = 0; at < length; at++) {
            list.add(value(depth + 1));
        }
        return list;
    }

    private Map<String, Object> map(int depth) throws IOException {
        int length = unpacker.unpackMapHeader();
        count(2L * length, depth);
        budget.fields(length);
        Map<String, Object> map = new LinkedHashMap<>();
        for (int at = 0; at < length; at++) {
            if (unpacker.getNextFormat().getValueType() != ValueType.STRING) {
                throw RecordReader.malformed("a map has a key that is not text");
            }
            String key = text();
            Object value = value(depth + 1);
            if (map.containsKey(key)) {
                throw RecordReader.malformed("a map has the same key twice");
            }
            map.put(key, value);
        }
        return map;
    }

    /** All maps and arrays together hold no more elements than there are bytes. */
    private void count(long held, int depth) {
        promised += held;
        if (promised > size) {
            throw RecordReader.malformed("the record promises more than it holds");
        }
        budget.container(depth);
        budget.elements(held);
    }

    private int within(int length) {
        if (length > size) {
            throw RecordReader.malformed("the record promises more than it holds");
        }
        return length;
    }
}
