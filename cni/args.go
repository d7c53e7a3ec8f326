// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

const (
	maxPodName = 253 // RFC 1123 subdomain, as Kubernetes bounds it
	remedyArgs = "see how the runtime sets CNI_ARGS; the kubelet's are IgnoreUnknown=1;K8S_POD_NAMESPACE=…;K8S_POD_NAME=…;K8S_POD_UID=…"
)

// ParseArgs reads the pod of an attachment from CNI_ARGS. It returns the zero PodRef if no
// pod is named. Errors are of type Error.
func ParseArgs(args string) (PodRef, error) {
	values := map[string]string{}
	for pair := range strings.SplitSeq(args, ";") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return PodRef{}, argsError("%q is not of the form KEY=VALUE", pair)
		}
		values[key] = value
	}
	if err := checkUnknown(values); err != nil {
		return PodRef{}, err
	}
	pod := PodRef{
		Namespace: values["K8S_POD_NAMESPACE"],
		Name:      values["K8S_POD_NAME"],
		UID:       values["K8S_POD_UID"],
	}
	return pod, pod.validate()
}

// checkUnknown refuses keys that the plugin does not know, unless the runtime says that it
// may ignore them.
func checkUnknown(values map[string]string) error {
	switch ignore := strings.ToLower(values["IgnoreUnknown"]); ignore {
	case "1", "true":
		return nil
	case "", "0", "false":
	default:
		return argsError("IgnoreUnknown is %q, want true or false", ignore)
	}
	for key := range values {
		switch key {
		case "IgnoreUnknown", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID", "K8S_POD_INFRA_CONTAINER_ID":
		default:
			return argsError("unknown key %q without IgnoreUnknown=1", key)
		}
	}
	return nil
}

// validate checks that p names no pod, or names one completely. The names are used in logs,
// files and queries.
func (p PodRef) validate() error {
	if p.IsZero() {
		return nil
	}
	if err := validPodName(p.Namespace); err != nil {
		return argsError("K8S_POD_NAMESPACE is %q: %w", p.Namespace, err)
	}
	if err := validPodName(p.Name); err != nil {
		return argsError("K8S_POD_NAME is %q: %w", p.Name, err)
	}
	if p.UID == "" {
		return nil // kubelets before 1.20 and some runtimes do not pass it
	}
	if err := validPodName(strings.ToLower(p.UID)); err != nil {
		return argsError("K8S_POD_UID is %q: %w", p.UID, err)
	}
	return nil
}

func validPodName(s string) error {
	if s == "" {
		return errors.New("it is empty")
	}
	if len(s) > maxPodName {
		return fmt.Errorf("it has more than %d bytes", maxPodName)
	}
	if i := strings.IndexFunc(s, notInPodName); i >= 0 || s[0] == '.' {
		return errors.New("use lower-case letters, digits, hyphens and inner dots")
	}
	return nil
}

func notInPodName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.'
}

func argsError(format string, args ...any) error {
	return invalid(types.ErrInvalidEnvironmentVariables, fmt.Errorf("CNI_ARGS: "+format, args...), remedyArgs)
}
