package aril.client;

/** Milliseconds since the broker had the job: until it began, its first token, its end. */
public record Timings(double queueMs, double ttftMs, double totalMs) {}
