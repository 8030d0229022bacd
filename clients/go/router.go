package aril

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// router hands the records of one reader to many jobs, and says where that reader has to read. An
// inbox that is full takes nothing more; once it has been emptied by half, the reader goes back to
// the first record that it left out. The log is the buffer: a slow caller costs its neighbours
// neither memory nor records, only some reading twice.
//
// Only the reader's goroutine moves the reader, between two polls, by what `begin` hands it. What a
// poll brings of a partition that was asked to move meanwhile is from the old place, and dropped.
type router struct {
	mu      sync.Mutex
	inboxes map[string]*inbox
	next    map[int32]int64 // what is read next of each partition that is followed
	moves   map[int32]int64 // where to read from, notFollowed for nowhere; the reader does so soon
	stop    context.CancelFunc
	closed  error
}

// notFollowed is the place of a partition of which nothing is wanted.
const notFollowed int64 = -1

func newRouter() *router {
	return &router{
		inboxes: map[string]*inbox{}, next: map[int32]int64{}, moves: map[int32]int64{},
		stop: func() {},
	}
}

// begin returns how the reader has to move before its next poll, whether anything is followed then,
// and a context for that poll, which ends when it has to move again.
func (r *router) begin(ctx context.Context) (context.Context, map[int32]int64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop()
	ctx, r.stop = context.WithCancel(ctx)
	moves := r.moves
	r.moves = map[int32]int64{}
	return ctx, moves, len(r.next) > 0
}

// position returns what will be read next of a partition that is followed: as good a start as its
// end, and free. The error is that the client was closed.
func (r *router) position(partition int32) (at int64, followed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, followed = r.next[partition]
	return at, followed, r.closed
}

// add begins to read for a job.
func (r *router) add(box *inbox) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed != nil {
		return r.closed
	}
	if r.inboxes[box.job] != nil {
		return fmt.Errorf("%w: %s", ErrAlreadyRead, box.job)
	}
	r.inboxes[box.job] = box
	r.readFrom(box)
	return nil
}

// leave stops reading for a job; it tells whether that changed anything, and whether the job's end
// had been read.
func (r *router) leave(box *inbox) (left, finished bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left, box.left = !box.left, true
	r.remove(box)
	box.wake()
	return left, box.visible.finished || box.failure != nil
}

// take returns the next event of a job, nil and why for none; nil and nil is for now.
func (r *router) take(box *inbox) (Event, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if box.left {
		return nil, fmt.Errorf("%w: %w", ErrClosed, errLeft)
	}
	event := box.take()
	if event == nil {
		return nil, box.failure
	}
	if box.stalled && box.roomy() {
		box.stalled = false
		r.readFrom(box)
	}
	return event, nil
}

// look does something with an inbox that nothing changes meanwhile.
func (r *router) look(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

// deliver hands over what a poll has brought; each partition in order.
func (r *router) deliver(records []fetched) {
	r.mu.Lock()
	defer r.mu.Unlock()
	moving := make(map[int32]bool, len(r.moves))
	for partition := range r.moves {
		moving[partition] = true
	}
	var redirected []*inbox
	for _, record := range records {
		next, followed := r.next[record.partition]
		if !followed || moving[record.partition] || record.offset < next {
			continue
		}
		r.next[record.partition] = record.offset + 1
		box := r.inboxes[string(record.key)]
		if box == nil || box.partition != record.partition {
			continue
		}
		box.offer(record)
		switch {
		case box.visible.finished || box.failure != nil:
			r.remove(box)
		case box.stalled:
			r.rest(record.partition)
			if box.redirected && !slices.Contains(redirected, box) {
				redirected = append(redirected, box)
			}
		}
	}
	for _, box := range redirected { // only now: what was left of this poll lay ahead of them
		box.stalled, box.redirected = false, false
		r.readFrom(box)
	}
}

// trim fails the jobs whose next record is not in the log, which holds start to end, and reads on
// for the others.
func (r *router) trim(partition int32, start, end int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.next, partition)
	for job, box := range r.inboxes {
		switch {
		case box.partition != partition:
		case start <= box.position && box.position <= end:
			if !box.stalled {
				r.readFrom(box)
			}
		default:
			delete(r.inboxes, job)
			box.fail(fmt.Errorf("%w: replies to job %s from offset %d (it holds %d to %d)",
				ErrStreamLost, job, box.position, start, end))
		}
	}
	if _, followed := r.next[partition]; !followed {
		r.move(partition, notFollowed)
	}
}

// fail fails the jobs that are answered in one partition, or in any.
func (r *router) fail(partition int32, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, box := range r.inboxes {
		if partition == allPartitions || box.partition == partition {
			box.fail(err)
			r.remove(box)
		}
	}
}

// close fails every job and returns the ids of those that had not ended; none is added any more.
func (r *router) close(err error) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = err
	jobs := make([]string, 0, len(r.inboxes))
	for job, box := range r.inboxes {
		jobs = append(jobs, job)
		box.fail(err)
		r.remove(box)
	}
	return jobs
}

func (r *router) remove(box *inbox) {
	if r.inboxes[box.job] == box {
		delete(r.inboxes, box.job)
		r.rest(box.partition)
	}
}

func (r *router) readFrom(box *inbox) {
	at, followed := r.next[box.partition]
	if !followed || box.position < at {
		r.next[box.partition] = box.position
		r.move(box.partition, box.position)
	}
}

func (r *router) rest(partition int32) {
	for _, box := range r.inboxes {
		if box.partition == partition && !box.stalled {
			return
		}
	}
	if _, followed := r.next[partition]; followed {
		delete(r.next, partition)
		r.move(partition, notFollowed)
	}
}

func (r *router) move(partition int32, offset int64) {
	r.moves[partition] = offset
	r.stop()
}
