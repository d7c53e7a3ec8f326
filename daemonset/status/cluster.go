// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package status

import (
	"cmp"
	"slices"

	"github.com/sealane/sealane/daemonset/status/words"
)

// Cluster is the reports of the nodes at one time.
type Cluster struct {
	Nodes  []Node   `json:"nodes"`            // by name
	Silent []Silent `json:"silent,omitempty"` // by name
}

// Silent is a node that gave no report.
type Silent struct {
	Name    string `json:"name"`
	Problem string `json:"problem"` // in words
}

// Answer is what came back from a node that was asked.
type Answer struct {
	Name string
	Node Node
	Err  error // why there is no report; if set, Node means nothing
}

// Collect sorts answers into a Cluster. It ignores a report in another node's name,
// which would stand for two nodes and hide one.
func Collect(answers []Answer) Cluster {
	c := Cluster{Nodes: []Node{}}
	for _, a := range answers {
		switch {
		case a.Err != nil:
			c.Silent = append(c.Silent, Silent{a.Name, a.Err.Error()})
		case a.Node.Name != a.Name:
			c.Silent = append(c.Silent, Silent{a.Name, "answered in the name of " + words.Printable(a.Node.Name)})
		default:
			c.Nodes = append(c.Nodes, a.Node)
		}
	}
	slices.SortFunc(c.Nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Silent, func(a, b Silent) int { return cmp.Compare(a.Name, b.Name) })
	return c
}

// Report is a Cluster with the verdict over it, as the CLI prints it in JSON.
type Report struct {
	Verdict Verdict `json:"verdict"`
	Cluster
}

// NewReport judges a Cluster.
func NewReport(c Cluster) Report { return Report{Verdict: Judge(c), Cluster: c} }
