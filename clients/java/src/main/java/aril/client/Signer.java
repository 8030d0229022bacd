package aril.client;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermission;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.spec.PKCS8EncodedKeySpec;
import java.time.Clock;
import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;
import java.util.Set;

/**
 * A tenant's private key, and what it signs: jobs and cancels, so that nobody else can send them.
 * {@code aril keys new TENANT} makes such a key, and so does {@code openssl genpkey}.
 */
public final class Signer {
    static final String HEADER = "aril-signature";
    private static final String ALGORITHM = "Ed25519";
    private static final String CONTEXT = "aril-signed-request-v1";
    private static final int MAX_FILE_BYTES = 4_096;

    private final PrivateKey key;
    private final String keyId;
    private final Clock clock;

    Signer(PrivateKey key, String keyId, Clock clock) {
        if (!Limits.NAME.matcher(keyId).matches()) {
            throw new BadKeyException(
                    "'" + keyId + "' cannot name a key (lower case, digits, -)");
        }
        this.key = key;
        this.keyId = keyId;
        this.clock = clock;
    }

    /**
     * Reads a private key in PEM (PKCS #8, not encrypted).
     *
     * @param keyId names the public half at the workers: the file's name there, without .pem
     * @throws BadKeyException if it cannot be read, or other users of the machine may read it
     */
    public static Signer fromFile(Path file, String keyId) {
        return new Signer(keyOf(file), keyId, Clock.systemUTC());
    }

    /** The same with the key id that {@code aril keys new} has given. */
    public static Signer fromFile(Path file) {
        PrivateKey key = keyOf(file);
        return new Signer(key, KeyId.of(key), Clock.systemUTC());
    }

    private static PrivateKey keyOf(Path file) {
        byte[] encoded = read(file);
        try {
            KeyFactory factory = KeyFactory.getInstance(ALGORITHM);
            return factory.generatePrivate(new PKCS8EncodedKeySpec(encoded));
        } catch (GeneralSecurityException error) {
            throw new BadKeyException(file + ": not an Ed25519 key");
        } finally {
            Arrays.fill(encoded, (byte) 0);
        }
    }

    private static byte[] read(Path file) {
        try {
            if (FileSystems.getDefault().supportedFileAttributeViews().contains("posix")) {
                Set<PosixFilePermission> may = Files.getPosixFilePermissions(file);
                if (may.contains(PosixFilePermission.OTHERS_READ)
                        || may.contains(PosixFilePermission.OTHERS_WRITE)) {
                    throw new BadKeyException(
                            file + ": everybody on this machine may read it (chmod 600)");
                }
            }
            if (Files.size(file) > MAX_FILE_BYTES) {
                throw new BadKeyException(file + ": not a private key in PEM");
            }
            String body = Files.readString(file, StandardCharsets.US_ASCII)
                    .replaceFirst("(?s).*-----BEGIN PRIVATE KEY-----", "")
                    .replaceFirst("(?s)-----END PRIVATE KEY-----.*", "")
                    .replaceAll("\\s", "");
            return Base64.getDecoder().decode(body);
        } catch (IOException error) {
            throw new BadKeyException(file + ": cannot be read: " + error.getMessage());
        } catch (IllegalArgumentException error) {
            throw new BadKeyException(
                    file + ": not a private key in PEM, or one behind a password");
        }
    }

    /** Returns the value of the header of one record of the jobs topic, signed now. */
    byte[] header(String tenant, String topic, int partition, byte[] recordKey, byte[] value) {
        long now = clock.millis();
        try {
            Signature signature = Signature.getInstance(ALGORITHM);
            signature.initSign(key);
            signature.update(message(tenant, keyId, topic, partition, recordKey, now, value));
            String hex = HexFormat.of().formatHex(signature.sign());
            return ascii("1." + tenant + "." + keyId + "." + now + "." + hex);
        } catch (GeneralSecurityException error) {
            throw new BadKeyException("this key cannot sign: " + error.getMessage());
        }
    }

    /** Returns what is signed: a context, then seven fields, each with its length before it. */
    static byte[] message(
            String tenant,
            String keyId,
            String topic,
            int partition,
            byte[] recordKey,
            long signedMs,
            byte[] value) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (DataOutputStream out = new DataOutputStream(bytes)) {
            out.write(ascii(CONTEXT));
            put(out, ascii(tenant));
            put(out, ascii(keyId));
            put(out, ascii(topic));
            out.writeInt(Integer.BYTES);
            out.writeInt(partition);
            put(out, recordKey);
            out.writeInt(Long.BYTES);
            out.writeLong(signedMs);
            put(out, value);
        } catch (IOException error) {
            throw new UncheckedIOException(error); // writing to memory
        }
        return bytes.toByteArray();
    }

    private static void put(DataOutputStream out, byte[] field) throws IOException {
        out.writeInt(field.length);
        out.write(field);
    }

    private static byte[] ascii(String text) {
        return text.getBytes(StandardCharsets.US_ASCII);
    }

    /** Names the key and never holds it. */
    @Override
    public String toString() {
        return "Signer[" + keyId + "]";
    }
}
