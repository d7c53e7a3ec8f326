// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// serve answers on ports, and takes orders until ctx ends.
func serve(ctx context.Context, control string, ports []string) error {
	s, err := sniff()
	if err != nil {
		return err
	}
	for _, port := range ports {
		if err := answer(ctx, port); err != nil {
			return err
		}
	}
	o := &orders{ctx: ctx, flows: map[string]*flow{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /try", order(o.try))
	mux.HandleFunc("POST /flow", order(o.begin))
	mux.HandleFunc("POST /bombard", order(o.bombard))
	mux.HandleFunc("POST /course", order(o.flow))
	mux.HandleFunc("POST /seen", order(func(struct{}) (map[string]int, error) { return s.counts(), nil }))
	server := http.Server{Addr: control, Handler: mux, ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// order reads an order, and writes what came of it.
func order[Q, A any](carryOut func(Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a, err := carryOut(q)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if err := json.NewEncoder(w).Encode(a); err != nil {
			fmt.Fprintln(os.Stderr, "probe:", err)
		}
	}
}

// answer listens on a port by TCP and UDP. To who connects, or sends "?", it
// says its name and whom it sees; all else comes back as it is.
func answer(ctx context.Context, port string) error {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	u, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	context.AfterFunc(ctx, func() { l.Close(); u.Close() })
	go answerStreams(l)
	go answerPackets(u)
	return nil
}

func greeting(who net.Addr) []byte {
	name, _ := os.Hostname()
	return fmt.Appendf(nil, "%s %s\n", name, who)
}

func answerStreams(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			if _, err := conn.Write(greeting(conn.RemoteAddr())); err == nil {
				_, _ = io.Copy(conn, conn)
			}
		}()
	}
}

// answerPackets answers from the address that was asked: the kernel chooses it,
// since a pod has one of each family.
func answerPackets(u net.PacketConn) {
	packet := make([]byte, 2048)
	for {
		n, from, err := u.ReadFrom(packet)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for an answer
		}
		reply := packet[:n]
		if string(reply) == "?" {
			reply = greeting(from)
		}
		_, _ = u.WriteTo(reply, from)
	}
}

// orders are what serve does beside answering.
type orders struct {
	ctx context.Context

	mu      sync.Mutex // guards all below
	flows   map[string]*flow
	barrage context.CancelFunc // ends the bombardment
}

// Barrage is whom to send packets to, all the time. None: stop.
type Barrage struct {
	Targets []string `json:"targets"`
	Every   float64  `json:"everyMS"` // to each target, one UDP packet
}

func (o *orders) bombard(b Barrage) (struct{}, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.barrage != nil {
		o.barrage()
	}
	ctx, cancel := context.WithCancel(o.ctx)
	o.barrage = cancel
	u, err := net.ListenPacket("udp", ":0")
	if err != nil {
		return struct{}{}, err
	}
	context.AfterFunc(ctx, func() { u.Close() })
	period := time.Duration(b.Every * float64(time.Millisecond))
	for _, to := range b.Targets {
		addr, err := net.ResolveUDPAddr("udp", to)
		if err != nil {
			return struct{}{}, err
		}
		go every(ctx, period, func() { _, _ = u.WriteTo([]byte("?"), addr) })
		go every(ctx, period, func() {
			if conn, err := (&net.Dialer{Timeout: 10 * period}).DialContext(ctx, "tcp", to); err == nil {
				conn.Close()
			}
		})
	}
	return struct{}{}, nil
}
