package aril.client;

/** Where Kafka's default partitioner puts a key, in this topic and in any language. */
final class Murmur2 {
    private static final int MULTIPLIER = 0x5bd1e995;
    private static final int SEED = 0x9747b28c;

    private Murmur2() {}

    /** Returns the partition in [0, partitions) of a key. */
    static int partition(byte[] key, int partitions) {
        return (hash(key) & Integer.MAX_VALUE) % partitions;
    }

    /** Returns Kafka's 32-bit hash, signed. */
    static int hash(byte[] data) {
        int state = SEED ^ data.length;
        int tail = data.length & ~3;
        for (int at = 0; at < tail; at += 4) {
            int word = little(data, at, 4) * MULTIPLIER;
            word ^= word >>> 24;
            state = state * MULTIPLIER ^ word * MULTIPLIER;
        }
        if (tail < data.length) {
            state = (state ^ little(data, tail, data.length - tail)) * MULTIPLIER;
        }
        state = (state ^ state >>> 13) * MULTIPLIER;
        return state ^ state >>> 15;
    }

    private static int little(byte[] data, int start, int count) {
        int word = 0;
        for (int at = start + count - 1; at >= start; at--) {
            word = word << 8 | data[at] & 0xff;
        }
        return word;
    }
}
