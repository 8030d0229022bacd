package aril.client;

import java.security.GeneralSecurityException;
import java.security.KeyPairGenerator;
import java.security.PrivateKey;
import java.security.PublicKey;
import java.security.SecureRandom;
import java.security.Signature;
import java.security.interfaces.EdECPrivateKey;
import java.security.spec.NamedParameterSpec;
import java.util.Arrays;

/** The name that {@code aril keys new} gives a key: the beginning of its public half's hash. */
final class KeyId {
    private static final String ALGORITHM = "Ed25519";
    private static final int DIGITS = 16;
    private static final int PUBLIC_BYTES = 32; // the end of the key's encoded form

    private KeyId() {}

    /**
     * Returns the name of a key.
     *
     * @throws BadKeyException if the public half cannot be had of it
     */
    static String of(PrivateKey key) {
        try {
            byte[] encoded = publicHalf(key).getEncoded();
            byte[] raw = Arrays.copyOfRange(
                    encoded, encoded.length - PUBLIC_BYTES, encoded.length);
            return Sha256.of(raw).substring(0, DIGITS);
        } catch (GeneralSecurityException error) {
            throw new BadKeyException("the key's name cannot be told by it: pass its key id");
        }
    }

    /** Java makes no public key of a private one: it is generated again, from the same seed. */
    private static PublicKey publicHalf(PrivateKey key) throws GeneralSecurityException {
        byte[] seed = key instanceof EdECPrivateKey own
                ? own.getBytes().orElseThrow(GeneralSecurityException::new)
                : new byte[0];
        KeyPairGenerator generator = KeyPairGenerator.getInstance(ALGORITHM);
        generator.initialize(NamedParameterSpec.ED25519, new Seed(seed));
        PublicKey found = generator.generateKeyPair().getPublic();
        if (!isOf(found, key)) { // another provider may draw otherwise
            throw new GeneralSecurityException();
        }
        return found;
    }

    private static boolean isOf(PublicKey found, PrivateKey key) throws GeneralSecurityException {
        Signature signature = Signature.getInstance(ALGORITHM);
        byte[] text = {1};
        signature.initSign(key);
        signature.update(text);
        byte[] signed = signature.sign();
        signature.initVerify(found);
        signature.update(text);
        return signature.verify(signed);
    }

    /** Draws one number. */
    private static final class Seed extends SecureRandom {
        private static final long serialVersionUID = 1L;
        private final byte[] seed;

        Seed(byte[] seed) {
            this.seed = seed;
        }

        @Override
        public void nextBytes(byte[] bytes) {
            System.arraycopy(seed, 0, bytes, 0, Math.min(seed.length, bytes.length));
        }
    }
}
