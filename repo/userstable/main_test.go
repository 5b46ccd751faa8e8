package userstable_test

import (
	"testing"

	"go.uber.org/goleak"

	"syncer/internal/dev/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.M{M: m}) }
