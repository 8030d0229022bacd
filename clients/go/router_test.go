package aril

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// steered is a reply topic of one partition, and the reader that a router steers, by hand.
type steered struct {
	router *router
	log    []fetched
	at     int64
}

func (s *steered) fetch(t *testing.T, count int) []fetched {
	_, moves, following := s.router.begin(t.Context())
	if at, moved := moves[0]; moved {
		s.at = at
	}
	if !following {
		return nil
	}
	records := s.log[s.at:]
	records = records[:min(len(records), count)]
	s.at += int64(len(records))
	return records
}

// For any log, inboxes, polls and callers' speeds, nothing is lost, doubled or unbounded; also when
// the reader is asked to move while a poll is under way.
func TestEachEventOnceInOrder(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(3, seed))
		b := newBroker(1)
		jobs := []string{"a", "b", "c"}
		writers := map[string]*worker{}
		for _, job := range jobs {
			writers[job] = &worker{broker: b, job: job, epoch: [2]int64{1, 1}, name: "w"}
		}
		for range random.IntN(60) {
			w := writers[jobs[random.IntN(len(jobs))]]
			w.say(fmt.Sprint(w.index))
		}
		reader := &steered{router: newRouter(), log: b.logs[0]}
		boxes, got := map[string]*inbox{}, map[string][]string{}
		add := func(job string) {
			if boxes[job] == nil {
				boxes[job] = newInbox(job, 0, 0, 1+random.IntN(4))
				if err := reader.router.add(boxes[job]); err != nil {
					t.Fatal(err)
				}
			}
		}
		take := func(job string) {
			if boxes[job] == nil {
				return
			}
			event, err := reader.router.take(boxes[job])
			if err != nil {
				t.Fatal(err)
			}
			if told, ok := event.(Tokens); ok {
				got[job] = append(got[job], told.Text)
			}
		}
		for range 40 {
			records := reader.fetch(t, 1+random.IntN(7))
			for range random.IntN(3) { // while the poll is under way
				job := jobs[random.IntN(len(jobs))]
				add(job)
				take(job)
			}
			reader.router.deliver(records)
			for _, box := range boxes {
				if len(box.waiting) > box.limit {
					t.Fatalf("seed %d: %d events wait, the limit is %d", seed, len(box.waiting), box.limit)
				}
			}
		}
		for range 3 * (len(reader.log) + 1) {
			reader.router.deliver(reader.fetch(t, 3))
			for _, job := range jobs {
				add(job)
				take(job)
			}
		}
		for _, job := range jobs {
			var want []string
			for index := range writers[job].index {
				want = append(want, fmt.Sprint(index))
			}
			if strings.Join(got[job], " ") != strings.Join(want, " ") {
				t.Fatalf("seed %d: job %s got %v of %d", seed, job, got[job], writers[job].index)
			}
		}
	}
}

func TestAllStalledRestsTheReader(t *testing.T) {
	b := newBroker(1)
	w := &worker{broker: b, job: "a", epoch: [2]int64{1, 1}, name: "w"}
	w.say(strings.Split("abcdefghij", "")...)
	reader := &steered{router: newRouter(), log: b.logs[0]}
	box := newInbox("a", 0, 0, 2)
	if err := reader.router.add(box); err != nil {
		t.Fatal(err)
	}
	reader.router.deliver(reader.fetch(t, 10))
	if records := reader.fetch(t, 10); len(records) > 0 || len(box.waiting) != 2 {
		t.Errorf("%d records are read for %d events that wait", len(records), len(box.waiting))
	}
	if _, err := reader.router.take(box); err != nil {
		t.Fatal(err)
	}
	if records := reader.fetch(t, 10); len(records) != 8 || records[0].offset != 2 {
		t.Errorf("goes on with %v", records)
	}
}
