"""Benchmarks: one file a question, rows in one CSV form, tables and plots made from the CSV."""
