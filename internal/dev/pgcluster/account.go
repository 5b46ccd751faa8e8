package pgcluster

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is the system user of the server. The zero value is the current user.
type account struct {
	name       string
	credential *syscall.Credential // nil: the current user's
}

// serverAccount returns the account. Postgres refuses to run as root; for root it is
// the user postgres or nobody.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	names := []string{"postgres", "nobody"}
	for _, name := range names {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("user id of %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("group id of %s: %w", name, err)
		}
		return account{name: name, credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return account{}, fmt.Errorf("the server refuses to run as root, and there is no user %s to run it as",
		strings.Join(names, " or "))
}

// own makes the account the owner of a file.
func (a account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, int(a.credential.Uid), int(a.credential.Gid))
}

// makeDir makes a folder that only the account can read, in memory if there is room.
func (a account) makeDir(inMemory bool) (string, error) {
	base, err := a.tempBase(inMemory)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(base, "syncer-postgres-")
	if err != nil {
		return "", err
	}
	if err := a.own(dir); err != nil {
		_ = os.Remove(dir)
		return "", err
	}
	return dir, nil
}

// memoryFolder is an in-memory file system on Linux.
const memoryFolder = "/dev/shm"

// memoryRoom is the free space it must have. The test suite's cluster takes less than
// 1 GiB; containers often have only 64 MiB.
const memoryRoom = 4 << 30

// tempBase returns a folder for temporary files that the account can write: root's
// TMPDIR is often closed to others. It is in memory if inMemory is set, memory has
// room and TMPDIR names no other folder.
func (a account) tempBase(inMemory bool) (string, error) {
	if inMemory && os.Getenv("TMPDIR") == "" && openToAll(memoryFolder) && hasRoom(memoryFolder) {
		return memoryFolder, nil
	}
	if a.credential == nil {
		return os.TempDir(), nil
	}
	dirs := []string{os.TempDir(), "/tmp", "/var/tmp"}
	for _, dir := range dirs {
		if openToAll(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("none of %s can be written by user %s", strings.Join(dirs, ", "), a.name)
}

// hasRoom reports whether dir has memoryRoom free.
func hasRoom(dir string) bool {
	var s syscall.Statfs_t
	return syscall.Statfs(dir, &s) == nil && uint64(s.Bavail)*uint64(s.Bsize) >= memoryRoom
}

// openToAll reports whether every user can create files in dir.
func openToAll(dir string) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil || !filepath.IsAbs(dir) {
		return false
	}
	const search, change = 0o001, 0o003
	for want := os.FileMode(change); ; want = search {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&want != want {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
}
