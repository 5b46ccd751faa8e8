package web

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"syncer/imclient"
	"syncer/internal/report"
	"syncer/repo/reports"
)

// timelineDays is how far back a user's timeline goes.
const timelineDays = 7

// userDocument is the page of a user in JSON: one entry per app.
type userDocument struct {
	AsOf   time.Time `json:"as_of"`
	UserID string    `json:"user_id"`
	Apps   []userApp `json:"apps"`
}

// userApp is what is known of the user in one app.
type userApp struct {
	App      string                   `json:"app"`
	Provider string                   `json:"provider"`
	Kinds    []report.KindExplanation `json:"kinds"`
	Timeline []reports.TransitionRow  `json:"timeline"` // of presence, the oldest first
	Gaps     []reports.GapRow         `json:"gaps"`
}

// userView is the input of a user's template.
type userView struct {
	UserID string
	App    string
	Apps   []userAppView
}

type userAppView struct {
	App, Provider string
	State         string
	Class         string
	On            string // platforms
	Since, After  string
	Checked       string
	Stale         bool
	Troubles      []string
	Known         bool
	Line          timeline
	Sections      []report.Section
}

func (s *Server) userPage(w http.ResponseWriter, r *http.Request) {
	if !s.UserPages {
		s.refuse(w, r, http.StatusForbidden, "Pages about single users are off. To turn them on, set user_pages = true in [web].")
		return
	}
	q, ok := s.formatted(w, r, "id", "app")
	if !ok {
		return
	}
	user := r.PathValue("id")
	if user == "" {
		user = q.Get("id")
	}
	if refused := validUser(user); refused != nil {
		s.refuse(w, r, refused.Status, refused.Detail)
		return
	}
	chosen := q.Get("app")
	s.noteLook(r, user)
	seen, ok := s.read(w, r, "user "+chosen+" "+user, freshFor, func(ctx context.Context) (any, error) {
		d := &userDocument{UserID: user}
		err := reports.Read(ctx, s.DB, func(r *reports.Reader) error { return s.readUser(ctx, r, d, chosen) })
		if err == nil && chosen != "" && len(d.Apps) == 0 {
			return absent{}, nil
		}
		return d, err
	})
	if !ok {
		return
	}
	s.show(w, r, seen, "user.html", fmt.Sprintf("There is no app %q.", chosen), func() page {
		d := seen.value.(*userDocument)
		v := userView{UserID: report.Printable(user), App: chosen}
		for _, app := range d.Apps {
			if view := s.viewUser(d, app); view.Known || chosen != "" {
				v.Apps = append(v.Apps, view)
			}
		}
		return page{Title: "user " + report.Printable(user), Data: v}
	})
}

// A look is logged once in lookAgain, because an open page renews itself. At most maxLooks
// are remembered; beyond that some are logged more often.
const (
	lookAgain = 10 * time.Minute
	maxLooks  = 10_000
)

// noteLook logs that someone looks at a user's page. The hash of the id has a key of
// this process, so that looks at one user can be counted, and the id not be guessed.
func (s *Server) noteLook(r *http.Request, user string) {
	name, _, _ := r.BasicAuth()
	mac := hmac.New(sha256.New, s.auditKey)
	mac.Write([]byte(user))
	hash := hex.EncodeToString(mac.Sum(nil)[:8])
	if s.lookedLately(name + " " + hash) {
		return
	}
	s.Log.Info().Str("name", report.Printable(name)).Str("user_hash", hash).Msg("someone looked at a user's page")
}

// lookedLately reports whether the same look was logged lately, and remembers this one if
// not.
func (s *Server) lookedLately(look string) bool {
	s.looksMu.Lock()
	defer s.looksMu.Unlock()
	now := s.readings.now()
	if at, ok := s.looks[look]; ok && now.Sub(at) < lookAgain {
		return true
	}
	if len(s.looks) >= maxLooks {
		clear(s.looks)
	}
	s.looks[look] = now
	return false
}

