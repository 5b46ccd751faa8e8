package pg

// RawText is a text column as Postgres sent it. It is valid until the next row is read.
type RawText []byte

// ScanBytes implements pgtype.BytesScanner.
func (t *RawText) ScanBytes(v []byte) error {
	*t = v
	return nil
}
