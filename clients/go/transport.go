package aril

import (
	"context"
	"fmt"
)

// transport is the seam between the client and a broker: one producer of jobs, and one reader of a
// reply topic without a group. Errors are of ErrUnavailable.
type transport interface {
	// open connects and returns how many partitions the two topics have.
	open(ctx context.Context) (partitions, error)
	// close disconnects; it is called once no poll is running.
	close()
	// send appends a record to the jobs topic and waits until every in-sync replica has it.
	send(ctx context.Context, partition int32, key, value []byte, headers []header) error
	// bounds returns the first offset that a reply partition holds, and that of its next record.
	bounds(ctx context.Context, partition int32) (start, end int64, err error)
	// end returns only the second of these.
	end(ctx context.Context, partition int32) (int64, error)
	// follow lets polls bring the records of reply partitions from these offsets on, and nothing of
	// those that are notFollowed. Nothing that was fetched before comes of a partition that moved.
	// Only the goroutine that polls calls it.
	follow(moves map[int32]int64)
	// poll waits until something has arrived or the context ends, and returns what has arrived,
	// each partition in order, and which partitions bring nothing more until they are followed anew.
	poll(ctx context.Context) ([]fetched, []*partitionError)
}

type partitions struct{ jobs, replies int32 }

type header struct {
	name  string
	value []byte
}

// fetched is one record of the reply topic.
type fetched struct {
	partition  int32
	offset     int64
	key, value []byte
}

// partitionError is why a followed partition brings nothing more; allPartitions is why none does.
type partitionError struct {
	partition int32
	// outOfRange: the log does not hold the offset to read.
	outOfRange bool
	err        error
}

const allPartitions int32 = -1

func (e *partitionError) Error() string {
	return fmt.Sprintf("partition %d: %v", e.partition, e.err)
}

func (e *partitionError) Unwrap() error { return e.err }
