package aril.client;

import java.util.ArrayList;
import java.util.List;

/**
 * The reader rule: which records of one job's reply log count. Feed it that job's records in the
 * order of the log; it does no input or output and is for one thread at a time.
 *
 * <pre>
 * finished   after a visible end no record counts
 * lower      a record of a lower epoch is ignored
 * release    changes nothing
 * higher     a higher epoch begins only with a claim or with a record at index 0: its epoch and
 *            worker become current. A claim keeps what is visible; a record at index 0 withdraws
 *            it, which is told as a Reset
 * equal      only the worker that began the epoch counts, and of it tokens whose index is the
 *            number of visible tokens; an end likewise
 * </pre>
 */
public final class VisibleStream {
    private final List<Integer> ids = new ArrayList<>();
    private final StringBuilder text = new StringBuilder();
    private Epoch epoch = Epoch.BEFORE_ALL;
    private String writer;
    private Event terminal;
    private int resets;

    /** Applies the rule to the log's next record; returns what it changed, often nothing. */
    public List<Event> feed(Reply.Written record) {
        if (terminal != null
                || record instanceof Reply.Release
                || record.epoch().compareTo(epoch) < 0) {
            return List.of();
        }
        boolean claim = record instanceof Reply.Claim;
        int index = claim ? -1 : indexOf(record);
        List<Event> events = new ArrayList<>(2);
        if (record.epoch().compareTo(epoch) > 0) {
            if (!claim && index != 0) {
                return List.of();
            }
            epoch = record.epoch();
            writer = record.worker();
            if (!claim && !ids.isEmpty()) {
                events.add(withdraw());
            }
        }
        if (claim || !record.worker().equals(writer) || index != ids.size()) {
            return List.of();
        }
        events.add(accept(record));
        return events;
    }

    private static int indexOf(Reply.Written record) {
        if (record instanceof Reply.Tokens tokens) {
            return tokens.event().index();
        }
        return record instanceof Reply.Done done
                ? done.event().index()
                : ((Reply.Failed) record).event().index();
    }

    private Event withdraw() {
        Event reset = new Event.Reset(ids.size());
        ids.clear();
        text.setLength(0);
        resets++;
        return reset;
    }

    private Event accept(Reply.Written record) {
        if (record instanceof Reply.Tokens tokens) {
            ids.addAll(tokens.event().ids());
            text.append(tokens.event().text());
            return tokens.event();
        }
        if (record instanceof Reply.Done done) {
            text.append(done.event().text());
            terminal = done.event();
        } else {
            terminal = ((Reply.Failed) record).event();
        }
        return terminal;
    }

    /** Returns the visible tokens, copied. */
    public List<Integer> tokenIds() {
        return List.copyOf(ids);
    }

    /** Returns the visible text; after a {@link Event.Done} the whole answer. */
    public String text() {
        return text.toString();
    }

    /** Returns the epoch that counts now. */
    public Epoch epoch() {
        return epoch;
    }

    /** Returns the worker that counts now, or null. */
    public String writer() {
        return writer;
    }

    /** Returns how often what was visible has been withdrawn. */
    public int resets() {
        return resets;
    }

    /** Returns the visible end, a {@link Event.Done} or {@link Event.Failed}, or null. */
    public Event terminal() {
        return terminal;
    }

    /** Returns whether an end is visible. */
    public boolean finished() {
        return terminal != null;
    }
}
