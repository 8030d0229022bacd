"""One module a command of the command line: `configure(parser)` and `run(arguments)`."""
