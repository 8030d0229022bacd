package aril

import (
	"context"
	"fmt"
	"io"
	"iter"
)

// Stream is one job as its caller sees it. Its events are for one goroutine; the other methods may be
// called from any.
//
// Who leaves a stream before its end, by Close or out of a loop over Events, cancels the job; Detach
// leaves it running.
type Stream struct {
	client *Client
	box    *inbox
	over   bool // the end was handed over
	answer *Answer
}

// Job returns the job's id.
func (s *Stream) Job() string { return s.box.job }

// Token says where the caller stands now, after the last event that it was given.
func (s *Stream) Token() (token Token) {
	s.client.router.look(func() { token = s.box.token() })
	return token
}

// Next returns the next event, waiting for it. After Done the error is io.EOF. Else it is the
// [*JobError] that the job ended in, an [ErrStreamLost], [ErrUnreadable], [ErrBadToken],
// [ErrUnavailable] or [ErrClosed], after which there are no events; or the context's, after which
// Next may be called again.
func (s *Stream) Next(ctx context.Context) (Event, error) {
	if s.over {
		return nil, io.EOF
	}
	for {
		event, err := s.client.router.take(s.box)
		switch event := event.(type) {
		case nil:
			if err != nil {
				return nil, err
			}
		case *JobError:
			s.over = true
			return nil, event
		case Done:
			s.over = true
			s.answer = s.box.answer(event.Ending) // nothing changes a finished inbox
			return event, nil
		default:
			return event, nil
		}
		select {
		case <-s.box.arrived:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Events returns the events from here to the end; the error, if there is one, comes last, and is one
// of those of Next. Who leaves the loop early, or lets the context end, cancels the job.
func (s *Stream) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		defer s.Close()
		for {
			event, err := s.Next(ctx)
			if err == io.EOF || !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// Answer waits for the end and returns the whole answer, resets withdrawn and what was read before
// included. Errors are those of Events.
func (s *Stream) Answer(ctx context.Context) (*Answer, error) {
	for _, err := range s.Events(ctx) {
		if err != nil {
			return nil, err
		}
	}
	if s.answer == nil {
		return nil, fmt.Errorf("%w: the stream of job %s has no answer", ErrClosed, s.box.job)
	}
	return s.answer, nil
}

// Cancel asks the worker to end the job; the stream then ends in a [JobError].
func (s *Stream) Cancel(ctx context.Context) error { return s.client.Cancel(ctx, s.box.job) }

// Detach stops reading and lets the job run; it returns the token to resume it with.
func (s *Stream) Detach() Token {
	s.client.leave(s.box, false)
	return s.Token()
}

// Close stops reading, and cancels the job unless its end has been read. It does not wait.
func (s *Stream) Close() { s.client.leave(s.box, true) }
