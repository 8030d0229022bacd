package aril

import (
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/tinylib/msgp/msgp"
)

var (
	errNotUTF8       = errors.New("not UTF-8")
	errNoJSON        = errors.New("a value that JSON has no word for")
	errNestedTooDeep = errors.New("nested too deep")
)

// encodeJob returns the value of a job's record. What tells whose it is comes first: workers read
// that much of a record that is past a bound, too. `replyFrom` below 0 is not told.
func encodeJob(job *Job, tenant string, replyFrom int64) ([]byte, error) {
	p := &packer{}
	head(p, "job", job.ID, tenant)
	pointed(p, "reply_partition", job.ReplyPartition, msgp.AppendInt32)
	if replyFrom >= 0 {
		pointed(p, "reply_from", &replyFrom, msgp.AppendInt64)
	}
	p.text("prompt", job.Prompt)
	if p.array("messages", len(job.Messages)) {
		for _, each := range job.Messages {
			p.nested(packMessage(each))
		}
	}
	p.integers("token_ids", job.TokenIDs)
	packArray(p, "tools", job.Tools)
	pointed(p, "add_generation_prompt", job.AddGenerationPrompt, msgp.AppendBool)
	p.yes("continue_final_message", job.ContinueFinalMessage)
	sorted(p, "chat_template_kwargs", job.ChatTemplateKwargs, packAny)
	p.text("adapter", job.Adapter)
	if p.array("adapters", len(job.Adapters)) {
		for _, each := range job.Adapters {
			inner := &packer{}
			inner.always("name", each.Name)
			pointed(inner, "weight", each.Weight, msgp.AppendFloat64)
			p.nested(inner)
		}
	}
	pointed(p, "adapter_scale", job.AdapterScale, msgp.AppendFloat64)
	if sampling := packSampling(&job.Sampling); sampling.fields > 0 {
		p.name("sampling")
		p.nested(sampling)
	}
	p.integer("priority", int64(job.Priority))
	p.integer("deadline_ms", milliseconds(job.Deadline))
	sorted(p, "metadata", job.Metadata, (*packer).always)
	p.yes("strict", job.Strict)
	return p.record()
}

func encodeCancel(job, tenant string) ([]byte, error) {
	p := &packer{}
	head(p, "cancel", job, tenant)
	return p.record()
}

func head(p *packer, kind, id, tenant string) {
	p.integer("v", version)
	p.text("kind", kind)
	p.text("id", id)
	p.text("tenant", tenant)
}

func packMessage(message Message) *packer {
	p := &packer{}
	p.text("role", message.Role)
	if message.Content != nil {
		p.always("content", *message.Content)
	}
	if p.array("content", len(message.Parts)) {
		for _, each := range message.Parts {
			inner := &packer{}
			inner.always("type", "text")
			inner.always("text", each)
			p.nested(inner)
		}
	}
	p.text("name", message.Name)
	packArray(p, "tool_calls", message.ToolCalls)
	p.text("tool_call_id", message.ToolCallID)
	if message.Content != nil && len(message.Parts) > 0 {
		p.fail("messages", errors.New("Content or Parts, not both"))
	}
	return p
}

func packSampling(sampling *Sampling) *packer {
	p := &packer{}
	p.integer("max_tokens", int64(sampling.MaxTokens))
	p.integer("min_tokens", int64(sampling.MinTokens))
	pointed(p, "temperature", sampling.Temperature, msgp.AppendFloat64)
	pointed(p, "top_p", sampling.TopP, msgp.AppendFloat64)
	p.integer("top_k", int64(sampling.TopK))
	p.float("min_p", sampling.MinP)
	pointed(p, "repetition_penalty", sampling.RepetitionPenalty, msgp.AppendFloat64)
	p.float("presence_penalty", sampling.PresencePenalty)
	p.float("frequency_penalty", sampling.FrequencyPenalty)
	pointed(p, "seed", sampling.Seed, msgp.AppendInt64)
	p.texts("stop", sampling.Stop)
	p.integers("stop_token_ids", sampling.StopTokenIDs)
	p.yes("ignore_eos", sampling.IgnoreEOS)
	bias := make(map[string]float64, len(sampling.LogitBias))
	for token, each := range sampling.LogitBias {
		bias[strconv.Itoa(int(token))] = each
	}
	sorted(p, "logit_bias", bias, func(p *packer, token string, bias float64) {
		p.name(token)
		p.body = msgp.AppendFloat64(p.body, bias)
	})
	p.integer("n", int64(sampling.N))
	p.integer("best_of", int64(sampling.BestOf))
	pointed(p, "logprobs", sampling.Logprobs, msgp.AppendInt)
	pointed(p, "prompt_logprobs", sampling.PromptLogprobs, msgp.AppendInt)
	if form := sampling.ResponseFormat; form != nil {
		p.name("response_format")
		p.nested(packFormat(form))
	}
	p.text("regex", sampling.Regex)
	p.texts("choice", sampling.Choice)
	p.text("grammar", sampling.Grammar)
	return p
}

func packFormat(form *ResponseFormat) *packer {
	p := &packer{}
	p.text("type", form.Type)
	if schema := form.JSONSchema; schema != nil {
		inner := &packer{}
		inner.text("name", schema.Name)
		inner.text("description", schema.Description)
		packAny(inner, "schema", schema.Schema)
		pointed(inner, "strict", schema.Strict, msgp.AppendBool)
		p.name("json_schema")
		p.nested(inner)
	}
	return p
}

func packArray(p *packer, name string, values []any) {
	if p.array(name, len(values)) {
		for _, each := range values {
			p.json(name, each)
		}
	}
}

func packAny(p *packer, name string, value any) {
	p.name(name)
	p.json(name, value)
}

// milliseconds rounds up: a deadline of less than one is still a deadline.
func milliseconds(duration time.Duration) int64 {
	return int64(math.Ceil(float64(duration) / float64(time.Millisecond)))
}
