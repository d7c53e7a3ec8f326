// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package status_test

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/status/statustest"
)

// TestReportOnTheWire keeps the names of the JSON fields, and a daemon's report
// the same after a journey.
func TestReportOnTheWire(t *testing.T) {
	want := statustest.Full()
	zeros(t, "Node", reflect.ValueOf(want))
	raw, err := json.MarshalIndent(want, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	statustest.Golden(t, "node.json", string(raw)+"\n")
	var got status.Node
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("after a journey as JSON (-want +got):\n%s", diff)
	}
}

// zeros makes sure that the sample of the wire format shows every field.
func zeros(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	if v.IsZero() {
		t.Errorf("%s is zero in the sample; give it a value", path)
		return
	}
	switch {
	case v.Kind() == reflect.Slice:
		zeros(t, path+"[0]", v.Index(0))
	case v.Kind() == reflect.Pointer:
		zeros(t, path, v.Elem())
	case v.Kind() == reflect.Struct && v.Type().PkgPath() == reflect.TypeFor[status.Node]().PkgPath():
		for i := range v.NumField() {
			zeros(t, path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	}
}
