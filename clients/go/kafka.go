package aril

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

const (
	pollRecords = 500
	// requestTime is after how long brokers that do not answer are not available.
	requestTime = 15 * time.Second
	// fetchWait is short, since a partition that is followed anew waits for the fetch in flight.
	fetchWait = 50 * time.Millisecond
	// maxFetchBytes is what one broker may have sent ahead of us, maxUnpackedBytes what one batch
	// may hold.
	maxFetchBytes    = 8 << 20
	maxUnpackedBytes = 16 << 20
	// maxBatchBytes has room for the largest request with its key and headers.
	maxBatchBytes = 1 << 20
	// maxSkipped is how many records are rather read past than looked up anew.
	maxSkipped = 1_000

	latest   = -1 // timestamps that ask for an end of a log
	earliest = -2
)

// kafka is the transport on a Kafka cluster, by franz-go.
type kafka struct {
	jobsTopic, replyTopic string
	options               []kgo.Opt
	client                *kgo.Client
	// at holds the partitions that the library knows, and the next record that it gives of each.
	// Those that rest are paused: to go on is free, to add a partition asks for the metadata and to
	// remove one ends the fetches of all others.
	at map[int32]int64
	// added are those of which nothing has come yet.
	added map[int32]bool
	// met holds the offsets at which batches were last met that cannot be unpacked.
	met map[int32]int64
}

func newKafka(brokers []string, jobsTopic, replyTopic string, options []kgo.Opt) *kafka {
	ours := []kgo.Opt{
		kgo.SeedBrokers(brokers...),
		kgo.ClientID("aril-go"),
		kgo.MaxVersions(versions()),
		kgo.RetryTimeout(requestTime),
		kgo.RecordDeliveryTimeout(requestTime),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(maxBatchBytes),
		kgo.ProducerBatchCompression(kgo.NoCompression()), // as the jobs topic has it
		kgo.FetchMaxWait(fetchWait),
		kgo.FetchMaxBytes(maxFetchBytes),
		kgo.MaxDecompressBatchBytes(maxUnpackedBytes),
	}
	ours = append(ours, options...)
	ours = append(ours, // what is right only so
		kgo.RequiredAcks(kgo.AllISRAcks()),
		// A job or a cancel that lands twice or late is harmless; being stuck is not.
		kgo.DisableIdempotentWrite(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		// Else the library would go on a minute back from where the log was cut off, and say nothing.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		// No partition yet. A topic that the library does not know when a partition of it is added
		// takes a second longer.
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{replyTopic: {}}),
	)
	return &kafka{
		jobsTopic: jobsTopic, replyTopic: replyTopic, options: ours,
		at: map[int32]int64{}, added: map[int32]bool{}, met: map[int32]int64{},
	}
}

// versions are the library's but for that of the first request on each connection: Kafka 4.1 asks for
// it again in an older one, and the broker of `aril demo` hangs up.
func versions() *kversion.Versions {
	versions := kversion.Tip()
	versions.SetMaxKeyVersion(kmsg.ApiVersions.Int16(), 4)
	return versions
}

