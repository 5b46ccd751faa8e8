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

// display shows the progress of a backfill: bars on a terminal, else lines.
type display struct {
	stderr *messages
	bars   progress.Writer // nil without a terminal for text

	mu       sync.Mutex
	shown    map[*sweep]*shown
	stopping bool // whether the stop was announced
	cancel   context.CancelFunc
	idle     sync.WaitGroup
}

// shown is the progress of one sweep.
type shown struct {
	tracker  *progress.Tracker
	total    int64  // users; 0 until they are counted
	meter    *meter // nil before the first progress
	lastLine time.Time
	waitedOn int64 // the run that was announced as waited for
}

// lineEvery is the time between two lines of a sweep without a terminal.
const lineEvery = 5 * time.Second

// suspect follows a sweep's name while some of its pages are suspect.
const suspect = " (suspect pages are rechecked)"

func newDisplay(stderr *messages) *display {
	d := &display{stderr: stderr, shown: map[*sweep]*shown{}}
	if !stderr.json && stderr.terminal() {
		d.bars = progress.NewWriter()
		d.bars.SetOutputWriter(fromLineStart{stderr.w})
		// The library's own lines wrap at 80 columns, and its rates include what was done
		// before a resumption.
		style := progress.StyleDefault
		style.Visibility = progress.StyleVisibility{}
		style.Options.Separator, style.Options.DoneString, style.Options.ErrorString = "", "  done", "  not done"
		d.bars.SetStyle(style)
		d.bars.SetTrackerPosition(progress.PositionRight)
		d.bars.SetUpdateFrequency(200 * time.Millisecond)
	}
	return d
}

// fromLineStart begins each frame at the start of the line, where the terminal may have
// echoed a Ctrl-C.
type fromLineStart struct{ io.Writer }

func (w fromLineStart) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(append([]byte{'\r'}, b...))
	return max(n-1, 0), err
}

// logWriter returns a writer for the log, which prints above the bars.
func (d *display) logWriter() io.Writer {
	if d.bars == nil {
		return d.stderr.w
	}
	return barLog{d}
}

type barLog struct{ display *display }

func (l barLog) Write(b []byte) (int, error) {
	if !l.display.bars.IsRenderInProgress() {
		return l.display.stderr.w.Write(b)
	}
	l.display.bars.Log("%s", strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

// start shows the sweeps, and counts their users in the background.
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
	// The map is read-only from here on.
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
			return // only the remaining time is not shown then
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shown[s].total = total
	if tracker := d.shown[s].tracker; tracker != nil {
		tracker.UpdateTotal(total)
	}
}

// waiting announces once which run a sweep waits for.
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

// width returns the columns of a line of progress, and makes the library cut longer lines.
func (d *display) width() int {
	columns := defaultWidth
	if file, ok := d.stderr.w.(*os.File); ok {
		if n, _, err := term.GetSize(int(file.Fd())); err == nil && n > 0 {
			columns = n
		}
	}
	d.bars.SetTerminalWidth(columns)
	return columns - len("  not done") - 1 // the status of a finished line, and the cursor
}

// callLimit returns the calls per second that the quota allows, 0 without a quota.
func (s *sweep) callLimit() float64 {
	for _, quota := range s.app.Quotas {
		if quota.Kind() == s.kind {
			return quota.Limit()
		}
	}
	return 0
}

// done marks a sweep as ended.
func (d *display) done(s *sweep) {
	d.mu.Lock()
	defer d.mu.Unlock()
	shown := d.shown[s]
	switch {
	case errors.Is(s.err, context.Canceled):
		if !d.stopping {
			d.stopping = true
			d.line("stopping: finishing the pages in flight; Ctrl-C again ends at once")
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

// line prints one line. The caller must hold mu.
func (d *display) line(format string, args ...any) {
	if d.bars != nil && d.bars.IsRenderInProgress() {
		d.bars.Log(format, args...)
		return
	}
	d.stderr.notice(fmt.Sprintf(format, args...))
}

// stop ends the display. Later output is printed below it.
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
