// Ask sends one prompt and prints its answer as it comes.
//
//	go run ./examples/ask -tenant acme -adapter terse "My parcel is late. What now?"
//	go run ./examples/ask -tenant acme -resume 3.1042.17.0.o-81
//
// What a program needs in order to go on after it was killed is printed by -json with every event.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	aril "github.com/aril/aril/clients/go"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ask:", err)
		os.Exit(1)
	}
}

type asked struct {
	options     aril.Options
	job         aril.Job
	resume      string
	timeout     time.Duration
	json        bool
	cancelAfter int
	leaveAfter  int
}

func parse(arguments []string) (asked, error) {
	a := asked{}
	flags := flag.NewFlagSet("ask", flag.ContinueOnError)
	env := flags.Bool("env", false, "ARIL_* variables say where and who; flags of that are passed over")
	brokers := flags.String("brokers", "localhost:9092", "host:port, comma-separated")
	key := flags.String("key", "", "file of a private key to sign with")
	temperature := flags.Float64("temperature", 1, "0 is greedy")
	seed := flags.Int64("seed", -1, "-1: one is drawn")
	flags.StringVar(&a.options.Tenant, "tenant", "", "who asks")
	flags.StringVar(&a.options.JobsTopic, "jobs-topic", "jobs", "")
	flags.StringVar(&a.options.RepliesPrefix, "replies-prefix", "replies.", "")
	flags.IntVar(&a.options.Buffer, "buffer", 0, "events ahead of the output")
	flags.StringVar(&a.job.ID, "id", "", "asking again under it gives the first answer")
	flags.StringVar(&a.job.Adapter, "adapter", "", "")
	flags.IntVar(&a.job.Sampling.MaxTokens, "max-tokens", 0, "")
	flags.BoolVar(&a.job.Sampling.IgnoreEOS, "ignore-eos", false, "")
	flags.StringVar(&a.resume, "resume", "", "token of a stream to go on with")
	flags.DurationVar(&a.timeout, "timeout", 5*time.Minute, "")
	flags.BoolVar(&a.json, "json", false, "print each event as a line, with the token that stands behind it")
	flags.IntVar(&a.cancelAfter, "cancel-after", 0, "cancel the job after so many tokens")
	flags.IntVar(&a.leaveAfter, "leave-after", 0, "leave the job running after so many tokens")
	if err := flags.Parse(arguments); err != nil {
		return a, err
	}
	a.options.Brokers = strings.Split(*brokers, ",")
	if *env {
		options, err := aril.OptionsFromEnv(a.options.Tenant)
		if err != nil {
			return a, err
		}
		options.Buffer, a.options = a.options.Buffer, options
	}
	a.job.Sampling.Temperature = temperature
	if *seed >= 0 {
		a.job.Sampling.Seed = seed
	}
	a.job.Prompt = strings.Join(flags.Args(), " ")
	if *key != "" {
		signer, err := aril.SignerFromFile(*key, "")
		if err != nil {
			return a, err
		}
		a.options.Signer = signer
	}
	return a, nil
}

func run(ctx context.Context, arguments []string, out io.Writer) error {
	a, err := parse(arguments)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, a.timeout)
	defer stop()
	client, err := aril.Open(ctx, a.options)
	if err != nil {
		return err
	}
	defer client.Close()
	stream, err := begin(ctx, client, a)
	if err != nil {
		return err
	}
	show := showText
	if a.json {
		show = showJSON
	}
	given, cancelled := 0, false
	for event, err := range stream.Events(ctx) {
		if shown := show(out, stream, event, err); shown != nil {
			return shown
		}
		if told, ok := event.(aril.Tokens); ok {
			given += len(told.IDs)
		}
		if a.leaveAfter > 0 && given >= a.leaveAfter {
			stream.Detach()
			return nil
		}
		if a.cancelAfter > 0 && given >= a.cancelAfter && !cancelled {
			cancelled = true
			if err := stream.Cancel(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func begin(ctx context.Context, client *aril.Client, a asked) (*aril.Stream, error) {
	if a.resume == "" {
		return client.Send(ctx, a.job)
	}
	token, err := aril.ParseToken(a.resume)
	if err != nil {
		return nil, err
	}
	return client.Resume(ctx, token)
}

func showText(out io.Writer, _ *aril.Stream, event aril.Event, err error) error {
	switch event := event.(type) {
	case aril.Tokens:
		fmt.Fprint(out, event.Text)
	case aril.Reset:
		fmt.Fprintln(out, "\n[starts again]")
	case aril.Done:
		fmt.Fprintln(out, event.Text)
	}
	return err
}

// line is an event as -json prints it.
type line struct {
	Kind  string         `json:"kind"`
	Token string         `json:"token"`
	Event aril.Event     `json:"event,omitempty"`
	Error *aril.JobError `json:"error,omitempty"`
}

// showJSON takes a job's error for an event like any other.
func showJSON(out io.Writer, stream *aril.Stream, event aril.Event, err error) error {
	told := line{Token: stream.Token().String(), Event: event}
	switch event.(type) {
	case aril.Tokens:
		told.Kind = "tokens"
	case aril.Reset:
		told.Kind = "reset"
	case aril.Done:
		told.Kind = "done"
	default:
		if !errors.As(err, &told.Error) {
			return err
		}
		told.Kind = "error"
	}
	return json.NewEncoder(out).Encode(told)
}
