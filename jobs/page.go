package jobs

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"syncer/imclient"
	"syncer/jobs/ask"
	"syncer/repo"
	"syncer/repo/userstable"
)

// page is a page of users. It is read, then asked about, then written in the order
// in which the pages were read.
type page[V comparable] struct {
	userstable.Page                // ids distinct and in order, with the names of unfit ones
	asked           []string       // the ids without the unfit ones
	after           *string        // the key before it; nil for the first
	repeats         map[string]int // of ids that more than one row has, how many more
	known           repo.Known[V]
	result          ask.Result[V]
	contradicted    []string // users whose answer the second opinion contradicts
	review          review
	written         repo.Counters
	err             error
	done            chan struct{} // closed when asked about
	span            trace.Span
}

// sortIDs puts the ids in order, each once, and notes those of several rows.
func (p *page[V]) sortIDs() {
	slices.Sort(p.IDs)
	for i := 1; i < len(p.IDs); i++ {
		if p.IDs[i] == p.IDs[i-1] {
			if p.repeats == nil {
				p.repeats = make(map[string]int)
			}
			p.repeats[p.IDs[i]]++
		}
	}
	p.IDs = slices.Compact(p.IDs)
}

// rows returns how many rows of the page have the id.
func (p *page[V]) rows(id string) int { return 1 + p.repeats[id] }

// sight is a user of a page for whom an answer has a value.
type sight[V comparable] struct {
	call   int // the index of answer in the page's
	answer *imclient.Answer[V]
	userID string
	value  V
	prev   *repo.Snapshot[V] // the snapshot, if it exists
}

// sights returns the users for whom the page's answers have a value.
func (p *page[V]) sights() iter.Seq[sight[V]] {
	return func(yield func(sight[V]) bool) {
		for i := range p.result.Answers {
			answer := &p.result.Answers[i]
			at := 0
			for _, o := range answer.Observed {
				at = p.place(o.UserID, at)
				if !yield(sight[V]{i, answer, o.UserID, o.Value, p.known.Snapshot(at)}) {
					return
				}
				at++ // an answer has its users in the page's order
			}
		}
	}
}

// different returns how many sights differ from the snapshots.
func (p *page[V]) different() (n int) {
	for u := range p.sights() {
		if !u.prev.Exists() || u.prev.Value != u.value {
			n++
		}
	}
	return n
}

// place returns the index of a user in IDs, probably at.
func (p *page[V]) place(userID string, at int) int {
	if at >= len(p.IDs) || p.IDs[at] != userID {
		at, _ = slices.BinarySearch(p.IDs, userID)
	}
	return at
}

// rejectUnfit rejects the users about whom the API cannot be asked.
func (p *page[V]) rejectUnfit() {
	p.asked = p.IDs
	if len(p.Unfit) == 0 {
		return
	}
	p.IDs = slices.Clone(p.asked)
	rejected := make(map[string]imclient.UserError)
	for _, u := range p.Unfit {
		p.IDs = append(p.IDs, u.ID)
		rejected[u.ID] = imclient.UserError{UserID: u.ID, Code: imclient.CodeInvalidID, Text: u.Text}
	}
	slices.Sort(p.IDs)
	p.IDs = slices.Compact(p.IDs)
	p.result.Add(imclient.Answer[V]{Rejected: slices.Collect(maps.Values(rejected))})
}

// CodeNullID is the failure of rows without an id, one for all of them.
const CodeNullID = "null_id"

// badRows returns the failure of the rows of a page that have no id.
func badRows[V comparable](p *page[V]) imclient.UserError {
	text := fmt.Sprintf("rows of the users table with a NULL or empty user_id: %d, with key %s", p.Bad, strings.Join(p.BadKeys, ", "))
	if p.Bad > len(p.BadKeys) {
		text += ", …"
	}
	return imclient.UserError{UserID: "", Code: CodeNullID, Text: text + "; leave them out with [users] where"}
}
