package aril.client;

/**
 * From which of the prompt's tokens on an adapter with an invocation worked.
 *
 * @param start the token's index; null: the invocation is not in the prompt, the backbone answered
 */
public record Activation(Integer start) {}
