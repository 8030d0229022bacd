"""What the engine and the worker say of a job comes in; acknowledged records in Kafka leave."""
