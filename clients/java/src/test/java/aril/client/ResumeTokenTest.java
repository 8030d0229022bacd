package aril.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The token's text, as every client writes it. */
class ResumeTokenTest {
    @Test
    void thereAndBack() {
        String text = "3.9223372036854775807.12.1.a.b-c_1.2";
        ResumeToken token = ResumeToken.parse(text);
        assertEquals(new ResumeToken(3, Long.MAX_VALUE, 12, 1, "a.b-c_1.2"), token);
        assertEquals(text, token.toString());
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "", "1.2.3.j", "-1.2.3.4.j", "1.2.3.4.", "1.2.3.4.j/k", "1.2.3.4.j\n", "a.2.3.4.j",
        "1.9999999999999999999.3.4.j", "9999999999.2.3.4.j", "1.2.3.4.\u00fc"
    })
    void noToken(String text) {
        assertThrows(BadTokenException.class, () -> ResumeToken.parse(text));
    }
}
