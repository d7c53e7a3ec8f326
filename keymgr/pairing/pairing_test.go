// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package pairing

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
)

// end is one node with all that it knows.
type end struct {
	*keytest.Node
	verifier *keymgr.Verifier
}

func (e end) identity() Identity {
	return Identity{Node: e.Live.ID, Certificate: e.Identity.TLSCertificate, Authenticate: e.verifier.Authenticate}
}

func (e end) key() keymgr.PublicKey { return e.Input.Keys[0].Public }

// couple returns two nodes that have accepted each other's statements.
func couple(t *testing.T) (*keytest.Cluster, end, end) {
	t.Helper()
	c := keytest.NewCluster(t)
	a := end{c.Node("a", "10.244.1.0/24"), nil}
	b := end{c.Node("b", "10.244.2.0/24"), nil}
	a.verifier, b.verifier = c.Open(c.VerifierConfig("a")), c.Open(c.VerifierConfig("b"))
	accept(t, a, b)
	accept(t, b, a)
	return c, a, b
}

func accept(t *testing.T, reader, author end) {
	t.Helper()
	if _, err := reader.verifier.Verify(author.Sign(), author.Live); err != nil {
		t.Fatal(err)
	}
}

// listening is a server with what happened to it.
type listening struct {
	addr netip.AddrPort

	mu     sync.Mutex // guards all below
	agreed map[Subject]keymgr.PresharedKey
	failed chan error
}

// home is the address that servers know as their peers'.
var home = netip.MustParseAddr("127.0.0.1")

