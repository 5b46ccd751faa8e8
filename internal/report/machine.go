package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// WriteCSV writes a table as in RFC 4180, except that lines end with LF: a header,
// then the rows. Times are RFC 3339; unknown values are empty. rows is a slice of
// structs with json tags. Texts keep all bytes, including line breaks; with
// forSpreadsheet, texts that a spreadsheet would run as a formula are prefixed with
// '.
func WriteCSV(w io.Writer, rows any, forSpreadsheet bool) error {
	// With CRLF the writer would turn a line feed within a text into CR LF and drop a
	// CR.
	out := csv.NewWriter(w)
	slice := reflect.ValueOf(rows)
	columns := slice.Type().Elem()
	record := make([]string, columns.NumField())
	for i := range record {
		record[i] = columns.Field(i).Tag.Get("json")
	}
	if err := out.Write(record); err != nil {
		return err
	}
	for r := range slice.Len() {
		for i := range record {
			field := slice.Index(r).Field(i)
			record[i] = csvValue(field)
			if forSpreadsheet && isText(field) && isFormula(record[i]) {
				record[i] = "'" + record[i]
			}
		}
		if err := out.Write(record); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// isText reports whether a cell contains a text, which may be external.
func isText(v reflect.Value) bool {
	return v.Kind() == reflect.String || v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.String
}

// isFormula reports whether spreadsheets interpret a text as a formula. Source:
// OWASP, CSV Injection.
func isFormula(s string) bool {
	return s != "" && strings.ContainsRune("=+-@\t\r\n＝＋－＠", []rune(s)[0])
}

func csvValue(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		v = v.Elem()
	}
	switch value := v.Interface().(type) {
	case time.Time:
		return value.Format(time.RFC3339Nano)
	case float64:
		return strconv.FormatFloat(value, 'f', -1, 64)
	default:
		return fmt.Sprint(value)
	}
}

// object is a JSON object that keeps the order of its members.
type object []member

type member struct {
	key   string
	value any
}

// MarshalJSON writes the members in order; a list without rows is [].
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:", m.key)
		if v := reflect.ValueOf(m.value); v.Kind() == reflect.Slice && v.Len() == 0 {
			b.WriteString("[]")
		} else if err := encoder.Encode(m.value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// document returns the JSON form of a report.
func (h Head) document(r Report) object {
	o := object{
		{"report", r.Name}, {"app", h.Span.App},
		{"from", h.Span.From.In(h.Span.Location)}, {"to", h.Span.To.In(h.Span.Location)}, {"tz", h.Span.Location.String()},
		{"generated_at", h.AsOf.In(h.Span.Location)}, {"rows", r.Rows},
	}
	for _, list := range r.Lists {
		o = append(o, member{list.Key, list.Rows})
	}
	return o
}

// WriteJSON writes one report as an object.
func WriteJSON(w io.Writer, h Head, r Report) error { return writeJSON(w, h.document(r)) }

// WriteAllJSON writes several reports as one object with a list.
func WriteAllJSON(w io.Writer, h Head, reports []Report) error {
	var all []object
	for _, r := range reports {
		all = append(all, h.document(r))
	}
	return writeJSON(w, object{{"reports", all}})
}

func writeJSON(w io.Writer, o object) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(o)
}
