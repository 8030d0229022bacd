package aril.client;

/**
 * The rank of a job's writer: the group's generation, then the writer's own attempt, from 1 on.
 * {@link #BEFORE_ALL} is below every epoch that is ever written.
 */
public record Epoch(long generation, long attempt) implements Comparable<Epoch> {
    public static final Epoch BEFORE_ALL = new Epoch(0, 0);

    @Override
    public int compareTo(Epoch other) {
        int first = Long.compare(generation, other.generation);
        return first != 0 ? first : Long.compare(attempt, other.attempt);
    }
}
