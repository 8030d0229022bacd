package aril

// Event is what a stream tells its reader: [Tokens], [Reset] or [Done]. A job that ends in an error
// ends its stream with a [*JobError] instead.
type Event interface{ event() }

// Tokens became visible, the first being the answer's Index-th. Text is what became safe to show
// with them and may be empty.
type Tokens struct {
	Index    int
	IDs      []int32
	Text     string
	Logprobs []TokenLogprobs // a row for each of IDs, or nil if the job asked for none
}

// Reset says that all tokens so far, and their text, are no longer part of the answer: it begins
// again. It is rare, and whoever shows text has to take it back.
type Reset struct {
	Withdrawn int // how many tokens
}

// Done says that the answer is complete; Text is the rest of it.
type Done struct {
	Index int // how many tokens there are
	Text  string
	Ending
}

func (Tokens) event()    {}
func (Reset) event()     {}
func (Done) event()      {}
func (*JobError) event() {} // within the package

// TokenLogprobs are natural logarithms for one token: its own, and the most likely ones.
type TokenLogprobs struct {
	Chosen float64
	Top    []TopLogprob
}

// TopLogprob is one of the most likely tokens of a place.
type TopLogprob struct {
	ID      int32
	Logprob float64
}

// Ending is what the last record says of a complete answer.
type Ending struct {
	FinishReason string // stop or length
	Usage        Usage
	// Adapter and Digest are "" if the backbone or a mixture answered.
	Adapter, Digest string
	Activation      *Activation
	Adapters        []MixedAdapter // of a mixture
	Base            string
	BaseDigest      string   // of the backbone's weights, "" if it is not told
	EarlierBases    []string // digests of other backbones that brought some of the tokens
	Seed            int64
	Timings         Timings
	// PromptLogprobs has a row for each token of the prompt, nil for the first; it is nil if the
	// job asked for none.
	PromptLogprobs []*TokenLogprobs
	Metadata       map[string]string
}

// Usage counts the tokens of a job.
type Usage struct{ PromptTokens, CompletionTokens int }

// Timings are milliseconds since the broker had the job: queued, to the first token, to the end.
type Timings struct{ QueueMS, FirstTokenMS, TotalMS float64 }

// Activation says from which of the prompt's tokens on an adapter with an invocation worked; Start
// is nil if it worked nowhere.
type Activation struct{ Start *int }

// MixedAdapter is one of the adapters of a mixture that answered, and the content that it had.
type MixedAdapter struct {
	Name, Digest string
	Weight       float64
}

// Answer is a finished answer, whole, whatever was streamed before.
type Answer struct {
	Job      string
	Text     string
	TokenIDs []int32
	Resets   int
	Ending
}
