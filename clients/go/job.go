package aril

import (
	"crypto/rand"
	"fmt"
	"time"
)

// Job is one prompt to complete. Exactly one of Prompt, Messages and TokenIDs is given. A field that
// is left at its zero value is not sent, so that the contract's default counts; where zero says
// something else than that, the field is a pointer: Temperature: new(0.0).
//
// Ranges are judged by the workers, whose answer is a [JobError] that names field and limit.
type Job struct {
	// ID is the job's identity together with the tenant; left out, a random one. A job that is sent
	// again under its ID, asking the same, gets the first one's answer.
	ID string

	Prompt   string
	Messages []Message
	TokenIDs []int32

	// Tools, and the next three, are for the chat template and go with Messages. A tool is a map, or
	// whatever encoding/json makes a map of.
	Tools                []any
	AddGenerationPrompt  *bool // true if left out: the template opens the assistant's turn
	ContinueFinalMessage bool
	ChatTemplateKwargs   map[string]any

	// Adapter is `name` or `name@digest`; left out, the bare backbone answers.
	Adapter string
	// Adapters are several at once, in place of Adapter.
	Adapters     []WeightedAdapter
	AdapterScale *float64 // 1 if left out

	Sampling Sampling

	Priority int // among the tenant's own waiting jobs higher goes first
	// Deadline counts from the moment when the broker has the job; whole milliseconds are sent.
	Deadline time.Duration
	// ReplyPartition is where the answer goes; left out, the ID's hash decides.
	ReplyPartition *int32
	Metadata       map[string]string // echoed in the end
	Strict         bool              // unknown fields are refused by name

	// TraceParent and TraceState say which trace the job belongs to (W3C Trace Context); they
	// become headers of the record.
	TraceParent string
	TraceState  string
}

// Message is one turn of a conversation. Content may be left out of an assistant's turn; Parts are
// texts that are joined by line breaks, in place of Content.
type Message struct {
	Role       string // system, user, assistant or tool
	Content    *string
	Parts      []string
	Name       string
	ToolCalls  []any // each a map, as Job.Tools
	ToolCallID string
}

// System returns a message of this role.
func System(text string) Message { return Message{Role: "system", Content: &text} }

// User returns a message of this role.
func User(text string) Message { return Message{Role: "user", Content: &text} }

// Assistant returns a message of this role.
func Assistant(text string) Message { return Message{Role: "assistant", Content: &text} }

// WeightedAdapter is one of a mixture; what it adds is multiplied by its weight.
type WeightedAdapter struct {
	Name   string
	Weight *float64 // 1 if left out
}

// Sampling is how tokens are chosen and when the answer ends; names, ranges and defaults are those
// of the OpenAI interface and vLLM.
type Sampling struct {
	MaxTokens         int // left out: to the end of the context, or the most that the service allows
	MinTokens         int
	Temperature       *float64 // 1 if left out; 0 is greedy
	TopP              *float64
	TopK              int
	MinP              float64
	RepetitionPenalty *float64
	PresencePenalty   float64
	FrequencyPenalty  float64
	Seed              *int64 // left out: one is drawn, and told in the end
	Stop              []string
	StopTokenIDs      []int32
	IgnoreEOS         bool
	LogitBias         map[int32]float64
	N, BestOf         int // 1: one answer a job

	// Logprobs asks for the log probability of each token and that of so many alternatives,
	// PromptLogprobs for those of the prompt's; left out: none.
	Logprobs       *int
	PromptLogprobs *int

	// At most one of the next four: what the answer has to look like.
	ResponseFormat *ResponseFormat
	Regex          string
	Choice         []string
	Grammar        string // in Lark
}

// ResponseFormat is the form of an answer in the words of the OpenAI interface.
type ResponseFormat struct {
	Type       string // text, json_object or json_schema
	JSONSchema *JSONSchema
}

// JSONSchema is a schema that the answer keeps to: a map, its JSON as text, or whatever
// encoding/json makes a map of.
type JSONSchema struct {
	Schema      any
	Name        string
	Description string
	Strict      *bool // changes nothing
}

// check refuses what no worker could answer, and fills in the id.
func (job *Job) check() error {
	if job.ID == "" {
		job.ID = rand.Text()
	}
	if !isJobID(job.ID) {
		return fmt.Errorf("%w: an id is 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'", ErrBadJob)
	}
	prompts := 0
	for _, given := range []bool{job.Prompt != "", len(job.Messages) > 0, len(job.TokenIDs) > 0} {
		if given {
			prompts++
		}
	}
	if prompts != 1 {
		return fmt.Errorf("%w: exactly one of Prompt, Messages and TokenIDs must be given", ErrBadJob)
	}
	return nil
}
