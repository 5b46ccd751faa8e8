//go:build soak

package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgcluster"
	"syncer/internal/imsim"
)

var soakFor = flag.Duration("soak", 20*time.Minute, "how long TestSoak looks on")

// soakJobs are those of a daemon at rest; atWork makes them sweep all the time.
// Short faults are to fail users, not to let them lapse, and all may log off at
// once here.
const soakJobs = `max_gap = "8000h"
collapse_ratio = 1
[[jobs]]
name     = "presence"
kind     = "presence"
schedule = "@monthly"
catch_up = false
[[jobs]]
name     = "accounts"
kind     = "accounts"
schedule = "@monthly" # accounts
catch_up = false
`

var atWork = []string{`"@monthly" # accounts`, `"@every 10s"`, `"@monthly"`, `"@every 1s"`}

// soak is a daemon at work, and all that happens to it.
type soak struct {
	*world
	*rand.Rand
	cluster *pgcluster.Cluster
	daemon  *process
	begun   time.Time
	mark    string // the newest run when users changed last
	count   map[string]int
	samples []sample
}

// sample is what the daemon's metrics said at one time.
type sample struct {
	at     time.Duration
	values [4]float64 // in the order of soaked
}

// soaked are the metrics that are looked at. The heap moves between what lives and
// about twice that, and answers of any length come and go: medians of a quarter may
// differ by so much. How many goroutines and descriptors there are at work is a
// matter of calls and connections; those at rest are compared.
var soaked = [4]struct {
	metric, name string
	unit         float64
	times, plus  float64 // how much it may be of what it was; 0: see atRest
}{
	{"process_resident_memory_bytes", "resident, MiB", 1 << 20, 1.1, 8},
	{"go_memstats_heap_inuse_bytes", "heap in use, MiB", 1 << 20, 1.2, 4},
	{"go_goroutines", "goroutines", 1, 0, 0},
	{"process_open_fds", "descriptors", 1, 0, 0},
}

