// Package build says which version of the program this is.
package build

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// The linker sets these where the source is not in version control, as in an image or a
// source archive: -ldflags "-X syncer/internal/build.version=v1.2.3 -X …revision=…".
var version, revision string

// Info is the version of the program.
type Info struct {
	Version  string // "v1.2.3", a pseudo-version of Go, or "devel" if unknown
	Revision string // the commit; "" if unknown
	Go       string // the toolchain
}

// Read returns the version that the linker set, else the one of version control.
func Read() Info {
	info := Info{Version: version, Revision: revision, Go: runtime.Version()}
	built, ok := debug.ReadBuildInfo()
	if !ok {
		built = &debug.BuildInfo{}
	}
	if info.Version == "" {
		info.Version = strings.Trim(built.Main.Version, "()") // "(devel)" without version control
	}
	if info.Version == "" {
		info.Version = "devel"
	}
	for _, setting := range built.Settings {
		if setting.Key == "vcs.revision" && info.Revision == "" {
			info.Revision = setting.Value
		}
	}
	return info
}

// String returns the version, the commit if it is known, and the toolchain.
func (i Info) String() string {
	parts := []string{i.Version, i.Revision, i.Go}
	if i.Revision == "" {
		parts = []string{i.Version, i.Go}
	}
	return strings.Join(parts, " ")
}
