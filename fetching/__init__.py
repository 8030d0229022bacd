"""Reading Kafka through aiokafka, whatever lies in the log: what client and worker both need."""
