package aril

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"
)

// maxPackDepth is past every bound of the contract, so that only what is nested without an end is
// refused here; the rest is the worker's to refuse.
const maxPackDepth = 64

// packer makes a map in msgpack, field by field in the order of the calls. Left out is what has its
// zero value. The first error stays.
type packer struct {
	fields uint32
	body   []byte
	err    error
}

func (p *packer) name(name string) {
	p.fields++
	p.body = msgp.AppendString(p.body, name)
}

func (p *packer) fail(name string, err error) {
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("%w: %s: %w", ErrBadJob, name, err)
	}
}

func (p *packer) text(name, text string) {
	if text == "" {
		return
	}
	p.always(name, text)
}

func (p *packer) always(name, text string) {
	p.name(name)
	p.element(name, text)
}

// element appends a text to the array that is being made.
func (p *packer) element(name, text string) {
	if !utf8.ValidString(text) {
		p.fail(name, errNotUTF8)
	}
	p.body = msgp.AppendString(p.body, text)
}

func (p *packer) texts(name string, texts []string) {
	if p.array(name, len(texts)) {
		for _, each := range texts {
			p.element(name, each)
		}
	}
}

func (p *packer) integer(name string, number int64) {
	if number != 0 {
		p.name(name)
		p.body = msgp.AppendInt64(p.body, number)
	}
}

func (p *packer) integers(name string, numbers []int32) {
	if p.array(name, len(numbers)) {
		for _, each := range numbers {
			p.body = msgp.AppendInt32(p.body, each)
		}
	}
}

func (p *packer) float(name string, number float64) {
	if number != 0 {
		p.name(name)
		p.body = msgp.AppendFloat64(p.body, number)
	}
}

func (p *packer) yes(name string, value bool) {
	if value {
		p.name(name)
		p.body = msgp.AppendBool(p.body, true)
	}
}

// array begins one, whose elements follow; there is none if it has no elements.
func (p *packer) array(name string, length int) bool {
	if length == 0 {
		return false
	}
	p.name(name)
	p.body = msgp.AppendArrayHeader(p.body, uint32(length))
	return true
}

// nested appends a map as an element of an array, or as a field whose name was written.
func (p *packer) nested(inner *packer) {
	if p.err == nil {
		p.err = inner.err
	}
	p.body = msgp.AppendMapHeader(p.body, inner.fields)
	p.body = append(p.body, inner.body...)
}

// json appends whatever JSON can say, as an element or as a field whose name was written.
func (p *packer) json(name string, value any) {
	body, err := appendJSON(p.body, value, maxPackDepth)
	p.fail(name, err)
	p.body = body
}

func (p *packer) record() ([]byte, error) {
	if p.err != nil {
		return nil, p.err
	}
	record := append(msgp.AppendMapHeader(nil, p.fields), p.body...)
	if len(record) > maxRequestBytes {
		return nil, fmt.Errorf("%w: a record has at most %d bytes, not %d", ErrBadJob, maxRequestBytes, len(record))
	}
	return record, nil
}

// pointed writes a field of which zero is a value of its own.
func pointed[T any](p *packer, name string, value *T, append func([]byte, T) []byte) {
	if value != nil {
		p.name(name)
		p.body = append(p.body, *value)
	}
}

// sorted writes a map in the order of its keys, so that the same job is the same bytes.
func sorted[V any](p *packer, name string, values map[string]V, write func(*packer, string, V)) {
	if len(values) == 0 {
		return
	}
	inner := &packer{}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !utf8.ValidString(key) {
			p.fail(name, errNotUTF8)
		}
		write(inner, key, values[key])
	}
	p.name(name)
	p.nested(inner)
}

// appendJSON writes a value as the same thing in msgpack. What is not of JSON's own types goes
// through encoding/json: so a struct becomes a map, and bytes and times become text, where msgpack
// would make of them what the contract has not.
func appendJSON(b []byte, value any, depth int) ([]byte, error) {
	if depth == 0 {
		return b, errNestedTooDeep
	}
	switch value := value.(type) {
	case nil:
		return msgp.AppendNil(b), nil
	case bool:
		return msgp.AppendBool(b, value), nil
	case int:
		return msgp.AppendInt(b, value), nil
	case int64:
		return msgp.AppendInt64(b, value), nil
	case float64:
		if math.IsNaN(value) || math.IsInf(value, 0) {
			return b, errNoJSON
		}
		return msgp.AppendFloat64(b, value), nil
	case json.Number:
		return appendNumber(b, value)
	case string:
		if !utf8.ValidString(value) {
			return b, errNotUTF8
		}
		return msgp.AppendString(b, value), nil
	case []any:
		b = msgp.AppendArrayHeader(b, uint32(len(value)))
		for _, each := range value {
			var err error
			if b, err = appendJSON(b, each, depth-1); err != nil {
				return b, err
			}
		}
		return b, nil
	case map[string]any:
		b = msgp.AppendMapHeader(b, uint32(len(value)))
		for _, key := range slices.Sorted(maps.Keys(value)) {
			var err error
			if b, err = appendJSON(b, key, depth); err != nil {
				return b, err
			}
			if b, err = appendJSON(b, value[key], depth-1); err != nil {
				return b, err
			}
		}
		return b, nil
	}
	plain, err := throughJSON(value)
	if err != nil {
		return b, err
	}
	return appendJSON(b, plain, depth)
}

func appendNumber(b []byte, number json.Number) ([]byte, error) {
	switch number := parseNumber(number.String()).(type) {
	case int64:
		return msgp.AppendInt64(b, number), nil
	case uint64:
		return msgp.AppendUint64(b, number), nil
	case float64:
		if math.IsNaN(number) || math.IsInf(number, 0) {
			return b, errNoJSON
		}
		return msgp.AppendFloat64(b, number), nil
	}
	return b, errNoJSON
}

func throughJSON(value any) (any, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var plain any
	if err := decoder.Decode(&plain); err != nil && err != io.EOF {
		return nil, err
	}
	return plain, nil
}

// isFraction tells whether a number in JSON is none of integers: 1.0 is not.
func isFraction(text string) bool { return strings.ContainsAny(text, ".eE") }
