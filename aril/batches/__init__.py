"""A file of prompts, answered through the queue; killed at any moment and started again.

* `lines`    a line of the input → what it asks for, under which ids
* `output`   the file of answers, which is the state, and its sidecar: the lock and the ids' name
* `records`  an answer, or an error → a line of the output
* `asking`   one job: sent, read, sent again where that may help
* `window`   how many jobs at once, fewer while the service says that it has too many
* `run`      all of them, in bounded memory
* `tally`    how far it is

The one rule that all this is for: a job's id says what is asked, so whoever asks the same line
again gets the answer that is there, or the one that is being made.
"""
