package aril

import (
	"errors"
	"log/slog"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// unreadableWords are how the library's errors for a batch begin that it cannot take apart.
var unreadableWords = []string{
	"unable to decompress batch", "unable to read record batch", "encoded length", "encoded crc",
	"unknown magic", "unknown batch magic", "invalid record batch",
}

// isUnreadable tells whether an error of a fetch is of a batch, and of nothing else.
func isUnreadable(err error) bool {
	if _, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err); ok {
		return true
	}
	for _, words := range unreadableWords {
		if strings.HasPrefix(err.Error(), words) {
			return true
		}
	}
	return false
}

// leaveOut goes on behind a batch that cannot be unpacked, once it was met a second time: it may have
// been the network. Where the batch ends is mostly not told, so what follows is tried offset by offset.
func (k *kafka) leaveOut(partition int32, err error) {
	at := k.at[partition]
	next := at
	if last, seen := k.met[partition]; seen && last == at {
		next = at + 1
	}
	if large, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err); ok {
		next = max(at, large.NextOffset) // it would be as large again
	}
	if next > at {
		slog.Error("aril: an unreadable batch is left out", "topic", k.replyTopic, "partition", partition, "offset", at, "why", err)
	}
	k.met[partition] = next
	k.at[partition], k.added[partition] = next, true
	k.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{k.replyTopic: {partition: {Epoch: -1, Offset: next}}})
}
