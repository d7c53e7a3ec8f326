// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import (
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Filter selects records: those that match all of its fields. An empty field matches
// everything.
type Filter struct {
	Namespace string `json:"namespace,omitempty"` // of the pod at either end
	Pod       string `json:"pod,omitempty"`       // at either end, as namespace/name
	To        string `json:"to,omitempty"`        // pod or service (namespace/name), node, address or range of the destination
	Port      uint   `json:"port,omitempty"`      // of the destination, or of the service
	Protocol  string `json:"protocol,omitempty"`
	Verdict   string `json:"verdict,omitempty"`
}

// Register puts the flags on fs; call Validate after it has parsed.
func (f *Filter) Register(fs *flag.FlagSet) {
	fs.StringVar(&f.Namespace, "pod-namespace", "", "show only flows with a pod of this namespace at either end")
	fs.StringVar(&f.Pod, "pod", "", "show only flows with this pod (namespace/name) at either end")
	fs.StringVar(&f.To, "to", "", "show only flows to this pod or service (namespace/name), node, address or range of addresses")
	fs.UintVar(&f.Port, "port", 0, "show only flows to this port, of the destination or of the service")
	fs.StringVar(&f.Protocol, "protocol", "", "show only flows of this protocol: tcp, udp, sctp, icmp, icmpv6 or a number")
	fs.StringVar(&f.Verdict, "verdict", "", "show only flows with this verdict: allowed, denied or dry_run_denied")
}

// Args returns the flags, as Register understands them.
func (f Filter) Args() []string {
	var args []string
	f.each(func(name, value string) { args = append(args, "--"+name+"="+value) })
	return args
}

func (f Filter) each(do func(name, value string)) {
	port := ""
	if f.Port != 0 {
		port = fmt.Sprint(f.Port)
	}
	for _, flag := range [][2]string{
		{"pod-namespace", f.Namespace}, {"pod", f.Pod}, {"to", f.To}, {"port", port}, {"protocol", f.Protocol}, {"verdict", f.Verdict},
	} {
		if flag[1] != "" {
			do(flag[0], flag[1])
		}
	}
}

// Validate returns an error, which wraps ErrFilter, if a field cannot match anything.
func (f Filter) Validate() error {
	bad := func(name string, value any, remedy string) error {
		return fmt.Errorf("%w: --%s=%v: %s", ErrFilter, name, value, remedy)
	}
	_, known := ParseProtocol(f.Protocol)
	switch {
	case f.Port > 1<<16-1:
		return bad("port", f.Port, "use 1 to 65535")
	case f.Pod != "" && strings.Count(f.Pod, "/") != 1:
		return bad("pod", f.Pod, "write namespace/name")
	case f.Protocol != "" && !known:
		return bad("protocol", f.Protocol, "use tcp, udp, sctp, icmp, icmpv6 or a number up to 255")
	case f.Verdict != "" && !slices.Contains([]string{Allowed, Denied, DryRunDenied}, f.Verdict):
		return bad("verdict", f.Verdict, "use allowed, denied or dry_run_denied")
	}
	return nil
}

// takes matches what the data path itself has reported, which costs little.
func (f Filter) takes(flow Flow) bool {
	if f.Protocol != "" {
		if number, ok := ParseProtocol(f.Protocol); !ok || number != flow.Protocol {
			return false
		}
	}
	port := uint16(f.Port)
	return (f.Verdict == "" || f.Verdict == flow.Verdict) &&
		(f.Port == 0 || hasPorts(flow.Protocol) && (port == flow.Destination.Port() || port == flow.Frontend.Port()))
}

// wants matches the names.
func (f Filter) wants(r Record) bool {
	inNamespace := func(e End) bool { return strings.HasPrefix(e.Pod, f.Namespace+"/") }
	return (f.Namespace == "" || inNamespace(r.Source) || inNamespace(r.Destination)) &&
		(f.Pod == "" || r.Source.Pod == f.Pod || r.Destination.Pod == f.Pod) &&
		(f.To == "" || f.leadsTo(r))
}

func (f Filter) leadsTo(r Record) bool {
	if f.To == r.Destination.Pod || f.To == r.Destination.Node && r.Destination.Pod == "" || r.Service != nil && f.To == r.Service.Name {
		return true
	}
	within, err := netip.ParsePrefix(f.To)
	if err != nil {
		a, err := netip.ParseAddr(f.To)
		if err != nil {
			return false
		}
		within = netip.PrefixFrom(a, a.BitLen())
	}
	return within.Contains(r.Destination.Address) || r.Service != nil && within.Contains(r.Service.Address.Addr())
}
