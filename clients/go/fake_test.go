package aril

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"
)

// broker is a jobs topic and a reply topic in memory; a test plays the workers.
type broker struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	starts   []int64
	logs     [][]fetched
	sent     []sentRecord
	sendFail error
	reads    int // records that polls have brought
}

type sentRecord struct {
	partition  int32
	key, value []byte
	headers    []header
}

func newBroker(replies int) *broker {
	return &broker{changed: make(chan struct{}), starts: make([]int64, replies), logs: make([][]fetched, replies)}
}

func (b *broker) change() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *broker) put(partition int32, job string, value []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	log := b.logs[partition]
	offset := b.starts[partition] + int64(len(log))
	b.logs[partition] = append(log, fetched{partition, offset, []byte(job), value})
	b.change()
}

// expire deletes the replies below an offset, as retention does.
func (b *broker) expire(partition int32, start int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.logs[partition] = b.logs[partition][start-b.starts[partition]:]
	b.starts[partition] = start
	b.change()
}

// jobs waits for so many records on the jobs topic and returns them.
func (b *broker) jobs(t *testing.T, count int) []sentRecord {
	t.Helper()
	for until := time.Now().Add(waitTime); ; {
		b.mu.Lock()
		sent, changed := b.sent, b.changed
		b.mu.Unlock()
		if len(sent) >= count {
			return sent
		}
		select {
		case <-changed:
		case <-time.After(time.Until(until)):
			t.Fatalf("%d records were sent, not %d", len(sent), count)
		}
	}
}

// waitTime is how long a test waits for what must come; nothing is proved by how long it takes.
const waitTime = time.Minute

// connection is a client's transport to a broker.
type connection struct {
	broker  *broker
	perPoll int
	at      map[int32]int64 // only the goroutine that polls uses it
}

func (c *connection) open(context.Context) (partitions, error) {
	return partitions{3, int32(len(c.broker.logs))}, nil
}

func (c *connection) close() {}

func (c *connection) send(ctx context.Context, partition int32, key, value []byte, headers []header) error {
	b := c.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sendFail != nil {
		return b.sendFail
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	b.sent = append(b.sent, sentRecord{partition, key, value, headers})
	b.change()
	return nil
}

func (c *connection) bounds(_ context.Context, partition int32) (start, end int64, err error) {
	b := c.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	start = b.starts[partition]
	return start, start + int64(len(b.logs[partition])), nil
}

func (c *connection) end(ctx context.Context, partition int32) (int64, error) {
	_, end, err := c.bounds(ctx, partition)
	return end, err
}

func (c *connection) follow(moves map[int32]int64) {
	for partition, offset := range moves {
		if offset == notFollowed {
			delete(c.at, partition)
		} else {
			c.at[partition] = offset
		}
	}
}

func (c *connection) poll(ctx context.Context) (records []fetched, failed []*partitionError) {
	for {
		c.broker.mu.Lock()
		changed := c.broker.changed
		records, failed = c.fetch()
		c.broker.mu.Unlock()
		if len(records)+len(failed) > 0 {
			return records, failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil
		}
	}
}

func (c *connection) fetch() (records []fetched, failed []*partitionError) {
	for partition, at := range c.at {
		log, start := c.broker.logs[partition], c.broker.starts[partition]
		if at < start || at > start+int64(len(log)) {
			delete(c.at, partition)
			failed = append(failed, &partitionError{partition, true, fmt.Errorf("no offset %d", at)})
			continue
		}
		rest := log[at-start:]
		rest = rest[:min(len(rest), c.perPoll)]
		records = append(records, rest...)
		c.at[partition] = at + int64(len(rest))
		c.broker.reads += len(rest)
	}
	return records, failed
}

// connect returns a client of a broker, which is closed with the test.
func connect(t *testing.T, b *broker, options Options) *Client {
	t.Helper()
	options.Tenant = "acme"
	client, err := open(t.Context(), options, &connection{broker: b, perPoll: 7, at: map[int32]int64{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// worker writes the replies to one job, in one of the two forms.
type worker struct {
	broker    *broker
	partition int32
	job       string
	epoch     [2]int64
	name      string
	index     int
	json      bool
}

func (w *worker) put(kind string, fields map[string]any) {
	record := map[string]any{"v": 1, "kind": kind, "job": w.job}
	if kind != "redirect" && kind != "conflict" {
		record["epoch"], record["worker"] = []any{w.epoch[0], w.epoch[1]}, w.name
	}
	for name, value := range fields {
		record[name] = value
	}
	var value []byte
	var err error
	if w.json {
		value, err = json.Marshal(record)
	} else {
		value, err = appendJSON(nil, record, maxPackDepth)
	}
	if err != nil {
		panic(err)
	}
	w.broker.put(w.partition, w.job, value)
}

// say writes a record for each text, of one token with its index as id.
func (w *worker) say(texts ...string) {
	for _, text := range texts {
		w.put("tokens", map[string]any{"index": w.index, "ids": []any{w.index}, "text": text})
		w.index++
	}
}

func (w *worker) done() {
	w.put("done", map[string]any{
		"index": w.index, "text": "", "finish_reason": "stop", "adapter": nil, "digest": nil, "base": "tiny",
		"usage": map[string]any{"prompt_tokens": 1, "completion_tokens": w.index}, "seed": 7,
		"timings": map[string]any{"queue_ms": 1, "ttft_ms": 2.5, "total_ms": 3},
	})
}

func (w *worker) fail(code string, more map[string]any) {
	fields := map[string]any{"index": w.index, "code": code, "message": "no", "retryable": false}
	for name, value := range more {
		fields[name] = value
	}
	w.put("error", fields)
}

func workerOf(b *broker, stream *Stream) *worker {
	return &worker{broker: b, partition: stream.box.partition, job: stream.Job(), epoch: [2]int64{1, 1}, name: "a"}
}
