package pg

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// DevelopmentMigration is the number of a migration that every schema of a development
// version of syncer records, and no other: the numbers of today's migrations are higher.
const DevelopmentMigration = 1

// ErrDevelopmentSchema reports that a development version of syncer made the schema, from
// migrations that no longer exist.
var ErrDevelopmentSchema = errors.New("the schema is of a development version of syncer, and cannot be upgraded")

// DevelopmentSchema returns an ErrDevelopmentSchema that says what to do with the schema.
func DevelopmentSchema(schema string) error {
	return fmt.Errorf(`%w; nothing was changed. Use the program that made schema %s, or name another schema in [database] schema, or drop this one with everything in it:
	DROP SCHEMA %s CASCADE;
then run: syncer migrate up`, ErrDevelopmentSchema, schema, pgx.Identifier{schema}.Sanitize())
}
