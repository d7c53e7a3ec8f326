// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package deploy

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	chart     = "chart"
	namespace = "sealane-system"
)

// touchChart reads every file of the chart, so that go test, which cannot see
// what helm reads, knows that the result depends on them.
func touchChart(t *testing.T) {
	t.Helper()
	root := os.DirFS(chart)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			_, err = fs.ReadFile(root, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// helmProgram builds helm once, or finds it in the build cache.
var helmProgram = sync.OnceValues(func() (string, error) {
	const modfile = "../../internal/tools/go.mod"
	if _, err := os.ReadFile(modfile); err != nil {
		return "", err
	}
	out, err := exec.Command("go", "tool", "-modfile="+modfile, "-n", "helm").Output()
	return strings.TrimSpace(string(out)), err
})

// helm renders the chart as make manifests does.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	touchChart(t)
	program, err := helmProgram()
	if err != nil {
		t.Fatalf("build helm: %v", err)
	}
	args = append([]string{"template", "sealane", chart, "--namespace", namespace}, args...)
	cmd := exec.Command(program, args...)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, errors.String())
	}
	return string(out), nil
}

// manifest is a rendering, read strictly: an unknown field is an error.
type manifest struct {
	kinds        []string // in order
	pods         map[string]corev1.PodTemplateSpec
	daemonSets   map[string]appsv1.DaemonSet
	deployments  map[string]appsv1.Deployment
	accounts     map[string]corev1.ServiceAccount
	rules        map[string][]rbacv1.PolicyRule // by kind, namespace and name of the role
	subjectRoles map[string][]string            // roles by ServiceAccount
}

func render(t *testing.T, args ...string) manifest {
	t.Helper()
	text, err := helm(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	m := manifest{
		pods: map[string]corev1.PodTemplateSpec{}, daemonSets: map[string]appsv1.DaemonSet{},
		deployments: map[string]appsv1.Deployment{}, accounts: map[string]corev1.ServiceAccount{},
		rules: map[string][]rbacv1.PolicyRule{}, subjectRoles: map[string][]string{},
	}
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &meta); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if meta.Kind != "" {
			m.add(t, meta.Kind, []byte(doc))
		}
	}
	return m
}

func decode[T any](t *testing.T, doc []byte) T {
	t.Helper()
	var o T
	if err := yaml.UnmarshalStrict(doc, &o); err != nil {
		t.Fatalf("%v in\n%s", err, doc)
	}
	return o
}

func (m *manifest) add(t *testing.T, kind string, doc []byte) {
	t.Helper()
	m.kinds = append(m.kinds, kind)
	switch kind {
	case "DaemonSet":
		o := decode[appsv1.DaemonSet](t, doc)
		m.daemonSets[o.Name], m.pods[o.Name] = o, o.Spec.Template
	case "Deployment":
		o := decode[appsv1.Deployment](t, doc)
		m.deployments[o.Name], m.pods[o.Name] = o, o.Spec.Template
	case "ServiceAccount":
		o := decode[corev1.ServiceAccount](t, doc)
		m.accounts[o.Name] = o
	case "ClusterRole":
		o := decode[rbacv1.ClusterRole](t, doc)
		m.rules["ClusterRole "+o.Name] = o.Rules
	case "Role":
		o := decode[rbacv1.Role](t, doc)
		m.rules["Role "+o.Namespace+"/"+o.Name] = o.Rules
	case "ClusterRoleBinding":
		o := decode[rbacv1.ClusterRoleBinding](t, doc)
		m.bind(o.Subjects, o.RoleRef.Kind+" "+o.RoleRef.Name)
	case "RoleBinding":
		o := decode[rbacv1.RoleBinding](t, doc)
		m.bind(o.Subjects, o.RoleRef.Kind+" "+o.Namespace+"/"+o.RoleRef.Name)
	case "Namespace":
		decode[corev1.Namespace](t, doc)
	case "PodDisruptionBudget":
		decode[policyv1.PodDisruptionBudget](t, doc)
	case "ValidatingAdmissionPolicy":
		decode[admissionv1.ValidatingAdmissionPolicy](t, doc)
	case "ValidatingAdmissionPolicyBinding":
		decode[admissionv1.ValidatingAdmissionPolicyBinding](t, doc)
	case "CustomResourceDefinition", "PodMonitor":
		decode[unstructured.Unstructured](t, doc)
	default:
		t.Errorf("the test knows no kind %s; teach it", kind)
	}
}

func (m *manifest) bind(subjects []rbacv1.Subject, role string) {
	for _, s := range subjects {
		m.subjectRoles[s.Name] = append(m.subjectRoles[s.Name], role)
	}
}

// containers returns the containers of a pod, those for its start first.
func containers(pod corev1.PodTemplateSpec) []corev1.Container {
	return slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
}