// readUser reads what is known of a user, in one app or in all.
func (s *Server) readUser(ctx context.Context, r *reports.Reader, d *userDocument, chosen string) error {
	d.AsOf = r.AsOf
	since := r.AsOf.AddDate(0, 0, -timelineDays)
	apps, err := r.Apps(ctx)
	if err != nil {
		return err
	}
	gaps, err := r.Gaps(ctx, reports.Span{From: since, To: r.AsOf.Add(time.Microsecond), Location: s.Location})
	if err != nil {
		return err
	}
	for _, app := range apps {
		if chosen != "" && app.Name != chosen {
			continue
		}
		u := userApp{App: app.Name, Provider: app.Provider, Gaps: []reports.GapRow{}}
		for _, kind := range imclient.Kinds() {
			k := report.KindExplanation{Kind: string(kind)}
			if k.UserStory, err = r.Story(ctx, app.AppID, app.Name, kind, d.UserID, new(changesShown)); err != nil {
				return err
			}
			if k.Failure != nil {
				k.Meaning = s.meaning(app.Provider, k.Failure.Code)
			}
			for _, job := range s.Jobs {
				if job.Kind != kind || job.App != "" && job.App != app.Name {
					continue
				}
				last, err := r.LastTick(ctx, app.AppID, kind, job.Name)
				if err != nil {
					return err
				}
				k.Jobs = append(k.Jobs, report.ExplainJob(job.Name, job.Ticks, last, r.AsOf.In(s.Location)))
			}
			u.Kinds = append(u.Kinds, k)
		}
		if u.Timeline, err = r.Timeline(ctx, app.AppID, d.UserID, since, stepsShown); err != nil {
			return err
		}
		for _, g := range gaps {
			if g.App == app.Name {
				u.Gaps = append(u.Gaps, g)
			}
		}
		d.Apps = append(d.Apps, u)
	}
	return nil
}

func (s *Server) viewUser(d *userDocument, u userApp) userAppView {
	now := d.AsOf.In(s.Location)
	v := userAppView{App: u.App, Provider: u.Provider, State: "unknown", Class: "idle", Line: drawTimeline(u, d.AsOf, s.Location)}
	for _, k := range u.Kinds {
		about := k.Known != nil || k.Failure != nil || len(k.Changes) > 0
		v.Known = v.Known || about
		if k.InUse() {
			v.Sections = append(v.Sections, k.Section())
		}
		if about {
			v.Troubles = append(v.Troubles, k.Troubles()...)
		}
		if k.Kind != string(imclient.KindPresence) || k.Known == nil {
			continue
		}
		v.State, v.Stale = k.Known.Value, k.Known.Stale
		v.Class = map[string]string{"online": "good", "push_online": "warn"}[v.State]
		var on []string
		for _, platform := range slices.Sorted(maps.Keys(k.Known.Platforms)) {
			text := platform
			if mode := k.Known.Platforms[platform]; mode != "online" {
				text += " (" + mode + ")"
			}
			on = append(on, text)
		}
		v.On = strings.Join(on, ", ")
		v.Since = k.Known.Since.In(s.Location).Format(time.DateTime)
		if k.Known.SinceAfter != nil {
			v.After = k.Known.SinceAfter.In(s.Location).Format(time.DateTime)
		}
		v.Checked = k.Known.LastCheckedAt.In(s.Location).Format(time.DateTime) + " (" + ago(now, k.Known.LastCheckedAt) + ")"
	}
	return v
}

// timeline is a user's presence over the last days: a row per local day.
type timeline struct {
	W, H int
	Days []timelineDay
	Cut  bool // the oldest transitions are left out
}

type timelineDay struct {
	Day   string
	Parts []part
	Gaps  []rect
	// Unknown is the time before the user was first seen and after it left.
	Unknown []rect
	Future  *rect
}

// part is a stretch of one state. Class is online, push_online, or begin and end of
// either: a bracket within which the change happened.
type part struct {
	X, W  float64
	Class string
	Title string
}

const timelineWidth, timelineHeight = 960, 18

// stretch is a stretch of time in one state, or the bracket of a change.
type stretch struct {
	from, to time.Time
	class    string
	title    string
}

