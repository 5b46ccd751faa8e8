package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAssets holds that uPlot's files are those of the package that
// assets/README.md names.
func TestAssets(t *testing.T) {
	want := map[string]string{
		"uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
		"uPlot.min.css":     "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
		"uPlot.LICENSE":     "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
	}
	got := map[string]string{}
	for name := range want {
		data, err := os.ReadFile(filepath.Join("assets", name))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		got[name] = hex.EncodeToString(sum[:])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sums of uPlot's files (-want +got):\n%s", diff)
	}
}

// TestPage holds that the page needs nothing else, and that no text of the data
// is more than text: an app's name has a closing script tag and quotes in it, a
// user's id a tag.
func TestPage(t *testing.T) {
	h, reports := sample(t)
	var out bytes.Buffer
	if err := WriteHTML(&out, h, reports); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	tags := map[string]int{}
	for _, tag := range []string{"<script", "</script>", "<style>", "<link", "<img", "<b>", "src=", " style="} {
		tags[tag] = strings.Count(text, tag)
	}
	want := map[string]int{"<script": 2, "</script>": 2, "<style>": 1, "<link": 0, "<img": 0, "<b>": 0, "src=": 0, " style=": 0}
	if diff := cmp.Diff(want, tags); diff != "" {
		t.Errorf("tags of the page (-want +got):\n%s", diff)
	}
	policy := regexp.MustCompile(`http-equiv="Content-Security-Policy" content="default-src &#39;none&#39;; script-src &#39;sha256-[^;]{44}&#39;; style-src &#39;sha256-[^;]{44}&#39;; base-uri &#39;none&#39;; form-action &#39;none&#39;"`)
	if !policy.MatchString(strings.ReplaceAll(text, "&#43;", "+")) {
		t.Error("the page has no strict policy")
	}
	encoded := regexp.MustCompile(`(?s)<script type="application/json" id="data">(.*?)</script>`).FindStringSubmatch(text)
	if encoded == nil {
		t.Fatal("the page has no data")
	}
	var data pageData
	if err := json.Unmarshal([]byte(encoded[1]), &data); err != nil {
		t.Fatal(err)
	}
	var charts []Chart
	for _, r := range reports {
		charts = append(charts, r.Charts...)
	}
	for i := range charts {
		charts[i].terminal = 0 // not in the page
	}
	if diff := cmp.Diff(pageData{TZ: "Europe/Berlin", Charts: charts}, data, cmp.AllowUnexported(Chart{})); diff != "" {
		t.Errorf("data of the page (-want +got):\n%s", diff)
	}
}
