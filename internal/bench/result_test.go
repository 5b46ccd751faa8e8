package main

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 2, 9}, 3},
	} {
		if got := median(test.values); got != test.want {
			t.Errorf("median of %v is %v, want %v", test.values, got, test.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing is %v", got)
	}
	values := []float64{2, 1}
	median(values)
	if diff := cmp.Diff([]float64{2, 1}, values); diff != "" {
		t.Errorf("the values are no longer in the order of the runs (-want +got):\n%s", diff)
	}
}

func TestQuotients(t *testing.T) {
	if diff := cmp.Diff([]float64{0.5, 2}, quotients([]float64{1, 4, 6}, []float64{2, 2})); diff != "" {
		t.Errorf("quotients (-want +got):\n%s", diff)
	}
}

func TestMarkdown(t *testing.T) {
	r := result{about: "A machine."}
	r.add("steady", "users/s", atLeast(97_000), thousands, 98_000.4, 99_010, 96_000)
	r.add("steady", "calls refused", atMost(0), thousands, 0, 3, 1)
	r.add("wal", "WAL per user", below(1), bytesPerUser, 1)
	r.add("memory", "memory", below(64<<20), mebibytes, 32<<20)
	r.add("script", "users/s", target{}, thousands, 31_234)
	r.add("small", "syncer, of a core", below(0.01), percent, 0.005, 0.007)
	r.add("down", "users/s", atLeast(1), thousands)
	const want = `A machine.

| scenario | what | target | median | spread | ratio |  |
| --- | --- | ---:| ---:| ---:| ---:| --- |
| steady | users/s | ≥ 97,000 | 98,000 | 96,000 – 99,010 | 1.01 | pass |
| steady | calls refused | ≤ 0 | 1 | 0 – 3 |  | short |
| wal | WAL per user | < 1.00 B | 1.00 B |  | 1.00 | short |
| memory | memory | < 64.0 MiB | 32.0 MiB |  | 0.50 | pass |
| script | users/s |  | 31,234 |  |  |  |
| small | syncer, of a core | < 1.00 % | 0.60 % | 0.50 % – 0.70 % | 0.60 | pass |
| down | users/s |  | – |  |  |  |
`
	if diff := cmp.Diff(want, r.markdown()); diff != "" {
		t.Errorf("markdown (-want +got):\n%s", diff)
	}
	if got, ok := r.find("script", "users/s"); got != 31_234 || !ok {
		t.Errorf("find: %v, %v", got, ok)
	}
	if _, ok := r.find("script", "floor"); ok {
		t.Error("found a figure that is not there")
	}
}

func TestMissing(t *testing.T) {
	var r result
	r.add("steady", "users/s", target{}, thousands, 1, 0)
	if err := r.missing(); err != nil {
		t.Errorf("nothing is missing, but: %v", err)
	}
	r.add("wal", "WAL per user", target{}, thousands)
	r.add("accounts", "users/s", target{}, thousands, 5, math.Inf(1))
	err := r.missing()
	if err == nil {
		t.Fatal("two figures are missing, and nobody says so")
	}
	if diff := cmp.Diff("wal: WAL per user was not measured\naccounts: users/s was not measured", err.Error()); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
}

func TestThousands(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 999.4: "999", 999.6: "1,000", 1_234_567: "1,234,567"} {
		if got := thousands(v); got != want {
			t.Errorf("%v is shown as %q, want %q", v, got, want)
		}
	}
}
