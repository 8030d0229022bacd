"""Reaching Kafka, for client and worker alike: where, as whom, for how long."""
