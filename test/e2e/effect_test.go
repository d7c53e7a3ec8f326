// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

const (
	// inForce is how soon a change has to be in force. It is generous: how long it
	// really takes is what the test reports.
	inForce = 2 * time.Second
	// pieceEvery is the pace of the flows that show when it is.
	pieceEvery = 2 * time.Millisecond
	// quiet is how long nothing may come for a flow to be cut.
	quiet = 150 * time.Millisecond
)

// change is one thing at the API that denies a flow, and the one that takes it
// back.
type change struct {
	name        string
	deny, allow func() (asked, done time.Time)
}

// effectTest is a client and a server on nodes without an API server. The server
// allows clients by the labels of pod and namespace; nothing else may come in,
// and nothing may leave it, but replies.
type effectTest struct {
	*api
	ns, guest      string
	client, server *station
}

func newEffectTest(t *testing.T) effectTest {
	t.Helper()
	bringProbe(t)
	e := effectTest{api: newAPI(t), ns: namespace(t, "e2e-effect"), guest: namespace(t, "e2e-effect-guest")}
	all := nodes(t)
	e.server = stations(t, e.ns, probe{Name: "server", Node: all[len(all)-1], Labels: map[string]string{"role": "server"}})["server"]
	e.client = stations(t, e.guest, probe{Name: "client", Node: all[1%len(all)], Labels: map[string]string{"role": "client"}})["client"]
	e.label(t, e.guest, "", object{"team": "guest"})
	e.policy(t, e.ns, "deny", denyAll())
	e.policy(t, e.ns, "server", object{"podSelector": selects("role", "server"), "ingress": []object{{"from": []object{
		{"podSelector": selects("role", "client"), "namespaceSelector": selects("team", "guest")},
	}}}})
	return e
}

func (e effectTest) changes(t *testing.T) []change {
	type times = func() (asked, done time.Time)
	relabel := func(pod, key, value string) times {
		return func() (asked, done time.Time) { return e.label(t, e.guest, pod, object{key: value}) }
	}
	isolate := func() (asked, done time.Time) { return e.policy(t, e.guest, "deny", denyAll()) }
	release := func() (asked, done time.Time) { return e.deletePolicy(t, e.guest, "deny") }
	withdraw := func() (asked, done time.Time) { return e.deletePolicy(t, e.ns, "server") }
	grant := func() (asked, done time.Time) {
		return e.policy(t, e.ns, "server", object{"podSelector": selects("role", "server"), "ingress": []object{{}}})
	}
	return []change{
		{"label of the client", relabel("client", "role", "stranger"), relabel("client", "role", "client")},
		{"label of its namespace", relabel("", "team", "rival"), relabel("", "team", "guest")},
		{"policy for egress", isolate, release},
		{"policy for ingress", withdraw, grant},
	}
}

// TestPolicyTakesEffect measures the time from a change at the API to the
// verdict on the wire, on flows that go on all the time.
func TestPolicyTakesEffect(t *testing.T) {
	e := newEffectTest(t)
	for _, ip := range e.server.ips {
		e.begin(t, "udp", ip, pieceEvery)
		e.awaitPieces(t, "udp", ip, time.Now())
	}
	var denied, allowed []float64
	for _, c := range e.changes(t) {
		t.Run(c.name, func(t *testing.T) {
			var deny, allow []float64
			for range setting("SEALANE_E2E_CHANGES", 10) {
				for _, change := range []struct {
					do   func() (asked, done time.Time)
					took *[]float64
					way  func(testing.TB, string, time.Time) time.Time
				}{{c.deny, &deny, e.awaitSilence}, {c.allow, &allow, e.awaitAnswer}} {
					asked, _ := change.do()
					for _, ip := range e.server.ips {
						*change.took = append(*change.took, float64(change.way(t, ip, asked).Sub(asked))/1e6)
					}
				}
			}
			t.Logf("in force after the request: denied %s; allowed %s", spread(deny), spread(allow))
			denied, allowed = append(denied, deny...), append(allowed, allow...)
		})
	}
	t.Logf("all changes: denied %s; allowed %s", spread(denied), spread(allowed))
}

func spread(ms []float64) string {
	return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms of %d", quantile(ms, 0.5), quantile(ms, 0.99), len(ms))
}

