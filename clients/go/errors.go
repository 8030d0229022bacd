package aril

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// What can go wrong beside [JobError]; to be asked for with [errors.Is].
var (
	// ErrBadJob is of a job that is not sent, since no worker could answer it.
	ErrBadJob = errors.New("no job that can be sent")
	// ErrAlreadyRead is of a job that another stream of the same client reads.
	ErrAlreadyRead = errors.New("this job is already being read")
	// ErrUnavailable is of brokers that cannot be reached, or that refused.
	ErrUnavailable = errors.New("Kafka is not available")
	// ErrTopicMissing is of a topic that does not exist; it is an ErrUnavailable too.
	ErrTopicMissing = fmt.Errorf("%w: a topic does not exist", ErrUnavailable)
	// ErrConflict is of a job that is not answered: another one of this tenant has its ID. That one
	// runs on; what came of the stream before may be of its answer.
	ErrConflict = errors.New("another job of this tenant has the id")
	// ErrStreamLost is of a stream whose records the log does not hold, or no longer.
	ErrStreamLost = errors.New("the log does not hold the answer")
	// ErrUnreadable is of a reply that breaks the contract, or is of a newer version of it.
	ErrUnreadable = errors.New("a reply cannot be read")
	// ErrBadToken is of a resume token that is malformed, or fits no place in its stream.
	ErrBadToken = errors.New("no token to resume from")
	// ErrBadKey is of a key to sign with that cannot be read, or is not fit for that.
	ErrBadKey = errors.New("no key to sign with")
	// ErrBadSetting is of a variable of the environment, or a file that one names.
	ErrBadSetting = errors.New("a setting cannot be used")
	// ErrClosed is of a client that was closed, or a stream that was left. The job's token, if it
	// was not cancelled, can be resumed.
	ErrClosed = errors.New("closed")
)

// Code says what has happened to a job that ended in an error. The set is closed in version 1.
type Code string

// The codes of version 1; docs/reference/errors.md says what to do about each.
const (
	InvalidJob         Code = "invalid_job"
	UnsupportedVersion Code = "unsupported_version"
	UnknownAdapter     Code = "unknown_adapter"
	AdapterInvalid     Code = "adapter_invalid"
	PromptTooLong      Code = "prompt_too_long"
	LimitExceeded      Code = "limit_exceeded"
	DeadlineExceeded   Code = "deadline_exceeded"
	Cancelled          Code = "cancelled"
	Overloaded         Code = "overloaded"
	CrashLoop          Code = "crash_loop"
	Internal           Code = "internal"
)

// JobError is how a worker ended a job without a complete answer. What was visible of the answer
// stays so.
type JobError struct {
	Job     string
	Index   int // how many tokens were visible
	Code    Code
	Message string // for people, and may change
	// Retryable tells whether the same job under a new id may succeed with nothing else changed.
	Retryable bool
	// Limit is what was exceeded, "" if nothing was, or it is not told.
	Limit json.Number
	// Given is what was asked for: nil, a json.Number or a string.
	Given any
	// RetryAfter is when a job that was refused as Overloaded may come again, 0 if it is not told.
	RetryAfter time.Duration
	Metadata   map[string]string
}

func (e *JobError) Error() string {
	text := fmt.Sprintf("job %s: %s: %s", e.Job, e.Code, e.Message)
	if e.Limit != "" {
		text += fmt.Sprintf(" (limit %s, given %v)", e.Limit, e.Given)
	}
	return text
}
