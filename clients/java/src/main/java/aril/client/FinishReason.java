package aril.client;

/** Why a whole answer ended. */
public enum FinishReason {
    /** The model ended it, or a stop string or token, or its form left nothing to say. */
    STOP,
    /** {@code max_tokens} or the context was used up. */
    LENGTH
}
