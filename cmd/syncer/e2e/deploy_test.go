package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"syncer/internal/admin"
	"syncer/internal/config"
)

// What stands in deploy/ names settings, options, ports and paths of the
// program. These tests hold them together; the schemas of Compose and Kubernetes
// are checked by deploy/check.

const deployDir = "../../../deploy"

// adminPort is where the admin server of what is deployed listens.
const adminPort = "9464"

func deployed(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deployDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// documents reads the documents of a YAML file into a slice of T.
func documents[T any](t *testing.T, name string) []T {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(deployed(t, name)))
	var all []T
	for {
		var document T
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, document)
	}
}

// wantCommand checks that the program takes a command line. --help keeps it from being
// carried out; what stands before is read all the same.
func wantCommand(t *testing.T, args []string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "syncer", append(slices.Clone(args), "--help")...)
	command.Env = []string{goRace}
	if output, err := command.CombinedOutput(); err != nil || !bytes.Contains(output, []byte("syncer "+args[0]+" ")) {
		t.Errorf("syncer %s: %v\n%s", strings.Join(args, " "), err, output)
	}
}

// wantConfig loads a configuration in whose text old has been replaced by new, and
// checks where it listens and how long a stop may take.
func wantConfig(t *testing.T, name, text string, environ []string, stopTimeout time.Duration) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path, environ)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if _, port, err := net.SplitHostPort(c.HTTP.Listen); err != nil || port != adminPort {
		t.Errorf("%s: it listens on %s, want port %s", name, c.HTTP.Listen, adminPort)
	}
	if stopTimeout <= c.Sweep.StopGrace {
		t.Errorf("%s: it is killed after %s, and may take %s to stop", name, stopTimeout, c.Sweep.StopGrace)
	}
}

// wantAdmin checks that the admin server has something at a path.
func wantAdmin(t *testing.T, path string) {
	t.Helper()
	server := &admin.Server{Ready: func(context.Context) error { return nil }, Metrics: prometheus.NewRegistry()}
	answer := httptest.NewRecorder()
	server.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil))
	if answer.Code != http.StatusOK {
		t.Errorf("the admin server answers GET %s with %d", path, answer.Code)
	}
}

func seconds(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDeploySystemd: the unit calls what there is, and waits long enough.
func TestDeploySystemd(t *testing.T) {
	t.Parallel()
	unit := map[string]string{}
	for line := range strings.Lines(deployed(t, "systemd/syncer.service")) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			unit[key] = value
		}
	}
	args := strings.Fields(unit["ExecStart"])
	if diff := cmp.Diff([]string{"/usr/local/bin/syncer", "run", "--config", "/etc/syncer/config.toml"}, args); diff != "" {
		t.Fatalf("ExecStart (-want +got):\n%s", diff)
	}
	wantCommand(t, args[1:])
	if _, ok := unit["RestartPreventExitStatus"]; ok {
		t.Error("a crash of a Go program has the exit code of a mistake in the configuration, and has to be followed by a start")
	}
	if unit["Type"] != "notify" || unit["ExecReload"] != "/bin/kill -HUP $MAINPID" || unit["Restart"] != "always" {
		t.Errorf("unit: %q", unit)
	}
	// The example, with its secrets where the unit puts them.
	secrets := t.TempDir()
	text, err := os.ReadFile("../../../config.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tencent", "openim"} {
		if err := os.WriteFile(filepath.Join(secrets, "secret_"+name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wantConfig(t, "systemd", strings.ReplaceAll(string(text), "/run/secrets/", secrets+"/secret_"), nil, seconds(t, unit["TimeoutStopSec"]))
}

// TestDeployImage: the image starts what there is.
func TestDeployImage(t *testing.T) {
	t.Parallel()
	text := deployed(t, "docker/Dockerfile")
	wantText(t, text, "\nEXPOSE "+adminPort+"\n", "\nENTRYPOINT [\"/syncer\"]\n", "\nUSER 65532:65532\n")
	var args []string
	for _, m := range regexp.MustCompile(`(?m)^CMD (\[.*\])$`).FindAllStringSubmatch(text, -1) {
		if err := yaml.Unmarshal([]byte(m[1]), &args); err != nil {
			t.Fatal(err)
		}
	}
	wantCommand(t, args)
	goMod, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(goMod))[1]
	wantText(t, text, "golang:"+version+".")
}

// TestDeployCompose: the services are called with options and settings that
// there are, and find each other.
func TestDeployCompose(t *testing.T) {
	t.Parallel()
	compose := documents[struct {
		Services map[string]struct {
			Image           string
			Command         []string
			Environment     map[string]string
			Ports           []string
			Volumes         []string
			StopGracePeriod string `yaml:"stop_grace_period"`
		}
	}](t, "compose.yaml")[0]
	for name, service := range compose.Services {
		for _, volume := range service.Volumes {
			if file, _, _ := strings.Cut(volume, ":"); strings.HasPrefix(file, ".") {
				deployed(t, file)
			}
		}
		if name != "postgres" {
			wantCommand(t, service.Command)
		}
	}
	syncer := compose.Services["syncer"]
	if diff := cmp.Diff([]string{"127.0.0.1:" + adminPort + ":" + adminPort, "127.0.0.1:9465:9465"}, syncer.Ports); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	var environ []string
	for name, value := range syncer.Environment {
		environ = append(environ, name+"="+value)
	}
	text := deployed(t, "compose/config.toml")
	wantConfig(t, "compose", text, environ, seconds(t, syncer.StopGracePeriod))
	_, port, err := net.SplitHostPort(compose.Services["simulator"].Command[2])
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, text, `"http://simulator:`+port+`"`, "simulated-openim-secret")
	postgres := compose.Services["postgres"].Environment
	wantText(t, syncer.Environment["SYNCER_DATABASE_URL"],
		"//"+postgres["POSTGRES_USER"]+":"+postgres["POSTGRES_PASSWORD"]+"@postgres:5432/"+postgres["POSTGRES_DB"])
}

