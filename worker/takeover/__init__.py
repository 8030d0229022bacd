"""A job that another worker may have begun comes in; it leaves as ours, or as answered already."""
