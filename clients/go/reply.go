package aril

import (
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// epoch is the rank of a job's writer. The zero value is below every epoch that is ever written.
type epoch struct{ generation, attempt int64 }

func (e epoch) less(other epoch) bool {
	if e.generation != other.generation {
		return e.generation < other.generation
	}
	return e.attempt < other.attempt
}

// reply is one record of a worker's. `told` is its Tokens, Done or *JobError, with the index `index`;
// nil in a claim and a release.
type reply struct {
	job        string
	epoch      epoch
	worker     string
	release    bool
	alone      bool   // of a claim: the job runs with nothing beside it
	baseDigest string // of a claim or of tokens
	index      int
	told       Event
}

// decodeReply returns the record that `data` is, nil for a kind that version 1 does not know, which
// is to be skipped. The error is a *recordError.
func decodeReply(data []byte) (*reply, error) {
	fields, err := unpackMap(data, maxReplyBytes)
	if err != nil {
		return nil, err
	}
	if fields["v"] != int64(version) {
		return nil, &recordError{UnsupportedVersion, "v: this client reads version 1"}
	}
	f := &form{fields: fields}
	told := &reply{}
	kind, ok := fields["kind"].(string)
	switch {
	case !ok:
		return nil, malformed("kind: missing or not valid")
	case kind == "claim":
		f.head(told)
		told.alone = f.optionalBool("alone")
		told.baseDigest = f.optionalText("base_digest", maxReplyNameChars)
	case kind == "release":
		f.head(told)
		told.release = true
	case kind == "tokens":
		f.head(told)
		told.told = f.tokens(told)
		told.baseDigest = f.optionalText("base_digest", maxReplyNameChars)
	case kind == "done":
		f.head(told)
		told.told = f.done(told)
	case kind == "error":
		f.head(told)
		told.told = f.failure(told)
	default:
		return nil, nil
	}
	if f.err != nil {
		return nil, f.err
	}
	return told, nil
}

// decodeNotice returns the fields of a notice of a kind about `job`, nil if `data` is none.
func decodeNotice(data []byte, kind, job string) *form {
	fields, err := unpackMap(data, maxReplyBytes)
	if err != nil || fields["v"] != int64(version) || fields["kind"] != kind || fields["job"] != job {
		return nil
	}
	return &form{fields: fields}
}

// decodeRedirect returns where the answer to `job` begins, -1 if `data` is no redirect of it.
func decodeRedirect(data []byte, job string) int64 {
	if f := decodeNotice(data, "redirect", job); f != nil {
		if start := f.integer("reply_from", math.MaxInt64); f.err == nil {
			return start
		}
	}
	return -1
}

// conflict says which job is not answered, since another one has its id.
type conflict struct {
	sha256    string // of the record's value, in hexadecimal
	replyFrom int64  // as the job had it; -1: not told
}

// decodeConflict returns what is said of a job of this id, false if `data` is no conflict about it.
func decodeConflict(data []byte, job string) (told conflict, ok bool) {
	f := decodeNotice(data, "conflict", job)
	if f == nil {
		return told, false
	}
	told = conflict{f.text("sha256", sha256Chars), -1}
	f.check("sha256", isSHA256(told.sha256))
	if f.fields["reply_from"] != nil {
		told.replyFrom = f.integer("reply_from", math.MaxInt64)
	}
	return told, f.err == nil
}

func (f *form) head(told *reply) {
	told.job = f.text("job", math.MaxInt)
	told.worker = f.text("worker", math.MaxInt)
	f.check("job", isJobID(told.job))
	f.check("worker", isWorker(told.worker))
	parts, ok := f.fields["epoch"].([]any)
	if f.check("epoch", ok && len(parts) == 2); f.err == nil {
		told.epoch.generation = f.within("epoch", parts[0], 0, maxEpochPart)
		told.epoch.attempt = f.within("epoch", parts[1], 1, maxEpochPart)
	}
}

func (f *form) tokens(told *reply) Event {
	told.index = int(f.integer("index", maxIndex))
	values := f.array("ids", maxTokensPerRecord)
	f.check("ids", len(values) > 0)
	ids := make([]int32, len(values))
	for at, each := range values {
		ids[at] = int32(f.within("ids", each, 0, maxTokenID))
	}
	event := Tokens{Index: told.index, IDs: ids, Text: f.text("text", maxReplyTextChars)}
	if f.fields["logprobs"] != nil {
		rows := f.array("logprobs", len(ids))
		f.check("logprobs", len(rows) == len(ids))
		event.Logprobs = make([]TokenLogprobs, len(rows))
		for at, each := range rows {
			row, ok := each.([]any)
			f.check("logprobs", ok && len(row)%2 == 1 && len(row) <= 1+2*maxLogprobs)
			event.Logprobs[at] = f.row("logprobs", row)
		}
	}
	return event
}

func (f *form) done(told *reply) Event {
	told.index = int(f.integer("index", maxIndex))
	event := Done{Index: told.index, Text: f.text("text", maxReplyTextChars)}
	event.FinishReason = f.text("finish_reason", maxReplyNameChars)
	f.check("finish_reason", event.FinishReason == "stop" || event.FinishReason == "length")
	usage, timings := f.inner("usage"), f.inner("timings")
	event.Usage.PromptTokens = int(usage.integer("prompt_tokens", maxIndex))
	event.Usage.CompletionTokens = int(usage.integer("completion_tokens", maxIndex))
	event.Timings = Timings{timings.positive("queue_ms"), timings.positive("ttft_ms"), timings.positive("total_ms")}
	f.take(usage, timings)
	event.Adapter = f.optionalText("adapter", maxReplyNameChars)
	event.Digest = f.optionalText("digest", maxReplyNameChars)
	event.Activation = f.activation("adapter_active_from")
	event.Adapters = f.mixture("adapters")
	event.Base = f.text("base", maxReplyNameChars)
	event.BaseDigest = f.optionalText("base_digest", maxReplyNameChars)
	event.EarlierBases = f.texts("earlier_bases", maxEarlierBases, maxReplyNameChars)
	event.Seed = f.integer("seed", math.MaxInt64)
	event.PromptLogprobs = f.promptLogprobs("prompt_logprobs")
	event.Metadata = f.metadata("metadata")
	return event
}

func (f *form) failure(told *reply) Event {
	told.index = int(f.integer("index", maxIndex))
	failed := &JobError{Job: told.job, Index: told.index}
	failed.Code = Code(f.text("code", maxReplyNameChars))
	if f.err == nil && !knownCodes[failed.Code] {
		// The set is closed in version 1; that there is another one is worth being told.
		f.err = malformed("code: %q is none of version 1", failed.Code)
	}
	failed.Message = f.text("message", maxErrorMessageChars)
	retryable, ok := f.fields["retryable"].(bool)
	f.check("retryable", ok)
	failed.Retryable = retryable
	if limit := f.fields["limit"]; limit != nil {
		failed.Limit = f.tellable("limit", limit)
	}
	switch given := f.fields["given"].(type) {
	case nil:
	case string:
		failed.Given = f.text("given", maxGivenChars)
	default:
		failed.Given = f.tellable("given", given)
	}
	if f.fields["retry_after_ms"] != nil {
		failed.RetryAfter = time.Duration(f.integer("retry_after_ms", maxRetryAfterMS)) * time.Millisecond
	}
	failed.Metadata = f.metadata("metadata")
	return failed
}

var knownCodes = map[Code]bool{
	InvalidJob: true, UnsupportedVersion: true, UnknownAdapter: true, AdapterInvalid: true,
	PromptTooLong: true, LimitExceeded: true, DeadlineExceeded: true, Cancelled: true,
	Overloaded: true, CrashLoop: true, Internal: true,
}

func (f *form) activation(name string) *Activation {
	value, there := f.fields[name]
	if !there {
		return nil
	}
	if value == nil {
		return &Activation{}
	}
	return &Activation{Start: new(int(f.integer(name, maxIndex)))}
}

func (f *form) mixture(name string) []MixedAdapter {
	if _, there := f.fields[name]; !there {
		return nil
	}
	rows := f.array(name, maxMixedAdapters)
	f.check(name, len(rows) > 0)
	adapters := make([]MixedAdapter, len(rows))
	for at, each := range rows {
		fields, ok := each.(map[string]any)
		f.check(name, ok)
		row := &form{fields: fields}
		adapters[at] = MixedAdapter{
			Name:   row.text("name", maxReplyNameChars),
			Digest: row.text("digest", maxReplyNameChars),
			Weight: row.number("weight", fields["weight"]),
		}
		f.take(row)
	}
	return adapters
}

// promptLogprobs reads rows of one length out of one flat array; the first token has none.
func (f *form) promptLogprobs(name string) []*TokenLogprobs {
	if f.fields[name] == nil {
		return nil
	}
	inner := f.inner(name)
	width := 1 + 2*int(inner.integer("top", maxLogprobs))
	numbers := inner.array("numbers", maxPromptLogprobNumbers)
	inner.check(name, len(numbers)%width == 0)
	rows := []*TokenLogprobs{nil}
	for ; inner.err == nil && len(numbers) > 0; numbers = numbers[width:] {
		rows = append(rows, new(inner.row(name, numbers[:width])))
	}
	f.take(inner)
	return rows
}

// row reads `[logprob, id, logprob, id, logprob, ...]`.
func (f *form) row(name string, numbers []any) TokenLogprobs {
	if f.err != nil {
		return TokenLogprobs{}
	}
	row := TokenLogprobs{Chosen: f.number(name, numbers[0])}
	for pairs := numbers[1:]; len(pairs) > 0; pairs = pairs[2:] {
		id := int32(f.within(name, pairs[0], 0, maxTokenID))
		row.Top = append(row.Top, TopLogprob{ID: id, Logprob: f.number(name, pairs[1])})
	}
	return row
}

// form reads the fields of a map; of what is wrong with them the first finding stays.
type form struct {
	fields map[string]any
	err    error
}

func (f *form) check(name string, valid bool) {
	if !valid && f.err == nil {
		f.err = malformed("%s: missing or not valid", name)
	}
}

// take makes what is wrong within a field wrong with the record.
func (f *form) take(inner ...*form) {
	for _, each := range inner {
		if f.err == nil {
			f.err = each.err
		}
	}
}

func (f *form) inner(name string) *form {
	fields, ok := f.fields[name].(map[string]any)
	f.check(name, ok)
	return &form{fields: fields}
}

func (f *form) within(name string, value any, least, most int64) int64 {
	number, ok := value.(int64)
	f.check(name, ok && least <= number && number <= most)
	return number
}

func (f *form) integer(name string, most int64) int64 {
	return f.within(name, f.fields[name], 0, most)
}

func (f *form) number(name string, value any) float64 {
	switch number := value.(type) {
	case int64:
		return float64(number)
	case uint64:
		return float64(number)
	case float64:
		f.check(name, !math.IsNaN(number) && !math.IsInf(number, 0))
		return number
	}
	f.check(name, false)
	return 0
}

func (f *form) positive(name string) float64 {
	number := f.number(name, f.fields[name])
	f.check(name, number >= 0)
	return number
}

// tellable returns a number as text, with all its digits.
func (f *form) tellable(name string, value any) json.Number {
	f.number(name, value)
	switch number := value.(type) {
	case int64:
		return json.Number(strconv.FormatInt(number, 10))
	case uint64:
		return json.Number(strconv.FormatUint(number, 10))
	case float64:
		return json.Number(strconv.FormatFloat(number, 'g', -1, 64))
	}
	return ""
}

func (f *form) text(name string, maxChars int) string {
	text, ok := f.fields[name].(string)
	f.check(name, ok && fits(text, maxChars))
	return text
}

func (f *form) optionalText(name string, maxChars int) string {
	if f.fields[name] == nil {
		return ""
	}
	return f.text(name, maxChars)
}

func (f *form) optionalBool(name string) bool {
	value, there := f.fields[name]
	yes, ok := value.(bool)
	f.check(name, ok || !there)
	return yes
}

func (f *form) array(name string, most int) []any {
	values, ok := f.fields[name].([]any)
	if f.check(name, ok && len(values) <= most); f.err != nil {
		return nil
	}
	return values
}

func (f *form) texts(name string, most, maxChars int) []string {
	if _, there := f.fields[name]; !there {
		return nil
	}
	values := f.array(name, most)
	texts := make([]string, len(values))
	for at, each := range values {
		text, ok := each.(string)
		f.check(name, ok && fits(text, maxChars))
		texts[at] = text
	}
	return texts
}

func (f *form) metadata(name string) map[string]string {
	values, ok := f.fields[name].(map[string]any)
	_, there := f.fields[name]
	f.check(name, ok || !there)
	f.check(name, len(values) <= maxMetadataEntries)
	metadata := make(map[string]string, len(values))
	for key, each := range values {
		text, ok := each.(string)
		f.check(name, ok && fits(key, maxMetadataKeyChars) && fits(text, maxMetadataValueChars))
		metadata[key] = text
	}
	return metadata
}

// fits tells whether a text has at most so many characters.
func fits(text string, maxChars int) bool {
	return len(text) <= maxChars || utf8.RuneCountInString(text) <= maxChars
}