// manifest is what of a manifest has to do with the program.
type manifest struct {
	Kind       string
	Metadata   struct{ Name string }
	StringData map[string]string `yaml:"stringData"`
	Spec       struct {
		Replicas int
		Template struct {
			Spec struct {
				Grace      int `yaml:"terminationGracePeriodSeconds"`
				Containers []struct {
					Args           []string
					Env            []struct{ Name, Value string }
					Ports          []struct{ ContainerPort int }
					LivenessProbe  probe `yaml:"livenessProbe"`
					ReadinessProbe probe `yaml:"readinessProbe"`
					VolumeMounts   []struct {
						Name string
						Path string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
				}
				Volumes []struct {
					Name      string
					ConfigMap struct{ Name string } `yaml:"configMap"`
					Secret    struct {
						Name string `yaml:"secretName"`
					}
				}
			}
		}
	}
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

// TestDeployKubernetes: the pods find their settings and secrets, and are asked
// for what there is.
func TestDeployKubernetes(t *testing.T) {
	t.Parallel()
	secrets := map[string]map[string]string{}
	for _, m := range documents[manifest](t, "kubernetes/secret.example.yaml") {
		secrets[m.Metadata.Name] = m.StringData
	}
	kustomization := documents[struct {
		Resources []string
		Images    []struct{ Name string }
		Maps      []struct {
			Name  string
			Files []string
		} `yaml:"configMapGenerator"`
	}](t, "kubernetes/kustomization.yaml")[0]
	if diff := cmp.Diff([]string{"config.toml"}, kustomization.Maps[0].Files); diff != "" {
		t.Errorf("files of the config map (-want +got):\n%s", diff)
	}
	for _, resource := range kustomization.Resources {
		m := documents[manifest](t, "kubernetes/"+resource)[0]
		pod := m.Spec.Template.Spec
		container := pod.Containers[0]
		wantCommand(t, container.Args)
		// The paths of the pod, as folders here.
		text := deployed(t, "kubernetes/config.toml")
		var environ []string
		for _, v := range container.Env {
			environ = append(environ, v.Name+"="+v.Value)
		}
		for _, mount := range container.VolumeMounts {
			for _, volume := range pod.Volumes {
				switch {
				case volume.Name != mount.Name:
				case volume.Secret.Name != "":
					dir := writeFiles(t, secrets[volume.Secret.Name])
					text = strings.ReplaceAll(text, mount.Path+"/", dir+"/")
					for i := range environ {
						environ[i] = strings.ReplaceAll(environ[i], mount.Path+"/", dir+"/")
					}
				case volume.ConfigMap.Name != kustomization.Maps[0].Name || mount.Path != "/etc/syncer":
					t.Errorf("%s: the configuration is looked for in /etc/syncer, mounted is %+v at %s", resource, volume, mount.Path)
				}
			}
		}
		if m.Kind != "Deployment" {
			wantMigration(t, resource, m, text, environ)
			continue
		}
		wantDeployment(t, resource, m)
		wantConfig(t, resource, text, environ, time.Duration(pod.Grace)*time.Second)
	}
}

// wantMigration checks that a job sees the owner's secret, no other, and needs none.
func wantMigration(t *testing.T, resource string, m manifest, text string, environ []string) {
	t.Helper()
	for _, volume := range m.Spec.Template.Spec.Volumes {
		if name := volume.Secret.Name; name != "" && name != "syncer-owner" {
			t.Errorf("%s sees the secret %s", resource, name)
		}
	}
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.LoadReporting(path, environ)
	if err != nil {
		t.Fatalf("%s: %v", resource, err)
	}
	if want := "syncer_owner"; !strings.Contains(c.Database.URL.Reveal(), want) {
		t.Errorf("%s connects with %s, want %s", resource, c.Database.URL, want)
	}
}

// wantDeployment checks the replicas and probes of a deployment.
func wantDeployment(t *testing.T, resource string, m manifest) {
	t.Helper()
	container := m.Spec.Template.Spec.Containers[0]
	for _, p := range []probe{container.LivenessProbe, container.ReadinessProbe} {
		wantAdmin(t, p.HTTPGet.Path)
	}
	if m.Spec.Replicas != 2 || container.LivenessProbe.HTTPGet.Path != "/healthz" || container.ReadinessProbe.HTTPGet.Path != "/readyz" {
		t.Errorf("%s: %+v", resource, m)
	}
}

// writeFiles writes files with the given contents into a new folder.
func writeFiles(t *testing.T, contents map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, content := range contents {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestDeployMemory: all ways to run the daemon give it the same memory.
func TestDeployMemory(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string][]string{
		"systemd/syncer.service":     {"MemoryMax=256M\n", "Environment=GOMEMLIMIT=200MiB\n"},
		"kubernetes/deployment.yaml": {"limits: {memory: 256Mi}", "{name: GOMEMLIMIT, value: 200MiB}"},
		"compose.yaml":               {"mem_limit: 256m\n", "GOMEMLIMIT: 200MiB\n"},
	} {
		wantText(t, deployed(t, name), limits...)
	}
}
