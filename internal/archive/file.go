package archive

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"syncer/repo"
)

// SchemaVersion is the version of the columns of the files. A column that is added gets a new
// field id, and a new version; ids and types of others never change.
const SchemaVersion = 1

// Keys of the metadata of a file.
const (
	keyVersion = "syncer.schema_version"
	keyRows    = "syncer.rows"
	keyHash    = "syncer.hash" // sum of the hashes of the rows
)

const (
	// rowGroup bounds memory: the writer holds one row group, encoded and not.
	rowGroup = 100_000
	// batch is the number of rows that are written or read at once.
	batch = 1000
	// temporary begins the names of files that are being written.
	temporary = ".tmp-"
	partName  = "part-000.parquet"
)

// sums identify the rows of a file, whatever their order.
type sums struct {
	rows        int64
	hash        uint64
	first, last int64 // times, in microseconds since 1970
}

func (s *sums) add(hash uint64, at time.Time) {
	t := at.UnixMicro()
	if s.rows == 0 {
		s.first, s.last = t, t
	}
	s.first, s.last = min(s.first, t), max(s.last, t)
	s.rows++
	s.hash += hash
}

// writer writes rows to a temporary file.
type writer[R repo.ArchivedRow] struct {
	file    *os.File
	buffer  *bufio.Writer
	parquet *parquet.GenericWriter[R]
	rows    []R
	sums    sums
	hasher  hasher
}

func newWriter[R repo.ArchivedRow](folder string) (*writer[R], error) {
	file, err := os.CreateTemp(folder, temporary+"*")
	if err != nil {
		return nil, err
	}
	buffer := bufio.NewWriterSize(file, 1<<20)
	return &writer[R]{
		file: file, buffer: buffer, rows: make([]R, 0, batch),
		parquet: parquet.NewGenericWriter[R](buffer, parquet.MaxRowsPerRowGroup(rowGroup), parquet.Compression(&parquet.Zstd), parquet.CreatedBy("syncer", strconv.Itoa(SchemaVersion), "")),
	}, nil
}

func (w *writer[R]) add(row *R) error {
	hash, at := w.hasher.hash(row)
	w.sums.add(hash, at)
	w.rows = append(w.rows, *row)
	if len(w.rows) < batch {
		return nil
	}
	return w.flush()
}

func (w *writer[R]) flush() error {
	_, err := w.parquet.Write(w.rows)
	clear(w.rows)
	w.rows = w.rows[:0]
	return err
}

// close completes the file, and makes it durable.
func (w *writer[R]) close() error {
	err := w.flush()
	w.parquet.SetKeyValueMetadata(keyVersion, strconv.Itoa(SchemaVersion))
	w.parquet.SetKeyValueMetadata(keyRows, strconv.FormatInt(w.sums.rows, 10))
	w.parquet.SetKeyValueMetadata(keyHash, strconv.FormatUint(w.sums.hash, 16))
	err = cmp.Or(err, w.parquet.Close())
	err = cmp.Or(err, w.buffer.Flush())
	err = cmp.Or(err, w.file.Sync())
	return errors.Join(err, w.file.Close())
}

// ErrDamaged reports that a file is not what was written.
var ErrDamaged = errors.New("the file is damaged")

// reader reads the rows of a file one by one.
type reader[R repo.ArchivedRow] struct {
	file    *os.File
	footer  *parquet.File
	parquet *parquet.GenericReader[R]
	rows    []R
	at, n   int
	ended   bool
}

func openReader[R repo.ArchivedRow](path string) (*reader[R], error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	parquetFile, err := openParquet(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &reader[R]{file: file, footer: parquetFile, parquet: parquet.NewGenericReader[R](parquetFile), rows: make([]R, batch)}, nil
}

// openParquet reads the footer of a file.
func openParquet(file *os.File) (f *parquet.File, err error) {
	defer func() { // the library panics on some damaged footers
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if f, err = parquet.OpenFile(file, info.Size()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	version, _ := f.Lookup(keyVersion)
	if n, err := strconv.Atoi(version); err != nil || n < 1 || n > SchemaVersion {
		return nil, fmt.Errorf("the file has version %q of the columns, this program knows up to %d", version, SchemaVersion)
	}
	return f, nil
}

// next returns the next row, nil at the end. It is valid until the next call.
func (r *reader[R]) next() (row *R, err error) {
	defer func() {
		if p := recover(); p != nil {
			row, err = nil, fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	if r.at == r.n {
		if r.ended {
			return nil, nil
		}
		clear(r.rows)
		r.n, err = r.parquet.Read(r.rows)
		r.at = 0
		if errors.Is(err, io.EOF) {
			r.ended, err = true, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if r.n == 0 {
			return nil, nil
		}
	}
	r.at++
	return &r.rows[r.at-1], nil
}

func (r *reader[R]) close() error { return errors.Join(r.parquet.Close(), r.file.Close()) }

// verify reads a whole file and returns its sums. It returns ErrDamaged if the rows are not
// those that were written.
func verify[R repo.ArchivedRow](path string) (s sums, err error) {
	r, err := openReader[R](path)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	var h hasher
	for {
		row, err := r.next()
		if err != nil {
			return s, err
		}
		if row == nil {
			break
		}
		s.add(h.hash(row))
	}
	rows, _ := r.footer.Lookup(keyRows)
	hash, _ := r.footer.Lookup(keyHash)
	if rows != strconv.FormatInt(s.rows, 10) || hash != strconv.FormatUint(s.hash, 16) {
		return s, fmt.Errorf("%w: it has %d rows with hash %x, and %s with %s were written", ErrDamaged, s.rows, s.hash, rows, hash)
	}
	return s, nil
}

// digest returns size and SHA-256 of a file.
func digest(path string) (size int64, sum []byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, nil, err
	}
	defer file.Close()
	h := sha256.New()
	size, err = io.Copy(h, file)
	return size, h.Sum(nil), err
}

// makeFolder makes a folder below root, and makes its entry durable.
func makeFolder(root, folder string) error {
	if _, err := os.Stat(folder); err == nil {
		return nil
	}
	parent := filepath.Dir(folder)
	if parent != root && strings.HasPrefix(parent, root) {
		if err := makeFolder(root, parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(folder, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(parent)
}

func syncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// replace puts a temporary file in the place of another one.
func replace(temporary, path string) error {
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// removeTemporary removes what an interrupted process left.
func removeTemporary(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasPrefix(entry.Name(), temporary) {
			return err
		}
		return os.Remove(path)
	})
}

// writeSmall writes a file that is made in memory, if it would be another one.
func writeSmall(path string, content []byte) (changed bool, err error) {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return false, nil
	}
	file, err := os.CreateTemp(filepath.Dir(path), temporary+"*")
	if err != nil {
		return false, err
	}
	_, err = file.Write(content)
	err = cmp.Or(err, file.Chmod(0o640), file.Sync())
	if err = errors.Join(err, file.Close()); err != nil {
		return false, err
	}
	return true, replace(file.Name(), path)
}
