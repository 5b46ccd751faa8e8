package archive

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"slices"
	"time"

	"syncer/repo"
)

// hasher hashes rows.
type hasher struct {
	text []byte
	keys []string
}

// hash returns a hash of all columns of a row, and the row's time.
func (h *hasher) hash(row any) (hash uint64, at time.Time) {
	h.text = h.text[:0]
	switch r := row.(type) {
	case *repo.ArchivedPresence:
		at = r.ObservedAt
		h.string(r.UserID)
		h.optional(r.PrevState)
		h.string(r.State)
		h.platforms(r.Platforms)
		h.times(r.NotBefore, &r.ObservedAt, r.PrevSince, r.PrevSinceAfter)
		h.numbers(r.RunID)
		if r.ToldAt != nil || r.PrevToldAt != nil { // the first files do not have them
			h.times(r.ToldAt, r.PrevToldAt)
		}
	case *repo.ArchivedAccount:
		at = r.ObservedAt
		h.string(r.UserID)
		h.optional(r.PrevStatus)
		h.string(r.Status)
		h.times(r.NotBefore, &r.ObservedAt)
		h.numbers(r.RunID)
	case *repo.ArchivedRun:
		at = r.StartedAt
		h.string(r.Job)
		h.string(r.Kind)
		h.string(r.Trigger)
		h.string(r.Status)
		h.times(r.Tick, &r.StartedAt, r.FinishedAt, r.ObservedFrom, r.ObservedUntil)
		h.bools(r.Listed, r.Complete)
		seconds := int64(-1)
		if r.MaxGapSeconds != nil {
			seconds = int64(math.Float64bits(*r.MaxGapSeconds))
		}
		h.numbers(r.RunID, seconds, r.Users, r.Changed, r.Failed, r.Removed)
	case *repo.ArchivedGap:
		at = r.StartedAt
		h.string(r.Kind)
		h.times(&r.StartedAt, &r.EndedAt, &r.LastSeenFrom, &r.NextSeenBy)
		h.numbers(r.RunID)
	}
	f := fnv.New64a()
	_, _ = f.Write(h.text) // it returns no error
	return f.Sum64(), at
}

func (h *hasher) numbers(all ...int64) {
	for _, n := range all {
		h.text = binary.AppendVarint(h.text, n)
	}
}

func (h *hasher) string(s string) {
	h.numbers(int64(len(s)))
	h.text = append(h.text, s...)
}

func (h *hasher) optional(s *string) {
	if s == nil {
		h.numbers(-1)
		return
	}
	h.string(*s)
}

func (h *hasher) times(all ...*time.Time) {
	for _, t := range all {
		if t == nil {
			h.bools(false)
			continue
		}
		h.bools(true)
		h.numbers(t.UnixMicro())
	}
}

func (h *hasher) bools(all ...bool) {
	for _, b := range all {
		if b {
			h.text = append(h.text, 1)
		} else {
			h.text = append(h.text, 0)
		}
	}
}

func (h *hasher) platforms(all map[string]string) {
	h.keys = h.keys[:0]
	for platform := range all {
		h.keys = append(h.keys, platform)
	}
	slices.Sort(h.keys)
	h.numbers(int64(len(h.keys)))
	for _, platform := range h.keys {
		h.string(platform)
		h.string(all[platform])
	}
}
