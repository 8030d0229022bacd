package aril

import (
	"errors"
	"fmt"
)

const (
	// inboxEvents is how far a job may be ahead of its reader: a few screens of text.
	inboxEvents = 512
	// inboxBytes is the same of the records that events came in, for those with long logprobs. One
	// record may be past it, so that any record is read.
	inboxBytes = 1 << 20
)

// inbox is one job's end: the reader rule, and the events that its reader has not taken yet. The
// router's lock guards it.
type inbox struct {
	job       string
	partition int32
	start     int64  // where the replies to the job begin
	position  int64  // the next record to take
	limit     int    // events; the bytes' is inboxBytes
	sent      string // SHA-256 of the job's record in hexadecimal, "" where none was sent for this inbox

	visible visible
	waiting []waitingEvent
	bytes   int
	folded  mark // how far `visible` has come
	given   mark // how far the reader has come
	// replaying lasts until what a resumed reader was given before has been folded again.
	replaying bool
	// stalled: nothing is taken until the log is read again from `position`.
	stalled bool
	// redirected: stalled only until the log is read from an earlier place.
	redirected bool
	failure    error
	left       bool
	arrived    chan struct{} // holds an element when there is something to look at
}

type waitingEvent struct {
	event Event
	bytes int
}

func newInbox(job string, partition int32, position int64, limit int) *inbox {
	return &inbox{
		job: job, partition: partition, start: position, position: position, limit: limit,
		arrived: make(chan struct{}, 1),
	}
}

// offer takes the partition's next record of this job, or stalls if the inbox is full.
func (box *inbox) offer(record fetched) {
	if record.offset < box.position || box.stalled {
		return
	}
	if len(box.waiting) >= box.limit || box.bytes >= inboxBytes {
		box.stalled = true
		return
	}
	box.position = record.offset + 1
	told, err := decodeReply(record.value)
	if err != nil {
		box.fail(fmt.Errorf("%w: job %s, offset %d: %w", ErrUnreadable, box.job, record.offset, err))
		return
	}
	if told == nil {
		box.notice(record.value)
		return
	}
	if told.job != box.job {
		return
	}
	// An event counts with the bytes of its record: what it holds is about as much.
	for _, event := range box.visible.feed(told) {
		if box.admit(event, len(record.value)); box.failure != nil {
			return // nothing more is given of a record that a token fits no place in
		}
	}
}

// notice takes a record of no answer: it may say where the job's is, or that there is none.
func (box *inbox) notice(value []byte) {
	nothingSeen := box.folded == (mark{}) && box.given == (mark{})
	if start := decodeRedirect(value, box.job); start >= 0 {
		if start < box.start && nothingSeen {
			box.goBack(start)
		}
		return
	}
	told, ok := decodeConflict(value, box.job)
	if !ok {
		return
	}
	// Who did not send the job knows only the place, where then is no other one's answer.
	mine := nothingSeen && told.replyFrom == box.start
	if box.sent != "" {
		mine = told.sha256 == box.sent
	}
	if mine {
		box.fail(fmt.Errorf("%w: %s", ErrConflict, box.job))
	}
}

// goBack reads from `start` instead: the job was sent before, and its answer begins there.
func (box *inbox) goBack(start int64) {
	box.start, box.position = start, start
	box.visible = visible{}
	box.stalled, box.redirected = true, true
}

func (box *inbox) admit(event Event, bytes int) {
	before := box.folded
	box.folded = before.after(event)
	if box.replaying {
		var beside bool
		switch event.(type) {
		case Tokens, Reset:
			if !box.given.less(box.folded) {
				return
			}
			beside = before.less(box.given) && before.resets == box.given.resets
		default:
			beside = box.folded.less(box.given)
		}
		if beside {
			box.fail(fmt.Errorf("%w: that of job %s fits no place in its stream", ErrBadToken, box.job))
			return
		}
		box.replaying = false
	}
	box.waiting = append(box.waiting, waitingEvent{event, bytes})
	box.bytes += bytes
	box.wake()
}

// take returns the reader's next event, nil for now.
func (box *inbox) take() Event {
	if len(box.waiting) == 0 {
		return nil
	}
	next := box.waiting[0]
	box.waiting[0] = waitingEvent{}
	if box.waiting = box.waiting[1:]; len(box.waiting) == 0 {
		box.waiting = nil
	}
	box.bytes -= next.bytes
	box.given = box.given.after(next.event)
	return next.event
}

// roomy tells whether an inbox that was full has been emptied by half.
func (box *inbox) roomy() bool {
	return len(box.waiting) <= box.limit/2 && box.bytes <= inboxBytes/2
}

// fail tells the reader, after what has already arrived, that nothing more will come.
func (box *inbox) fail(err error) {
	if box.failure == nil {
		box.failure = err
	}
	box.wake()
}

func (box *inbox) wake() {
	select {
	case box.arrived <- struct{}{}:
	default:
	}
}

// token says where the reader stands now.
func (box *inbox) token() Token {
	return Token{box.job, box.partition, box.start, box.given.tokens, box.given.resets}
}

// answer returns what is visible, with what its end says.
func (box *inbox) answer(ending Ending) *Answer {
	return &Answer{
		Job: box.job, Text: string(box.visible.text), TokenIDs: box.visible.ids,
		Resets: box.visible.resets, Ending: ending,
	}
}

var errLeft = errors.New("the stream was left")
