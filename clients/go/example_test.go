package aril_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	aril "github.com/aril/aril/clients/go"
)

func Example() {
	ctx := context.Background()
	client, err := aril.Open(ctx, aril.Options{Brokers: []string{"localhost:9092"}, Tenant: "acme"})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	stream, err := client.Send(ctx, aril.Job{
		Messages: []aril.Message{aril.User("My parcel is late. What now?")},
		Adapter:  "terse",
		Sampling: aril.Sampling{MaxTokens: 64, Temperature: new(0.0)},
	})
	if err != nil {
		log.Fatal(err)
	}
	for event, err := range stream.Events(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		switch event := event.(type) {
		case aril.Tokens:
			fmt.Print(event.Text)
		case aril.Reset:
			fmt.Println("\n[starts again]")
		case aril.Done:
			fmt.Println(event.Text)
		}
	}
}

func ExampleClient_Ask() {
	ctx := context.Background()
	client, err := aril.Open(ctx, aril.Options{Brokers: []string{"localhost:9092"}, Tenant: "acme"})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	answer, err := client.Ask(ctx, aril.Job{Prompt: "The capital of France is", Sampling: aril.Sampling{MaxTokens: 4}})
	var failed *aril.JobError
	switch {
	case errors.As(err, &failed) && failed.Retryable:
		fmt.Println("again in", failed.RetryAfter)
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Println(answer.Text, answer.FinishReason, answer.Usage.CompletionTokens)
	}
}
