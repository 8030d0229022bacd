package aril

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testSigner(t *testing.T) *Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := NewSigner(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestKeyFiles(t *testing.T) {
	signer := testSigner(t)
	der, err := x509.MarshalPKCS8PrivateKey(signer.key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	path := filepath.Join(t.TempDir(), "acme.key")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := SignerFromFile(path, "")
	if err != nil || read.KeyID() != signer.KeyID() || len(read.KeyID()) != keyIDDigits {
		t.Fatalf("got %v, %v", read, err)
	}
	for _, format := range []string{"%v", "%s", "%#v", "%+v"} {
		if shown := fmt.Sprintf(format, signer); shown != "signer "+signer.KeyID() {
			t.Errorf("%s shows %s", format, shown)
		}
	}
	if _, err := SignerFromFile(path, "No name"); !errors.Is(err, ErrBadKey) {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o604); err != nil {
		t.Fatal(err)
	}
	if _, err := SignerFromFile(path, ""); !errors.Is(err, ErrBadKey) || !strings.Contains(err.Error(), "chmod") {
		t.Error(err)
	}
	if _, err := SignerFromFile(path+"x", ""); !errors.Is(err, ErrBadKey) || !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := os.WriteFile(path+"y", []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := SignerFromFile(path+"y", ""); !errors.Is(err, ErrBadKey) {
		t.Error(err)
	}
}

func TestTokens(t *testing.T) {
	for _, text := range []string{"7.42.19.0.o-81", "0.9223372036854775807.0.3.a.b.c"} {
		token, err := ParseToken(text)
		if err != nil || token.String() != text {
			t.Errorf("%s is read as %v, %v", text, token, err)
		}
	}
	for _, text := range []string{
		"", "1.2.3.4", "1.2.3.4.", "1.2.3.4.a b", "-1.2.3.4.a", "1.2.3.x.a", "1.2.3.4.a\n", "٣.2.3.4.a",
		"1.9999999999999999999.3.4.a", "2147483648.2.3.4.a", "1.2.3.4." + strings.Repeat("a", 65),
	} {
		if token, err := ParseToken(text); !errors.Is(err, ErrBadToken) {
			t.Errorf("%q is read as %v, %v", text, token, err)
		}
	}
}

func TestWhatCannotBeAnsweredIsNotSent(t *testing.T) {
	type point struct{ X, Y int }
	cyclic := map[string]any{}
	cyclic["self"] = cyclic
	tool := func(value any) Job {
		return Job{Messages: []Message{User("x")}, Tools: []any{map[string]any{"value": value}}}
	}
	for name, job := range map[string]Job{
		"no prompt":                 {},
		"two prompts":               {Prompt: "x", TokenIDs: []int32{1}},
		"an id with a slash":        {ID: "a/b", Prompt: "x"},
		"half a character":          {Prompt: "\xff"},
		"half a character in a key": {Prompt: "x", Metadata: map[string]string{"\xff": "x"}},
		"half a character in a tool": {
			Messages: []Message{User("x")}, Tools: []any{map[string]any{"\xff": 1}},
		},
		"content twice":       {Messages: []Message{{Role: "user", Content: new("x"), Parts: []string{"y"}}}},
		"no number":           tool(math.NaN()),
		"no number as text":   tool(json.Number("many")),
		"what has no JSON":    tool(func() {}),
		"what has no end":     tool(cyclic),
		"more than a record":  {Prompt: strings.Repeat("x", maxRequestBytes)},
		"no reply partition":  {Prompt: "x", ReplyPartition: new(int32(9))},
		"half a trace":        {Prompt: "x", TraceState: "a=b"},
		"no trace":            {Prompt: "x", TraceParent: "00-x"},
		"a trace of zeros":    {Prompt: "x", TraceParent: "00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01"},
		"a state of nonsense": {Prompt: "x", TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", TraceState: "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(1)
			if _, err := connect(t, b, Options{}).Send(t.Context(), job); !errors.Is(err, ErrBadJob) {
				t.Error(err)
			}
			if len(b.sent) > 0 {
				t.Error("it was sent")
			}
		})
	}
	value, err := appendJSON(nil, map[string]any{
		"struct": point{1, 2}, "raw": json.RawMessage(`{"n": 1.5, "big": 18446744073709551615}`),
		"time": time.Unix(0, 0).UTC(), "bytes": []byte("x"), "texts": []string{"a"}, "number": json.Number("1.0"),
	}, maxPackDepth)
	if err != nil {
		t.Fatal(err)
	}
	fields, err := unpackMap(value, maxRequestBytes)
	if err != nil {
		t.Fatal(err)
	}
	sameMap(t, fields, map[string]any{
		"struct": map[string]any{"X": int64(1), "Y": int64(2)},
		"raw":    map[string]any{"n": 1.5, "big": uint64(math.MaxUint64)},
		"time":   "1970-01-01T00:00:00Z", "bytes": "eA==", "texts": []any{"a"}, "number": int64(1),
	})
}

func TestTheSameJobIsTheSameBytes(t *testing.T) {
	job := Job{ID: "j", Prompt: "x", Metadata: map[string]string{}}
	job.Sampling.LogitBias = map[int32]float64{}
	for number := range int32(16) {
		job.Metadata[fmt.Sprint(number)] = "x"
		job.Sampling.LogitBias[number] = 1
	}
	first, err := encodeJob(&job, "acme", 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if again, _ := encodeJob(&job, "acme", 0); string(again) != string(first) {
			t.Fatal("a map's order shows")
		}
	}
}

func TestHalfCharactersInJSON(t *testing.T) {
	for text, half := range map[string]bool{
		`"\ud83c\udf4e"`: false, `"\\ud83c"`: false, `"\u0041"`: false, `"\"\u00e9"`: false, `"\ud83c\udf4e\ud83c\udf4e"`: false,
		`"\ud83c"`: true, `"\udf4e"`: true, `"\ud83cx"`: true, `"\ud83c\ud83c\udf4e"`: true, `"\\\ud83c"`: true, `"\ud83c\n"`: true,
	} {
		if got := hasHalfCharacter([]byte(text)); got != half {
			t.Errorf("%s: %t", text, got)
		}
	}
}

func TestTenants(t *testing.T) {
	for _, tenant := range []string{"", "shared", "Acme", "a.b", "acme\n"} {
		if _, err := Open(t.Context(), Options{Tenant: tenant}); err == nil {
			t.Errorf("%q is a tenant", tenant)
		}
	}
}

func TestBrokersThatAreNotThere(t *testing.T) {
	_, err := Open(waiting(t), Options{Brokers: []string{"127.0.0.1:1"}, Tenant: "acme"})
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrTopicMissing) {
		t.Error(err)
	}
}
