// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
)

// crier is an API server's part: what it was told, a line each.
type crier struct {
	takes time.Duration

	mu    sync.Mutex // guards what follows
	lines []string
	err   error
}

func (c *crier) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *crier) tell(_ context.Context, pods []kube.AddressedPod) error {
	var names []string
	for _, p := range pods {
		names = append(names, p.Name+"/"+p.UID+"="+p.Addresses[0].String())
	}
	line := strings.Join(names, " ")
	time.Sleep(c.takes)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		line = "failed: " + line
	}
	c.lines = append(c.lines, line)
	return c.err
}

// want wants to have been told just this since the last call.
func (c *crier) want(t *testing.T, what string, lines ...string) {
	t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if got, want := strings.Join(c.lines, "; "), strings.Join(lines, "; "); got != want || len(c.lines) != len(lines) {
		t.Errorf("%s: told %q, want %q", what, got, want)
	}
	c.lines = nil
}

func crying(t *testing.T) (*rig, *crier) {
	c := &crier{}
	return newRig(t, func(cfg *Config) { cfg.Announce = c.tell }), c
}

func TestNewPodsAreAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := crying(t)
		r.run()
		c.want(t, "at the start, whatever an earlier daemon announced", "")
		time.Sleep(time.Minute)
		done := r.attaching(t.Context(), ref("web", "u1"), addrA)
		c.want(t, "before the API has shown the pod", "web/u1=10.244.1.5")
		r.api.setPod(pod("web", "u1", "n1"))
		synctest.Wait()
		wantDone(t, done)
		announced := pod("web", "u1", "n1", addrA)
		announced.Announced = true
		r.api.setPod(announced)
		time.Sleep(time.Minute)
		c.want(t, "when our own word comes back")
		r.api.setPod(pod("web", "u1", "n1", addrA))
		time.Sleep(tidyAfter - time.Second)
		c.want(t, "when the status has it, at first")
		time.Sleep(2 * time.Second)
		c.want(t, "when the status has had it for long", "")
	})
}

func TestAnnouncementsAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := crying(t)
		r.api.setPod(pod("web", "u1", "n1"))
		r.api.setPod(pod("db", "u2", "n1"))
		r.run()
		time.Sleep(time.Minute)
		c.want(t, "at the start", "")
		wantDone(t, r.attaching(t.Context(), ref("web", "u1"), addrA))
		wantDone(t, r.attaching(t.Context(), ref("db", "u2"), addrB))
		c.want(t, "the first pod, at once", "web/u1=10.244.1.5")
		time.Sleep(announcePause)
		c.want(t, "the second one, after the pause", "db/u2=10.244.1.6 web/u1=10.244.1.5")
		r.Detach(addrs(addrB))
		r.api.setPod(pod("web", "u1", "n1", addrA))
		time.Sleep(time.Second)
		wantDone(t, r.attaching(t.Context(), ref("db", "u2"), far))
		c.want(t, "one that goes is taken back with the next that comes", "db/u2=10.244.2.7")
	})
}

func TestBusyServersAreToldLessOften(t *testing.T) {
	for takes, want := range map[time.Duration]time.Duration{
		0: announcePause, 10 * time.Millisecond: announceShare * 10 * time.Millisecond, 5 * time.Second: announcePauseMax,
	} {
		synctest.Test(t, func(t *testing.T) {
			r, c := crying(t)
			c.takes = takes
			r.api.setPod(pod("web", "u1", "n1"))
			r.api.setPod(pod("db", "u2", "n1"))
			r.run()
			time.Sleep(time.Minute)
			wantDone(t, r.attaching(t.Context(), ref("web", "u1"), addrA))
			time.Sleep(takes)
			c.want(t, "the first pod, at once", "", "web/u1=10.244.1.5")
			wantDone(t, r.attaching(t.Context(), ref("db", "u2"), addrB))
			time.Sleep(want + takes - time.Millisecond)
			c.want(t, "the second one, before the pause is over")
			time.Sleep(time.Millisecond)
			c.want(t, "the second one, after it", "db/u2=10.244.1.6 web/u1=10.244.1.5")
		})
	}
}

func TestRestoredPodsAreNotAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := crying(t)
		finished := pod("job", "u2", "n1")
		finished.Finished = true
		r.api.setPod(pod("web", "u1", "n1", addrA))
		r.api.setPod(finished)
		r.api.setPod(pod("db", "u3", "n1"))
		r.Restore([]Attachment{
			{ref("web", "u1"), addrs(addrA)}, {ref("job", "u2"), addrs(addrB)}, {ref("db", "u3"), addrs(far)}, {Addresses: addrs(far.Next())},
		})
		r.run()
		c.want(t, "of those that an earlier daemon connected, what the API does not have", "db/u3=10.244.2.7")
	})
}

func TestAnnouncementsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := crying(t)
		r.run()
		c.want(t, "at the start", "")
		c.fail(errors.New("no server"))
		r.api.setPod(pod("web", "u1", "n1"))
		wantDone(t, r.attaching(t.Context(), ref("web", "u1"), addrA)) // the pod does not wait for it
		time.Sleep(announcePause)
		c.want(t, "while the API server is away", "failed: web/u1=10.244.1.5")
		c.fail(nil)
		time.Sleep(time.Minute)
		c.want(t, "when it is back, once", "web/u1=10.244.1.5")
	})
}

func addrs(a netip.Addr) []netip.Addr { return []netip.Addr{a} }
