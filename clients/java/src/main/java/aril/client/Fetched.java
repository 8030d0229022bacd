package aril.client;

/** One record of the reply topic. */
record Fetched(int partition, long offset, byte[] key, byte[] value) {}
