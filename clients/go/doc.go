// Package aril sends jobs to Aril over Kafka and reads their answers as streams.
//
//	client, err := aril.Open(ctx, aril.Options{Brokers: []string{"localhost:9092"}, Tenant: "acme"})
//	...
//	defer client.Close()
//	stream, err := client.Send(ctx, aril.Job{Prompt: "Hello!", Adapter: "support"})
//	...
//	for event, err := range stream.Events(ctx) {
//		...
//	}
//
// One producer, and one reader of the tenant's reply topic for however many jobs. The reader has no
// consumer group: each partition is read from where its jobs need it, and not at all while none
// does. Every token comes once and in order, whatever happens to workers and brokers. What goes over
// the wire is described in schemas/README.md of the repository.
package aril