func (k *kafka) open(ctx context.Context) (partitions, error) {
	client, err := kgo.NewClient(k.options...)
	if err != nil {
		return partitions{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	k.client = client
	count, err := k.count(ctx)
	if err != nil {
		client.Close()
	}
	return count, err
}

// count asks for both topics by name without having them created.
func (k *kafka) count(ctx context.Context) (count partitions, err error) {
	request := kmsg.NewPtrMetadataRequest()
	for _, topic := range []string{k.jobsTopic, k.replyTopic} {
		asked := kmsg.NewMetadataRequestTopic()
		asked.Topic = kmsg.StringPtr(topic)
		request.Topics = append(request.Topics, asked)
	}
	answer, err := request.RequestWith(ctx, k.client)
	if err != nil {
		return count, unavailable(ctx, err)
	}
	for _, topic := range answer.Topics {
		switch err := kerr.ErrorForCode(topic.ErrorCode); {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			return count, fmt.Errorf("%w: %s (`aril topics` creates it)", ErrTopicMissing, *topic.Topic)
		case err != nil:
			return count, unavailable(ctx, fmt.Errorf("topic %s: %w", *topic.Topic, err))
		case *topic.Topic == k.jobsTopic:
			count.jobs = int32(len(topic.Partitions))
		default:
			count.replies = int32(len(topic.Partitions))
		}
	}
	return count, nil
}

func (k *kafka) close() { k.client.Close() }

func (k *kafka) send(ctx context.Context, partition int32, key, value []byte, headers []header) error {
	record := &kgo.Record{
		Topic: k.jobsTopic, Partition: partition, Key: key, Value: value,
		Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/msgpack")}},
	}
	for _, each := range headers {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: each.name, Value: each.value})
	}
	sent := make(chan error, 1)
	k.client.Produce(ctx, record, func(_ *kgo.Record, err error) { sent <- err })
	select { // the library waits for a request in flight, whatever the context says
	case err := <-sent:
		return unavailable(ctx, err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *kafka) bounds(ctx context.Context, partition int32) (start, end int64, err error) {
	if start, err = k.offset(ctx, partition, earliest); err != nil {
		return 0, 0, err
	}
	end, err = k.offset(ctx, partition, latest)
	return start, end, err
}

func (k *kafka) end(ctx context.Context, partition int32) (int64, error) {
	return k.offset(ctx, partition, latest)
}

// offset asks the partition's leader, again for as long as there is none.
func (k *kafka) offset(ctx context.Context, partition int32, timestamp int64) (int64, error) {
	request := kmsg.NewPtrListOffsetsRequest()
	place := kmsg.NewListOffsetsRequestTopicPartition()
	place.Partition, place.Timestamp = partition, timestamp
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic, topic.Partitions = k.replyTopic, append(topic.Partitions, place)
	request.Topics = append(request.Topics, topic)
	for until := time.Now().Add(requestTime); ; {
		answer, err := request.RequestWith(ctx, k.client)
		if err == nil && (len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1) {
			err = errors.New("no offset of the partition was told")
		}
		if err == nil {
			told := answer.Topics[0].Partitions[0]
			if err = kerr.ErrorForCode(told.ErrorCode); err == nil {
				return told.Offset, nil
			}
		}
		if !kerr.IsRetriable(err) || time.Now().After(until) {
			return 0, unavailable(ctx, err)
		}
		select {
		case <-time.After(fetchWait):
		case <-ctx.Done():
		}
	}
}

func (k *kafka) follow(moves map[int32]int64) {
	for partition, offset := range moves {
		at, known := k.at[partition]
		switch {
		case offset == notFollowed:
			k.client.PauseFetchPartitions(k.place(partition))
		case known && at <= offset && offset-at <= maxSkipped: // the router passes over what is between
			k.client.ResumeFetchPartitions(k.place(partition))
		default:
			k.forget(partition)
			k.client.ResumeFetchPartitions(k.place(partition))
			k.at[partition], k.added[partition] = offset, true
			k.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{
				k.replyTopic: {partition: kgo.NewOffset().At(offset)},
			})
		}
	}
}

// forget ends what the library knows of a partition. It waits for fetches to end, and what they
// brought of this partition is gone.
func (k *kafka) forget(partition int32) {
	if _, known := k.at[partition]; known {
		delete(k.at, partition)
		delete(k.added, partition)
		delete(k.met, partition)
		k.client.RemoveConsumePartitions(k.place(partition))
	}
}

func (k *kafka) place(partition int32) map[string][]int32 {
	return map[string][]int32{k.replyTopic: {partition}}
}

func (k *kafka) poll(ctx context.Context) ([]fetched, []*partitionError) {
	fetches := k.client.PollRecords(ctx, pollRecords)
	records := make([]fetched, 0, fetches.NumRecords())
	var failed []*partitionError
	fetches.EachPartition(func(place kgo.FetchTopicPartition) {
		at, known := k.at[place.Partition]
		if !known || len(place.Records) == 0 {
			return
		}
		if k.added[place.Partition] && place.Records[0].Offset != at && k.cutOff(place.Partition, at) {
			k.forget(place.Partition)
			failed = append(failed, &partitionError{place.Partition, true, kerr.OffsetOutOfRange})
			return
		}
		delete(k.added, place.Partition)
		for _, each := range place.Records {
			records = append(records, fetched{each.Partition, each.Offset, each.Key, each.Value})
			k.at[place.Partition] = each.Offset + 1
		}
	})
	for _, each := range fetches.Errors() {
		if ctx.Err() != nil && errors.Is(each.Err, ctx.Err()) {
			continue
		}
		if _, known := k.at[each.Partition]; !known && each.Partition >= 0 {
			continue // told of a partition that was forgotten meanwhile
		}
		if each.Partition >= 0 && isUnreadable(each.Err) {
			k.leaveOut(each.Partition, each.Err)
			continue
		}
		k.forget(each.Partition)
		failed = append(failed, whyFailed(each.Partition, each.Err))
	}
	return records, failed
}

// cutOff tells whether the log no longer holds an offset, where a partition that was added at it
// begins elsewhere. Offsets may be missing in a log; but the library also moves the offset into the
// log, and says nothing, where a partition was added before it knew the topic.
func (k *kafka) cutOff(partition int32, offset int64) bool {
	ctx, stop := context.WithTimeout(context.Background(), requestTime)
	defer stop()
	start, err := k.offset(ctx, partition, earliest)
	return err != nil || start > offset
}

func whyFailed(partition int32, err error) *partitionError {
	var lost *kgo.ErrDataLoss
	failed := &partitionError{partition: max(partition, allPartitions)}
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange), errors.As(err, &lost):
		failed.outOfRange, failed.err = true, err
	default:
		failed.err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return failed
}

// unavailable says what an error is, unless it is that the caller did not wait any longer.
func unavailable(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, kgo.ErrClientClosed) {
		return fmt.Errorf("the client was %w", ErrClosed)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
