package aril.client;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** One JSON object: replies to jobs that were sent in JSON. Bounds are those of msgpack. */
final class JsonReader {
    private static final JsonFactory FACTORY = JsonFactory.builder()
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .build();

    private final ShapeBudget budget = new ShapeBudget();
    private final JsonParser parser;

    private JsonReader(JsonParser parser) {
        this.parser = parser;
    }

    static Map<String, Object> read(byte[] data) {
        // Decoded here: from bytes the library would guess the encoding, UTF-16 among others.
        try (JsonParser parser = FACTORY.createParser(
                StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(data)).toString())) {
            parser.nextToken();
            Map<String, Object> map = new JsonReader(parser).map(1);
            if (parser.nextToken() != null) {
                throw RecordReader.malformed("text follows the record");
            }
            return map;
        } catch (CharacterCodingException error) {
            throw RecordReader.malformed("the record is not UTF-8");
        } catch (JsonProcessingException error) {
            throw RecordReader.malformed("the record is not well-formed JSON, or has a key twice");
        } catch (IOException error) {
            throw new UncheckedIOException(error); // reading from memory
        }
    }

    private Object value(JsonToken token, int depth) throws IOException {
        return switch (token) {
            case VALUE_NULL -> null;
            case VALUE_TRUE -> true;
            case VALUE_FALSE -> false;
            case VALUE_NUMBER_INT -> integer();
            case VALUE_NUMBER_FLOAT -> parser.getDoubleValue();
            case VALUE_STRING -> text(parser.getText());
            case START_ARRAY -> array(depth);
            case START_OBJECT -> map(depth);
            default -> throw RecordReader.malformed("the record is not well-formed JSON");
        };
    }

    private Object integer() throws IOException {
        BigInteger value = parser.getBigIntegerValue();
        if (value.bitLength() > (value.signum() < 0 ? Long.SIZE - 1 : Long.SIZE)) {
            throw RecordReader.malformed("an integer has more than 64 bits");
        }
        return value.bitLength() < Long.SIZE ? (Object) value.longValue() : value;
    }

    private String text(String text) {
        budget.text();
        // A pair is one code point; one that is left is half of a pair.
        if (text.codePoints().anyMatch(
                each -> Character.isBmpCodePoint(each) && Character.isSurrogate((char) each))) {
            throw RecordReader.malformed("a string has half a character");
        }
        return text;
    }

    private List<Object> array(int depth) throws IOException {
        budget.container(depth);
        List<Object> list = new ArrayList<>();
        JsonToken token;
        while ((token = parser.nextToken()) != JsonToken.END_ARRAY) {
            budget.elements(list.isEmpty() ? 0 : 1); // commas, as the contract has it
            list.add(value(token, depth + 1));
        }
        return list;
    }

    private Map<String, Object> map(int depth) throws IOException {
        budget.container(depth);
        Map<String, Object> map = new LinkedHashMap<>();
        while (parser.nextToken() != JsonToken.END_OBJECT) {
            budget.elements(map.isEmpty() ? 0 : 1);
            budget.fields(map.size() + 1);
            String key = text(parser.currentName());
            map.put(key, value(parser.nextToken(), depth + 1));
        }
        return map;
    }
}
