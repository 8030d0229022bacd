package aril.client;

/** Tokens read and written for a job. */
public record Usage(int promptTokens, int completionTokens) {}
