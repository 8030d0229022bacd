package aril

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

func send(t *testing.T, client *Client, job Job) *Stream {
	t.Helper()
	if job.Prompt == "" {
		job.Prompt = "Hello!"
	}
	stream, err := client.Send(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func waiting(t *testing.T) context.Context {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), waitTime)
	t.Cleanup(stop)
	return ctx
}

// next expects an event.
func next(t *testing.T, stream *Stream) Event {
	t.Helper()
	event, err := stream.Next(waiting(t))
	if err != nil {
		t.Fatal(err)
	}
	return event
}

func nextText(t *testing.T, stream *Stream, want string) {
	t.Helper()
	if got, ok := next(t, stream).(Tokens); !ok || got.Text != want {
		t.Fatalf("got %+v, want %q", got, want)
	}
}

// failure expects an error.
func failure(t *testing.T, stream *Stream) error {
	t.Helper()
	event, err := stream.Next(waiting(t))
	if err == nil {
		t.Fatalf("got %+v", event)
	}
	return err
}

func TestAnAnswerInBothForms(t *testing.T) {
	for _, form := range []string{"msgpack", "JSON"} {
		t.Run(form, func(t *testing.T) {
			b := newBroker(4)
			client := connect(t, b, Options{})
			stream := send(t, client, Job{Prompt: "Hi", ID: "o-81"})
			sent := b.jobs(t, 1)[0]
			if string(sent.key) != "o-81" || sent.partition != partitionOf("o-81", 3) {
				t.Errorf("sent to partition %d with key %q", sent.partition, sent.key)
			}
			fields, err := unpackMap(sent.value, maxRequestBytes)
			if err != nil {
				t.Fatal(err)
			}
			sameMap(t, fields, map[string]any{
				"v": int64(1), "kind": "job", "id": "o-81", "tenant": "acme", "prompt": "Hi", "reply_from": int64(0),
			})
			w := workerOf(b, stream)
			w.json = form == "JSON"
			w.say("Hel", "lo")
			nextText(t, stream, "Hel")
			if got, want := stream.Token().String(), fmt.Sprintf("%d.0.1.0.o-81", w.partition); got != want {
				t.Errorf("token is %s, not %s", got, want)
			}
			nextText(t, stream, "lo")
			w.done()
			if done := next(t, stream).(Done); done.Usage.CompletionTokens != 2 || done.Timings.FirstTokenMS != 2.5 {
				t.Errorf("got %+v", done)
			}
			if err := failure(t, stream); err != io.EOF {
				t.Errorf("after the end: %v", err)
			}
			answer, err := stream.Answer(waiting(t))
			if err != nil || answer.Text != "Hello" || len(answer.TokenIDs) != 2 || answer.Seed != 7 {
				t.Errorf("answer is %+v, %v", answer, err)
			}
			if sent := b.jobs(t, 1); len(sent) != 1 {
				t.Errorf("an answer that has ended was cancelled: %d records", len(sent))
			}
		})
	}
}

func TestReplyFromIsWhereTheLogEndsOrIsRead(t *testing.T) {
	b := newBroker(1)
	other := &worker{broker: b, job: "other", epoch: [2]int64{1, 1}, name: "a"}
	other.say("x", "y", "z")
	client := connect(t, b, Options{})
	first := send(t, client, Job{})
	if first.Token().ReplyFrom != 3 {
		t.Errorf("begins at %d", first.Token().ReplyFrom)
	}
	workerOf(b, first).say("a")
	nextText(t, first, "a") // so offset 3 was read
	if second := send(t, client, Job{}); second.Token().ReplyFrom != 4 {
		t.Errorf("the second begins at %d", second.Token().ReplyFrom)
	}
}

func TestAJobsErrorIsTyped(t *testing.T) {
	b := newBroker(1)
	client := connect(t, b, Options{})
	stream := send(t, client, Job{})
	w := workerOf(b, stream)
	w.say("x")
	w.fail("overloaded", map[string]any{"limit": uint64(1) << 63, "given": "much", "retry_after_ms": 1500, "retryable": true})
	nextText(t, stream, "x")
	var failed *JobError
	if err := failure(t, stream); !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if failed.Code != Overloaded || !failed.Retryable || failed.Limit != "9223372036854775808" ||
		failed.Given != "much" || failed.RetryAfter != 1500*time.Millisecond || failed.Index != 1 {
		t.Errorf("got %+v", failed)
	}
	if _, err := stream.Answer(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("an answer after an error: %v", err)
	}
}

