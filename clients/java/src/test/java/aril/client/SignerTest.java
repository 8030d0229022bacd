package aril.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.KeyPairGenerator;
import java.util.Base64;
import java.util.HexFormat;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Keys in files: which are taken, which are refused and why. */
class SignerTest {
    @TempDir Path folder;
    private Path file;

    @BeforeEach
    void put() throws Exception {
        file = folder.resolve("acme.key");
        write("Ed25519", "PRIVATE KEY");
    }

    private void write(String algorithm, String label) throws Exception {
        byte[] key = KeyPairGenerator.getInstance(algorithm).generateKeyPair().getPrivate()
                .getEncoded();
        String body = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(key);
        Files.writeString(
                file, "-----BEGIN " + label + "-----\n" + body + "\n-----END " + label + "-----\n");
        Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("rw-------"));
    }

    private String refused() {
        return assertThrows(BadKeyException.class, () -> Signer.fromFile(file, "k1")).getMessage();
    }

    @Test
    void aKeyOfOnesOwn() {
        Signer signer = Signer.fromFile(file, "k1");
        assertEquals("Signer[k1]", signer.toString());
        assertEquals(
                "1.acme.k1.".length() + 13 + 1 + 128,
                signer.header("acme", "jobs", 0, new byte[1], new byte[1]).length);
    }

    /** The name that the workers know a key by, where {@code aril keys new} made it. */
    @Test
    void aKeyThatTellsItsName() throws Exception {
        JsonNode pair = Vectors.file("signatures").get("key");
        HexFormat hex = HexFormat.of();
        // PKCS #8 has the seed behind these.
        String encoded = "302e020100300506032b657004220420" + pair.get("private").asText();
        String body = Base64.getEncoder().encodeToString(hex.parseHex(encoded));
        String text = "-----BEGIN PRIVATE KEY-----\n" + body + "\n-----END PRIVATE KEY-----\n";
        Files.writeString(file, text);
        String name = Sha256.of(hex.parseHex(pair.get("public").asText())).substring(0, 16);
        assertEquals("Signer[" + name + "]", Signer.fromFile(file).toString());
    }

    @Test
    void aKeyThatEverybodyMayRead() throws IOException {
        Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("rw----r--"));
        assertTrue(refused().contains("everybody"));
    }

    @Test
    void anotherKindOfKey() throws Exception {
        write("X25519", "PRIVATE KEY");
        assertTrue(refused().contains("not an Ed25519 key"));
    }

    @Test
    void aKeyBehindAPassword() throws Exception {
        write("Ed25519", "ENCRYPTED PRIVATE KEY");
        assertTrue(refused().contains("password"));
    }

    @Test
    void noFileAndNoName() {
        assertThrows(BadKeyException.class, () -> Signer.fromFile(file, "K 1"));
        file = folder.resolve("nobody.key");
        assertTrue(refused().contains("cannot be read"));
    }
}
