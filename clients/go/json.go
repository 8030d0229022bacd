package aril

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"unicode/utf8"
)

const blanks = " \t\n\r"

// isJSON tells whether a record is in JSON: no record in msgpack begins with a brace.
func isJSON(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, blanks), []byte("{"))
}

// parseJSON returns the map that a record in JSON is, with the bounds of msgpack.
func parseJSON(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) || hasHalfCharacter(data) {
		return nil, errHalfText // encoding/json would put a replacement character there
	}
	p := jsonParser{decoder: json.NewDecoder(bytes.NewReader(data))}
	p.decoder.UseNumber()
	value, err := p.value(1)
	if err != nil {
		return nil, err
	}
	if _, err := p.decoder.Token(); err != io.EOF {
		return nil, malformed("something follows the record")
	}
	return value.(map[string]any), nil // it begins with a brace
}

type jsonParser struct {
	decoder *json.Decoder
	shape   shape
}

func (p *jsonParser) value(depth int) (any, error) {
	token, err := p.decoder.Token()
	if err != nil {
		return nil, malformed("the record is not well-formed JSON")
	}
	switch token := token.(type) {
	case json.Delim:
		if err := p.shape.container(0); err != nil {
			return nil, err
		}
		if depth > maxDepth {
			return nil, errTooDeep
		}
		if token == '[' {
			return p.array(depth)
		}
		return p.fields(depth)
	case json.Number:
		return parseNumber(token.String()), nil
	case string:
		return token, p.shape.part()
	default: // nil and booleans
		return token, nil
	}
}

func (p *jsonParser) array(depth int) (any, error) {
	values := []any{}
	for p.decoder.More() {
		if err := p.comma(len(values)); err != nil {
			return nil, err
		}
		value, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, p.end()
}

func (p *jsonParser) fields(depth int) (any, error) {
	values := map[string]any{}
	for p.decoder.More() {
		if err := p.comma(len(values)); err != nil {
			return nil, err
		}
		token, err := p.decoder.Token()
		key, ok := token.(string)
		if err != nil || !ok {
			return nil, malformed("the record is not well-formed JSON")
		}
		if err := p.shape.part(); err != nil {
			return nil, err
		}
		if _, twice := values[key]; twice {
			return nil, errTwice
		}
		if len(values) == maxMapFields {
			return nil, tooMuch("fields in a map", maxMapFields)
		}
		if values[key], err = p.value(depth + 1); err != nil {
			return nil, err
		}
	}
	return values, p.end()
}

// comma counts what stands before an element that is not the first.
func (p *jsonParser) comma(before int) error {
	if before == 0 {
		return nil
	}
	if p.shape.elements++; p.shape.elements > maxElements {
		return tooMuch("elements", maxElements)
	}
	return nil
}

func (p *jsonParser) end() error {
	if _, err := p.decoder.Token(); err != nil {
		return malformed("the record is not well-formed JSON")
	}
	return nil
}

// hasHalfCharacter finds a surrogate that stands alone in a \u escape.
func hasHalfCharacter(data []byte) bool {
	for at := 0; at < len(data); at++ {
		if data[at] != '\\' {
			continue
		}
		unit := escaped(data[at:])
		at++ // whatever follows a backslash begins no escape
		switch {
		case unit >= 0xdc00 && unit <= 0xdfff:
			return true
		case unit >= 0xd800 && unit <= 0xdbff:
			low := escaped(data[min(at+5, len(data)):])
			if low < 0xdc00 || low > 0xdfff {
				return true
			}
			at += 10
		}
	}
	return false
}

// escaped returns the code unit of the escape that text begins with, -1 if it begins with none.
func escaped(text []byte) int {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 32)
	if err != nil {
		return -1
	}
	return int(unit)
}
