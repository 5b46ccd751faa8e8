package archive

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/rs/zerolog"

	"syncer/repo"
)

// closedAfter is how long after its end a month is archived: an answer is written within
// minutes, and rows that come later still are noticed before the month is dropped.
const closedAfter = 24 * time.Hour

// Archiver archives the tables of a store in a folder.
type Archiver struct {
	store *repo.Store
	root  string
	log   zerolog.Logger
	// step is called before each thing that a crash can prevent, for tests.
	step func(name string) error
}

// New returns an archiver. The folder must exist: it may be a mount that is missing.
func New(store *repo.Store, folder string, log zerolog.Logger) *Archiver {
	return &Archiver{store: store, root: filepath.Clean(folder), log: log, step: func(string) error { return nil }}
}

// ErrBusy reports that another process archives in the same folder.
var ErrBusy = errors.New("another process archives in this folder")

// Options say what to archive.
type Options struct {
	// DropBefore is the time before which the caller is about to drop partitions: their
	// months are compared with the database, and their files with what is recorded. If
	// zero, only months that are not archived yet are looked at.
	DropBefore time.Time
	// Again compares all months.
	Again bool
}

// Result is what a run of the archiver did.
type Result struct {
	Written []repo.Archived // files that were written, also anew
	// Until is the time before which all that has ended is archived.
	Until time.Time
}

// Run archives the months that have ended. If it returns an error, some months are not
// archived, and nothing must be dropped; the others are.
func (a *Archiver) Run(ctx context.Context, o Options) (Result, error) {
	unlock, err := a.lock()
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	if err := removeTemporary(a.root); err != nil {
		return Result{}, fmt.Errorf("clean up archive folder %s: %w", a.root, err)
	}
	closed := monthOf(a.store.Now().Add(-closedAfter))
	result := Result{Until: closed}
	var errs []error
	for _, table := range []struct {
		relation repo.ArchiveRelation
		archive  func(context.Context, *Archiver, repo.ArchiveMonth, bool) (*repo.Archived, error)
	}{
		{repo.ArchivePresence, month[repo.ArchivedPresence]},
		{repo.ArchiveAccounts, month[repo.ArchivedAccount]},
		{repo.ArchiveRuns, month[repo.ArchivedRun]},
		{repo.ArchiveGaps, month[repo.ArchivedGap]},
	} {
		months, err := a.store.MonthsToArchive(ctx, table.relation, closed, o.DropBefore, o.Again)
		errs = append(errs, err)
		for _, m := range months {
			if ctx.Err() != nil {
				return result, ctx.Err()
			}
			written, err := table.archive(ctx, a, m, o.Again || isHistory(m.Relation))
			if err != nil {
				errs = append(errs, fmt.Errorf("archive %s of app %s, %s: %w", m.Relation, m.App, m.Month.Format("2006-01"), err))
			}
			if written != nil {
				result.Written = append(result.Written, *written)
				a.log.Info().Str("app", m.App).Str("table", string(m.Relation)).Str("month", m.Month.Format("2006-01")).
					Int64("rows", written.Rows).Int64("bytes", written.Bytes).Msg("a month is archived")
			}
		}
	}
	errs = append(errs, a.apps(ctx), a.manifest(ctx))
	return result, errors.Join(errs...)
}

