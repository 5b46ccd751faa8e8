package build

import (
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// TestRead builds a program without version control, with and without a stamp.
func TestRead(t *testing.T) {
	for _, test := range []struct{ ldflags, want string }{
		{"", "devel " + runtime.Version()},
		{"-X syncer/internal/build.version=v1.2.3", "v1.2.3 " + runtime.Version()},
		{"-X syncer/internal/build.version=v1.2.3 -X syncer/internal/build.revision=0123abc", "v1.2.3 0123abc " + runtime.Version()},
	} {
		got, err := exec.Command("go", "run", "-buildvcs=false", "-ldflags", test.ldflags, "./testdata/printversion").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, got)
		}
		if strings.TrimSpace(string(got)) != test.want {
			t.Errorf("with %q it is %s, want %s", test.ldflags, got, test.want)
		}
	}
}
