package aril

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// closeTime is how long closing waits for cancel records to be acknowledged.
	closeTime = 5 * time.Second
	// lookTime is how long the reader waits to be told what a log holds.
	lookTime = 2 * requestTime
)

// Options say how to connect, and as whom.
type Options struct {
	Brokers []string // host:port
	Tenant  string

	JobsTopic     string // "jobs" if left out
	RepliesPrefix string // "replies." if left out

	// Signer signs every job and cancel, where workers ask for that.
	Signer *Signer
	// Kafka is passed on to franz-go: kgo.DialTLSConfig, kgo.SASL, kgo.WithLogger, and the like.
	// Acknowledgements, partitions and offsets stay the client's own affair.
	Kafka []kgo.Opt
	// Buffer is how many events one job may be ahead of its reader; 512 if left out.
	Buffer int
}

// Client is one tenant's connection; all jobs and any number of goroutines share it.
type Client struct {
	tenant     string
	jobsTopic  string
	signer     *Signer
	buffer     int
	transport  transport
	partitions partitions
	router     *router

	stopReading context.CancelFunc
	reading     chan struct{} // closed when nobody reads any more
	closing     sync.Once

	mu      sync.Mutex // guards the next two: none begins once closing waits
	cancels sync.WaitGroup
	closed  bool
}

// Open connects. The error is an [ErrUnavailable], or [ErrTopicMissing], if the brokers cannot be
// reached or do not have the tenant's topics; the context bounds only how long that takes.
func Open(ctx context.Context, options Options) (*Client, error) {
	if !isTenant(options.Tenant) {
		return nil, fmt.Errorf("aril: %q is no name of a tenant", options.Tenant)
	}
	jobsTopic := cmp.Or(options.JobsTopic, "jobs")
	replyTopic := cmp.Or(options.RepliesPrefix, "replies.") + options.Tenant
	return open(ctx, options, newKafka(options.Brokers, jobsTopic, replyTopic, options.Kafka))
}

func open(ctx context.Context, options Options, transport transport) (*Client, error) {
	count, err := transport.open(ctx)
	if err != nil {
		return nil, err
	}
	reading, stop := context.WithCancel(context.Background())
	client := &Client{
		tenant:      options.Tenant,
		jobsTopic:   cmp.Or(options.JobsTopic, "jobs"),
		signer:      options.Signer,
		buffer:      cmp.Or(max(options.Buffer, 0), inboxEvents),
		transport:   transport,
		partitions:  count,
		router:      newRouter(),
		stopReading: stop,
		reading:     make(chan struct{}),
	}
	go client.read(reading)
	return client, nil
}

// Close disconnects. Jobs whose streams have not ended and were not detached are cancelled.
func (c *Client) Close() {
	c.closing.Do(func() {
		for _, job := range c.router.close(fmt.Errorf("the client was %w", ErrClosed)) {
			c.cancelSoon(job)
		}
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		c.cancels.Wait() // each ends within closeTime
		c.stopReading()
		<-c.reading
		c.transport.close()
	})
}

// Send sends a job and returns the stream of its answer. The error is an [ErrBadJob] if the job
// cannot be sent, else an [ErrUnavailable]; it is the context's if that ended first, and then the job
// is cancelled, since it may have been sent.
func (c *Client) Send(ctx context.Context, job Job) (*Stream, error) {
	if err := job.check(); err != nil {
		return nil, err
	}
	trace, err := traceHeaders(&job)
	if err != nil {
		return nil, err
	}
	place := partitionOf(job.ID, c.partitions.replies)
	if asked := job.ReplyPartition; asked != nil {
		if place = *asked; place < 0 || place >= c.partitions.replies {
			return nil, fmt.Errorf("%w: there is no reply partition %d", ErrBadJob, place)
		}
	}
	start, followed, err := c.router.position(place)
	if err == nil && !followed {
		start, err = c.transport.end(ctx, place)
	}
	if err != nil {
		return nil, err
	}
	value, err := encodeJob(&job, c.tenant, start)
	if err != nil {
		return nil, err
	}
	box := newInbox(job.ID, place, start, c.buffer)
	digest := sha256.Sum256(value)
	box.sent = hex.EncodeToString(digest[:])
	if err := c.router.add(box); err != nil {
		return nil, err
	}
	if err := c.send(ctx, job.ID, value, trace); err != nil {
		c.leave(box, ctx.Err() != nil)
		return nil, err
	}
	return &Stream{client: c, box: box}, nil
}

