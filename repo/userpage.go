package repo

import (
	"github.com/jackc/pgx/v5"
)

// UserPage is a page of a users table, or of a list of users.
type UserPage struct {
	Rows    int      // how many were read; fewer than asked for: there are no more
	LastKey string   // the key of the last of them, as text
	IDs     []string // their user ids, in the order of the keys
	// Bad counts the rows whose id is NULL or empty; BadKeys are some of their keys.
	Bad     int
	BadKeys []string
}

// maxBadKeys is how many keys of bad rows are kept, to be shown.
const maxBadKeys = 5

// rawText is a text column as it came, until the next row is read.
type rawText []byte

// ScanBytes takes the column.
func (t *rawText) ScanBytes(v []byte) error {
	*t = v
	return nil
}

// collectUsers reads rows of key and user id. The ids of a page share one string,
// so that a page of thousands is one allocation.
func collectUsers(rows pgx.Rows, limit int) (UserPage, error) {
	defer rows.Close()
	var p UserPage
	var lastKey []byte
	const guess = 16 // bytes of an id
	text := make([]byte, 0, limit*guess)
	ends := make([]int, 0, limit)
	var key, id rawText
	columns := []any{&key, &id}
	for rows.Next() {
		if err := rows.Scan(columns...); err != nil {
			return UserPage{}, err
		}
		p.Rows++
		lastKey = append(lastKey[:0], key...)
		if len(id) == 0 {
			if p.Bad++; len(p.BadKeys) < maxBadKeys {
				p.BadKeys = append(p.BadKeys, string(key))
			}
			continue
		}
		text = append(text, id...)
		ends = append(ends, len(text))
	}
	if err := rows.Err(); err != nil {
		return UserPage{}, err
	}
	p.LastKey = string(lastKey)
	p.IDs = make([]string, len(ends))
	shared, start := string(text), 0
	for i, end := range ends {
		p.IDs[i] = shared[start:end]
		start = end
	}
	return p, nil
}
