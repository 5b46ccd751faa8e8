package repo_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestGrantReaderSQL holds that the names in it are taken literally.
func TestGrantReaderSQL(t *testing.T) {
	b := newBench(t)
	const role = `x" ; DROP TABLE app; --`
	err := b.store.GrantReader(t.Context(), role)
	want := "there is no role " + role + "; first run: CREATE ROLE " + pgx.Identifier{role}.Sanitize() + " LOGIN PASSWORD '…'"
	if err == nil || err.Error() != want {
		t.Errorf("GrantReader gives %v, want %s", err, want)
	}
}