// serve lets e answer; verdict is what it thinks of each subject.
func serve(t *testing.T, e end, verdict error) *listening {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out := &listening{addr: netip.MustParseAddrPort(l.Addr().String()), agreed: map[Subject]keymgr.PresharedKey{}, failed: make(chan error, 100)}
	s := &Server{
		Identity: e.identity(),
		Known:    func(a netip.Addr) bool { return a == home },
		Agree: func(_ context.Context, s Subject, k keymgr.PresharedKey) error {
			out.mu.Lock()
			defer out.mu.Unlock()
			if verdict == nil {
				out.agreed[s] = k
			}
			return verdict
		},
		Failed: func(_ netip.Addr, err error) {
			select {
			case out.failed <- err:
			default: // a test that makes so many looks at the first ones
			}
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return out
}

func subject(own, theirs end) Subject {
	return Subject{Peer: theirs.Live.ID, Own: own.key(), Theirs: theirs.key()}
}

func TestBothEndsHaveTheSameKey(t *testing.T) {
	_, a, b := couple(t)
	server := serve(t, b, nil)
	seen := map[keymgr.PresharedKey]bool{}
	for range 5 {
		got, err := Exchange(t.Context(), a.identity(), server.addr, subject(a, b))
		if err != nil {
			t.Fatal(err)
		}
		server.mu.Lock()
		if want := server.agreed[subject(b, a)]; got != want || got.IsZero() {
			t.Errorf("the client has another key than the server, or none")
		}
		server.mu.Unlock()
		if seen[got] {
			t.Error("the same key twice")
		}
		seen[got] = true
	}
}

func TestRefusalTellsWhy(t *testing.T) {
	_, a, b := couple(t)
	for verdict, want := range map[error]Refusal{
		&RefusedError{Reason: RefusedKey}:  RefusedKey,
		&RefusedError{Reason: RefusedBusy}: RefusedBusy,
		errors.New("disk full"):            RefusedOther,
	} {
		server := serve(t, b, verdict)
		_, err := Exchange(t.Context(), a.identity(), server.addr, subject(a, b))
		if r, ok := errors.AsType[*RefusedError](err); !ok || r.Reason != want {
			t.Errorf("%v: error %v, want refusal %s", verdict, err, want)
		}
		if err := <-server.failed; !errors.Is(err, verdict) {
			t.Errorf("server reports %v, want %v", err, verdict)
		}
	}
}

// without is the same node with its TLS bent.
func without(e end, bend func(*tls.Certificate)) Identity {
	i := e.identity()
	i.Certificate = func() (*tls.Certificate, error) {
		c, err := e.Identity.TLSCertificate()
		if err == nil {
			bend(c)
		}
		return c, err
	}
	return i
}

func TestStrangersAreRefused(t *testing.T) {
	c, a, b := couple(t)
	foreign := end{keytest.NewCluster(t).Node("a", "10.244.1.0/24"), a.verifier}
	unknown := end{c.Node("unknown", "10.244.3.0/24"), a.verifier}
	double := end{c.Node("a", "10.244.1.0/24"), a.verifier} // same name and UID, other key
	for name, tc := range map[string]struct {
		client Identity
		want   string
	}{
		"foreign CA":                    {foreign.identity(), "certificate"},
		"no statement":                  {unknown.identity(), "not_yet"},
		"key that signed no statement":  {double.identity(), "not_yet"},
		"leaf without its intermediate": {without(a, func(c *tls.Certificate) { c.Certificate = c.Certificate[:1] }), "certificate"},
	} {
		server := serve(t, b, nil)
		if _, err := Exchange(t.Context(), tc.client, server.addr, subject(a, b)); err == nil {
			t.Errorf("%s: agreed", name)
		}
		if err := <-server.failed; Reason(err) != tc.want {
			t.Errorf("%s: server reports %q (%v), want %q", name, Reason(err), err, tc.want)
		}
		if len(server.agreed) > 0 {
			t.Errorf("%s: the server took over a key", name)
		}
	}
}

func TestNodeSpeaksForItselfOnly(t *testing.T) {
	_, a, b := couple(t)
	server := serve(t, b, nil)
	liar := a.identity()
	liar.Node = keytest.ID("c")
	if _, err := Exchange(t.Context(), liar, server.addr, subject(a, b)); err == nil {
		t.Error("agreed with a node that speaks for another")
	}
	if err := <-server.failed; Reason(err) != "protocol" {
		t.Errorf("server reports %v", err)
	}
}

func TestAnswerFromAnotherNode(t *testing.T) {
	c, a, b := couple(t)
	other := end{c.Node("other", "10.244.4.0/24"), c.Open(c.VerifierConfig("other"))}
	accept(t, other, a)
	accept(t, a, other)
	server := serve(t, other, nil)
	_, err := Exchange(t.Context(), a.identity(), server.addr, subject(a, b))
	if Reason(err) != "certificate" {
		t.Errorf("error %v, want that of a certificate", err)
	}
	if len(server.agreed) > 0 {
		t.Error("the other node took over a key")
	}
}

// A peer that knows no ML-KEM gets no connection, as client and as server.
func TestNoPostQuantumNoKey(t *testing.T) {
	_, a, b := couple(t)
	server := serve(t, b, nil)
	var peer keymgr.NodeID
	cfg, err := a.identity().config(&peer)
	if err != nil {
		t.Fatal(err)
	}
	cfg.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
	if conn, err := tls.Dial("tcp", server.addr.String(), cfg); err == nil {
		conn.Close()
		t.Error("the server talks X25519")
	}
	if err := <-server.failed; Reason(err) != "downgrade" {
		t.Errorf("server reports %q (%v), want a downgrade", Reason(err), err)
	}
	old := classicServer(t, b)
	if _, err := Exchange(t.Context(), a.identity(), old, subject(a, b)); Reason(err) != "downgrade" {
		t.Errorf("client reports %q (%v), want a downgrade", Reason(err), err)
	}
}

// classicServer is a peer with a good certificate that knows X25519 only.
func classicServer(t *testing.T, e end) netip.AddrPort {
	t.Helper()
	var peer keymgr.NodeID
	cfg, err := e.identity().config(&peer)
	if err != nil {
		t.Fatal(err)
	}
	cfg.CurvePreferences = []tls.CurveID{tls.X25519}
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, conn) // runs the handshake, which must fail
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return netip.MustParseAddrPort(l.Addr().String())
}

// recorder keeps what a client sends.
type recorder struct {
	net.Conn
	sent *bytes.Buffer
}

func (r recorder) Write(p []byte) (int, error) {
	r.sent.Write(p)
	return r.Conn.Write(p)
}

// What was recorded of an exchange is worth nothing when it is sent again.
func TestReplayIsRefused(t *testing.T) {
	_, a, b := couple(t)
	server := serve(t, b, nil)
	raw, err := net.Dial("tcp", server.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	var tape bytes.Buffer
	var peer keymgr.NodeID
	cfg, err := a.identity().config(&peer)
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(recorder{raw, &tape}, cfg)
	if _, err := ask(conn, a.identity(), subject(a, b)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	before := server.agreed[subject(b, a)]

	again, err := net.Dial("tcp", server.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if _, err := again.Write(tape.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := <-server.failed; err == nil {
		t.Error("a recorded exchange was taken")
	}
	if server.agreed[subject(b, a)] != before {
		t.Error("a recorded exchange changed the key")
	}
}

func TestUnreachable(t *testing.T) {
	_, a, b := couple(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	if _, err := Exchange(t.Context(), a.identity(), addr, subject(a, b)); Reason(err) != "unreachable" {
		t.Errorf("error %v", err)
	}
}

func FuzzParse(f *testing.F) {
	good := hello{Purpose: Purpose, Node: keytest.ID("a"), Key: keymgr.PublicKey{9}, PeerKey: keymgr.PublicKey{10}}
	data, err := good.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	refusal, err := hello{Refused: RefusedKey}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(refusal)
	f.Add([]byte{0xff, 0xff, '{'})
	f.Fuzz(func(t *testing.T, in []byte) {
		h, raw, err := read(bytes.NewReader(in))
		if err != nil {
			return
		}
		if !bytes.HasPrefix(in, raw) {
			t.Error("other bytes than were received")
		}
		if h.Refused == "" && (h.Purpose != Purpose || h.Key.IsZero() || h.PeerKey.IsZero() || h.Node.Validate() != nil) {
			t.Errorf("took %+v", h)
		}
		if h.Refused != "" && !slices.Contains([]Refusal{RefusedKey, RefusedBusy, RefusedPolicy, RefusedOther}, h.Refused) {
			t.Errorf("took refusal %q", h.Refused)
		}
	})
}
