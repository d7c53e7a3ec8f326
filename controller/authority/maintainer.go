// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package authority

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/rootchange"
)

const (
	// renewPeriod is the time between checks whether the intermediate is due.
	renewPeriod = time.Minute
	// callTimeout bounds each call of the CA or the API server.
	callTimeout = 30 * time.Second
)

// CA is the part of the certificate authority that the Maintainer drives.
type CA interface {
	Renew(ctx context.Context) error
	Advance(ctx context.Context, f rootchange.Fleet) (moved bool, err error)
	Status() (ca.Status, error)
	Bundle() []byte
}

// Publisher publishes the trust bundle and what belongs to it.
type Publisher interface {
	PublishTrust(ctx context.Context, t cluster.Trust) error
}

// Maintainer renews the CA, moves a change of roots forward and publishes the
// trust bundle. Its exported fields are set before the first [Maintainer.Pass].
type Maintainer struct {
	CA        CA
	Publisher Publisher
	Mode      Mode
	Metrics   *Metrics
	Log       *slog.Logger
	Clock     func() time.Time

	// renewed is the time of the last check whether the intermediate is due.
	renewed time.Time
	// wanted is set once the log says that the offline root is needed.
	wanted bool
	// badRequest is the unreadable value of the annotation that was logged last.
	badRequest string
}

// Pass does once what is due. A part that fails does not keep the others from
// running; Pass returns all errors.
func (m *Maintainer) Pass(ctx context.Context, s cluster.Snapshot) error {
	return errors.Join(m.renew(ctx), m.advance(ctx, s), m.publish(ctx, s))
}

// renew lets the CA replace its intermediate when that is due, long before the
// end of the intermediate could shorten the life of a node certificate.
func (m *Maintainer) renew(ctx context.Context) error {
	if m.Clock().Sub(m.renewed) < renewPeriod {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := m.CA.Renew(ctx); err != nil {
		return err
	}
	status, err := m.CA.Status()
	if err != nil {
		return err
	}
	m.renewed = m.Clock()
	m.Metrics.setValidity(status)
	if status.RootWanted && !m.wanted {
		m.Log.Error("the intermediate is due and the root's key is offline: bring it back with sealane ca import-root, or replace the provided intermediate",
			keyUntil, status.Intermediate.NotAfter)
	}
	m.wanted = status.RootWanted
	return nil
}

// advance moves a change of roots forward. The same pass publishes the result,
// or the next leader does.
func (m *Maintainer) advance(ctx context.Context, s cluster.Snapshot) error {
	f := fleet(s)
	f.Request = m.requestedAt(s.Trust.Request)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	moved, err := m.CA.Advance(ctx, f)
	if err != nil {
		return err
	}
	status, err := m.CA.Status()
	if err != nil {
		return err
	}
	waits := status.Stage.Waits(f.Nodes, m.Clock())
	m.Metrics.setRotation(status, len(waits))
	if moved {
		m.Log.Info("change of roots entered a new phase", keyPhase, status.Stage.Phase, keySerial, status.Root.Serial, keyUntil, status.Root.NotAfter)
	}
	return nil
}

// fleet returns what a change of roots depends on. A NodeKey whose node is gone,
// or was replaced by a node of the same name, delays nothing: it is about to be
// removed.
func fleet(s cluster.Snapshot) rootchange.Fleet {
	var f rootchange.Fleet
	for _, node := range s.Nodes {
		if s.Claims[node.Name] != node.UID {
			continue
		}
		f.Nodes = append(f.Nodes, rootchange.NodeReport{
			Name: node.Name, Ready: node.Ready, BundleHash: s.Reports[node.Name], Chain: s.NodeKeys[node.Name].Chain,
		})
	}
	return f
}

// requestedAt parses the time at which somebody asked for a new root. A value
// that it cannot parse is logged once and asks for nothing.
func (m *Maintainer) requestedAt(text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil && text != m.badRequest {
		m.Log.Warn("ignoring annotation: it is not a time in RFC 3339 format", keyAnnotation, cluster.RotateRootAnnotation, keyError, err)
	}
	if m.badRequest = ""; err != nil {
		m.badRequest = text
	}
	return t
}

// publish restores the published trust bundle if it differs from the CA's,
// whoever changed it.
func (m *Maintainer) publish(ctx context.Context, s cluster.Snapshot) error {
	want, err := m.trust()
	if err != nil {
		return err
	}
	have := s.Trust
	if bytes.Equal(bytes.TrimSpace(want.Bundle), s.Bundle) && bytes.Equal(want.History, have.History) && bytes.Equal(want.Renewal, have.Renewal) && bytes.Equal(want.Authority, have.Authority) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return m.Publisher.PublishTrust(ctx, want)
}

func (m *Maintainer) trust() (cluster.Trust, error) {
	t := cluster.Trust{Bundle: m.CA.Bundle()}
	status, err := m.CA.Status()
	if err != nil {
		return t, err
	}
	t.History = status.History
	if status.Window != nil {
		if t.Renewal, err = status.Window.Encode(); err != nil {
			return t, err
		}
	}
	t.Authority, err = status.Account(string(m.Mode)).Encode()
	return t, err
}
