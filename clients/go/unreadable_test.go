package aril

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// batchOf returns a batch of one record's bytes as it lies in a log.
func batchOf(records []byte, attributes int16, count int32) []byte {
	batch := kmsg.RecordBatch{Magic: 2, Attributes: attributes, NumRecords: count, Records: records}
	const behindCRC = 21
	data := batch.AppendTo(nil)
	batch.Length = int32(len(data) - 12)
	data = batch.AppendTo(nil)
	batch.CRC = int32(crc32.Checksum(data[behindCRC:], crc32.MakeTable(crc32.Castagnoli)))
	return batch.AppendTo(nil)
}

// The library's own words for each way in which a batch cannot be taken apart, from the library.
func TestWhatIsUnreadable(t *testing.T) {
	var large bytes.Buffer
	packer := gzip.NewWriter(&large)
	_, _ = packer.Write(make([]byte, 2*maxUnpackedBytes))
	_ = packer.Close()
	damaged := func(at int, data []byte) []byte { data[at] ^= 1; return data }
	for name, data := range map[string][]byte{
		"no gzip":        batchOf([]byte("no gzip"), 1, 1),
		"no such codec":  batchOf([]byte("x"), 7, 1),
		"wrong sum":      damaged(22, batchOf([]byte("x"), 0, 1)),
		"wrong magic":    damaged(16, batchOf([]byte("x"), 0, 1)),
		"below zero":     batchOf([]byte("x"), 0, -1),
		"nothing inside": batchOf(nil, 0, 1),
	} {
		response := &kmsg.FetchResponseTopicPartition{RecordBatches: data}
		options := kgo.ProcessFetchPartitionOpts{Topic: "t"}
		found, _ := kgo.ProcessFetchPartition(options, response, kgo.DefaultDecompressor(), nil)
		if found.Err == nil || !isUnreadable(found.Err) {
			t.Errorf("%s: %v", name, found.Err)
		}
	}
	if err := fmt.Errorf("of a fetch: %w", &kgo.ErrDecompressTooLarge{}); !isUnreadable(err) {
		t.Error(err)
	}
}

func TestWhatElseGoesWrongIsNoBatch(t *testing.T) {
	for _, err := range []error{
		io.EOF, &net.OpError{Op: "dial", Err: errors.New("refused")}, kgo.ErrClientClosed,
		kerr.UnknownTopicOrPartition, kerr.CorruptMessage, &kgo.ErrDataLoss{},
	} {
		if isUnreadable(err) {
			t.Error(err)
		}
	}
}

func TestKafkaABatchThatIsTooMuchIsLeftOut(t *testing.T) {
	c := onKafka(t)
	client := c.connect()
	stream := send(t, client, Job{})
	w := c.worker(stream)
	w.say("a")
	c.put(w)
	nextText(t, stream, "a")
	packer, err := kgo.NewClient(kgo.SeedBrokers(c.brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(4*maxUnpackedBytes), kgo.ProducerBatchCompression(kgo.GzipCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer packer.Close()
	large := &kgo.Record{Topic: c.prefix + "acme", Partition: w.partition, Value: make([]byte, 2*maxUnpackedBytes)}
	if err := packer.ProduceSync(waiting(t), large).FirstErr(); err != nil {
		t.Fatal(err)
	}
	w.say("b")
	w.done()
	c.put(w)
	if answer, err := stream.Answer(waiting(t)); err != nil || answer.Text != "ab" {
		t.Errorf("got %+v, %v", answer, err)
	}
}

func TestKafkaABatchIsLeftOutTheSecondTimeThatItIsMet(t *testing.T) {
	c := onKafka(t)
	client := c.connect()
	w := &worker{broker: newBroker(replyPartitions), job: "j", epoch: [2]int64{1, 1}, name: "a"}
	w.say("a", "b", "c")
	c.put(w)
	client.stopReading()
	<-client.reading // the test polls in its place
	transport := client.transport.(*kafka)
	transport.follow(map[int32]int64{0: 0})
	for _, want := range []int64{0, 1, 2} {
		transport.leaveOut(0, errors.New("encoded crc"))
		records, failed := transport.poll(waiting(t))
		for len(records)+len(failed) == 0 {
			records, failed = transport.poll(waiting(t))
		}
		if len(failed) > 0 || records[0].offset != want {
			t.Fatalf("want %d: %v, %v", want, records, failed)
		}
		transport.at[0] = want // as if it had not come
	}
}
