// Package schema holds what is deployed against the schemas of Kubernetes and
// Compose. It is a module of its own, so that syncer's needs neither.
package schema

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	kustomize "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// kinds are the values into which manifests have to fit.
var kinds = map[string]func() any{
	"apps/v1 Deployment": func() any { return &appsv1.Deployment{} },
	"batch/v1 Job":       func() any { return &batchv1.Job{} },
	"v1 Secret":          func() any { return &corev1.Secret{} },
	"kustomize.config.k8s.io/v1beta1 Kustomization": func() any { return &kustomize.Kustomization{} },
}

// TestKubernetes: every manifest is of a kind that Kubernetes knows without
// extensions, and has no field that the kind lacks, and none twice.
func TestKubernetes(t *testing.T) {
	files, err := filepath.Glob("../kubernetes/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			var head struct{ APIVersion, Kind string }
			if err := yaml.Unmarshal([]byte(document), &head); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			value, ok := kinds[head.APIVersion+" "+head.Kind]
			if !ok {
				t.Errorf("%s: unknown kind %+v", file, head)
				continue
			}
			if err := yaml.UnmarshalStrict([]byte(document), value()); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			seen++
		}
	}
	if seen < len(kinds) {
		t.Errorf("only %d manifests found", seen)
	}
}

// TestKustomization: what kubectl apply -k would send has the image and the
// configuration put in, and fits the schemas too.
func TestKustomization(t *testing.T) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "../kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	maps := map[string]bool{}
	var pods []corev1.PodSpec
	for _, resource := range built.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		var deployment appsv1.Deployment
		var job batchv1.Job
		var configMap corev1.ConfigMap
		switch resource.GetKind() {
		case "Deployment":
			err = yaml.UnmarshalStrict(text, &deployment)
			pods = append(pods, deployment.Spec.Template.Spec)
		case "Job":
			err = yaml.UnmarshalStrict(text, &job)
			pods = append(pods, job.Spec.Template.Spec)
		case "ConfigMap":
			err = yaml.UnmarshalStrict(text, &configMap)
			maps[configMap.Name] = configMap.Data["config.toml"] != ""
		default:
			t.Errorf("a %s", resource.GetKind())
		}
		if err != nil {
			t.Error(err)
		}
	}
	if len(pods) != 2 {
		t.Errorf("%d kinds of pods", len(pods))
	}
	for _, pod := range pods {
		if image := pod.Containers[0].Image; !strings.HasPrefix(image, "registry.example.com/syncer:") {
			t.Errorf("image %s", image)
		}
		for _, volume := range pod.Volumes {
			if volume.ConfigMap != nil && !maps[volume.ConfigMap.Name] {
				t.Errorf("volume %s: there is no map %s", volume.Name, volume.ConfigMap.Name)
			}
		}
	}
}

// TestCompose: the file fits the schema, and names no service, volume or anchor
// that is not there.
func TestCompose(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"../compose.yaml"}, cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"migrate", "postgres", "simulator", "syncer"} {
		service, err := project.GetService(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if name == "postgres" {
			continue
		}
		dockerfile := filepath.Join(service.Build.Context, service.Build.Dockerfile)
		if _, err := os.Stat(dockerfile); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !service.ReadOnly {
			t.Errorf("%s may write where it likes", name)
		}
	}
}
