package aril.client;

/** One of the adapters of a mixture that answered, the content it had, and its weight. */
public record MixedAdapter(String name, String digest, double weight) {}