// Ask sends a job and returns its whole answer; errors are those of Send and of Stream.Events.
func (c *Client) Ask(ctx context.Context, job Job) (*Answer, error) {
	stream, err := c.Send(ctx, job)
	if err != nil {
		return nil, err
	}
	return stream.Answer(ctx)
}

// Resume returns the rest of a stream that another one, here or elsewhere, had begun to read: what
// comes after the token, a Reset first if what it covers was withdrawn. The error is an
// [ErrStreamLost] if the log does not hold the beginning of the answer any more, an [ErrBadToken] or
// an [ErrUnavailable].
func (c *Client) Resume(ctx context.Context, token Token) (*Stream, error) {
	if token.Partition < 0 || token.Partition >= c.partitions.replies || !isJobID(token.Job) {
		return nil, fmt.Errorf("%w: the reply topic has no partition %d", ErrBadToken, token.Partition)
	}
	if _, _, err := c.router.position(token.Partition); err != nil {
		return nil, err
	}
	start, end, err := c.transport.bounds(ctx, token.Partition)
	if err != nil {
		return nil, err
	}
	if token.ReplyFrom < start || token.ReplyFrom > end {
		return nil, fmt.Errorf("%w: replies to job %s begin at %d (it holds %d to %d)",
			ErrStreamLost, token.Job, token.ReplyFrom, start, end)
	}
	box := newInbox(token.Job, token.Partition, token.ReplyFrom, c.buffer)
	box.given, box.replaying = mark{token.Resets, token.Count}, true
	if err := c.router.add(box); err != nil {
		return nil, err
	}
	return &Stream{client: c, box: box}, nil
}

// Cancel asks for a job to be ended; if it still runs, its stream ends in a [JobError].
func (c *Client) Cancel(ctx context.Context, job string) error {
	if !isJobID(job) {
		return fmt.Errorf("%w: %q is no id", ErrBadJob, job)
	}
	value, err := encodeCancel(job, c.tenant)
	if err != nil {
		return err
	}
	return c.send(ctx, job, value, nil)
}

// send puts a job and its cancel into the same partition, so that they stay in order.
func (c *Client) send(ctx context.Context, job string, value []byte, headers []header) error {
	place, key := partitionOf(job, c.partitions.jobs), []byte(job)
	if c.signer != nil {
		signed := c.signer.header(c.tenant, c.jobsTopic, place, key, value)
		headers = append([]header{{signatureHeader, signed}}, headers...)
	}
	return c.transport.send(ctx, place, key, value, headers)
}

// leave stops reading for a stream, and cancels its job if that has not ended.
func (c *Client) leave(box *inbox, cancel bool) {
	if left, finished := c.router.leave(box); left && cancel && !finished {
		c.cancelSoon(box.job)
	}
}

func (c *Client) cancelSoon(job string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.cancels.Go(func() {
		ctx, stop := context.WithTimeout(context.Background(), closeTime)
		defer stop()
		_ = c.Cancel(ctx, job) // nobody is there to be told, and the job ends by itself
	})
}

// read is the goroutine that moves the reader and hands over what it brings.
func (c *Client) read(ctx context.Context) {
	defer close(c.reading)
	for ctx.Err() == nil {
		polling, moves, following := c.router.begin(ctx)
		c.transport.follow(moves)
		if !following {
			<-polling.Done()
			continue
		}
		records, failed := c.transport.poll(polling)
		c.router.deliver(records)
		for _, each := range failed {
			c.failed(ctx, each)
		}
	}
}

func (c *Client) failed(ctx context.Context, failed *partitionError) {
	if !failed.outOfRange {
		c.router.fail(failed.partition, failed)
		return
	}
	ctx, stop := context.WithTimeout(ctx, lookTime)
	defer stop()
	start, end, err := c.transport.bounds(ctx, failed.partition)
	if err != nil {
		c.router.fail(failed.partition, err)
		return
	}
	c.router.trim(failed.partition, start, end)
}