func monthOf(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

func isHistory(r repo.ArchiveRelation) bool {
	return r == repo.ArchivePresence || r == repo.ArchiveAccounts
}

// lock lets one process at a time archive in the folder. The lock ends with the process.
func (a *Archiver) lock() (unlock func(), err error) {
	if info, err := os.Stat(a.root); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("archive folder %s cannot be used: make it, or mount it, on every machine that runs syncer: %w", a.root, cmp.Or(err, fs.ErrInvalid))
	}
	file, err := os.OpenFile(filepath.Join(a.root, ".lock"), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("lock archive folder %s: %w", a.root, err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close() // nothing was written
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("lock archive folder %s: %w", a.root, err)
	}
	return func() { _ = file.Close() }, nil
}

// Path returns the path of a month's file below the folder.
func Path(m repo.ArchiveMonth) string {
	return filepath.Join(string(m.Relation), "app="+m.App, "month="+m.Month.Format("2006-01"), partName)
}

// month archives a month if the database has other rows of it than when it was last archived
// or, with compare, if its file is not the one that was recorded. It returns nil if it is
// archived already.
func month[R repo.ArchivedRow](ctx context.Context, a *Archiver, m repo.ArchiveMonth, compare bool) (*repo.Archived, error) {
	record, isArchived, err := a.store.FindArchived(ctx, m)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(a.root, Path(m))
	var live []repo.ArchiveDay
	var out *writer[R]
	unchanged := false
	err = a.store.ReadMonth(ctx, m, func(r *repo.ArchiveReader) error {
		var recorded []repo.ArchiveDay
		var err error
		if live, err = r.Days(ctx); err != nil {
			return err
		}
		if recorded, err = r.Recorded(ctx); err != nil {
			return err
		}
		if isArchived && same(live, recorded) {
			if unchanged = !compare || intact(path, record); unchanged {
				return nil
			}
		}
		old, err := older[R](m, path, record, live, recorded)
		if err != nil {
			return err
		}
		if old != nil {
			defer func() { _ = old.close() }() // it was only read
		}
		if len(live) == 0 && old == nil {
			return nil
		}
		folder := filepath.Dir(path)
		if err := makeFolder(a.root, folder); err != nil {
			return err
		}
		if err := a.step("write"); err != nil {
			return err
		}
		if out, err = newWriter[R](folder); err != nil {
			return err
		}
		if err := merge(ctx, r, old, out); err != nil {
			return errors.Join(err, out.file.Close())
		}
		if err := a.step("close"); err != nil {
			return errors.Join(err, out.file.Close())
		}
		return out.close()
	})
	if err != nil || unchanged {
		return nil, err
	}
	now := repo.Archived{ArchiveMonth: m, SchemaVersion: SchemaVersion, ArchivedAt: a.store.Now()}
	if out != nil {
		if err := a.finish(path, out.file.Name(), &now, func() (sums, error) { return verify[R](out.file.Name()) }, out.sums); err != nil {
			return nil, err
		}
	} else if err := removeEmpty(path); err != nil {
		return nil, err
	}
	if err := a.step("record"); err != nil {
		return nil, err
	}
	if err := a.store.RecordArchive(ctx, now, live); err != nil {
		return nil, err
	}
	if now.Rows == 0 && !isArchived {
		return nil, nil
	}
	return &now, nil
}

// finish reads a temporary file back, compares it with what was written, and puts it in its
// place.
func (a *Archiver) finish(path, name string, now *repo.Archived, read func() (sums, error), written sums) error {
	if err := a.step("verify"); err != nil {
		return err
	}
	got, err := read()
	if err != nil {
		return fmt.Errorf("read %s back: %w", name, err)
	}
	if got != written {
		return fmt.Errorf("read %s back: %w: %+v, and %+v were written", name, ErrDamaged, got, written)
	}
	now.Rows = got.rows
	if now.Rows > 0 {
		now.FirstAt, now.LastAt = new(time.UnixMicro(got.first).UTC()), new(time.UnixMicro(got.last).UTC())
	}
	if now.Bytes, now.SHA256, err = digest(name); err != nil {
		return err
	}
	if err := a.step("rename"); err != nil {
		return err
	}
	return replace(name, path)
}

func removeEmpty(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return cmp.Or(err, syncFolder(filepath.Dir(path)))
}

// same reports whether the database has of each day what it had when that was recorded.
func same(live, recorded []repo.ArchiveDay) bool {
	type sum struct {
		rows int64
		keys string
	}
	days := func(all []repo.ArchiveDay) map[time.Time]sum {
		m := make(map[time.Time]sum)
		for _, d := range all {
			if d.Rows > 0 {
				m[d.Day] = sum{d.Rows, d.Keys}
			}
		}
		return m
	}
	a, b := days(live), days(recorded)
	if len(a) != len(b) {
		return false
	}
	for day, s := range a {
		if b[day] != s {
			return false
		}
	}
	return true
}

// intact reports whether a file is the one that was recorded.
func intact(path string, record repo.Archived) bool {
	if record.Rows == 0 {
		_, err := os.Stat(path)
		return errors.Is(err, fs.ErrNotExist)
	}
	size, sum, err := digest(path)
	return err == nil && size == record.Bytes && bytes.Equal(sum, record.SHA256)
}

// oldRows are the rows of a file that the database does not have any more.
type oldRows[R repo.ArchivedRow] struct {
	*reader[R]
	kept func(*R) bool
}

// older opens the file of a month if it has rows that were dropped from the database. It
// returns nil if there are none. A history keeps only days that were dropped, so that a user
// who was erased before the partition is dropped leaves the archive too.
func older[R repo.ArchivedRow](m repo.ArchiveMonth, path string, record repo.Archived, live, recorded []repo.ArchiveDay) (*oldRows[R], error) {
	var kept func(*R) bool
	needed := false
	if isHistory(m.Relation) {
		dropped := make(map[time.Time]bool)
		for _, d := range recorded {
			dropped[d.Day] = d.Dropped
			needed = needed || d.Dropped
		}
		var h hasher
		kept = func(row *R) bool {
			_, at := h.hash(row)
			return dropped[at.UTC().Truncate(24*time.Hour)]
		}
	} else {
		rows := int64(0)
		for _, d := range live {
			rows += d.Rows
		}
		needed = record.Rows > rows
		kept = func(*R) bool { return true }
	}
	if record.Rows == 0 && !needed {
		return nil, nil
	}
	if isHistory(m.Relation) && !needed {
		return nil, nil
	}
	_, err := verify[R](path)
	if err != nil && !needed {
		return nil, nil // the database has all that was in it
	}
	if err != nil {
		return nil, fmt.Errorf("file %s, which has rows that the database has not any more, cannot be used: restore it from a backup: %w", path, err)
	}
	r, err := openReader[R](path)
	if err != nil {
		return nil, err
	}
	return &oldRows[R]{r, kept}, nil
}

// merge writes the rows of the database and those of the file before that are kept, in the
// order of their times. A row that both have is the database's.
func merge[R repo.ArchivedRow](ctx context.Context, r *repo.ArchiveReader, old *oldRows[R], out *writer[R]) error {
	next := func() (*R, error) { return nil, nil }
	if old != nil {
		next = func() (*R, error) {
			for {
				row, err := old.next()
				if err != nil || row == nil || old.kept(row) {
					return row, err
				}
			}
		}
	}
	pending, err := next()
	if err != nil {
		return err
	}
	err = repo.Rows(ctx, r, func(row *R) error {
		for pending != nil {
			order := compareRows(pending, row)
			if order < 0 {
				if err := out.add(pending); err != nil {
					return err
				}
			}
			if order > 0 {
				break
			}
			if pending, err = next(); err != nil {
				return err
			}
		}
		return out.add(row)
	})
	for err == nil && pending != nil {
		if err = out.add(pending); err == nil {
			pending, err = next()
		}
	}
	return err
}

// compareRows compares rows in the order of the files. Rows are equal if they have the same
// key.
func compareRows[R repo.ArchivedRow](a, b *R) int {
	switch a := any(a).(type) {
	case *repo.ArchivedPresence:
		b := any(b).(*repo.ArchivedPresence)
		return cmp.Or(a.ObservedAt.Compare(b.ObservedAt), cmp.Compare(a.UserID, b.UserID))
	case *repo.ArchivedAccount:
		b := any(b).(*repo.ArchivedAccount)
		return cmp.Or(a.ObservedAt.Compare(b.ObservedAt), cmp.Compare(a.UserID, b.UserID))
	case *repo.ArchivedRun:
		b := any(b).(*repo.ArchivedRun)
		return cmp.Or(a.StartedAt.Compare(b.StartedAt), cmp.Compare(a.RunID, b.RunID))
	default:
		x, y := any(a).(*repo.ArchivedGap), any(b).(*repo.ArchivedGap)
		return cmp.Or(x.StartedAt.Compare(y.StartedAt), cmp.Compare(x.Kind, y.Kind))
	}
}

// apps writes the table app, which is small, if it has changed.
func (a *Archiver) apps(ctx context.Context) error {
	apps, err := a.store.ArchivedApps(ctx)
	if err != nil {
		return err
	}
	for i := range apps {
		apps[i].CreatedAt = apps[i].CreatedAt.UTC()
	}
	path := filepath.Join(a.root, "app", partName)
	old, err := parquet.ReadFile[repo.ArchivedApp](path)
	if err == nil && slices.EqualFunc(old, apps, func(a, b repo.ArchivedApp) bool {
		return a.CreatedAt.Equal(b.CreatedAt) && a.AppID == b.AppID && a.Name == b.Name && a.Provider == b.Provider
	}) {
		return nil
	}
	if err := makeFolder(a.root, filepath.Dir(path)); err != nil {
		return fmt.Errorf("archive the apps: %w", err)
	}
	var content bytes.Buffer
	if err := parquet.Write(&content, apps); err != nil {
		return fmt.Errorf("archive the apps: %w", err)
	}
	if err := a.step("apps"); err != nil {
		return err
	}
	if _, err := writeSmall(path, content.Bytes()); err != nil {
		return fmt.Errorf("archive the apps: %w", err)
	}
	return nil
}

// file is a file in the manifest.
type file struct {
	Path          string     `json:"path"`
	Table         string     `json:"table"`
	App           string     `json:"app"`
	Month         string     `json:"month"`
	SchemaVersion int        `json:"schema_version"`
	Rows          int64      `json:"rows"`
	FirstAt       *time.Time `json:"first_at"`
	LastAt        *time.Time `json:"last_at"`
	Bytes         int64      `json:"bytes"`
	SHA256        string     `json:"sha256"`
}

// manifest writes _manifest.json, which lists the recorded files.
func (a *Archiver) manifest(ctx context.Context) error {
	all, err := a.store.Archived(ctx)
	if err != nil {
		return err
	}
	files := []file{}
	for _, r := range all {
		if r.Rows == 0 {
			continue
		}
		first, last := r.FirstAt.UTC(), r.LastAt.UTC()
		files = append(files, file{
			Path: filepath.ToSlash(Path(r.ArchiveMonth)), Table: string(r.Relation), App: r.App, Month: r.Month.Format("2006-01"), SchemaVersion: r.SchemaVersion,
			Rows: r.Rows, FirstAt: &first, LastAt: &last, Bytes: r.Bytes, SHA256: hex.EncodeToString(r.SHA256),
		})
	}
	content, err := json.MarshalIndent(map[string]any{"schema_version": SchemaVersion, "files": files}, "", "  ")
	if err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	if err := a.step("manifest"); err != nil {
		return err
	}
	if _, err := writeSmall(filepath.Join(a.root, "_manifest.json"), append(content, '\n')); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	return nil
}
