// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agents

import (
	"testing"

	"github.com/sealane/sealane/daemonset/kube"
)

func TestStatusChoosesTheLivingAgent(t *testing.T) {
	pod := func(name string, change func(*kube.Pod)) kube.Pod {
		p := kube.Pod{Name: name, Node: "n1", Ready: true}
		change(&p)
		return p
	}
	all := []kube.Pod{
		pod("elsewhere", func(p *kube.Pod) { p.Node = "n2" }),
		pod("finished", func(p *kube.Pod) { p.Finished = true }),
		pod("deleting", func(p *kube.Pod) { p.Deleting = true }),
		pod("starting", func(p *kube.Pod) { p.Ready = false }),
		pod("ready", func(*kube.Pod) {}),
	}
	for n, want := range map[int]string{5: "ready", 4: "starting", 3: "deleting", 2: ""} {
		got := ""
		if p := On(all[:n], "n1"); p != nil {
			got = p.Name
		}
		if got != want {
			t.Errorf("of the first %d pods %q is asked, want %q", n, got, want)
		}
	}
}
