"""Dead letters as an operator sees them: read, judged, replayed, purged."""
