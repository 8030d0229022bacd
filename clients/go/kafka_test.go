package aril

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const replyPartitions = 3

// cluster is a real Kafka with topics of its own for a test, which plays the workers.
type cluster struct {
	t        *testing.T
	brokers  []string
	jobs     string
	prefix   string
	admin    *kgo.Client
	options  Options
	sequence sync.Mutex // a job's replies are produced in order
}

// onKafka skips where no broker is named: tests/clients/test_go.py of the repository starts one.
func onKafka(t *testing.T) *cluster {
	t.Helper()
	bootstrap := os.Getenv("ARIL_TEST_KAFKA")
	if bootstrap == "" {
		t.Skip("ARIL_TEST_KAFKA names no broker (host:port)")
	}
	stem := fmt.Sprintf("go-%d", rand.Uint32())
	c := &cluster{t: t, brokers: []string{bootstrap}, jobs: "jobs-" + stem, prefix: "replies-" + stem + "."}
	c.options = Options{Brokers: c.brokers, Tenant: "acme", JobsTopic: c.jobs, RepliesPrefix: c.prefix}
	var err error
	c.admin, err = kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
			c.jobs: {0: kgo.NewOffset().At(0), 1: kgo.NewOffset().At(0)},
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.admin.Close)
	c.create(c.jobs, 2)
	c.create(c.prefix+"acme", replyPartitions)
	return c
}

