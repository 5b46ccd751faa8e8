package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
	"golang.org/x/term"

	"syncer/internal/report"
	"syncer/repo"
)

// display shows how a backfill goes: bars on a terminal, else a line now and
// then.
type display struct {
	w    io.Writer
	bars progress.Writer // nil: not a terminal

	mu       sync.Mutex
	shown    map[*sweep]*shown
	stopping bool // it was told that the backfill stops
	cancel   context.CancelFunc
	idle     sync.WaitGroup
}

// shown is what is known of one sweep.
type shown struct {
	tracker  *progress.Tracker
	total    int64  // users; 0: not counted yet
	meter    *meter // nil: not seen yet
	lastLine time.Time
	waitedOn int64 // the run whose being in the way was told
}

// lineEvery is how often a sweep gets a plain line.
const lineEvery = 5 * time.Second

// suspect follows the name of a sweep while some of its pages are suspect.
const suspect = " (suspect pages are rechecked)"

func newDisplay(w io.Writer) *display {
	d := &display{w: w, shown: map[*sweep]*shown{}}
	if isTerminal(w) {
		d.bars = progress.NewWriter()
		d.bars.SetOutputWriter(fromLineStart{w})
		// The lines are ours, because those of the library wrap at 80 columns, and its
		// rates count what was done before a resumption.
		style := progress.StyleDefault
		style.Visibility = progress.StyleVisibility{}
		style.Options.Separator, style.Options.DoneString, style.Options.ErrorString = "", "  done", "  not done"
		d.bars.SetStyle(style)
		d.bars.SetTrackerPosition(progress.PositionRight)
		d.bars.SetUpdateFrequency(200 * time.Millisecond)
	}
	return d
}

// fromLineStart begins each frame at the start of the line: the terminal may
// have echoed a Ctrl-C there.
type fromLineStart struct{ io.Writer }

func (w fromLineStart) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(append([]byte{'\r'}, b...))
	return max(n-1, 0), err
}

// logWriter is where the log goes while bars are on the screen: above them.
func (d *display) logWriter() io.Writer {
	if d.bars == nil {
		return d.w
	}
	return barLog{d}
}

type barLog struct{ display *display }

func (l barLog) Write(b []byte) (int, error) {
	if !l.display.bars.IsRenderInProgress() {
		return l.display.w.Write(b)
	}
	l.display.bars.Log("%s", strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

// start begins to show the sweeps; how many users there are is counted
// meanwhile.
func (d *display) start(ctx context.Context, sweeps []*sweep) {
	ctx, d.cancel = context.WithCancel(ctx)
	for _, s := range sweeps {
		d.shown[s] = &shown{lastLine: time.Now()}
		if d.bars != nil {
			tracker := &progress.Tracker{Message: cutTo(s.name(), d.width()), DeferStart: true}
			d.shown[s].tracker = tracker
			d.bars.AppendTracker(tracker)
		}
	}
	// From here on the map is only read.
	for _, s := range sweeps {
		d.idle.Go(func() { d.countUsers(ctx, s) })
	}
	if d.bars != nil {
		go d.bars.Render()
	}
}

func (d *display) countUsers(ctx context.Context, s *sweep) {
	total := int64(len(s.listed))
	if s.listed == nil {
		var err error
		if total, err = s.app.Users.Count(ctx); err != nil {
			return // no time left is shown, nothing else is lost
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shown[s].total = total
	if tracker := d.shown[s].tracker; tracker != nil {
		tracker.UpdateTotal(total)
	}
}

// waiting says which run is in the way, once.
func (d *display) waiting(s *sweep, other repo.Run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shown[s].waitedOn == other.ID {
		return
	}
	d.shown[s].waitedOn = other.ID
	job := "a backfill"
	if other.Trigger != repo.TriggerBackfill {
		job = "of job " + other.Job
	}
	d.line("%s: waiting for run %d to end (%s, since %s UTC)", s.name(), other.ID, job, other.StartedAt.UTC().Format(time.TimeOnly))
}

func (d *display) progress(s *sweep, run repo.Run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	shown := d.shown[s]
	name := s.name()
	if run.Suspect {
		name += suspect
	}
	now := time.Now()
	if shown.meter == nil {
		shown.meter = newMeter(run, now)
	}
	pace := shown.meter.pace(name, run, shown.total, s.callLimit(), now)
	if shown.tracker != nil {
		shown.tracker.UpdateMessage(pace.line(d.width()))
		if run.Users > 0 {
			shown.tracker.Start()
		}
		shown.tracker.SetValue(run.Users)
		return
	}
	if now.Sub(shown.lastLine) < lineEvery {
		return
	}
	shown.lastLine = now
	d.line("%s", pace)
}

// width returns how many columns a line of progress may take, and sees to it that
// the library cuts off what is wider.
func (d *display) width() int {
	columns := defaultWidth
	if file, ok := d.w.(*os.File); ok {
		if n, _, err := term.GetSize(int(file.Fd())); err == nil && n > 0 {
			columns = n
		}
	}
	d.bars.SetTerminalWidth(columns)
	return columns - len("  not done") - 1 // behind a line that ended, and the cursor
}

// callLimit returns how many calls per second the quota of the sweep's API allows, 0
// if there is none.
func (s *sweep) callLimit() float64 {
	for _, quota := range s.app.Quotas {
		if quota.Kind() == s.kind {
			return quota.Limit()
		}
	}
	return 0
}

// done marks a sweep that ended, one way or another.
func (d *display) done(s *sweep) {
	d.mu.Lock()
	defer d.mu.Unlock()
	shown := d.shown[s]
	switch {
	case errors.Is(s.err, context.Canceled):
		if !d.stopping {
			d.stopping = true
			d.line("stopping: pages in flight are finished; Ctrl-C again ends at once")
		}
	case shown.tracker == nil:
		d.line("%s: %s, %s users", s.name(), s.run.Status, report.Count(s.run.Users))
	case s.err != nil || s.run.Status == repo.RunFailed || s.run.Status == repo.RunCancelled:
		shown.tracker.MarkAsErrored()
	default:
		if shown.meter != nil {
			pace := shown.meter.pace(s.name(), s.run, s.run.Users, 0, time.Now())
			shown.tracker.UpdateMessage(pace.line(d.width()))
		}
		shown.tracker.SetValue(s.run.Users)
		shown.tracker.MarkAsDone()
	}
}

// line prints one line. The caller holds the lock.
func (d *display) line(format string, args ...any) {
	if d.bars != nil && d.bars.IsRenderInProgress() {
		d.bars.Log(format, args...)
		return
	}
	fmt.Fprintf(d.w, format+"\n", args...)
}

// stop ends the showing; what is printed afterwards stands below.
func (d *display) stop() {
	d.cancel()
	d.idle.Wait()
	if d.bars == nil {
		return
	}
	for s, shown := range d.shown {
		shown.tracker.SetValue(max(s.run.Users, shown.tracker.Value()))
		if !shown.tracker.IsDone() {
			shown.tracker.MarkAsErrored()
		}
	}
	d.bars.Stop()
	for d.bars.IsRenderInProgress() {
		time.Sleep(10 * time.Millisecond)
	}
}
