package aril.client;

/** How far a caller has come in a job's visible stream: by resets first, then by tokens. */
record Mark(int resets, int tokens) implements Comparable<Mark> {
    static final Mark START = new Mark(0, 0);

    /** Returns the mark of a caller that has been given {@code event} too. */
    Mark after(Event event) {
        if (event instanceof Event.Tokens given) {
            return new Mark(resets, tokens + given.ids().size());
        }
        return event instanceof Event.Reset ? new Mark(resets + 1, 0) : this;
    }

    @Override
    public int compareTo(Mark other) {
        int first = Integer.compare(resets, other.resets);
        return first != 0 ? first : Integer.compare(tokens, other.tokens);
    }
}