func TestWhatCannotBeReadEndsTheStream(t *testing.T) {
	for name, more := range map[string]map[string]any{
		"another version": {"v": 2},
		"an unknown code": {"code": "tired"},
		"a broken record": {"index": -1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(1)
			stream := send(t, connect(t, b, Options{}), Job{})
			workerOf(b, stream).fail("internal", more)
			err := failure(t, stream)
			if !errors.Is(err, ErrUnreadable) {
				t.Fatal(err)
			}
			if more["code"] != nil && !strings.Contains(err.Error(), `"tired"`) {
				t.Errorf("the code is not told: %v", err)
			}
		})
	}
}

func TestWhatSaysNothingToAReaderIsPassedOver(t *testing.T) {
	b := newBroker(1)
	client := connect(t, b, Options{})
	stream := send(t, client, Job{})
	w := workerOf(b, stream)
	w.put("note", nil)
	w.put("release", nil)
	w.put("redirect", map[string]any{"reply_from": 0}) // it begins there already
	stranger := &worker{broker: b, job: "stranger", epoch: w.epoch, name: "a"}
	stranger.say("not mine")
	stranger.job = w.job // in the record, under the key of another
	b.put(0, "stranger", []byte{0xc1})
	w.say("x")
	nextText(t, stream, "x")
}

func TestAResetIsTold(t *testing.T) {
	b := newBroker(1)
	stream := send(t, connect(t, b, Options{}), Job{})
	w := workerOf(b, stream)
	w.say("wrong")
	w.epoch, w.name, w.index = [2]int64{2, 1}, "b", 0
	w.say("right")
	w.done()
	nextText(t, stream, "wrong")
	if reset, ok := next(t, stream).(Reset); !ok || reset.Withdrawn != 1 {
		t.Errorf("got %+v", reset)
	}
	if token := stream.Token(); token.Count != 0 || token.Resets != 1 {
		t.Errorf("token is %s", token)
	}
	answer, err := stream.Answer(waiting(t))
	if err != nil || answer.Text != "right" || answer.Resets != 1 {
		t.Errorf("answer is %+v, %v", answer, err)
	}
}

func TestAJobSentAgainIsLedToTheFirstAnswer(t *testing.T) {
	b := newBroker(1)
	first := &worker{broker: b, job: "o-81", epoch: [2]int64{1, 1}, name: "a"}
	beside := &worker{broker: b, job: "beside", epoch: [2]int64{1, 1}, name: "a"}
	first.say("He", "llo")
	client := connect(t, b, Options{})
	neighbour := send(t, client, Job{ID: "beside"})
	beside.say("1")
	nextText(t, neighbour, "1")
	stream := send(t, client, Job{ID: "o-81"})
	first.put("redirect", map[string]any{"reply_from": 0})
	first.put("redirect", map[string]any{"reply_from": 0}) // lands twice
	beside.say("2")
	first.done()
	beside.done()
	answer, err := stream.Answer(waiting(t))
	if err != nil || answer.Text != "Hello" {
		t.Fatalf("got %+v, %v", answer, err)
	}
	if token := stream.Token(); token.ReplyFrom != 0 || token.Count != 2 {
		t.Errorf("token is %s", token)
	}
	if answer, err := neighbour.Answer(waiting(t)); err != nil || answer.Text != "12" {
		t.Errorf("the neighbour got %+v, %v", answer, err)
	}
}

func TestAnotherJobUnderAKnownIDIsToldSo(t *testing.T) {
	b := newBroker(1)
	client := connect(t, b, Options{})
	stream := send(t, client, Job{ID: "o-81"})
	value := b.jobs(t, 1)[0].value
	w := workerOf(b, stream)
	w.say("x")
	w.put("conflict", map[string]any{"sha256": strings.Repeat("0", sha256Chars), "reply_from": 0})
	w.put("conflict", map[string]any{"sha256": fmt.Sprintf("%x", sha256.Sum256(value))})
	nextText(t, stream, "x")
	if err := failure(t, stream); !errors.Is(err, ErrConflict) {
		t.Errorf("got %v", err)
	}
	stream.Close()
	client.Close()
	if sent := b.jobs(t, 1); len(sent) != 1 {
		t.Errorf("%d records were sent: the job is another one's", len(sent))
	}
}

func TestWhoHasSeenTokensIsNotLedBack(t *testing.T) {
	b := newBroker(1)
	old := &worker{broker: b, job: "o-81", epoch: [2]int64{1, 1}, name: "a"}
	old.say("old")
	stream := send(t, connect(t, b, Options{}), Job{ID: "o-81"})
	w := &worker{broker: b, job: "o-81", epoch: [2]int64{2, 1}, name: "b"}
	w.say("new")
	w.put("redirect", map[string]any{"reply_from": 0})
	w.done()
	if answer, err := stream.Answer(waiting(t)); err != nil || answer.Text != "new" {
		t.Errorf("got %+v, %v", answer, err)
	}
}

