// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/sealane/sealane/policy"
)

// SocketName is the name of the socket in the daemon's folder of sockets.
const SocketName = "observe.sock"

// Paths of what is served.
const (
	pathVerdicts = "/verdicts"
	pathExplain  = "/explain"
)

// Server answers on the socket.
type Server struct {
	Hub      *Hub
	Observer *Observer
	// Tables reads the policy tables that are in force.
	Tables func() (policy.Tables, error)
	Logger *slog.Logger
}

// Serve answers requests on l until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathVerdicts, s.verdicts)
	mux.HandleFunc("GET "+pathExplain, s.explain)
	return mux
}

// verdicts streams records as lines of JSON.
func (s *Server) verdicts(w http.ResponseWriter, r *http.Request) {
	var f Filter
	err := json.Unmarshal([]byte(r.URL.Query().Get("filter")), &f)
	if err == nil {
		err = f.Validate()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	flusher := http.NewResponseController(w)
	if err := flusher.Flush(); err != nil {
		return // nobody listens
	}
	lines := json.NewEncoder(w)
	err = s.Hub.Read(r.Context(), s.Observer, f, func(record Record) error {
		return errors.Join(lines.Encode(record), flusher.Flush())
	})
	if err != nil && r.Context().Err() == nil {
		s.Logger.Warn("stream of verdicts has ended", "error", err)
	}
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	x, err := trafficOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	tables, err := s.Tables()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	o := s.Observer
	answer := Explain(tables, x, Here{
		Node: o.Node, Addresses: o.Rules.NodeAddresses(o.Node),
		Pod: func(a netip.Addr) bool {
			_, guarded := tables.Endpoints[a]
			pod, known := o.Names.PodAt(a)
			return guarded || known && pod.Node == o.Node
		},
	})
	answer.Service, _ = o.Names.ServiceAt(x.To)
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		s.Logger.Debug("explanation not sent", "error", err)
	}
}

func trafficOf(r *http.Request) (x policy.Traffic, err error) {
	query := r.URL.Query()
	var errs [4]error
	x.From, errs[0] = netip.ParseAddr(query.Get("from"))
	x.To, errs[1] = netip.ParseAddr(query.Get("to"))
	protocol, known := ParseProtocol(query.Get("protocol"))
	if !known {
		errs[2] = fmt.Errorf("protocol %q is not known", query.Get("protocol"))
	}
	port, err := strconv.ParseUint(query.Get("port"), 10, 16)
	errs[3] = err
	x.Protocol, x.Port = protocol, uint16(port)
	return x, errors.Join(errs[:]...)
}