// TestPolicyCutsFlows: a flow that a change forbids is cut, by TCP and UDP, and
// goes on once it is allowed again. The server's replies pass, though its egress
// is denied.
func TestPolicyCutsFlows(t *testing.T) {
	e := newEffectTest(t)
	networks := []string{"tcp", "udp"}
	for _, network := range networks {
		for _, ip := range e.server.ips {
			e.begin(t, network, ip, 5*pieceEvery)
			e.awaitPieces(t, network, ip, time.Now())
		}
	}
	for _, c := range e.changes(t) {
		t.Run(c.name, func(t *testing.T) {
			_, done := c.deny()
			time.Sleep(time.Until(done.Add(inForce + time.Second))) // the time without an answer is what is tested
			for _, network := range networks {
				for _, ip := range e.server.ips {
					got := e.course(t, network, ip, time.Time{})
					if newest := slices.Max(got.Answered); newest > done.Add(inForce).UnixNano() || got.Error != "" {
						t.Errorf("%s to %s goes on: last answer %s after the change; %s", network, ip, time.Unix(0, newest).Sub(done), got.Error)
					}
				}
			}
			_, done = c.allow()
			for _, network := range networks {
				for _, ip := range e.server.ips {
					e.awaitPieces(t, network, ip, done)
				}
			}
		})
	}
}

// TestPolicyDryRun: a policy in dry run lets everything through, until it is not
// any more.
func TestPolicyDryRun(t *testing.T) {
	e := newEffectTest(t)
	var targets []target
	for _, ip := range e.server.ips {
		targets = append(targets, target{"tcp", at(ip, 7000)}, target{"udp", at(ip, 7000)})
	}
	reached := func(want bool) {
		t.Helper()
		eventually(t, 10*time.Second, fmt.Sprintf("pods reached: %v", want), func() error {
			for i, got := range e.client.try(t, time.Second, targets...) {
				if (got.Error == "") != want {
					return fmt.Errorf("%v: %+v", targets[i], got)
				}
			}
			return nil
		})
	}
	reached(true)
	dryRun := func(value any) {
		e.do(t, "PATCH", policies(e.guest)+"/deny", object{"metadata": object{"annotations": object{"sealane.io/dry-run": value}}})
	}
	e.policy(t, e.guest, "deny", denyAll())
	reached(false)
	dryRun("true")
	reached(true)
	e.begin(t, "udp", e.server.ips[0], 10*time.Millisecond)
	time.Sleep(time.Second) // the time in which packets are not denied is what is tested
	got := e.course(t, "udp", e.server.ips[0], time.Time{})
	lost := 0
	for _, at := range got.Answered[:len(got.Answered)*9/10] { // the last ones are on their way
		if at == 0 {
			lost++
		}
	}
	if lost > len(got.Answered)/5 { // a busy machine loses some
		t.Errorf("%d of %d packets of a policy in dry run were lost", lost, len(got.Answered))
	}
	dryRun(nil)
	reached(false)
	e.deletePolicy(t, e.guest, "deny")
	reached(true)
}

func (e effectTest) begin(t testing.TB, network, ip string, every time.Duration) {
	t.Helper()
	question := object{"network": network, "address": at(ip, 7000), "everyMS": float64(every) / 1e6}
	if err := e.client.order("flow", question, nil); err != nil {
		t.Fatal(err)
	}
}

func (e effectTest) course(t testing.TB, network, ip string, since time.Time) course {
	t.Helper()
	question := object{"network": network, "address": at(ip, 7000), "since": max(0, since.UnixNano())}
	var got course
	if err := e.client.order("course", question, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// awaitPieces waits until a piece that was sent after a moment has come back.
func (e effectTest) awaitPieces(t testing.TB, network, ip string, after time.Time) {
	t.Helper()
	// TCP sends again after twice the time each time, beginning with what a busy machine takes for an answer.
	eventually(t, time.Minute, network+" to "+ip+" goes on", func() error {
		got := e.course(t, network, ip, after)
		if len(got.Answered) == 0 || slices.Max(got.Answered) == 0 || got.Error != "" {
			return fmt.Errorf("no answer; %s", got.Error)
		}
		return nil
	})
}

// awaitAnswer gives the time of the first answer to what was sent after a moment.
func (e effectTest) awaitAnswer(t testing.TB, ip string, asked time.Time) time.Time {
	t.Helper()
	var first time.Time
	e.poll(t, "an answer", func() bool {
		got := e.course(t, "udp", ip, asked)
		i := slices.IndexFunc(got.Answered, func(at int64) bool { return at != 0 })
		if i >= 0 {
			first = time.Unix(0, got.Answered[i])
		}
		return i >= 0
	})
	return first
}

// awaitSilence gives the time at which the last packet was sent, after a moment,
// that was answered.
func (e effectTest) awaitSilence(t testing.TB, ip string, asked time.Time) time.Time {
	t.Helper()
	last := asked
	e.poll(t, "silence", func() bool {
		got := e.course(t, "udp", ip, asked)
		silent := 0
		for i, at := range got.Answered {
			if silent++; at != 0 {
				silent, last = 0, time.Unix(0, got.Sent[i])
			}
		}
		return silent > int(quiet/pieceEvery)
	})
	return last
}

func (e effectTest) poll(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(inForce + quiet); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, inForce)
		}
	}
}
