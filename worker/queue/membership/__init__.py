"""How a worker is in its group, by either of Kafka's protocols; who reads what follows from it.

`interface` says what is asked of both. `classic` is aiokafka's own membership: all partitions go
and come at once. `consumer` is the protocol of KIP-848: librdkafka is the member, the brokers
assign, and partitions move one by one (docs/decisions/097).
"""
