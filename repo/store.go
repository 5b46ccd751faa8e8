package repo

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"syncer/internal/pg"
)

// Store reads and writes syncer's own tables. Safe for concurrent use.
type Store struct {
	*pg.DB

	appsMu sync.Mutex
	apps   map[int16]App // as EnsureApp found them; replaced, never changed

	heldMu sync.Mutex
	held   map[claim]struct{} // of this process, for Beat
}

// Open connects and reads the database's clock. Close the store after use.
func Open(ctx context.Context, c pg.Config) (*Store, error) {
	db, err := pg.New(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("read database.url: %w", err)
	}
	s := &Store{DB: db, held: make(map[claim]struct{})}
	if err = db.Connect(ctx); err == nil {
		err = s.ReadClock(ctx)
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return s, nil
}

// All functions name the schema in their search_path, so that one of them shows whether
// the schema was renamed since.
const schemaStateSQL = `
SELECT coalesce(max(m.version_id), 0),
       coalesce(bool_or(m.version_id = $2), false),
       (SELECT pg_encoding_to_char(d.encoding) FROM pg_database AS d WHERE d.datname = current_database()),
       coalesce((
           SELECT trim('"' FROM split_part(substr(c.setting, length('search_path=') + 1), ',', 1))
           FROM pg_proc AS p
           CROSS JOIN unnest(p.proconfig) AS c (setting)
           WHERE p.pronamespace = $1::text::regnamespace AND p.proname = 'roll_up_presence' AND c.setting LIKE 'search\_path=%'
       ), $1::text)
FROM syncer.syncer_migration AS m
WHERE m.is_applied`

// ErrNoSchema reports that the tables are missing, incomplete, or in a schema that was
// renamed. Migrations correct it.
var ErrNoSchema = errors.New("the database has no syncer schema, or an old one")

// ErrEncoding reports that the database does not store text as UTF-8.
var ErrEncoding = errors.New("the database's encoding is not UTF8")

// CheckSchema compares the schema's version with want, the newest migration of this
// program. It returns ErrNoSchema if the schema is missing, older or was renamed,
// pg.ErrDevelopmentSchema if a development version made it, and ErrEncoding if the
// database does not store UTF-8. A newer schema is accepted, because migrations keep
// older programs working.
func (s *Store) CheckSchema(ctx context.Context, want int64) error {
	var version int64
	var development bool
	var encoding, bound string
	err := s.QueryRow(ctx, schemaStateSQL, s.Schema(), pg.DevelopmentMigration).Scan(&version, &development, &encoding, &bound)
	switch {
	case pg.SQLState(err) == pg.UndefinedTable || pg.SQLState(err) == pg.InvalidSchemaName:
		version, bound = 0, s.Schema()
	case err != nil:
		return fmt.Errorf("read the schema's version: %w", s.ExplainRefusal(ctx, err))
	case encoding != pg.UTF8:
		return fmt.Errorf("%w: it is %s, in which other programs read syncer's text wrongly, or not at all; move to a database made with: CREATE DATABASE syncer ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0", ErrEncoding, encoding)
	}
	if development {
		return pg.DevelopmentSchema(s.Schema())
	}
	if version < want {
		return fmt.Errorf("%w: schema %s is at version %d, this program needs %d; run: syncer migrate up", ErrNoSchema, s.Schema(), version, want)
	}
	if bound != s.Schema() {
		return fmt.Errorf("%w: schema %s was renamed, and its functions still use schema %s; run: syncer migrate up", ErrNoSchema, s.Schema(), bound)
	}
	return nil
}