func TestResumeGivesExactlyTheRest(t *testing.T) {
	b := newBroker(2)
	first := connect(t, b, Options{})
	stream := send(t, first, Job{ID: "o-81"})
	w := workerOf(b, stream)
	w.say("a", "b", "c")
	nextText(t, stream, "a")
	nextText(t, stream, "b")
	token := stream.Detach()
	if _, err := stream.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("a detached stream says %v", err)
	}
	first.Close()
	if sent := b.jobs(t, 1); len(sent) != 1 {
		t.Errorf("a detached job was cancelled")
	}
	parsed, err := ParseToken(token.String())
	if err != nil || parsed != token {
		t.Fatalf("%v is read as %v, %v", token, parsed, err)
	}
	again, err := connect(t, b, Options{}).Resume(t.Context(), parsed)
	if err != nil {
		t.Fatal(err)
	}
	nextText(t, again, "c")
	w.say("d")
	w.done()
	nextText(t, again, "d")
	answer, err := again.Answer(waiting(t))
	if err != nil || answer.Text != "abcd" {
		t.Errorf("got %+v, %v", answer, err)
	}
}

func TestResumeAcrossAReset(t *testing.T) {
	b := newBroker(1)
	w := &worker{broker: b, job: "j", epoch: [2]int64{1, 1}, name: "a"}
	w.say("x", "y")
	w.epoch, w.name, w.index = [2]int64{2, 1}, "b", 0
	w.say("1", "2", "3")
	w.done()
	client := connect(t, b, Options{})
	for token, want := range map[Token]string{
		{Job: "j", Count: 1}:            "y|reset|1|2|3|done",
		{Job: "j", Count: 2}:            "reset|1|2|3|done",
		{Job: "j", Count: 2, Resets: 1}: "3|done",
		{Job: "j", Count: 3, Resets: 1}: "done",
		{Job: "j", Count: 5, Resets: 0}: "no place",
		{Job: "j", Count: 9, Resets: 1}: "no place",
	} {
		stream, err := client.Resume(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for event, err := range stream.Events(waiting(t)) {
			switch event := event.(type) {
			case Tokens:
				got = append(got, event.Text)
			case Reset:
				got = append(got, "reset")
			case Done:
				got = append(got, "done")
			default:
				if !errors.Is(err, ErrBadToken) {
					t.Error(err)
				}
				got = append(got, "no place")
			}
		}
		if strings.Join(got, "|") != want {
			t.Errorf("from %s: %s, not %s", token, strings.Join(got, "|"), want)
		}
	}
	if sent := len(b.sent); sent != 0 {
		t.Errorf("%d records were sent: what failed to be resumed is not cancelled", sent)
	}
}

func TestATokenInsideOfARecordIsRefused(t *testing.T) {
	b := newBroker(1)
	w := &worker{broker: b, job: "j", epoch: [2]int64{1, 1}, name: "a"}
	w.put("tokens", map[string]any{"index": 0, "ids": []any{1, 2, 3}, "text": "abc"})
	stream, err := connect(t, b, Options{}).Resume(t.Context(), Token{Job: "j", Count: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := failure(t, stream); !errors.Is(err, ErrBadToken) {
		t.Error(err)
	}
}

func TestWhatTheLogNoLongerHoldsIsLost(t *testing.T) {
	b := newBroker(1)
	w := &worker{broker: b, job: "j", epoch: [2]int64{1, 1}, name: "a"}
	w.say("a", "b", "c")
	b.expire(0, 1)
	client := connect(t, b, Options{})
	for _, from := range []int64{0, 4} {
		if _, err := client.Resume(t.Context(), Token{Job: "j", ReplyFrom: from}); !errors.Is(err, ErrStreamLost) {
			t.Errorf("from %d: %v", from, err)
		}
	}
	if _, err := client.Resume(t.Context(), Token{Job: "j", Partition: 1}); !errors.Is(err, ErrBadToken) {
		t.Errorf("a partition that there is not: %v", err)
	}
}

func TestRetentionOvertakesASlowReaderOnly(t *testing.T) {
	b := newBroker(1)
	client := connect(t, b, Options{Buffer: 2})
	slow, quick := send(t, client, Job{}), send(t, client, Job{})
	ws, wq := workerOf(b, slow), workerOf(b, quick)
	ws.say(strings.Split("abcdefghij", "")...)
	wq.say("1")
	nextText(t, quick, "1") // so the slow one's inbox is full
	b.expire(0, 11)
	wq.say("2")
	wq.done()
	if answer, err := quick.Answer(waiting(t)); err != nil || answer.Text != "12" {
		t.Errorf("got %+v, %v", answer, err)
	}
	nextText(t, slow, "a")
	nextText(t, slow, "b")
	if err := failure(t, slow); !errors.Is(err, ErrStreamLost) {
		t.Error(err)
	}
}

func TestASlowReaderHoldsNobodyUpAndFillsNoMemory(t *testing.T) {
	const records = 3_000
	b := newBroker(1)
	client := connect(t, b, Options{Buffer: 8})
	slow, quick := send(t, client, Job{}), send(t, client, Job{})
	ws, wq := workerOf(b, slow), workerOf(b, quick)
	for range records {
		ws.say("s")
		wq.say("q")
	}
	ws.done()
	wq.done()
	if answer, err := quick.Answer(waiting(t)); err != nil || len(answer.Text) != records {
		t.Fatalf("the quick one got %+v, %v", answer, err)
	}
	client.router.look(func() {
		if waiting := len(slow.box.waiting); waiting != 8 {
			t.Errorf("%d events wait for a reader who takes none", waiting)
		}
	})
	count := 0
	for event, err := range slow.Events(waiting(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if told, ok := event.(Tokens); ok {
			if told.Index != count {
				t.Fatalf("token %d comes as number %d", told.Index, count)
			}
			count++
		}
	}
	if count != records {
		t.Errorf("the slow one got %d tokens", count)
	}
}

func TestAnInboxIsBoundedInBytes(t *testing.T) {
	b := newBroker(1)
	client := connect(t, b, Options{})
	stream, beside := send(t, client, Job{}), send(t, client, Job{})
	w := workerOf(b, stream)
	long := strings.Repeat("x", 150_000)
	for range 20 {
		w.say(long)
	}
	w.done()
	other := workerOf(b, beside)
	other.done()
	if _, err := beside.Answer(waiting(t)); err != nil { // so all records before it were offered
		t.Fatal(err)
	}
	client.router.look(func() {
		if bytes := stream.box.bytes; bytes < inboxBytes || bytes > inboxBytes+maxReplyBytes {
			t.Errorf("%d bytes wait", bytes)
		}
	})
	if answer, err := stream.Answer(waiting(t)); err != nil || len(answer.Text) != 20*len(long) {
		t.Errorf("got %d characters, %v", len(answer.Text), err)
	}
}

func TestPartitionsAreFollowedOnlyWhileTheyAreNeeded(t *testing.T) {
	b := newBroker(8)
	client := connect(t, b, Options{})
	stream := send(t, client, Job{})
	w := workerOf(b, stream)
	for partition := range int32(8) {
		if partition != w.partition {
			stranger := &worker{broker: b, partition: partition, job: "stranger", epoch: [2]int64{1, 1}, name: "a"}
			stranger.say("x", "y", "z")
		}
	}
	w.say("a")
	w.done()
	if _, err := stream.Answer(waiting(t)); err != nil {
		t.Fatal(err)
	}
	w.say("nobody listens")
	again := send(t, client, Job{ReplyPartition: new((w.partition + 1) % 8)})
	workerOf(b, again).done()
	if _, err := again.Answer(waiting(t)); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reads != 3 {
		t.Errorf("%d records were read, not 3", b.reads)
	}
}

func TestWhoLeavesCancels(t *testing.T) {
	leave := map[string]func(*Client, *Stream){
		"by Close":           func(_ *Client, stream *Stream) { stream.Close() },
		"by closing all":     func(client *Client, _ *Stream) { client.Close() },
		"out of a loop":      func(_ *Client, stream *Stream) { leaveLoop(stream) },
		"when time is up":    func(_ *Client, stream *Stream) { runOut(stream) },
		"by asking for that": func(_ *Client, stream *Stream) { _ = stream.Cancel(context.Background()) },
	}
	for how, leave := range leave {
		t.Run(how, func(t *testing.T) {
			b := newBroker(1)
			client := connect(t, b, Options{})
			stream := send(t, client, Job{ID: "j"})
			workerOf(b, stream).say("x")
			leave(client, stream)
			cancel := b.jobs(t, 2)[1]
			fields, err := unpackMap(cancel.value, maxRequestBytes)
			if err != nil {
				t.Fatal(err)
			}
			sameMap(t, fields, map[string]any{"v": int64(1), "kind": "cancel", "id": "j", "tenant": "acme"})
			if cancel.partition != b.sent[0].partition || string(cancel.key) != "j" {
				t.Errorf("the cancel went elsewhere: %d %q", cancel.partition, cancel.key)
			}
		})
	}
}

func leaveLoop(stream *Stream) {
	for range stream.Events(context.Background()) {
		break
	}
}

func runOut(stream *Stream) {
	ctx, stop := context.WithTimeout(context.Background(), time.Millisecond)
	defer stop()
	for range stream.Events(ctx) {
	}
}

func TestNextMayBeCalledAgainWhenItsTimeWasUp(t *testing.T) {
	b := newBroker(1)
	stream := send(t, connect(t, b, Options{}), Job{})
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := stream.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	workerOf(b, stream).say("x")
	nextText(t, stream, "x")
}

func TestClosingTellsThoseWhoWait(t *testing.T) {
	b := newBroker(1)
	client := connect(t, b, Options{})
	stream := send(t, client, Job{})
	told := make(chan error)
	go func() {
		_, err := stream.Next(context.Background())
		told <- err
	}()
	client.Close()
	if err := <-told; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := client.Send(t.Context(), Job{Prompt: "x"}); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed client sends: %v", err)
	}
	if _, err := client.Resume(t.Context(), stream.Token()); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed client resumes: %v", err)
	}
}

func TestAJobThatWasNotSentIsForgotten(t *testing.T) {
	b := newBroker(1)
	client := connect(t, b, Options{})
	b.sendFail = ErrUnavailable
	if _, err := client.Send(t.Context(), Job{ID: "j", Prompt: "x"}); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	b.sendFail = nil
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := client.Send(ctx, Job{ID: "j", Prompt: "x"}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	b.jobs(t, 1) // the cancel, as the job may have been sent
	send(t, client, Job{ID: "j"})
	if _, err := client.Send(t.Context(), Job{ID: "j", Prompt: "x"}); !errors.Is(err, ErrAlreadyRead) {
		t.Errorf("one job for two streams: %v", err)
	}
}

func TestHeaders(t *testing.T) {
	b := newBroker(1)
	client := connect(t, b, Options{Signer: testSigner(t)})
	send(t, client, Job{TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", TraceState: "a=b"})
	var names []string
	for _, each := range b.jobs(t, 1)[0].headers {
		names = append(names, each.name)
	}
	if got := strings.Join(names, " "); got != "aril-signature traceparent tracestate" {
		t.Errorf("headers are %s", got)
	}
}

// Many jobs over few partitions, workers that crash and repeat themselves, readers of any speed who
// leave and come back: each reader is told the answer once and in order.
func TestManyAtOnce(t *testing.T) {
	const jobs, tokens = 60, 120
	b := newBroker(3)
	client, ctx := connect(t, b, Options{Buffer: 5}), waiting(t)
	var all sync.WaitGroup
	for number := range jobs {
		random := rand.New(rand.NewPCG(1, uint64(number)))
		stream := send(t, client, Job{ID: fmt.Sprintf("job-%d", number)})
		w := workerOf(b, stream)
		all.Go(func() {
			for w.index < tokens {
				chance := random.IntN(12)
				if w.index == 0 {
					chance = 3 // a zombie may begin a job, too: TestAResetIsTold
				}
				switch chance {
				case 0: // killed; the next owner claims
					w.epoch[0]++
					w.name = fmt.Sprintf("worker-%d", w.epoch[0])
					w.put("claim", nil)
				case 1: // a zombie's record lands late
					zombie := *w
					zombie.epoch[0]--
					zombie.say("lost")
				case 2: // an append lands twice
					w.index--
					w.say(fmt.Sprint(w.index))
				default:
					w.say(fmt.Sprint(w.index))
				}
			}
			w.done()
		})
		reading := rand.New(rand.NewPCG(2, uint64(number)))
		all.Go(func() {
			for want := 0; ; {
				if reading.IntN(20) == 0 {
					again, err := client.Resume(t.Context(), stream.Detach())
					if err != nil {
						t.Error(err)
						return
					}
					stream = again
				}
				if reading.IntN(4) == 0 {
					time.Sleep(time.Duration(reading.IntN(300)) * time.Microsecond)
				}
				event, err := stream.Next(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				switch event := event.(type) {
				case Tokens:
					if event.Index != want || event.Text != fmt.Sprint(want) {
						t.Errorf("job %s: %+v is number %d", stream.Job(), event, want)
						return
					}
					want++
				case Reset:
					want = 0
				case Done:
					if want != tokens {
						t.Errorf("job %s: %d tokens", stream.Job(), want)
					}
					return
				}
			}
		})
	}
	all.Wait()
}
