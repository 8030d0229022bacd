"""The engine: one backbone, many adapters, continuous batching; synchronous and single-threaded."""
