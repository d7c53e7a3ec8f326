// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package archtest

import (
	"go/ast"
	"strings"
	"testing"
)

// maxFields is how many fields a struct has at most: beyond that, some of them belong
// together and have no name yet.
const maxFields = 15

// wideStructs are the structs with more fields, and why.
var wideStructs = map[string]struct {
	fields int
	why    string
}{
	"daemonset/agent.Config":       {27, "one field for each flag of the daemon, and nothing else"},
	"daemonset/enforce.Enforcer":   {24, "all state of one loop, which reads most of it in each round; the book and the services are types of their own"},
	"daemonset/rotate.pairings":    {17, "keys, partners and counters change together, under one lock"},
	"daemonset/status.Enforcement": {17, "a wire type: one field for each value of the report"},
	"daemonset/status.Node":        {33, "a wire type: one field for each value of the report"},
	"perf/scale.node":              {31, "a simulated node holds the state of a whole agent"},
	"policy/compile.Compiler":      {21, "an index for each table and each direction of look-up, which change together"},
}

func TestFields(t *testing.T) {
	for _, s := range sources(t, written) {
		if workshop(s.pkg) || testSupport(s.pkg) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			fields, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			name := s.pkg + "." + spec.Name.Name
			wide := wideStructs[name]
			if got := fields.Fields.NumFields(); got > max(maxFields, wide.fields) {
				t.Errorf("%s: %s has %d fields, more than %d: which of them belong together?",
					s.pos(spec), name, got, max(maxFields, wide.fields))
			}
			return true
		})
	}
	for name, wide := range wideStructs {
		if wide.fields <= maxFields || strings.TrimSpace(wide.why) == "" {
			t.Errorf("%s is listed as wide with %d fields, or without a reason", name, wide.fields)
		}
	}
}
