"""A job that waits for its turn comes in; it leaves in a batch, prompt and adapter at hand."""
