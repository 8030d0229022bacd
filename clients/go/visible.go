package aril

// visible is what a reader of one job's replies sees: the reader rule, a fold over that job's
// records in the order of the log.
//
// Workers crash, wake up as zombies and have appends land late or twice. Nothing guards the log, yet
// every reader of it sees the same answer, because each applies this rule:
//
//   - after a visible terminal no record counts;
//   - a record of a lower epoch is ignored, and a release changes nothing;
//   - a higher epoch begins only with a claim or with a record at index 0. A claim keeps what is
//     visible; a record at index 0 withdraws it;
//   - in the current epoch only the worker that began it counts, and of its records those whose
//     index is the number of visible tokens.
type visible struct {
	epoch    epoch
	writer   string
	ids      []int32
	text     []byte
	resets   int
	finished bool
}

// feed applies the rule to the log's next record and returns what it changed, often nothing, at most
// a Reset and what follows it.
func (v *visible) feed(record *reply) []Event {
	if v.finished || record.epoch.less(v.epoch) || record.release {
		return nil
	}
	var events []Event
	if v.epoch.less(record.epoch) {
		if record.told != nil && record.index != 0 {
			return nil
		}
		v.epoch, v.writer = record.epoch, record.worker
		if record.told != nil && len(v.ids) > 0 {
			events = append(events, v.withdraw())
		}
	}
	if record.told == nil || record.worker != v.writer || record.index != len(v.ids) {
		return events
	}
	switch told := record.told.(type) {
	case Tokens:
		v.ids = append(v.ids, told.IDs...)
		v.text = append(v.text, told.Text...)
	case Done:
		v.text = append(v.text, told.Text...)
		v.finished = true
	case *JobError:
		v.finished = true
	}
	return append(events, record.told)
}

func (v *visible) withdraw() Event {
	reset := Reset{Withdrawn: len(v.ids)}
	v.ids, v.text = v.ids[:0], v.text[:0]
	v.resets++
	return reset
}
