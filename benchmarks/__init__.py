"""Benchmarks: one file a question, rows in one CSV form, tables and plots made from the CSV.

A module with a `QUESTION` is a command that writes the CSV of that name; `gpu` is one for all that
a GPU answers. The others are what several of them do alike: `record` is the CSV's form, `turns`
runs ways in turns, `stack` is a Kafka with workers around an engine that costs nothing (`instant`,
without the protocol `plain_worker`), `smollm2` and `decoding` are the engine with a model, `fleet`
and `fleet_rules` a simulated one.
"""
