package aril.client;

/**
 * One adapter of a mixture.
 *
 * @param name as of one adapter: {@code name}, or {@code name@digest} to insist on a content
 * @param weight in [-4, 4]: what it adds is multiplied by it
 */
public record WeightedAdapter(String name, double weight) {
    private static final double MOST = 4;

    public WeightedAdapter {
        Check.adapter("adapters.name", name);
        Check.within("adapters.weight", weight, -MOST, MOST);
    }
}
