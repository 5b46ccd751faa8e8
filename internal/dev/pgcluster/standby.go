package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// StandbyName is a standby's application name, for synchronous_standby_names.
const StandbyName = "standby"

// Standby makes and starts a streaming standby of the running cluster. It is a
// Cluster of its own with the same password, read-only until Promote. Stop it like
// any other.
func (c *Cluster) Standby(ctx context.Context) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s, err := newCluster(c.bin, c.inMemory)
	if err != nil {
		return nil, fmt.Errorf("making a standby: %w", err)
	}
	s.password = c.password
	if err := s.copyFrom(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("making a standby: %w", err), s.Stop())
	}
	if err := s.startOnFreePort(ctx, freePort); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// copyFrom fills the cluster's folder with a copy of primary and makes it follow.
func (c *Cluster) copyFrom(ctx context.Context, primary *Cluster) error {
	cmd := c.command(ctx, "pg_basebackup", "--pgdata", c.data(), "--write-recovery-conf", "--checkpoint", "fast", "--no-sync",
		"--dbname", fmt.Sprintf("host=127.0.0.1 port=%s user=%s application_name=%s", strconv.Itoa(primary.port), superuser, StandbyName))
	cmd.Env = append(cmd.Env, "PGPASSWORD="+c.password)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd.Path, err, lastLines(out))
	}
	return nil
}

// Promote makes a standby a primary. It returns when the server accepts writes.
func (c *Cluster) Promote(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return fmt.Errorf("promoting a standby: %w", err)
	}
	defer conn.Close(ctx)
	var promoted bool
	err = conn.QueryRow(ctx, `SELECT pg_promote(wait_seconds => $1)`, int(startTimeout/time.Second)).Scan(&promoted)
	if err == nil && !promoted {
		err = errors.New("it takes too long")
	}
	if err != nil {
		return fmt.Errorf("promoting a standby: %w", err)
	}
	return nil
}
