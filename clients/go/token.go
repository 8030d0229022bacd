package aril

import (
	"fmt"
	"regexp"
	"strconv"
)

// Token says where a reader stands in a job's replies, so that another process, in any language,
// goes on from there.
type Token struct {
	Job string
	// Partition and ReplyFrom say where the replies begin.
	Partition int32
	ReplyFrom int64
	// Count is how many visible tokens the reader has been given since the last of Resets resets.
	Count  int64
	Resets int64
}

// String returns the token as text, `<partition>.<reply_from>.<count>.<resets>.<job id>`.
func (t Token) String() string {
	return fmt.Sprintf("%d.%d.%d.%d.%s", t.Partition, t.ReplyFrom, t.Count, t.Resets, t.Job)
}

var tokenPattern = regexp.MustCompile(
	`^([0-9]{1,19})\.([0-9]{1,19})\.([0-9]{1,19})\.([0-9]{1,19})\.([A-Za-z0-9._-]{1,64})$`)

// ParseToken reads what String wrote, here or in another language. The error is an [ErrBadToken].
func ParseToken(text string) (Token, error) {
	parts := tokenPattern.FindStringSubmatch(text)
	if parts == nil {
		return Token{}, fmt.Errorf("%w: it is <partition>.<reply_from>.<count>.<resets>.<job id>", ErrBadToken)
	}
	var numbers [4]int64
	for at := range numbers {
		number, err := strconv.ParseInt(parts[at+1], 10, 64)
		if err != nil {
			return Token{}, fmt.Errorf("%w: %s is past 64 bits", ErrBadToken, parts[at+1])
		}
		numbers[at] = number
	}
	if max(numbers[0], numbers[2], numbers[3]) > maxIndex {
		return Token{}, fmt.Errorf("%w: only its offset may be past 31 bits", ErrBadToken)
	}
	return Token{parts[5], int32(numbers[0]), numbers[1], numbers[2], numbers[3]}, nil
}

// mark is how far a reader has come in a job's visible stream; marks compare in that order.
type mark struct{ resets, tokens int64 }

func (m mark) less(other mark) bool {
	if m.resets != other.resets {
		return m.resets < other.resets
	}
	return m.tokens < other.tokens
}

// after returns the mark of a reader that has been given the event, too.
func (m mark) after(event Event) mark {
	switch event := event.(type) {
	case Tokens:
		m.tokens += int64(len(event.IDs))
	case Reset:
		m = mark{m.resets + 1, 0}
	}
	return m
}
