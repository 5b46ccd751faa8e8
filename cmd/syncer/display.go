package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"

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
	total    int64 // users; 0: not counted yet
	begun    time.Time
	lastLine time.Time
	waitedOn int64 // the run whose being in the way was told
}

// lineEvery is how often a sweep gets a plain line.
const lineEvery = 5 * time.Second

// suspect follows the name of a sweep while some of its answers are in doubt.
const suspect = " (answers in doubt are asked again)"

func newDisplay(w io.Writer) *display {
	d := &display{w: w, shown: map[*sweep]*shown{}}
	if isTerminal(w) {
		d.bars = progress.NewWriter()
		d.bars.SetOutputWriter(fromLineStart{w})
		d.bars.SetStyle(progress.StyleBlocks)
		d.bars.Style().Visibility.Speed = true
		d.bars.Style().Visibility.ETA = true
		d.bars.Style().Visibility.ETAOverall = false
		d.bars.Style().Options.SpeedSuffix = " users/s"
		d.bars.Style().Options.ErrorString = "not done"
		d.bars.Style().Options.TimeInProgressPrecision = 100 * time.Millisecond
		d.bars.Style().Options.TimeDonePrecision = 100 * time.Millisecond
		d.bars.SetTrackerPosition(progress.PositionRight)
		d.bars.Style().Options.SpeedPosition = progress.PositionRight
		d.bars.SetUpdateFrequency(200 * time.Millisecond)
		d.bars.SetTrackerLength(30)
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
		d.shown[s] = &shown{begun: time.Now(), lastLine: time.Now()}
		if d.bars != nil {
			tracker := &progress.Tracker{Message: s.name(), DeferStart: true}
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
	if shown.tracker != nil {
		shown.tracker.UpdateMessage(name)
		if run.Users > 0 {
			shown.tracker.Start()
		}
		shown.tracker.SetValue(run.Users)
		return
	}
	if time.Since(shown.lastLine) < lineEvery {
		return
	}
	shown.lastLine = time.Now()
	rate := float64(run.Users) / time.Since(shown.begun).Seconds()
	text := fmt.Sprintf("%s: %s users", name, report.Count(run.Users))
	if shown.total > 0 {
		text += fmt.Sprintf(" of %s (%d%%)", report.Count(shown.total), 100*run.Users/shown.total)
	}
	text += fmt.Sprintf(", %s users/s", report.Count(int64(rate)))
	if shown.total > run.Users && rate > 0 {
		left := time.Duration(float64(shown.total-run.Users) / rate * float64(time.Second))
		text += fmt.Sprintf(", %s left", roughly(left))
	}
	d.line("%s", text)
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
		shown.tracker.UpdateMessage(s.name())
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
