"""The service: takes jobs from Kafka, batches them over adapters, streams the tokens back."""