func (c *cluster) create(topic string, partitions int32) {
	c.t.Helper()
	request := kmsg.NewPtrCreateTopicsRequest()
	asked := kmsg.NewCreateTopicsRequestTopic()
	asked.Topic, asked.NumPartitions, asked.ReplicationFactor = topic, partitions, 1
	request.Topics = append(request.Topics, asked)
	answer, err := request.RequestWith(waiting(c.t), c.admin)
	if err == nil {
		err = kerr.ErrorForCode(answer.Topics[0].ErrorCode)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// connect waits until the broker tells of the topics that it has just made.
func (c *cluster) connect() *Client {
	c.t.Helper()
	client, err := Open(waiting(c.t), c.options)
	for until := time.Now().Add(waitTime); errors.Is(err, ErrTopicMissing) && time.Now().Before(until); {
		client, err = Open(waiting(c.t), c.options)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(client.Close)
	return client
}

// put appends what a worker wrote on a broker in memory, and takes it from there.
func (c *cluster) put(w *worker) {
	c.t.Helper()
	records := []*kgo.Record{}
	for _, each := range w.broker.logs[w.partition] {
		records = append(records, &kgo.Record{
			Topic: c.prefix + "acme", Partition: w.partition, Key: each.key, Value: each.value,
		})
	}
	w.broker.logs[w.partition] = nil
	c.sequence.Lock()
	defer c.sequence.Unlock()
	if err := c.admin.ProduceSync(waiting(c.t), records...).FirstErr(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) worker(stream *Stream) *worker { return workerOf(newBroker(replyPartitions), stream) }

// expire deletes the replies below an offset, as retention does.
func (c *cluster) expire(partition int32, offset int64) {
	c.t.Helper()
	request := kmsg.NewPtrDeleteRecordsRequest()
	topic := kmsg.NewDeleteRecordsRequestTopic()
	place := kmsg.NewDeleteRecordsRequestTopicPartition()
	place.Partition, place.Offset = partition, offset
	topic.Topic, topic.Partitions = c.prefix+"acme", append(topic.Partitions, place)
	request.Topics, request.TimeoutMillis = append(request.Topics, topic), 10_000
	answer, err := request.RequestWith(waiting(c.t), c.admin)
	if err == nil {
		err = kerr.ErrorForCode(answer.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func TestKafkaWhatIsSent(t *testing.T) {
	c := onKafka(t)
	client := c.connect()
	long := strings.Repeat("x", 499_000)
	stream := send(t, client, Job{ID: "o-81", Prompt: long})
	if err := stream.Cancel(waiting(t)); err != nil {
		t.Fatal(err)
	}
	var got []*kgo.Record
	for len(got) < 2 {
		got = append(got, c.admin.PollFetches(waiting(t)).Records()...)
	}
	for at, kind := range []string{"job", "cancel"} {
		fields, err := unpackMap(got[at].Value, maxRequestBytes)
		if err != nil || fields["kind"] != kind || string(got[at].Key) != "o-81" {
			t.Errorf("record %d is a %v of %q, %v", at, fields["kind"], got[at].Key, err)
		}
		if got[at].Partition != partitionOf("o-81", 2) {
			t.Errorf("it is in partition %d", got[at].Partition)
		}
		header := got[at].Headers[0]
		if header.Key != "content-type" || string(header.Value) != "application/msgpack" {
			t.Errorf("header is %s: %s", header.Key, header.Value)
		}
	}
}

func TestKafkaTopicsAreNotCreated(t *testing.T) {
	c := onKafka(t)
	c.options.Tenant = "nobody"
	for range 2 {
		if _, err := Open(waiting(t), c.options); !errors.Is(err, ErrTopicMissing) {
			t.Fatal(err)
		}
	}
}

func TestKafkaRetention(t *testing.T) {
	c := onKafka(t)
	client := c.connect()
	stream := send(t, client, Job{})
	w := c.worker(stream)
	w.say("a", "b", "c")
	c.put(w)
	nextText(t, stream, "a")
	token := stream.Detach()
	c.expire(w.partition, 2)
	if _, err := client.Resume(waiting(t), token); !errors.Is(err, ErrStreamLost) {
		t.Errorf("resumed: %v", err)
	}
}

// A full inbox leaves its records in the log; when they are deleted there, that stream ends and the
// partition's other ones go on.
func TestKafkaRetentionOvertakesASlowReader(t *testing.T) {
	c := onKafka(t)
	c.options.Buffer = 2
	client := c.connect()
	place := new(int32(1))
	slow, quick := send(t, client, Job{ReplyPartition: place}), send(t, client, Job{ReplyPartition: place})
	ws, wq := c.worker(slow), c.worker(quick)
	ws.say(strings.Split("abcdefghij", "")...)
	wq.say("1")
	c.put(ws)
	c.put(wq)
	nextText(t, quick, "1")
	c.expire(1, 11)
	nextText(t, slow, "a")
	nextText(t, slow, "b")
	if err := failure(t, slow); !errors.Is(err, ErrStreamLost) {
		t.Error(err)
	}
	wq.say("2")
	wq.done()
	c.put(wq)
	if answer, err := quick.Answer(waiting(t)); err != nil || answer.Text != "12" {
		t.Errorf("got %+v, %v", answer, err)
	}
}

// Small inboxes and slow readers make the reader go back and forth over what is fetched ahead;
// resuming does, too. Each stream is told once and in order.
func TestKafkaManyAtOnce(t *testing.T) {
	const jobs, tokens = 40, 400
	c := onKafka(t)
	c.options.Buffer = 4
	client := c.connect()
	ctx, stop := context.WithTimeout(t.Context(), 3*waitTime)
	defer stop()
	var all sync.WaitGroup
	for number := range jobs {
		random, reading := rand.New(rand.NewPCG(5, uint64(number))), rand.New(rand.NewPCG(6, uint64(number)))
		stream := send(t, client, Job{ID: fmt.Sprintf("job-%d", number)})
		w := c.worker(stream)
		all.Go(func() {
			for w.index < tokens {
				for range 1 + random.IntN(40) {
					w.say(fmt.Sprint(w.index))
				}
				c.put(w)
			}
			w.done()
			c.put(w)
		})
		all.Go(func() {
			for want := 0; ; {
				if reading.IntN(100) == 0 {
					again, err := client.Resume(ctx, stream.Detach())
					if err != nil {
						t.Error(err)
						return
					}
					stream = again
				}
				if reading.IntN(50) == 0 {
					time.Sleep(time.Duration(reading.IntN(5)) * time.Millisecond)
				}
				event, err := stream.Next(ctx)
				if err != nil {
					t.Errorf("job %s after %d tokens: %v", stream.Job(), want, err)
					return
				}
				if told, ok := event.(Tokens); ok && told.Text == fmt.Sprint(want) {
					want++
				} else if _, ended := event.(Done); ended && want >= tokens {
					return
				} else {
					t.Errorf("job %s: %+v is number %d", stream.Job(), event, want)
					return
				}
			}
		})
	}
	all.Wait()
}

// The library may move the offset of a partition that is added into the log without a word; what is
// missing then is told, and what was never there is not missed.
func TestKafkaAStartThatWasMovedIsTold(t *testing.T) {
	c := onKafka(t)
	client := c.connect()
	w := &worker{broker: newBroker(replyPartitions), job: "j", epoch: [2]int64{1, 1}, name: "a"}
	w.say("a", "b", "c", "d", "e", "f")
	c.put(w)
	c.expire(0, 4)
	client.stopReading()
	<-client.reading // the test polls in its place
	transport := client.transport.(*kafka)
	for asked, lost := range map[int64]bool{2: true, 4: false} {
		transport.follow(map[int32]int64{0: 5})
		transport.at[0] = asked // as if it had been asked for, and 5 were the log's first
		records, failed := transport.poll(waiting(t))
		if (len(failed) == 1 && failed[0].outOfRange) != lost || (len(records) == 1) == lost {
			t.Errorf("from %d: %v, %v", asked, records, failed)
		}
		transport.forget(0)
	}
}
