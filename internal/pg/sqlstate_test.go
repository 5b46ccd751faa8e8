package pg_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"syncer/internal/pg"
)

// TestLost: a lost connection, a server that is down, starting or stopping, as
// opposed to what a server answers.
func TestLost(t *testing.T) {
	t.Parallel()
	state := func(code string) error {
		return fmt.Errorf("write a page: %w", &pgconn.PgError{Code: code})
	}
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"none":                {nil, false},
		"refused":             {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, true},
		"reset":               {fmt.Errorf("read: %w", &net.OpError{Op: "read", Err: syscall.ECONNRESET}), true},
		"cut off":             {fmt.Errorf("receive: %w", io.ErrUnexpectedEOF), true},
		"closed":              {net.ErrClosed, true},
		"no descriptors":      {&net.OpError{Op: "dial", Err: syscall.EMFILE}, false},
		"no answer in time":   {fmt.Errorf("give signs of life: %w", context.DeadlineExceeded), false},
		"given up":            {context.Canceled, false},
		"shut down":           {state("57P01"), true},
		"crashed":             {state("57P02"), true},
		"starting":            {state("57P03"), true},
		"connection failure":  {state("08006"), true},
		"a pooler that balks": {state("08P01"), false},
		"a full disk":         {state("53100"), false},
		"read only":           {state("25006"), false},
		"other":               {errors.New("the clock is not believed"), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := pg.Lost(tc.err); got != tc.want {
				t.Errorf("Lost(%v) is %t", tc.err, got)
			}
		})
	}
}
