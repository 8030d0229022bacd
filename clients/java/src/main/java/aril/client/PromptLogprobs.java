package aril.client;

import java.util.List;

/**
 * Log probabilities of a prompt's tokens.
 *
 * @param top how many alternatives each row has
 * @param rows of the second token, the third and so on; the first one has none
 */
public record PromptLogprobs(int top, List<TokenLogprobs> rows) {
    public PromptLogprobs {
        rows = List.copyOf(rows);
    }
}
