// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/compile"
	"github.com/sealane/sealane/policy/oracle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCluster has pods web and db on nodes n1 and n2, and policies that isolate db.
type fakeCluster struct{}

func pods() []policy.Pod {
	return []policy.Pod{
		{Namespace: "shop", Name: "web", Labels: map[string]string{"app": "web"}, Node: "n1", Addresses: addresses("10.244.1.5", "fd00::1:5")},
		{Namespace: "shop", Name: "db", Labels: map[string]string{"app": "db"}, Node: "n2", Addresses: addresses("10.244.2.7", "fd00::2:7")},
		{Namespace: "other", Name: "spy", Node: "n2", Addresses: addresses("10.244.2.8")},
	}
}

func addresses(all ...string) (out []netip.Addr) {
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func (fakeCluster) PodAt(a netip.Addr) (policy.Pod, bool) {
	for _, p := range pods() {
		for _, b := range p.Addresses {
			if a == b {
				return p, true
			}
		}
	}
	return policy.Pod{}, false
}

func (fakeCluster) NodeAt(a netip.Addr) (string, bool) {
	name, ok := map[string]string{"172.30.0.11": "n1", "172.30.0.12": "n2"}[a.String()]
	return name, ok
}

func (fakeCluster) ServiceAt(a netip.Addr) (string, bool) {
	name, ok := map[string]string{"10.96.0.9": "shop/db"}[a.String()]
	return name, ok
}

func (fakeCluster) Namespace(string) (objects.Namespace, bool) { return objects.Namespace{}, true }

func (fakeCluster) NodeAddresses(name string) []netip.Addr {
	return map[string][]netip.Addr{"n1": addresses("172.30.0.11"), "n2": addresses("172.30.0.12")}[name]
}

func (fakeCluster) Policies(namespace string) []*networkingv1.NetworkPolicy {
	if namespace != "shop" {
		return nil
	}
	labelled := func(app string) metav1.LabelSelector {
		return metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	}
	web := labelled("web")
	return []*networkingv1.NetworkPolicy{
		{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: labelled("db"),
				Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &web}}}},
			},
		},
		{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "tomorrow", Annotations: map[string]string{policy.DryRun: "true"}},
			Spec:       networkingv1.NetworkPolicySpec{PodSelector: web, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}},
		},
	}
}

func observer(node string) *Observer {
	return &Observer{Node: node, Names: fakeCluster{}, Rules: fakeCluster{}, Lane: func(peer string) *Lane {
		return &Lane{Peer: peer, Kind: "wireguard", Encrypted: true, OwnGeneration: 3, PeerGeneration: 5}
	}}
}

func flow(verdict, from, to string) Flow {
	return Flow{
		Time:   time.Date(2026, 11, 22, 9, 30, 1, 5e6, time.UTC),
		Source: netip.MustParseAddrPort(from), Destination: netip.MustParseAddrPort(to), Protocol: ipproto.TCP, Verdict: verdict,
	}
}

