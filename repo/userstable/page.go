package userstable

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// Page is a page of a users table, or of a list of users.
type Page struct {
	Rows    int       // number of rows read
	More    bool      // there are rows after them
	LastKey string    // cursor: the key of the last row
	IDs     []string  // user ids, in the order of the keys, without those in Unfit
	Unfit   []UnfitID // ids that are too long for any provider, or are not text
	Bad     int       // number of rows whose id is NULL or empty
	BadKeys []string  // keys of some of those, at most five
}

// UnfitID is an id that can neither be sent to a provider nor stored.
type UnfitID struct {
	ID   string // what is stored in its place: its beginning and a hash
	Text string // what is wrong with it, and the key of its row
}

const (
	maxBadKeys = 5   // keys of bad rows in a page
	longestID  = 256 // bytes; more than any provider accepts
	shownID    = 40  // characters of an unfit id in messages
	shownKey   = 100 // characters of a key in messages
)

// pageRows collects the rows of Walk.page. The ids of a page share one string, so that a
// page of thousands is one allocation.
type pageRows struct {
	encoding string // of the database
	asBytes  bool   // ids are read as they are stored, not as UTF-8
	read     Page
	mark     string // of the last row: "", more, or a fault
	lastKey  []byte
	odd      []oddID
}

// oddID is an id that may not be UTF-8.
type oddID struct {
	at  int // in Page.IDs
	key string
}

// collect reads the rows, up to the first that is marked as a fault.
func (r *pageRows) collect(rows pgx.Rows, limit int) error {
	defer rows.Close()
	*r = pageRows{encoding: r.encoding, asBytes: r.asBytes}
	const guess = 16 // bytes of an id
	text := make([]byte, 0, limit*guess)
	ends := make([]int, 0, limit)
	var key, id, long, mark pg.RawText
	columns := []any{&key, &id, &long, &mark}
	for rows.Next() {
		if err := rows.Scan(columns...); err != nil {
			return err
		}
		r.read.Rows++
		r.lastKey = append(r.lastKey[:0], key...)
		r.mark = string(mark)
		switch {
		case long != nil:
			r.read.Unfit = append(r.read.Unfit, longID(id, long, key))
		case len(id) == 0:
			if r.read.Bad++; len(r.read.BadKeys) < maxBadKeys {
				r.read.BadKeys = append(r.read.BadKeys, shown(key, shownKey))
			}
		default:
			if !utf8.Valid(id) || r.asBytes && r.encoding != noEncoding && !isASCII(id) {
				r.odd = append(r.odd, oddID{len(ends), shown(key, shownKey)})
			}
			text = append(text, id...)
			ends = append(ends, len(text))
		}
		if r.mark != "" && r.mark != "more" {
			break
		}
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return err
	}
	r.read.More = r.mark == "more"
	r.read.LastKey = keyCursor(r.lastKey, r.encoding)
	r.read.IDs = make([]string, len(ends))
	shared, start := string(text), 0
	for i, end := range ends {
		r.read.IDs[i] = shared[start:end]
		start = end
	}
	return nil
}

// oddIDs returns the odd ids.
func (r *pageRows) oddIDs() [][]byte {
	raw := make([][]byte, len(r.odd))
	for i, odd := range r.odd {
		raw[i] = []byte(r.read.IDs[odd.at])
	}
	return raw
}

// page returns the page. texts are those of the odd ids, nil for an id that has none.
func (r *pageRows) page(texts []*string) Page {
	p := r.read
	unfit := make(map[int]bool)
	for i, odd := range r.odd {
		if texts[i] != nil {
			p.IDs[odd.at] = *texts[i]
			continue
		}
		unfit[odd.at] = true
		p.Unfit = append(p.Unfit, noText(p.IDs[odd.at], odd.key))
	}
	if len(unfit) > 0 {
		at := -1
		p.IDs = slices.DeleteFunc(p.IDs, func(string) bool { at++; return unfit[at] })
	}
	return p
}

// longID returns an id that was read in part. long is its length in bytes and its hash.
func longID(id, long, key []byte) UnfitID {
	length, hash, _ := bytes.Cut(long, []byte(" "))
	return UnfitID{
		ID:   standIn(id, hash),
		Text: fmt.Sprintf("the user_id of the row with key %s has %s bytes, more than the %d that any backend takes", shown(key, shownKey), length, longestID),
	}
}

func noText(id, key string) UnfitID {
	hash := sha256.Sum256([]byte(id))
	return UnfitID{
		ID:   standIn([]byte(id), fmt.Appendf(nil, "%x", hash)),
		Text: fmt.Sprintf("the user_id of the row with key %s is not text in UTF-8, nor can Postgres make it so: %s", key, shown([]byte(id), shownID)),
	}
}

// standIn returns the name under which an id is stored that cannot be stored itself.
// The hash distinguishes ids that begin with the same characters.
func standIn(id, hash []byte) string {
	const enough = 16
	return shown(id, shownID) + "…" + string(hash[:min(len(hash), enough)])
}

// StoredNames returns the texts other than the id itself by which a user may be recorded: the
// stand-in of a long id, and a cursor of bytes.
func StoredNames(id string) []string {
	names := []string{bytesCursor + hex.EncodeToString([]byte(id))}
	if len(id) > longestID {
		hash := sha256.Sum256([]byte(id))
		names = append(names, standIn([]byte(id), fmt.Appendf(nil, "%x", hash)))
	}
	return names
}

// ShownKey returns a key as messages show it, at most 100 characters.
func ShownKey(key string) string { return shown([]byte(key), shownKey) }

// shown returns raw as text of at most so many characters. Bytes that are not UTF-8
// are escaped.
func shown(raw []byte, characters int) string {
	var b strings.Builder
	for ; len(raw) > 0; characters-- {
		if characters == 0 {
			return b.String() + "…"
		}
		r, size := utf8.DecodeRune(raw)
		if r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, `\x%02x`, raw[0])
		} else {
			b.Write(raw[:size])
		}
		raw = raw[size:]
	}
	return b.String()
}
