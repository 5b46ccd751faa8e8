package userstable

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"syncer/internal/pg"
)

// Error is a mistake in the description of the users table. A retry does not help.
type Error struct {
	Table string
	Text  string // what is wrong, and which setting to change
	Err   error  // Postgres's, or nil
}

// Error returns the table and what is wrong.
func (e *Error) Error() string { return fmt.Sprintf("users table %s: %s", e.Table, e.Text) }

// Unwrap returns Postgres's error.
func (e *Error) Unwrap() error { return e.Err }

func (t *Table) mistake(text string, err error) error {
	return &Error{Table: t.Name(), Text: text, Err: err}
}

// hiddenRows is the routine of Postgres that refuses a statement because row security
// would hide rows. Neither the SQLSTATE nor the message distinguishes it from a missing
// privilege: the message is in the server's language.
const hiddenRows = "check_enable_rls"

// configured are the SQLSTATE classes that a mistake in the configuration leads to: 42
// syntax and names, 22 data that does not fit the expression, 21 several values in place
// of one, 25 it tries to write, 0A not supported.
var configured = []string{"42", "22", "21", "25", "0A"}

// explain distinguishes mistakes in the configuration from a database that cannot be
// reached now.
func (t *Table) explain(doing string, err error) error {
	code := pg.SQLState(err)
	_, away := errors.AsType[*pgconn.ConnectError](err)
	pgErr, _ := errors.AsType[*pgconn.PgError](err)
	switch {
	case pgErr != nil && pgErr.Routine == hiddenRows:
		return t.mistake(fmt.Sprintf("%s: %s: its policies hide rows from this role, and syncer would take the users of hidden rows for users who left: ALTER ROLE … BYPASSRLS, or set [users] table to a view that belongs to the table's owner (and choose rows with [users] where)", doing, pgErr.Message), err)
	case away && strings.HasPrefix(code, "42"):
		return t.mistake(fmt.Sprintf("%s: the database refuses a parameter of [users] url ([database] url, where there is none): %v", doing, err), err)
	case code == pg.InsufficientPrivilege:
		return t.mistake(fmt.Sprintf("%s: this role may not read it (%v): %s; if the key's type is in another schema, USAGE on that too", doing, err, t.grantSQL()), err)
	case code != pg.IdleInTransactionTimeout && slices.Contains(configured, code[:min(len(code), 2)]):
		return t.mistake(fmt.Sprintf("%s: %v: check [users] user_id, where and key_column", doing, err), err)
	case code == pg.QueryCanceled:
		return fmt.Errorf("users table %s: %s: %w: if it took longer than %s, an index that serves [users] where is missing", t.Name(), doing, err, timeout)
	case away || errors.Is(err, errNoAnswer):
		return fmt.Errorf("users table %s: %s: no connection to the database that [users] url names ([database] url, where there is none): %w", t.Name(), doing, err)
	}
	return fmt.Errorf("users table %s: %s: %w", t.Name(), doing, err)
}

// grantSQL returns the statements that let this role read the table.
func (t *Table) grantSQL() string {
	role := pgx.Identifier{t.db.Role()}.Sanitize()
	grant := fmt.Sprintf("GRANT SELECT ON %s TO %s", t.name(), role)
	if len(t.config.Table) > 1 {
		grant = fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; %s", pgx.Identifier(t.config.Table[:1]).Sanitize(), role, grant)
	}
	return grant
}
