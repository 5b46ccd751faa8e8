package userstable

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// ViewPart is the users table of one app, as a part of a view.
type ViewPart struct {
	App string
	Config
}

// View is a view over the users tables of apps in one database: app, key, user_id.
type View struct {
	Schema string // where it is
	Parts  []ViewPart
}

// viewName is the name in the schema.
const viewName = "app_user"

// Name returns the quoted name of the view.
func (v View) Name() string { return pgx.Identifier{v.Schema, viewName}.Sanitize() }

// SQL returns the statements that create or replace the view. Names and expressions mean
// what they mean to sweeps: rows without a key are left out, and ids are text. Keys keep
// their type if all apps have one table, and are text otherwise.
//
// If invoker is true, which Postgres 14 cannot do, the view reads the tables with the rights
// of its caller, so every role may read the view.
func (v View) SQL(invoker bool) []string {
	name := v.Name()
	first := v.Parts[0].Config
	oneType := !slices.ContainsFunc(v.Parts, func(p ViewPart) bool {
		return !slices.Equal(p.Table, first.Table) || p.KeyColumn != first.KeyColumn
	})
	parts := make([]string, len(v.Parts))
	for i, p := range v.Parts {
		t := Table{config: p.Config}
		key := t.column()
		if !oneType {
			key += "::text"
		}
		parts[i] = fmt.Sprintf("SELECT %s::text AS app, %s AS key, ((\n%s\n)::text) COLLATE \"C\" AS user_id\n%s", pg.Literal(p.App), key, p.UserID, t.swept())
	}
	create := "CREATE OR REPLACE VIEW " + name
	if invoker {
		create += " WITH (security_invoker = true)"
	}
	all := []string{
		create + " AS\n" + strings.Join(parts, "\nUNION ALL\n"),
		"COMMENT ON VIEW " + name + " IS 'The users of each app, as the configuration of syncer users-view said: one row per app and row of its users table.'",
		"COMMENT ON COLUMN " + name + ".app IS 'The name of the app.'",
		"COMMENT ON COLUMN " + name + ".key IS 'The key column of the users table.'",
		"COMMENT ON COLUMN " + name + ".user_id IS 'IM user id, as in the other views. Null or too long ids are failing users.'",
	}
	if invoker {
		all = append(all, "GRANT SELECT ON "+name+" TO PUBLIC")
	}
	return all
}

// firstInvoker is the version from which on views can have the rights of their caller.
const firstInvoker = 150000

// Create executes SQL, all or none, with url's role, which should be the owner of the
// schema. It reports whether the view has the rights of its caller.
func (v View) Create(ctx context.Context, url string) (invoker bool, err error) {
	db, err := pg.New(ctx, pg.Config{URL: url, MaxConns: 1, PollOnly: true, Application: "syncer users-view"})
	if err != nil {
		return false, fmt.Errorf("create view %s: %w", v.Name(), err)
	}
	defer db.Close()
	err = db.InTxOnce(ctx, func(tx *pg.Tx) error {
		var version int
		if err := tx.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
			return err
		}
		invoker = version >= firstInvoker
		for _, statement := range v.SQL(invoker) {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
	switch code := pg.SQLState(err); {
	case code == invalidTableDefinition:
		return false, fmt.Errorf("replace view %s: %w\nits columns have other types now; first run: DROP VIEW %s", v.Name(), err, v.Name())
	case code == pg.InsufficientPrivilege:
		return false, fmt.Errorf("create view %s: %w\nthe role must own the schema, and may read the users table", v.Name(), err)
	case err != nil:
		return false, fmt.Errorf("create view %s: %w", v.Name(), err)
	}
	return invoker, nil
}

// invalidTableDefinition is the SQLSTATE for a view whose columns cannot be replaced.
const invalidTableDefinition = "42P16"
