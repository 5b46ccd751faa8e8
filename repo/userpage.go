package repo

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// UserPage is a page of a users table, or of a list of users.
type UserPage struct {
	Rows    int      // how many were read
	More    bool     // there are more after them
	LastKey string   // a cursor: the key of the last of them
	IDs     []string // their user ids, in the order of the keys
	// Unfit are the rows whose id is too long for any provider, or is not text.
	Unfit []UnfitID
	// Bad counts the rows whose id is NULL or empty; BadKeys are some of their keys.
	Bad     int
	BadKeys []string
}

// UnfitID is the id of a row that cannot be sent to a provider, or stored.
type UnfitID struct {
	ID   string // what the id is stored as: its beginning and a hash
	Text string // what is wrong with it, and the key of its row
}

const (
	maxBadKeys = 5   // how many keys of bad rows are kept, to be shown
	longestID  = 256 // bytes, which is more than any provider takes
	shownID    = 40  // how many characters of an unfit id are shown
	shownKey   = 100 // how many characters of a key are shown
)

// rawText is a text column as it came, until the next row is read.
type rawText []byte

// ScanBytes takes the column.
func (t *rawText) ScanBytes(v []byte) error {
	*t = v
	return nil
}

// userRows collects the rows of Walk.page. The ids of a page share one string, so that
// a page of thousands is one allocation.
type userRows struct {
	encoding string // of the database
	asBytes  bool   // ids come as they are stored, not as UTF-8
	read     UserPage
	mark     string // of the last row: "", more, or a fault
	lastKey  []byte
	odd      []oddID
}

// oddID is an id that may not be UTF-8.
type oddID struct {
	at  int // in UserPage.IDs
	key string
}

// collect reads the rows, up to the first that is marked as a fault.
func (r *userRows) collect(rows pgx.Rows, limit int) error {
	defer rows.Close()
	*r = userRows{encoding: r.encoding, asBytes: r.asBytes}
	const guess = 16 // bytes of an id
	text := make([]byte, 0, limit*guess)
	ends := make([]int, 0, limit)
	var key, id, long, mark rawText
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
func (r *userRows) oddIDs() [][]byte {
	raw := make([][]byte, len(r.odd))
	for i, odd := range r.odd {
		raw[i] = []byte(r.read.IDs[odd.at])
	}
	return raw
}

// page returns the page. texts are those of the odd ids, nil for an id that has none.
func (r *userRows) page(texts []*string) UserPage {
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
