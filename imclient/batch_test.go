package imclient

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func atNoon() time.Time { return noon }

func TestBatch_Settle(t *testing.T) {
	type round struct {
		want []string // the ids that must be asked about
		say  func(*Batch[State])
		err  error
	}
	seen := func(id string) Observed[State] { return Observed[State]{UserID: id, Value: StateOnline} }
	missing := func(id string) UserError {
		return UserError{UserID: id, Code: CodeMissing, Text: "the answer says nothing about this user"}
	}
	observe := func(ids ...string) func(*Batch[State]) {
		return func(b *Batch[State]) {
			for _, id := range ids {
				b.Observe(id, StateOnline)
			}
		}
	}
	perUser := &Error{Class: ClassPerUser, Code: "70107", Text: "unknown"}
	down := &Error{Class: ClassTransient, Text: "no answer"}
	busy := &Error{Class: ClassTransient, Code: "70169", Text: "timeout"}
	limited := &Error{Class: ClassThrottled, Code: "60007"}
	for name, tc := range map[string]struct {
		ids    []string
		rounds []round
		want   Answer[State]
		class  Class
		fails  bool
	}{
		"all observed, in the order asked": {
			ids:    []string{"b", "a"},
			rounds: []round{{want: []string{"b", "a"}, say: observe("a", "b")}},
			want:   Answer[State]{Observed: []Observed[State]{seen("b"), seen("a")}},
		},
		"the first word counts, strangers are counted": {
			ids: []string{"a"},
			rounds: []round{{want: []string{"a"}, say: func(b *Batch[State]) {
				b.Observe("a", StateOnline)
				b.Observe("a", StateOffline)
				b.Reject("a", "1", "late")
				b.Observe("stranger", StateOnline)
				b.Doubt("another", "1", "")
			}}},
			want: Answer[State]{Observed: []Observed[State]{seen("a")}, Unasked: 2},
		},
		"a later word helps a doubtful one": {
			ids: []string{"a"},
			rounds: []round{{want: []string{"a"}, say: func(b *Batch[State]) {
				b.Doubt("a", CodeUnknownValue, "?")
				b.Observe("a", StateOnline)
			}}},
			want: Answer[State]{Observed: []Observed[State]{seen("a")}},
		},
		"missing and doubtful are asked once more, together": {
			ids: []string{"a", "b", "c", "d"},
			rounds: []round{
				{want: []string{"a", "b", "c", "d"}, say: func(b *Batch[State]) {
					b.Observe("a", StateOnline)
					b.Doubt("c", CodeUnknownValue, "no state")
				}},
				{want: []string{"b", "c", "d"}, say: observe("d")},
			},
			want: Answer[State]{
				Observed: []Observed[State]{seen("a"), seen("d")},
				Rejected: []UserError{missing("b"), {UserID: "c", Code: CodeUnknownValue, Text: "no state"}},
			},
		},
		"one unknown user": {
			ids:    []string{"a"},
			rounds: []round{{want: []string{"a"}, err: perUser}},
			want:   Answer[State]{Rejected: []UserError{{UserID: "a", Code: "70107", Text: "unknown"}}},
		},
		"several unknown users": {
			ids:    []string{"a", "b"},
			rounds: []round{{want: []string{"a", "b"}, err: perUser}},
			fails:  true, class: ClassBadBatch,
		},
		"the users left over are the ones that fail": {
			ids:    []string{"a", "b", "c"},
			rounds: []round{{want: []string{"a", "b", "c"}, say: observe("a")}, {want: []string{"b", "c"}, err: busy}},
			want: Answer[State]{
				Observed: []Observed[State]{seen("a")},
				Rejected: []UserError{{UserID: "b", Code: "70169", Text: "timeout"}, {UserID: "c", Code: "70169", Text: "timeout"}},
			},
		},
		"nobody was observed: an outage": {
			ids:    []string{"a", "b"},
			rounds: []round{{want: []string{"a", "b"}}, {want: []string{"a", "b"}, err: busy}},
			fails:  true, class: ClassTransient,
		},
		"no answer to the second question": {
			ids:    []string{"a", "b"},
			rounds: []round{{want: []string{"a", "b"}, say: observe("a")}, {want: []string{"b"}, err: down}},
			fails:  true, class: ClassTransient,
		},
		"limited on the second question": {
			ids:    []string{"a", "b"},
			rounds: []round{{want: []string{"a", "b"}, say: observe("a")}, {want: []string{"b"}, err: limited}},
			fails:  true, class: ClassThrottled,
		},
		"repeated ids": {
			ids:    []string{"a", "a"},
			rounds: []round{{want: []string{"a"}, say: observe("a")}},
			want:   Answer[State]{Observed: []Observed[State]{seen("a")}},
		},
		"nobody": {want: Answer[State]{AskedAt: noon, AnsweredAt: noon}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBatch[State](tc.ids, nil)
			got, err := b.settle(t.Context(), atNoon, func(_ context.Context, ids []string) error {
				if b.calls >= len(tc.rounds) {
					t.Fatalf("asked once too often, about %v", ids)
				}
				r := tc.rounds[b.calls]
				b.calls++
				if diff := cmp.Diff(r.want, ids); diff != "" {
					t.Errorf("question %d (-want +got):\n%s", b.calls, diff)
				}
				if r.say != nil {
					r.say(b)
				}
				b.Dated(Reply{AskedAt: noon, AnsweredAt: noon})
				return r.err
			})
			if (err != nil) != tc.fails || tc.fails && ClassOf(err) != tc.class {
				t.Fatalf("error %v of class %s", err, ClassOf(err))
			}
			tc.want.Calls = len(tc.rounds)
			tc.want.AskedAt, tc.want.AnsweredAt = noon, noon
			if !tc.fails {
				if tc.want.Observed == nil {
					tc.want.Observed = []Observed[State]{}
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
	if perUser.Class != ClassPerUser {
		t.Error("the error given was changed")
	}
}

func TestBatch_Settle_contextError(t *testing.T) {
	b := newBatch[State]([]string{"a"}, nil)
	_, err := b.settle(t.Context(), atNoon, func(context.Context, []string) error { return context.Canceled })
	if err != context.Canceled {
		t.Errorf("got %v, want the context's error untouched", err)
	}
}

func TestBatch_dated(t *testing.T) {
	b := newBatch[State]([]string{"a", "b"}, nil)
	answer, err := b.settle(t.Context(), atNoon, func(_ context.Context, ids []string) error {
		b.Observe(ids[0], StateOnline)
		at := noon.Add(-time.Duration(len(ids)) * time.Minute)
		b.Dated(Reply{AskedAt: at, AnsweredAt: at.Add(time.Second)})
		b.Dated(Reply{})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !answer.AskedAt.Equal(noon.Add(-2*time.Minute)) || !answer.AnsweredAt.Equal(noon.Add(-time.Minute+time.Second)) {
		t.Errorf("dated %s to %s, want the first question to the last answer", answer.AskedAt, answer.AnsweredAt)
	}
}

func TestAsk_tooMany(t *testing.T) {
	x := &Exchange{HTTP: &HTTP{provider: ProviderTencent}}
	_, err := Ask[State](t.Context(), x, Call{API: "account_check", MaxUsers: 2}, []string{"a", "b", "c"}, nil, nil)
	if ClassOf(err) != ClassBadBatch || err.Error() != "tencent account_check: 3 users given, one call takes at most 2" {
		t.Errorf("%v of class %s", err, ClassOf(err))
	}
	if _, ok := errors.AsType[*Error](err); !ok {
		t.Error("not an *Error")
	}
}
