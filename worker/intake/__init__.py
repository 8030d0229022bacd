"""A record's bytes come in; a job leaves, or a cancel, or the reason why it is neither."""
