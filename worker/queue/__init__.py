"""A record of the jobs topic comes in under an assignment; it leaves as a committed offset."""