// TestSoak: one daemon sweeps two apps for long, while users change, calls fail in
// all ways, the database is restarted, the configuration reloaded, metrics and
// reports are read. It neither grows nor loses anything.
func TestSoak(t *testing.T) {
	const users = 5000
	cluster, err := pgcluster.Start(t.Context(), pgcluster.Options{OnDisk: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t, worldOptions{dbURL: cluster.URL("postgres"), users: users, change: 0.05, config: soakJobs, patience: *soakFor + 5*time.Minute})
	// Not the test binary, which is another program and may look for races.
	w.program = filepath.Join(t.TempDir(), "syncer")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", w.program, "syncer/cmd/syncer").CombinedOutput(); err != nil {
		t.Fatalf("build syncer: %v\n%s", err, out)
	}
	w.edit(`level = "debug"`, `level = "info"`)
	w.run(exitDone, "migrate", "up")
	s := &soak{world: w, Rand: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0)), cluster: cluster, mark: "0", count: make(map[string]int)}
	s.daemon = w.daemon()
	before := s.atRest(func(sample) bool { return true })
	s.edit(atWork...)
	s.daemon.signal(syscall.SIGHUP)
	s.begun = time.Now()
	s.goOn()
	s.settle(before)
	s.report()
	w.truthful()
	w.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status = 'running'`)
	w.wantSQL("0", `SELECT count(*) FROM (SELECT FROM syncer.sync_run GROUP BY app_id, kind, tick HAVING count(*) > 1) AS twice`)
}

// goOn looks once a second, and does what is due.
func (s *soak) goOn() {
	due := []struct {
		what  string
		every int // seconds
		do    func()
	}{
		{"samples", 1, s.sample},
		{"changes of users", 1, s.change},
		{"faults", 7, s.misbehave},
		{"reloads", 20, s.reload},
		{"reports", 30, s.read},
		{"restarts of the database", 100, s.restart},
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for n := 1; time.Since(s.begun) < *soakFor; n++ {
		<-second.C
		if !s.daemon.lives() {
			s.t.Fatalf("the daemon ended\n%s", s.daemon.stderr.String())
		}
		for _, d := range due {
			if n%d.every == 0 {
				d.do()
				s.count[d.what]++
			}
		}
	}
}

// change lets users change when all sweeps that began after their last change are
// over, so that all that is served is to be written.
func (s *soak) change() {
	const doneSQL = `SELECT count(DISTINCT (app_id, kind)) FROM syncer.sync_run WHERE run_id > $1 AND complete`
	if s.text(doneSQL, s.mark) != "4" {
		s.count["changes of users"]--
		return
	}
	s.rounds.SetRound(s.rounds.Round() + 1)
	s.mark = s.text(`SELECT max(run_id)::text FROM syncer.sync_run`)
}

// misbehave puts another fault in the place of the one before, or none.
func (s *soak) misbehave() {
	s.sim.ClearFaults()
	faults := []imsim.Fault{
		{Kind: imsim.FaultStatus, Status: 503}, {Kind: imsim.FaultStatus, Status: 429, RetryAfter: 1, Times: 3},
		{Kind: imsim.FaultHTML}, {Kind: imsim.FaultEmpty}, {Kind: imsim.FaultHuge, Times: 1}, {Kind: imsim.FaultHang, Times: 3},
		{Kind: imsim.FaultReset}, {Kind: imsim.FaultClose}, {Kind: imsim.FaultDelay, Delay: 300 * time.Millisecond},
		{Kind: imsim.FaultTruncate}, {Kind: imsim.FaultContentType}, {Kind: imsim.FaultWrongTypes}, {Kind: imsim.FaultDrop, Times: 2},
		{Kind: imsim.FaultRepeat}, {Kind: imsim.FaultNotAdmin, Times: 1},
	}
	f := faults[s.IntN(len(faults))]
	if f.Times == 0 {
		f.Probability = 0.3
	}
	if _, err := s.sim.AddFault(f); err != nil {
		s.t.Fatal(err)
	}
}

// reload changes a rate, this way and that.
func (s *soak) reload() {
	const slow, quick = "presence_rate = 100\n", "presence_rate = 150\n"
	switch n := s.count["reloads"]; {
	case n == 0:
		s.edit("sdk_app_id = 1400000001\n", "sdk_app_id = 1400000001\n"+slow)
	case n%2 == 1:
		s.edit(slow, quick)
	default:
		s.edit(quick, slow)
	}
	s.daemon.signal(syscall.SIGHUP)
}

// read reads what people read.
func (s *soak) read() {
	s.run(exitDone, "report", "all", "--format", "json", "--output", filepath.Join(s.dir, "report.json"))
	s.run(exitDone, "runs")
}

func (s *soak) restart() {
	mode := []pgcluster.StopMode{pgcluster.Fast, pgcluster.Immediate}[s.count["restarts of the database"]%2]
	if err := s.cluster.Restart(s.ctx, mode); err != nil {
		s.t.Fatal(err)
	}
	s.db.Reset() // its connections are gone
}

func (s *soak) sample() { s.samples = append(s.samples, s.look()) }

// look reads the daemon's metrics.
func (s *soak) look() sample {
	status, text := s.get(s.daemon.admin() + "/metrics")
	if status != 200 {
		s.t.Fatalf("metrics: %d %s", status, text)
	}
	now := sample{at: time.Since(s.begun)}
	for i, m := range soaked {
		found := regexp.MustCompile(`(?m)^` + m.metric + ` (\S+)$`).FindStringSubmatch(text)
		if found == nil {
			s.t.Fatalf("no %s in\n%s", m.metric, text)
		}
		value, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			s.t.Fatal(err)
		}
		now.values[i] = value / m.unit
	}
	return now
}

// atRest waits until the daemon, which has nothing to do, is the same for some
// time, and as wanted.
func (s *soak) atRest(wanted func(sample) bool) (at sample) {
	const calm = 5
	same := 0
	s.eventually("the daemon is at rest", func() bool {
		<-time.After(time.Second)
		now := s.look()
		if now.values[2] == at.values[2] && now.values[3] == at.values[3] && wanted(now) {
			same++
		} else {
			same = 0
		}
		at = now
		return same >= calm
	})
	return at
}

// settle lets the daemon end what is going. At rest it has no more goroutines and
// descriptors than it had before, once connections that are not used are closed; of
// those to the database, and to the users table, it may keep ten each.
func (s *soak) settle(before sample) {
	s.sim.ClearFaults()
	s.edit(atWork[1], atWork[0], atWork[3], atWork[2])
	s.daemon.signal(syscall.SIGHUP)
	s.waitSQL("0", running)
	const few, pools = 2, 20
	after := s.atRest(func(now sample) bool {
		return now.values[2] <= before.values[2]+few && now.values[3] <= before.values[3]+pools
	})
	s.t.Logf("at rest, before and after: %.0f and %.0f goroutines, %.0f and %.0f descriptors",
		before.values[2], after.values[2], before.values[3], after.values[3])
	s.daemon.stop()
}

// report prints the figures, and fails the test for those that have grown.
func (s *soak) report() {
	s.t.Logf("%s, %d CPUs, %s, Postgres %s, %s", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), s.text(`SHOW server_version`), *soakFor)
	s.t.Logf("%v", s.count)
	s.t.Logf("runs: %v", query(s.world, pgx.RowTo[string], `SELECT count(*) || ' ' || kind || ' ' || status FROM syncer.sync_run GROUP BY kind, status ORDER BY 1`))
	s.t.Logf("rows of the histories: %s", s.text(`SELECT (SELECT count(*) FROM syncer.presence_history) + (SELECT count(*) FROM syncer.account_history)`))
	var table strings.Builder
	fmt.Fprintf(&table, "%-20s %9s %9s %9s %9s %9s\n", "", "1st", "2nd", "3rd", "4th", "at most")
	for i, m := range soaked {
		fmt.Fprintf(&table, "%-20s", m.name)
		var of [4]float64
		for q := range of {
			of[q] = s.median(i, q)
			fmt.Fprintf(&table, " %9.1f", of[q])
		}
		if m.times == 0 {
			fmt.Fprintln(&table)
			continue
		}
		most := of[1]*m.times + m.plus
		fmt.Fprintf(&table, " %9.1f\n", most)
		if of[3] > most {
			s.t.Errorf("%s has grown from %.1f in the second quarter to %.1f in the last", m.name, of[1], of[3])
		}
	}
	s.t.Logf("medians of the quarters of the time:\n%s", table.String())
}

// median is that of a metric in a quarter of the time, 0 to 3.
func (s *soak) median(metric, quarter int) float64 {
	var values []float64
	for _, one := range s.samples {
		if int(4*one.at / *soakFor) == quarter {
			values = append(values, one.values[metric])
		}
	}
	if len(values) == 0 {
		s.t.Fatalf("no samples in quarter %d", quarter+1)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