// TestRecords: each flow as operators read it.
func TestRecords(t *testing.T) {
	denied := flow(Denied, "10.244.2.8:4000", "10.244.2.7:5432")
	denied.Reason = "policy_ingress"
	service := flow(Allowed, "10.244.1.5:4000", "10.244.2.7:5432")
	service.Frontend = netip.MustParseAddrPort("10.96.0.9:5432")
	trial := flow(DryRunDenied, "10.244.1.5:4000", "192.0.2.1:443")
	trial.Reason = "policy_egress"
	ping := flow(Allowed, "[fd00::1:5]:77", "[fd00::2:7]:77")
	ping.Protocol = icmpv6
	for name, tc := range map[string]struct {
		node string
		flow Flow
		want string
	}{
		"denied":  {"n2", denied, "n2 DENIED other/spy:4000 -> shop/db:5432 TCP; policy_ingress; egress allowed: no policy isolates it; ingress denied: isolated by shop/db, and no rule allows it"},
		"service": {"n1", service, "n1 allowed shop/web:4000 -> shop/db:5432 TCP by service shop/db 10.96.0.9:5432; egress allowed: no policy isolates it; lane to n2: wireguard keys 3/5"},
		"arrived": {"n2", flow(Allowed, "10.244.1.5:4000", "10.244.2.7:5432"), "n2 allowed shop/web:4000 -> shop/db:5432 TCP; ingress allowed by shop/db ingress[0] from[0]; lane to n1: wireguard keys 3/5"},
		"trial":   {"n1", trial, "n1 DRY-RUN-DENIED shop/web:4000 -> 192.0.2.1:443 TCP; policy_egress; egress in dry run denied: isolated by shop/tomorrow, and no rule allows it"},
		"ping":    {"n1", ping, "n1 allowed shop/web -> shop/db ICMPv6; egress allowed: no policy isolates it; lane to n2: wireguard keys 3/5"},
		"node":    {"n2", flow(Allowed, "172.30.0.12:4000", "10.244.2.7:80"), "n2 allowed node n2:4000 -> shop/db:80 TCP; ingress a pod and its own node may always reach each other"},
	} {
		t.Run(name, func(t *testing.T) {
			o := observer(tc.node)
			r := o.identify(tc.flow)
			o.decide(tc.flow, &r)
			_, got, _ := strings.Cut(r.Text(), " ")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := (Record{Node: "n1", Lost: 3}).Text(); !strings.HasSuffix(got, "n1 3 flows are not shown: the reader was too slow") {
		t.Error(got)
	}
	if got := (Lane{Kind: "vxlan"}).String() + "|" + (Lane{Kind: "wireguard", Encrypted: true}).String(); got != "vxlan, NOT ENCRYPTED|wireguard, no lane" {
		t.Error(got)
	}
}

func TestFilter(t *testing.T) {
	f := flow(Denied, "10.244.1.5:4000", "10.244.2.7:5432")
	f.Frontend = netip.MustParseAddrPort("10.96.0.9:80")
	for args, want := range map[string]bool{
		"": true, "--verdict=denied": true, "--verdict=allowed": false, "--protocol=tcp": true, "--protocol=17": false,
		"--port=5432": true, "--port=80": true, "--port=4000": false, "--pod=shop/web": true, "--pod=shop/db": true, "--pod=shop/x": false,
		"--pod-namespace=shop": true, "--pod-namespace=sho": false, "--to=shop/db": true, "--to=shop/web": false, "--to=10.244.2.7": true,
		"--to=10.244.2.0/24": true, "--to=10.244.3.0/24": false, "--to=10.96.0.9": true, "--to=n2": false,
		"--pod=shop/web --port=5432 --verdict=denied": true, "--pod=shop/web --port=5432 --verdict=allowed": false,
	} {
		var filter, again Filter
		for _, step := range []struct {
			into *Filter
			args []string
		}{{&filter, strings.Fields(args)}, {&again, nil}} {
			if step.into == &again {
				step.args = filter.Args()
			}
			fs := flag.NewFlagSet("", flag.ContinueOnError)
			step.into.Register(fs)
			if err := errors.Join(fs.Parse(step.args), step.into.Validate()); err != nil {
				t.Fatal(err)
			}
		}
		if filter != again {
			t.Errorf("%s: %+v became %+v", args, filter, again)
		}
		if got := filter.takes(f) && filter.wants(observer("n1").identify(f)); got != want {
			t.Errorf("%q lets it pass: %v", args, got)
		}
	}
	for _, f := range []Filter{{Port: 70000}, {Pod: "web"}, {Protocol: "tpc"}, {Protocol: "256"}, {Verdict: "no"}} {
		if err := f.Validate(); !errors.Is(err, ErrFilter) {
			t.Errorf("%+v: error %v", f, err)
		}
	}
}

// fakeSource is a data path: what is sent to it it reports to who watches.
type fakeSource struct {
	began, ended chan struct{}
	flows        chan Flow
	fail         chan error
}

func newFakeSource() *fakeSource {
	return &fakeSource{began: make(chan struct{}), ended: make(chan struct{}), flows: make(chan Flow), fail: make(chan error)}
}

func (s *fakeSource) Watch(ctx context.Context, f func(Flow)) error {
	s.began <- struct{}{}
	for {
		select {
		case <-ctx.Done():
			s.ended <- struct{}{}
			return nil
		case err := <-s.fail:
			return err
		case flow := <-s.flows:
			f(flow)
		}
	}
}

// serving starts a server on n2, and ends it with the test.
func serving(t *testing.T) (Client, *fakeSource) {
	t.Helper()
	source := newFakeSource()
	socket := filepath.Join(t.TempDir(), SocketName)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	s := &Server{Hub: NewHub(source, log), Observer: observer("n2"), Tables: func() (policy.Tables, error) { return compiled(t), nil }, Logger: log}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- s.Serve(ctx, l) }()
	go func() { done <- s.Hub.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return Client{Socket: socket}, source
}

// compiled are the tables of n2.
func compiled(t *testing.T) policy.Tables {
	c := compile.NewCompiler()
	c.SetNamespace("shop", nil)
	c.SetNamespace("other", nil)
	for _, p := range pods() {
		p.Local = p.Node == "n2"
		c.SetPod(p)
	}
	for _, p := range (fakeCluster{}).Policies("shop") {
		if err := c.SetPolicy(p); err != nil {
			t.Error(err)
		}
	}
	return c.Tables()
}

// watching is a client that reads the stream.
type watching struct {
	records chan Record
	stop    context.CancelFunc
	done    chan error
}

func watchWith(t *testing.T, c Client, f Filter) watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := watching{records: make(chan Record, 16), stop: cancel, done: make(chan error, 1)}
	r, in := io.Pipe()
	go func() { w.done <- c.Monitor(ctx, f, in) }()
	go func() {
		for lines := json.NewDecoder(r); ; {
			var record Record
			if lines.Decode(&record) != nil {
				return
			}
			w.records <- record
		}
	}()
	t.Cleanup(func() { cancel(); r.Close() })
	if first := <-w.records; !first.Begun || first.Node != "n2" {
		t.Errorf("the stream begins with %+v", first)
	}
	return w
}

// TestWatchers: the data path is watched once while anybody reads, and not at
// all when nobody does; each reader gets what its filter lets through.
func TestWatchers(t *testing.T) {
	c, source := serving(t)
	all := watchWith(t, c, Filter{})
	<-source.began
	denials := watchWith(t, c, Filter{Verdict: Denied})
	source.flows <- flow(Allowed, "10.244.1.5:4000", "10.244.2.7:5432")
	source.flows <- flow(Denied, "10.244.2.8:4000", "10.244.2.7:5432")
	for _, want := range []string{Allowed, Denied} {
		if got := <-all.records; got.Verdict != want || got.Destination.Pod != "shop/db" || got.Ingress == nil || got.Ingress.Allowed != (want == Allowed) {
			t.Errorf("record %+v, want %s", got, want)
		}
	}
	if got := <-denials.records; got.Verdict != Denied {
		t.Errorf("record %+v", got)
	}
	missed := flow(Allowed, "10.244.2.8:4000", "10.244.2.7:5432")
	missed.Lost = 7 // of which some may have been denied
	source.flows <- missed
	source.flows <- flow(Denied, "10.244.2.8:4000", "10.244.2.7:5432")
	for name, of := range map[string]<-chan Record{"all": all.records, "denials": denials.records} {
		if got := <-of; got.Lost != 7 || got.Verdict != "" {
			t.Errorf("%s: record %+v, want one that tells of 7 lost flows", name, got)
		}
	}
	if got := <-denials.records; got.Verdict != Denied {
		t.Errorf("record %+v", got)
	}
	all.stop()
	denials.stop()
	if err := errors.Join(<-all.done, <-denials.done); err != nil {
		t.Error(err)
	}
	<-source.ended
	last := watchWith(t, c, Filter{Port: 80})
	<-source.began
	source.flows <- flow(Allowed, "10.244.1.5:4000", "10.244.2.7:80")
	if got := <-last.records; got.Destination.Port != 80 {
		t.Errorf("record %+v", got)
	}
	source.fail <- errors.New("broken")
	if err := <-last.done; !errors.Is(err, ErrUnreachable) {
		t.Errorf("when the source fails: error %v", err)
	}
}

// TestSlowReader loses flows, is told how many, and holds nobody up.
func TestSlowReader(t *testing.T) {
	source := newFakeSource()
	h := NewHub(source, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ran, read := make(chan error), make(chan error)
	go func() { ran <- h.Run(ctx) }()
	records, begun := make(chan Record), make(chan struct{})
	go func() {
		read <- h.Read(ctx, observer("n1"), Filter{}, func(r Record) error {
			if r.Begun {
				close(begun)
				return nil
			}
			select {
			case records <- r:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	<-begun
	<-source.began
	const sent = backlog + 100
	for range sent {
		source.flows <- flow(Allowed, "10.244.1.5:4000", "10.244.2.7:5432")
	}
	got := uint64(0)
	for told := false; got < sent; {
		r := <-records
		if r.Lost > 0 {
			got, told = got+r.Lost, true
			continue
		}
		if got++; got == sent && !told {
			t.Error("nothing was said of lost flows")
		}
	}
	cancel()
	<-source.ended
	if err := errors.Join(<-ran, <-read); err != nil {
		t.Error(err)
	}
}

func TestExplainOverSocket(t *testing.T) {
	c, _ := serving(t)
	for name, tc := range map[string]struct {
		from, to string
		want     Answer
	}{
		"from outside":    {"10.244.1.5", "10.244.2.7", Answer{Node: "n2", Ingress: &Found{Allowed: true, DryRunAllowed: true}}},
		"both here":       {"10.244.2.8", "10.244.2.7", Answer{Node: "n2", Egress: &Found{Allowed: true, DryRunAllowed: true}, Ingress: &Found{}}},
		"unknown":         {"10.244.9.9", "10.244.2.7", Answer{Node: "n2", Ingress: &Found{UnknownPeer: true}}},
		"own node":        {"172.30.0.12", "10.244.2.7", Answer{Node: "n2", Ingress: &Found{Allowed: true, DryRunAllowed: true}}},
		"to a service":    {"10.244.2.8", "10.96.0.9", Answer{Node: "n2", Egress: &Found{Allowed: true, DryRunAllowed: true, UnknownPeer: true}, Service: "shop/db"}},
		"nobody's affair": {"10.244.1.5", "192.0.2.1", Answer{Node: "n2"}},
	} {
		got, err := c.Explain(t.Context(), policy.Traffic{From: netip.MustParseAddr(tc.from), To: netip.MustParseAddr(tc.to), Protocol: ipproto.TCP, Port: 5432})
		if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
			t.Errorf("%s: error %v\n%s", name, err, diff)
		}
	}
	if _, err := c.Explain(t.Context(), policy.Traffic{}); err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("without addresses: error %v", err)
	}
	if _, err := (Client{Socket: c.Socket + "x"}).Explain(t.Context(), policy.Traffic{}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("without a daemon: error %v", err)
	}
	if err := c.Monitor(t.Context(), Filter{Verdict: "no"}, io.Discard); !errors.Is(err, ErrFilter) {
		t.Errorf("with a bad filter: error %v", err)
	}
}

// TestNoPolicy: a pod that has no guard is cut off, whatever the rest says.
func TestNoPolicy(t *testing.T) {
	x := policy.Traffic{From: netip.MustParseAddr("10.244.1.5"), To: netip.MustParseAddr("10.244.2.7"), Protocol: ipproto.TCP, Port: 80}
	got := Explain(policy.Tables{}, x, Here{Node: "n2", Pod: func(a netip.Addr) bool { return a == x.To }})
	if diff := cmp.Diff(Answer{Node: "n2", Ingress: &Found{NoPolicy: true, UnknownPeer: true}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestExplanation(t *testing.T) {
	o := observer("n1")
	explain := func(from, to string) Explanation {
		x := policy.Traffic{From: netip.MustParseAddr(from), To: netip.MustParseAddr(to), Protocol: ipproto.TCP, Port: 5432}
		return NewExplanation(oracle.Decide(o.cluster(x), x))
	}
	agreed := explain("10.244.1.5", "10.244.2.7")
	agreed.Egress.Node, agreed.Ingress.Node = "n1", "n2"
	agreed.Egress.Tables, agreed.Ingress.Tables = &Found{Allowed: true}, &Found{Allowed: true, DryRunAllowed: true}
	differs := explain("10.244.2.8", "10.244.2.7")
	differs.Egress.Node, differs.Ingress.Node = "n2", "n2"
	differs.Egress.Tables, differs.Ingress.Tables = &Found{UnknownPeer: true}, &Found{}
	silent := explain("192.0.2.1", "10.244.2.7")
	silent.Ingress.Node, silent.Ingress.Problem, silent.Service = "n2", "no agent pod on the node", "shop/db"
	var got bytes.Buffer
	for _, e := range []Explanation{agreed, differs, silent} {
		got.WriteString(e.Text())
	}
	want := `shop/web (10.244.1.5) -> shop/db (10.244.2.7) TCP port 5432: allowed (denied if policies in dry run were in force)
  egress of shop/web: allowed: no policy isolates it
    in dry run denied: isolated by shop/tomorrow, and no rule allows it
    tables of node n1: allowed, in dry run denied, they agree
  ingress of shop/db: allowed by shop/db ingress[0] from[0]
    tables of node n2: allowed, they agree
other/spy (10.244.2.8) -> shop/db (10.244.2.7) TCP port 5432: denied
  egress of other/spy: allowed: no policy isolates it
    tables of node n2: denied, THEY DISAGREE: the other end is unknown there
  ingress of shop/db: denied: isolated by shop/db, and no rule allows it
    tables of node n2: denied, they agree
192.0.2.1 -> shop/db (10.244.2.7) TCP port 5432: denied
  10.244.2.7 is the address of service shop/db: policies judge the address of the backend, so ask for that instead
  egress: not a pod, so no policy applies
  ingress of shop/db: denied: isolated by shop/db, and no rule allows it
    tables of node n2: not known: no agent pod on the node
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
	if agreed.Disagrees() || agreed.Incomplete() || !differs.Disagrees() || !silent.Incomplete() {
		t.Error("agreement is not told as it is")
	}
}
