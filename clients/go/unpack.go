package aril

import (
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"
)

// recordError tells why bytes are no record of this contract.
type recordError struct {
	code Code
	text string
}

func (e *recordError) Error() string { return e.text }

func malformed(format string, arguments ...any) error {
	return &recordError{InvalidJob, fmt.Sprintf(format, arguments...)}
}

func tooMuch(what string, limit int) error {
	return &recordError{LimitExceeded, fmt.Sprintf("%s: at most %d", what, limit)}
}

var (
	errTruncated = malformed("the record promises more than it holds")
	errTwice     = malformed("a map has the same key twice")
	errHalfText  = malformed("a string is not UTF-8")
	errTooDeep   = tooMuch("nested maps and arrays", maxDepth)
)

// unpackMap returns the map that a record's value is. Its values are nil, bool, int64, uint64 (only
// past int64), float64, string, []byte, []any and map[string]any. Sizes are checked before memory is
// spent on them.
func unpackMap(data []byte, maxBytes int) (map[string]any, error) {
	if len(data) == 0 {
		return nil, malformed("the record has no value")
	}
	if len(data) > maxBytes {
		return nil, tooMuch("bytes in the record", maxBytes)
	}
	if isJSON(data) {
		return parseJSON(data)
	}
	u := unpacker{rest: data}
	value, err := u.value(1)
	if err != nil {
		return nil, err
	}
	fields, ok := value.(map[string]any)
	if !ok {
		return nil, malformed("the record is not a map")
	}
	if len(u.rest) > 0 {
		return nil, malformed("bytes follow the record")
	}
	return fields, nil
}

// shape counts what a record is made of, in either form.
type shape struct{ parts, containers, elements int }

func (s *shape) container(elements int) error {
	s.containers++
	s.elements += elements
	if s.elements > maxElements {
		return tooMuch("elements", maxElements)
	}
	if s.containers > maxContainers {
		return tooMuch("maps and arrays", maxContainers)
	}
	return s.part()
}

func (s *shape) part() error {
	if s.parts++; s.parts > maxParts {
		return tooMuch("maps, arrays, strings", maxParts)
	}
	return nil
}

type unpacker struct {
	rest  []byte
	shape shape
}

func (u *unpacker) value(depth int) (value any, err error) {
	if len(u.rest) == 0 {
		return nil, errTruncated
	}
	switch msgp.NextType(u.rest) {
	case msgp.NilType:
		u.rest, err = msgp.ReadNilBytes(u.rest)
	case msgp.BoolType:
		value, u.rest, err = msgp.ReadBoolBytes(u.rest)
	case msgp.IntType:
		value, u.rest, err = msgp.ReadInt64Bytes(u.rest)
	case msgp.UintType:
		value, err = u.unsigned()
	case msgp.Float64Type:
		value, u.rest, err = msgp.ReadFloat64Bytes(u.rest)
	case msgp.Float32Type:
		var number float32
		number, u.rest, err = msgp.ReadFloat32Bytes(u.rest)
		value = float64(number)
	case msgp.StrType:
		return u.text()
	case msgp.BinType:
		if err := u.shape.part(); err != nil {
			return nil, err
		}
		value, u.rest, err = msgp.ReadBytesBytes(u.rest, nil)
	case msgp.ArrayType:
		return u.array(depth)
	case msgp.MapType:
		return u.fields(depth)
	default:
		return nil, malformed("a value of a type that the contract has not")
	}
	if err != nil {
		return nil, errTruncated
	}
	return value, nil
}

func (u *unpacker) unsigned() (any, error) {
	number, rest, err := msgp.ReadUint64Bytes(u.rest)
	u.rest = rest
	if signed := int64(number); signed >= 0 {
		return signed, err
	}
	return number, err
}

func (u *unpacker) text() (string, error) {
	if err := u.shape.part(); err != nil {
		return "", err
	}
	text, rest, err := msgp.ReadStringBytes(u.rest)
	if err != nil {
		return "", errTruncated
	}
	u.rest = rest
	if !utf8.ValidString(text) {
		return "", errHalfText
	}
	return text, nil
}

func (u *unpacker) array(depth int) ([]any, error) {
	length, rest, err := msgp.ReadArrayHeaderBytes(u.rest)
	if err != nil || int64(length) > int64(len(rest)) {
		return nil, errTruncated
	}
	u.rest = rest
	if err := u.shape.container(int(length)); err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, errTooDeep
	}
	values := make([]any, length)
	for at := range values {
		if values[at], err = u.value(depth + 1); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func (u *unpacker) fields(depth int) (map[string]any, error) {
	length, rest, err := msgp.ReadMapHeaderBytes(u.rest)
	if err != nil || 2*int64(length) > int64(len(rest)) {
		return nil, errTruncated
	}
	u.rest = rest
	if length > maxMapFields {
		return nil, tooMuch("fields in a map", maxMapFields)
	}
	if err := u.shape.container(2 * int(length)); err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, errTooDeep
	}
	values := make(map[string]any, length)
	for range length {
		if len(u.rest) == 0 {
			return nil, errTruncated
		}
		if msgp.NextType(u.rest) != msgp.StrType {
			return nil, malformed("a map has a key that is not text")
		}
		key, err := u.text()
		if err != nil {
			return nil, err
		}
		if _, twice := values[key]; twice {
			return nil, errTwice
		}
		if values[key], err = u.value(depth + 1); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// parseNumber returns an int64, a uint64 or a float64, nil for what is no number. An integer of more
// than 64 bits is none of the contract's; as a float it is refused wherever an integer is meant.
func parseNumber(text string) any {
	if !isFraction(text) {
		if number, err := strconv.ParseInt(text, 10, 64); err == nil {
			return number
		}
		if number, err := strconv.ParseUint(text, 10, 64); err == nil {
			return number
		}
	}
	number, err := strconv.ParseFloat(text, 64)
	if err != nil && number == 0 {
		return nil
	}
	return number // infinite if it is too large, which is refused where a number is meant
}
