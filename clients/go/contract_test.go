package aril

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

// asked is a job as the client makes a record of it.
type asked struct {
	Job
	tenant    string
	replyFrom int64
}

func (a *asked) encode(t *testing.T) map[string]any {
	t.Helper()
	value, err := encodeJob(&a.Job, a.tenant, a.replyFrom)
	if err != nil {
		t.Fatal(err)
	}
	fields, err := unpackMap(value, maxRequestBytes)
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

// cannot is why fields have no typed value.
type cannot struct{ why string }

// jobOf returns the job whose record has these fields. A field that it does not know, or whose type
// is not the contract's, is why there is none: so the vectors show that Job has every field.
func jobOf(fields map[string]any) (job *asked, why string) {
	defer func() {
		switch failed := recover().(type) {
		case nil:
		case cannot:
			why = failed.why
		default:
			panic(failed)
		}
	}()
	job = &asked{replyFrom: -1}
	for name, value := range fields {
		job.set(name, value)
	}
	return job, ""
}

func (a *asked) set(name string, value any) {
	switch name {
	case "v", "kind":
	case "id":
		a.ID = as[string](name, value)
	case "tenant":
		a.tenant = as[string](name, value)
	case "reply_from":
		a.replyFrom = as[int64](name, value)
	case "prompt":
		a.Prompt = as[string](name, value)
	case "messages":
		a.Messages = list(name, value, messageOf)
	case "token_ids":
		a.TokenIDs = list(name, value, int32Of)
	case "tools":
		a.Tools = list(name, value, toolOf)
	case "add_generation_prompt":
		a.AddGenerationPrompt = new(as[bool](name, value))
	case "continue_final_message":
		a.ContinueFinalMessage = as[bool](name, value)
	case "chat_template_kwargs":
		a.ChatTemplateKwargs = as[map[string]any](name, value)
	case "adapter":
		a.Adapter = as[string](name, value)
	case "adapters":
		a.Adapters = list(name, value, adapterOf)
	case "adapter_scale":
		a.AdapterScale = new(floatOf(name, value))
	case "sampling":
		for name, value := range as[map[string]any](name, value) {
			a.Sampling.set(name, value)
		}
	case "priority":
		a.Priority = int(as[int64](name, value))
	case "deadline_ms":
		a.Deadline = time.Duration(as[int64](name, value)) * time.Millisecond
	case "reply_partition":
		a.ReplyPartition = new(int32Of(name, value))
	case "metadata":
		a.Metadata = map[string]string{}
		for key, each := range as[map[string]any](name, value) {
			a.Metadata[key] = as[string](name, each)
		}
	case "strict":
		a.Strict = as[bool](name, value)
	default:
		panic(cannot{name + " is no field"})
	}
}

func (s *Sampling) set(name string, value any) {
	switch name {
	case "max_tokens":
		s.MaxTokens = int(as[int64](name, value))
	case "min_tokens":
		s.MinTokens = int(as[int64](name, value))
	case "temperature":
		s.Temperature = new(floatOf(name, value))
	case "top_p":
		s.TopP = new(floatOf(name, value))
	case "top_k":
		s.TopK = int(as[int64](name, value))
	case "min_p":
		s.MinP = floatOf(name, value)
	case "repetition_penalty":
		s.RepetitionPenalty = new(floatOf(name, value))
	case "presence_penalty":
		s.PresencePenalty = floatOf(name, value)
	case "frequency_penalty":
		s.FrequencyPenalty = floatOf(name, value)
	case "seed":
		s.Seed = new(as[int64](name, value))
	case "stop":
		s.Stop = list(name, value, as[string])
	case "stop_token_ids":
		s.StopTokenIDs = list(name, value, int32Of)
	case "ignore_eos":
		s.IgnoreEOS = as[bool](name, value)
	case "logit_bias":
		s.LogitBias = map[int32]float64{}
		for token, each := range as[map[string]any](name, value) {
			id, err := strconv.ParseInt(token, 10, 32)
			if err != nil {
				panic(cannot{"a token's id is a number"})
			}
			s.LogitBias[int32(id)] = floatOf(name, each)
		}
	case "n":
		s.N = int(as[int64](name, value))
	case "best_of":
		s.BestOf = int(as[int64](name, value))
	case "logprobs":
		s.Logprobs = new(int(as[int64](name, value)))
	case "prompt_logprobs":
		s.PromptLogprobs = new(int(as[int64](name, value)))
	case "response_format":
		s.ResponseFormat = formatOf(as[map[string]any](name, value))
	case "regex":
		s.Regex = as[string](name, value)
	case "choice":
		s.Choice = list(name, value, as[string])
	case "grammar":
		s.Grammar = as[string](name, value)
	default:
		panic(cannot{"sampling." + name + " is no field"})
	}
}

func messageOf(_ string, value any) (message Message) {
	for name, value := range as[map[string]any]("messages", value) {
		switch name {
		case "role":
			message.Role = as[string](name, value)
		case "content":
			if text, ok := value.(string); ok {
				message.Content = &text
				break
			}
			message.Parts = list(name, value, func(_ string, part any) string {
				fields := as[map[string]any](name, part)
				if fields["type"] != "text" || len(fields) != 2 {
					panic(cannot{"a part is text"})
				}
				return as[string](name, fields["text"])
			})
		case "name":
			message.Name = as[string](name, value)
		case "tool_calls":
			message.ToolCalls = list(name, value, toolOf)
		case "tool_call_id":
			message.ToolCallID = as[string](name, value)
		default:
			panic(cannot{"messages." + name + " is no field"})
		}
	}
	return message
}

func adapterOf(name string, value any) (adapter WeightedAdapter) {
	for name, value := range as[map[string]any](name, value) {
		switch name {
		case "name":
			adapter.Name = as[string](name, value)
		case "weight":
			adapter.Weight = new(floatOf(name, value))
		default:
			panic(cannot{"adapters." + name + " is no field"})
		}
	}
	return adapter
}

func formatOf(fields map[string]any) *ResponseFormat {
	form := &ResponseFormat{}
	for name, value := range fields {
		switch name {
		case "type":
			form.Type = as[string](name, value)
		case "json_schema":
			form.JSONSchema = &JSONSchema{}
			for name, value := range as[map[string]any](name, value) {
				switch name {
				case "schema":
					form.JSONSchema.Schema = value
				case "name":
					form.JSONSchema.Name = as[string](name, value)
				case "description":
					form.JSONSchema.Description = as[string](name, value)
				case "strict":
					form.JSONSchema.Strict = new(as[bool](name, value))
				default:
					panic(cannot{"json_schema." + name + " is no field"})
				}
			}
		default:
			panic(cannot{"response_format." + name + " is no field"})
		}
	}
	return form
}

func as[T any](name string, value any) T {
	typed, ok := value.(T)
	if !ok {
		panic(cannot{fmt.Sprintf("%s is no %T", name, typed)})
	}
	return typed
}

func int32Of(name string, value any) int32 { return int32(as[int64](name, value)) }

func floatOf(name string, value any) float64 {
	if number, ok := value.(int64); ok {
		return float64(number)
	}
	return as[float64](name, value)
}

// toolOf refuses what JSON has no word for: appendJSON does, before anything is sent.
func toolOf(name string, value any) any {
	tool := as[map[string]any](name, value)
	if _, err := appendJSON(nil, tool, maxPackDepth); err != nil {
		panic(cannot{err.Error()})
	}
	return tool
}

func list[T any](name string, value any, of func(string, any) T) []T {
	values := as[[]any](name, value)
	if len(values) == 0 {
		panic(cannot{name + " of none is left out"})
	}
	typed := make([]T, len(values))
	for at, each := range values {
		typed[at] = of(name, each)
	}
	return typed
}

// described returns a record as the vectors write it.
func described(told *reply) map[string]any {
	fields := map[string]any{
		"job": told.job, "worker": told.worker,
		"epoch": []any{told.epoch.generation, told.epoch.attempt},
	}
	put := func(name string, value any, there bool) {
		if there {
			fields[name] = value
		}
	}
	put("base_digest", told.baseDigest, told.baseDigest != "")
	switch event := told.told.(type) {
	case nil:
		fields["kind"] = map[bool]string{true: "release", false: "claim"}[told.release]
		put("alone", true, told.alone)
	case Tokens:
		fields["kind"], fields["index"], fields["text"] = "tokens", int64(told.index), event.Text
		fields["ids"] = anys(event.IDs, func(id int32) any { return int64(id) })
		put("logprobs", anys(event.Logprobs, rowOf), event.Logprobs != nil)
	case Done:
		describeDone(event, fields, put)
	case *JobError:
		fields["kind"], fields["index"], fields["message"] = "error", int64(told.index), event.Message
		fields["code"], fields["retryable"] = string(event.Code), event.Retryable
		fields["metadata"] = anyMap(event.Metadata)
		put("limit", parseNumber(event.Limit.String()), event.Limit != "")
		if number, ok := event.Given.(fmt.Stringer); ok {
			fields["given"] = parseNumber(number.String())
		} else {
			put("given", event.Given, event.Given != nil)
		}
		put("retry_after_ms", event.RetryAfter.Milliseconds(), event.RetryAfter != 0)
	}
	return fields
}

func describeDone(event Done, fields map[string]any, put func(string, any, bool)) {
	fields["kind"], fields["index"], fields["text"] = "done", int64(event.Index), event.Text
	fields["finish_reason"], fields["base"], fields["seed"] = event.FinishReason, event.Base, event.Seed
	fields["usage"] = map[string]any{
		"prompt_tokens":     int64(event.Usage.PromptTokens),
		"completion_tokens": int64(event.Usage.CompletionTokens),
	}
	fields["timings"] = map[string]any{
		"queue_ms": event.Timings.QueueMS, "ttft_ms": event.Timings.FirstTokenMS, "total_ms": event.Timings.TotalMS,
	}
	fields["metadata"] = anyMap(event.Metadata)
	fields["adapter"], fields["digest"] = nil, nil
	put("adapter", event.Adapter, event.Adapter != "")
	put("digest", event.Digest, event.Digest != "")
	if event.Activation != nil {
		fields["adapter_active_from"] = nil
		if event.Activation.Start != nil {
			fields["adapter_active_from"] = int64(*event.Activation.Start)
		}
	}
	put("adapters", anys(event.Adapters, func(each MixedAdapter) any {
		return map[string]any{"name": each.Name, "digest": each.Digest, "weight": each.Weight}
	}), event.Adapters != nil)
	put("base_digest", event.BaseDigest, event.BaseDigest != "")
	put("earlier_bases", anys(event.EarlierBases, func(each string) any { return each }), event.EarlierBases != nil)
	if rows := event.PromptLogprobs; rows != nil {
		numbers, top := []any{}, int64(0)
		for _, row := range rows[1:] {
			numbers = append(numbers, rowOf(*row).([]any)...)
			top = int64(len(row.Top))
		}
		fields["prompt_logprobs"] = map[string]any{"top": top, "numbers": numbers}
	}
}

func rowOf(row TokenLogprobs) any {
	numbers := []any{row.Chosen}
	for _, each := range row.Top {
		numbers = append(numbers, int64(each.ID), each.Logprob)
	}
	return numbers
}

func anys[T any](values []T, of func(T) any) []any {
	result := make([]any, len(values))
	for at, each := range values {
		result[at] = of(each)
	}
	return result
}

func anyMap(texts map[string]string) map[string]any {
	values := map[string]any{}
	for key, each := range texts {
		values[key] = each
	}
	return values
}

// summary returns an event as the vectors of streams write it.
func summary(event Event) map[string]any {
	switch event := event.(type) {
	case Tokens:
		ids := anys(event.IDs, func(id int32) any { return int64(id) })
		return map[string]any{"tokens": map[string]any{"index": int64(event.Index), "ids": ids, "text": event.Text}}
	case Reset:
		return map[string]any{"reset": map[string]any{"withdrawn": int64(event.Withdrawn)}}
	case Done:
		return map[string]any{"done": map[string]any{"index": int64(event.Index), "text": event.Text}}
	case *JobError:
		return map[string]any{"error": map[string]any{"index": int64(event.Index), "code": string(event.Code)}}
	}
	return nil
}
