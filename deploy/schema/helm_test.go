package schema

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// helm renders charts; fetched as a module, as staticcheck is.
const helm = "helm.sh/helm/v3/cmd/helm@v3.22.0"

// rendered is what the chart makes with values.
type rendered struct {
	deployments []appsv1.Deployment
	jobs        []batchv1.Job
	maps        []corev1.ConfigMap
	policies    []networkingv1.NetworkPolicy
}

func render(t *testing.T, values ...string) (r rendered) {
	t.Helper()
	args := []string{"run", helm, "template", "mine", "../helm/syncer"}
	for _, value := range values {
		args = append(args, "--set-json", value)
	}
	text, err := exec.Command("go", args...).Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			t.Fatalf("%v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	for document := range strings.SplitSeq(strings.TrimPrefix(string(text), "---\n"), "\n---\n") {
		var head struct{ Kind string }
		if err := yaml.Unmarshal([]byte(document), &head); err != nil {
			t.Fatal(err)
		}
		var err error
		switch head.Kind {
		case "Deployment":
			r.deployments, err = decode(r.deployments, document)
		case "Job":
			r.jobs, err = decode(r.jobs, document)
		case "ConfigMap":
			r.maps, err = decode(r.maps, document)
		case "NetworkPolicy":
			r.policies, err = decode(r.policies, document)
		default:
			t.Errorf("a %q:\n%s", head.Kind, document)
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", head.Kind, err, document)
		}
	}
	return r
}

// decode appends a document. It returns an error if the kind lacks one of its fields.
func decode[T any](all []T, document string) ([]T, error) {
	var value T
	err := yaml.UnmarshalStrict([]byte(document), &value)
	return append(all, value), err
}

// secretsOf returns the secrets that a pod sees.
func secretsOf(pod corev1.PodSpec) (names []string) {
	for _, volume := range pod.Volumes {
		if volume.Secret != nil {
			names = append(names, volume.Secret.SecretName)
		}
	}
	return names
}

// TestHelm renders the chart with its own values and with others.
func TestHelm(t *testing.T) {
	r := render(t)
	if len(r.deployments) != 1 || len(r.jobs) != 1 || len(r.maps) != 1 || len(r.policies) != 1 {
		t.Fatalf("the chart makes %d deployments, %d jobs, %d maps, %d policies", len(r.deployments), len(r.jobs), len(r.maps), len(r.policies))
	}
	daemon, migration := r.deployments[0].Spec.Template.Spec, r.jobs[0].Spec.Template.Spec
	if got := secretsOf(daemon); !slices.Equal(got, []string{"syncer"}) {
		t.Errorf("the daemon sees the secrets %v", got)
	}
	if got := secretsOf(migration); !slices.Equal(got, []string{"syncer-owner"}) {
		t.Errorf("the migration sees the secrets %v", got)
	}
	for _, pod := range []corev1.PodSpec{daemon, migration} {
		security := pod.Containers[0].SecurityContext
		if pod.Containers[0].Image != "registry.example.com/syncer:0.1.0" || !*security.ReadOnlyRootFilesystem || *security.AllowPrivilegeEscalation || !*pod.SecurityContext.RunAsNonRoot {
			t.Errorf("container %+v", pod.Containers[0])
		}
		if pod.Volumes[0].ConfigMap.Name != r.maps[0].Name {
			t.Errorf("the pod reads the map %s, there is %s", pod.Volumes[0].ConfigMap.Name, r.maps[0].Name)
		}
	}
	if !strings.HasPrefix(r.maps[0].Data["config.toml"], "[database]\n") {
		t.Errorf("configuration %q", r.maps[0].Data)
	}
	labels := r.deployments[0].Spec.Template.Labels
	for _, selector := range []map[string]string{r.policies[0].Spec.PodSelector.MatchLabels, r.deployments[0].Spec.Selector.MatchLabels} {
		for key, value := range selector {
			if labels[key] != value {
				t.Errorf("selector %s=%s does not select the pods %v", key, value, labels)
			}
		}
	}
	if policy := r.policies[0].Spec; len(policy.PolicyTypes) != 2 || len(policy.Ingress) != 0 || len(policy.Egress) != 2 {
		t.Errorf("policy %+v", policy)
	}

	other := render(t, `image.tag="v2"`, `replicas=3`, `migrate.enabled=false`, `networkPolicy.metricsFrom=[{"podSelector":{"matchLabels":{"app":"prometheus"}}}]`,
		`tolerations=[{"key":"x","operator":"Exists"}]`, `config="[database]\n"`)
	if len(other.jobs) != 0 || *other.deployments[0].Spec.Replicas != 3 || other.policies[0].Spec.Ingress[0].From[0].PodSelector.MatchLabels["app"] != "prometheus" {
		t.Errorf("with other values: %+v", other)
	}
	if other.deployments[0].Spec.Template.Annotations["checksum/config"] == r.deployments[0].Spec.Template.Annotations["checksum/config"] {
		t.Error("another configuration makes no new pods")
	}
}
