package aril

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// vectorFile is schemas/vectors/<name>.json; each vector stays as it stands there.
type vectorFile struct {
	Version int
	Vectors []json.RawMessage
	Key     struct {
		Tenant  string
		KeyID   string `json:"key_id"`
		Private string
		Public  string
	}
}

func loadVectors(t *testing.T, name string) vectorFile {
	t.Helper()
	text, err := os.ReadFile("../../schemas/vectors/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var file vectorFile
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if file.Version != 1 || len(file.Vectors) == 0 {
		t.Fatalf("%s: version %d, %d vectors", name, file.Version, len(file.Vectors))
	}
	return file
}

// unused are the vectors that this client has no use for, each skipped with its reason: what no Job
// can say, what no client sends, and how workers judge a header.
var unused = map[string][]string{
	"requests": {
		"version 2", "version true", "no version", "prompt of bytes", "number in text",
		"boolean for a number", "real for a whole number", "no adapter in a mixture",
		"metadata value not text", "strict with a field that is none",
		"a tool with a value that JSON lacks", "a user's turn without content",
		"a part that is no text", "nothing to choose from", "bias of a token that is no number",
		"sampling not a map", "one stop string, bare", "unknown kind", "kind not text",
		"JSON with a real number for a whole one",
	},
	"signatures": {
		"too old", "too fast", "no header", "two headers", "empty header", "upper case",
		"leading zero", "line end", "version 2", "another tenant",
	},
}

// each runs a test for each vector of a file; those that it skips are the ones listed as unused.
func each[V any](t *testing.T, file string, name func(V) string, run func(*testing.T, V)) {
	t.Helper()
	var skipped []string
	vectors := loadVectors(t, file).Vectors
	for _, raw := range vectors {
		var vector V
		if err := json.Unmarshal(raw, &vector); err != nil {
			t.Fatal(err)
		}
		t.Run(name(vector), func(t *testing.T) {
			defer func() {
				if t.Skipped() {
					skipped = append(skipped, name(vector))
				}
			}()
			run(t, vector)
		})
	}
	if !slices.Equal(skipped, unused[file]) {
		t.Errorf("%s: not used are %q, listed as such %q", file, skipped, unused[file])
	}
	t.Logf("%s: %d vectors, %d not used: %s", file, len(vectors), len(skipped), strings.Join(skipped, "; "))
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// plain brings a map into a form in which maps that say the same are equal: 2.0 is 2 where a number
// is meant, and NaN equals itself.
func plain(value any) any {
	switch value := value.(type) {
	case float64:
		switch {
		case math.IsNaN(value):
			return "NaN"
		case value == math.Trunc(value) && math.Abs(value) < 1<<53:
			return int64(value)
		}
	case []any:
		for at := range value {
			value[at] = plain(value[at])
		}
	case map[string]any:
		for key := range value {
			value[key] = plain(value[key])
		}
	}
	return value
}

func sameMap(t *testing.T, got, want map[string]any) {
	t.Helper()
	if !reflect.DeepEqual(plain(got), plain(want)) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// fieldsOf reads JSON as records in JSON are read: integers stay integers.
func fieldsOf(t *testing.T, raw json.RawMessage) map[string]any {
	t.Helper()
	fields, err := parseJSON(raw)
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

func TestPartitionVectors(t *testing.T) {
	type vector struct {
		Job           string
		Hex           string
		Meaning       string
		Murmur2Signed int32            `json:"murmur2_signed"`
		PartitionOf   map[string]int32 `json:"partition_of"`
	}
	each(t, "partitions", func(v vector) string { return v.Meaning }, func(t *testing.T, v vector) {
		if data := unhex(t, v.Hex); string(data) != v.Job || int32(murmur2(data)) != v.Murmur2Signed {
			t.Errorf("murmur2 of %q is %d, not %d", v.Job, int32(murmur2(data)), v.Murmur2Signed)
		}
		for partitions, want := range v.PartitionOf {
			count, _ := strconv.Atoi(partitions)
			if got := partitionOf(v.Job, int32(count)); got != want {
				t.Errorf("of %d partitions it is %d, not %d", count, got, want)
			}
		}
	})
}

type refusal struct {
	Code   Code
	Reason string
}

// The reasons of requests that are refused for their form: the same rules hold for replies, so this
// client's reader has to refuse those bytes, too. All others are judged by workers.
var formReasons = map[string]bool{
	"empty": true, "truncated": true, "trailing_bytes": true, "not_a_map": true, "not_msgpack": true,
	"not_json": true, "duplicate_key": true, "key_not_text": true, "invalid_utf8": true,
	"extension_type": true, "too_deep": true, "record_too_large": true, "too_many_parts": true,
	"too_many_containers": true, "too_many_elements": true, "too_many_fields": true,
}

func TestRequestVectors(t *testing.T) {
	type vector struct {
		Name, Hex string
		Repeat    struct {
			Hex   string
			Times int
		}
		Expect struct {
			Job, Cancel json.RawMessage
			Error       *refusal
		}
	}
	each(t, "requests", func(v vector) string { return v.Name }, func(t *testing.T, v vector) {
		data := append(unhex(t, v.Hex), bytes.Repeat(unhex(t, v.Repeat.Hex), v.Repeat.Times)...)
		fields, err := unpackMap(data, maxRequestBytes)
		if refused := v.Expect.Error; refused != nil && formReasons[refused.Reason] {
			sameRefusal(t, err, *refused)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case v.Expect.Job != nil:
			want := fieldsOf(t, v.Expect.Job)
			asked, why := jobOf(want)
			if why != "" {
				t.Fatal(why)
			}
			got := asked.encode(t)
			want["v"], want["kind"] = int64(1), "job"
			sameMap(t, got, want)
		case v.Expect.Cancel != nil:
			want := fieldsOf(t, v.Expect.Cancel)
			value, err := encodeCancel(want["id"].(string), want["tenant"].(string))
			if err != nil {
				t.Fatal(err)
			}
			got, err := unpackMap(value, maxRequestBytes)
			if err != nil {
				t.Fatal(err)
			}
			want["v"], want["kind"] = int64(1), "cancel"
			sameMap(t, got, want)
		default: // what a program may say wrongly goes to the worker as it is, or is not sent
			kind, _ := fields["kind"].(string)
			if kind != "job" || fields["v"] != int64(1) {
				t.Skipf("%s: this client sends jobs and cancels of version 1 only", v.Expect.Error.Reason)
			}
			asked, why := jobOf(fields)
			if why != "" {
				t.Skipf("%s: no Job says that: %s", v.Expect.Error.Reason, why)
			}
			if asked.Job.check() != nil || !isTenant(asked.tenant) {
				return
			}
			sameMap(t, asked.encode(t), fields)
		}
	})
}

func sameRefusal(t *testing.T, err error, want refusal) {
	t.Helper()
	told, ok := err.(*recordError)
	if !ok || told.code != want.Code {
		t.Errorf("got %v, want %s (%s)", err, want.Code, want.Reason)
	}
}

func TestReplyVectors(t *testing.T) {
	type vector struct {
		Name, Hex string
		Expect    struct {
			Record   json.RawMessage
			Skipped  bool
			Redirect *int64
			Conflict *struct {
				SHA256    string
				ReplyFrom *int64 `json:"reply_from"`
			}
			Error *refusal
		}
	}
	each(t, "replies", func(v vector) string { return v.Name }, func(t *testing.T, v vector) {
		data := unhex(t, v.Hex)
		told, err := decodeReply(data)
		redirect := decodeRedirect(data, "j1")
		if want := v.Expect.Redirect; (want == nil) != (redirect < 0) || want != nil && *want != redirect {
			t.Errorf("redirects to %d", redirect)
		}
		refused, ok := decodeConflict(data, "j1")
		if want := v.Expect.Conflict; ok != (want != nil) || ok && refused.sha256 != want.SHA256 {
			t.Errorf("conflict %t of %q", ok, refused.sha256)
		} else if ok && (want.ReplyFrom == nil && refused.replyFrom != -1 || want.ReplyFrom != nil && refused.replyFrom != *want.ReplyFrom) {
			t.Errorf("conflict at %d", refused.replyFrom)
		}
		switch {
		case v.Expect.Error != nil:
			sameRefusal(t, err, *v.Expect.Error)
		case err != nil:
			t.Fatal(err)
		case v.Expect.Skipped:
			if told != nil {
				t.Errorf("got %v", described(told))
			}
		default:
			sameMap(t, described(told), fieldsOf(t, v.Expect.Record))
		}
	})
}

func TestStreamVectors(t *testing.T) {
	type vector struct {
		Name string
		Log  []struct {
			Hex    string
			Record json.RawMessage
			Events []json.RawMessage
		}
		Visible struct {
			Epoch    [2]int64
			Writer   *string
			TokenIDs []int32 `json:"token_ids"`
			Text     string
			Terminal *string
			Resets   int
		}
	}
	each(t, "streams", func(v vector) string { return v.Name }, func(t *testing.T, v vector) {
		for _, form := range []string{"msgpack", "JSON"} {
			var seen visible
			var last Event
			for _, step := range v.Log {
				data := unhex(t, step.Hex)
				if form == "JSON" {
					record := fieldsOf(t, step.Record)
					record["v"] = 1
					data, _ = json.Marshal(record)
				}
				var events []Event
				if told, err := decodeReply(data); err == nil && told != nil {
					events = seen.feed(told)
				}
				if len(events) != len(step.Events) {
					t.Fatalf("%s: %d events, not %d", form, len(events), len(step.Events))
				}
				for at, event := range events {
					sameMap(t, summary(event), fieldsOf(t, step.Events[at]))
					last = event
				}
			}
			want := v.Visible
			if (epoch{want.Epoch[0], want.Epoch[1]}) != seen.epoch || string(seen.text) != want.Text ||
				len(seen.ids) != len(want.TokenIDs) || seen.resets != want.Resets {
				t.Errorf("%s: %+v, want %+v", form, seen, want)
			}
			for at, id := range want.TokenIDs {
				if seen.ids[at] != id {
					t.Errorf("%s: ids %v, want %v", form, seen.ids, want.TokenIDs)
				}
			}
			if (want.Writer == nil) != (seen.writer == "") || want.Writer != nil && *want.Writer != seen.writer {
				t.Errorf("%s: writer %q", form, seen.writer)
			}
			terminal := ""
			switch last.(type) {
			case Done:
				terminal = "done"
			case *JobError:
				terminal = "error"
			}
			if seen.finished != (want.Terminal != nil) || want.Terminal != nil && *want.Terminal != terminal {
				t.Errorf("%s: ended in %q", form, terminal)
			}
		}
	})
}

func TestTokenVectors(t *testing.T) {
	type vector struct {
		Name, Text, Canonical string
		Expect                struct {
			Job       string
			Partition int32
			ReplyFrom int64 `json:"reply_from"`
			Count     int64
			Resets    int64
			Error     string
		}
	}
	each(t, "tokens", func(v vector) string { return v.Name }, func(t *testing.T, v vector) {
		token, err := ParseToken(v.Text)
		if v.Expect.Error != "" {
			if !errors.Is(err, ErrBadToken) {
				t.Errorf("%v, %v", token, err)
			}
			return
		}
		want := v.Expect
		if says := (Token{want.Job, want.Partition, want.ReplyFrom, want.Count, want.Resets}); err != nil || token != says {
			t.Errorf("says %+v, %v", token, err)
		}
		if text := cmp.Or(v.Canonical, v.Text); token.String() != text {
			t.Errorf("is written %q, want %q", token, text)
		}
	})
}

func TestResumeVectors(t *testing.T) {
	type vector struct {
		Name, Token string
		Log         []struct{ Hex string }
		Expect      struct {
			Events []json.RawMessage
			Error  string
		}
	}
	failures := map[string]error{"bad_token": ErrBadToken, "conflict": ErrConflict}
	each(t, "resumes", func(v vector) string { return v.Name }, func(t *testing.T, v vector) {
		token, err := ParseToken(v.Token)
		if err != nil {
			t.Fatal(err)
		}
		box := newInbox(token.Job, token.Partition, token.ReplyFrom, inboxEvents)
		box.given, box.replaying = mark{token.Resets, token.Count}, true
		for at := token.ReplyFrom; at < int64(len(v.Log)) && box.failure == nil; at++ {
			box.offer(fetched{token.Partition, at, []byte(token.Job), unhex(t, v.Log[at].Hex)})
			if box.redirected {
				at, box.stalled, box.redirected = box.position-1, false, false
			}
		}
		for _, want := range v.Expect.Events {
			event := box.take()
			if event == nil {
				t.Fatalf("want %s", want)
			}
			sameMap(t, summary(event), fieldsOf(t, want))
		}
		if event := box.take(); event != nil {
			t.Errorf("given %v, too", event)
		}
		if want := failures[v.Expect.Error]; !errors.Is(box.failure, want) || (want == nil) != (box.failure == nil) {
			t.Errorf("failed with %v", box.failure)
		}
	})
}

func TestSignatureVectors(t *testing.T) {
	file := loadVectors(t, "signatures")
	signer, err := NewSigner(ed25519.NewKeyFromSeed(unhex(t, file.Key.Private)), file.Key.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	public := ed25519.PublicKey(unhex(t, file.Key.Public))
	type vector struct {
		Name, Hex string
		Record    struct {
			Topic     string
			Partition int32
			Key       string
		}
		Headers [][2]string
		Signed  string
		Expect  struct{ Signer, Reason string }
	}
	each(t, "signatures", func(v vector) string { return v.Name }, func(t *testing.T, v vector) {
		if reason := v.Expect.Reason; reason != "" && reason != "signature_invalid" {
			t.Skipf("%s: headers, keys and times are judged by workers", reason)
		}
		value, text := unhex(t, v.Hex), v.Headers[0][1]
		parts := strings.Split(text, ".")
		signedMS, err := strconv.ParseInt(parts[3], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		key := []byte(v.Record.Key)
		message := signedMessage(file.Key.Tenant, file.Key.KeyID, v.Record.Topic, v.Record.Partition, key, signedMS, value)
		holds := ed25519.Verify(public, message, unhex(t, parts[4]))
		if valid := v.Expect.Signer != ""; holds != valid {
			t.Fatalf("the signature holds: %t, want %t", holds, valid)
		}
		if !holds {
			return
		}
		if hex.EncodeToString(message) != v.Signed {
			t.Errorf("signed is %x, want %s", message, v.Signed)
		}
		signer.now = func() time.Time { return time.UnixMilli(signedMS) }
		header := signer.header(v.Expect.Signer, v.Record.Topic, v.Record.Partition, key, value)
		if v.Headers[0][0] != signatureHeader || string(header) != text {
			t.Errorf("header is %s, want %s", header, text)
		}
	})
}