// stretches returns what is known of the user from the transitions on.
func stretches(u userApp, now time.Time, location *time.Location) []stretch {
	var all []stretch
	at := func(t time.Time) string { return t.In(location).Format(time.DateTime) }
	presence := u.Kinds[0]
	for i, t := range u.Timeline {
		// Until when the state was seen, and when the next one was.
		known, next := now, now
		ending := ""
		if i+1 < len(u.Timeline) {
			following := u.Timeline[i+1]
			next = following.ObservedAt
			known = next
			if following.NotBefore != nil {
				known = *following.NotBefore
			}
			ending = following.State
		} else if presence.Known != nil && presence.Known.LastCheckedAt.Before(now) {
			known = presence.Known.LastCheckedAt
		}
		if known.Before(t.ObservedAt) {
			known = t.ObservedAt
		}
		if t.PrevState != nil && t.NotBefore != nil && i > 0 && isShown(t.State) && *t.PrevState != t.State {
			all = append(all, stretch{*t.NotBefore, t.ObservedAt, t.State + " begin", fmt.Sprintf("became %s after %s, by %s", t.State, at(*t.NotBefore), at(t.ObservedAt))})
		} else if i > 0 && t.NotBefore != nil && isShown(t.State) { // only the platforms changed
			all = append(all, stretch{*t.NotBefore, t.ObservedAt, t.State, t.State + ", on other platforms"})
		}
		if isShown(t.State) {
			all = append(all, stretch{t.ObservedAt, known, t.State, fmt.Sprintf("%s from %s to %s", t.State, at(t.ObservedAt), at(known))})
			switch {
			case ending == t.State:
			case ending != "":
				all = append(all, stretch{known, next, t.State + " end", fmt.Sprintf("stopped being %s after %s, by %s", t.State, at(known), at(next))})
			default:
				all = append(all, stretch{known, now, t.State + " open", fmt.Sprintf("%s when last checked, at %s", t.State, at(known))})
			}
		}
		if t.State == "removed" || t.State == "rejected" {
			all = append(all, stretch{t.ObservedAt, next, "unknown", "nothing is known: " + t.State})
		}
	}
	if len(u.Timeline) == 0 || u.Timeline[0].PrevState == nil {
		first := now
		if len(u.Timeline) > 0 {
			first = u.Timeline[0].ObservedAt
		}
		all = append(all, stretch{now.AddDate(0, 0, -timelineDays-1), first, "unknown", "not seen yet"})
	}
	return all
}

func isShown(state string) bool { return state == "online" || state == "push_online" }

// drawTimeline draws the last days of a user.
func drawTimeline(u userApp, now time.Time, location *time.Location) timeline {
	line := timeline{W: timelineWidth, H: timelineHeight, Cut: len(u.Timeline) == stepsShown}
	all := stretches(u, now, location)
	t := timeRange{length: timelineDays * 24 * time.Hour}
	days := t.buckets(now.In(location), 0)
	for i, from := range days {
		to := time.Date(from.Year(), from.Month(), from.Day()+1, 0, 0, 0, 0, location)
		if i+1 < len(days) {
			to = days[i+1]
		}
		at := scale{from, to, timelineWidth}
		day := timelineDay{Day: from.Format("Mon 2 Jan")}
		for _, s := range all {
			if !s.from.Before(to) || !s.to.After(from) {
				continue
			}
			x := at.x(s.from)
			w := tenth(max(at.x(s.to)-x, 0.5))
			if s.class == "unknown" {
				day.Unknown = append(day.Unknown, rect{x, w, s.title})
			} else {
				day.Parts = append(day.Parts, part{x, w, s.class, s.title})
			}
		}
		day.Gaps = gapRects(u.Gaps, u.App, string(imclient.KindPresence), at, now, location)
		if now.Before(to) {
			x := at.x(now)
			day.Future = &rect{X: x, W: tenth(timelineWidth - x)}
		}
		line.Days = append(line.Days, day)
	}
	slices.Reverse(line.Days) // today first
	return line
}

// marshal encodes a value as JSON in which texts keep <, > and &.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return b.Bytes(), err
}
