// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bundle

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sealane/sealane/keymgr"
)

// ErrNotVouched: the published bundle has other roots than the trusted one, and nobody who
// is trusted says that they are good.
var ErrNotVouched = errors.New("the published trust bundle is not vouched for by a root that this node trusts")

// Trusted is what a node trusts. The zero value is a node that has never had a bundle.
type Trusted struct {
	Roots []*x509.Certificate
	// Number is that of the newest step that was taken; 0: none was.
	Number uint64
}

// Published is what the node is shown.
type Published struct {
	Roots   []*x509.Certificate
	History History // nil: the authority is older than signed bundles
}

// Reader is what a node knows besides.
type Reader struct {
	TrustDomain string
	Now         time.Time
	// Accepted are hashes of root certificates that the operator vouches for.
	Accepted []keymgr.Hash
}

// Take returns what the node trusts after it has seen a bundle. It takes other roots than it
// trusts only
//
//   - on first contact, when it trusts none;
//   - if the history leads to exactly these roots, each step being signed by an issuer below a
//     root that the steps before have made trusted, with a number above the last one;
//   - if there are new roots, and the operator has accepted each of them.
//
// Otherwise it returns what the node trusts already, with ErrNotVouched.
func (r Reader) Take(have Trusted, p Published) (Trusted, error) {
	if keymgr.CheckNumber(have.Number, r.Now) != nil {
		have.Number = 0 // taken with the clock ahead: it bars nothing
	}
	want := hashes(p.Roots)
	trusted := hashes(have.Roots)
	if len(trusted) == 0 {
		_, number, _ := r.follow(Trusted{Roots: p.Roots}, p)
		return Trusted{Roots: p.Roots, Number: number}, nil
	}
	got, number, err := r.follow(have, p)
	switch {
	case slices.Equal(got, want):
		return Trusted{Roots: p.Roots, Number: number}, nil
	case slices.Equal(trusted, want):
		return have, nil
	case r.accepts(trusted, want):
		_, number, _ := r.follow(Trusted{Roots: p.Roots}, p)
		return Trusted{Roots: p.Roots, Number: number}, nil
	}
	return have, fmt.Errorf("%w: it adds %s and drops %s: %w; %s", ErrNotVouched,
		names(without(want, trusted), ", "), names(without(trusted, want), ", "), err, remedy(trusted, want))
}

// accepts reports whether there are new roots and the operator has accepted all of them.
func (r Reader) accepts(trusted, want []keymgr.Hash) bool {
	added := without(want, trusted)
	return len(added) > 0 && len(without(added, r.Accepted)) == 0
}

// follow takes the steps that lead on from what is trusted. It returns the roots and the
// number at which it arrives, and why it gets no further.
func (r Reader) follow(have Trusted, p Published) (at []keymgr.Hash, number uint64, err error) {
	known := certificates(have.Roots, p)
	at, number, err = hashes(have.Roots), have.Number, errNoSignature
	for _, signed := range p.History[max(0, len(p.History)-MaxSteps):] {
		s, stepErr := r.verify(signed, at, known)
		if stepErr == nil && s.Number <= number {
			stepErr = fmt.Errorf("%w: %d after %d", keymgr.ErrReplay, s.Number, number)
		}
		if err = stepErr; err == nil {
			at, number = s.Roots, s.Number
		}
	}
	if err == nil {
		err = errors.New("what is signed is another bundle")
	}
	return at, number, err
}

// verify reads a step that an issuer below one of the roots has signed.
func (r Reader) verify(signed keymgr.Signed, roots []keymgr.Hash, known map[keymgr.Hash]*x509.Certificate) (step, error) {
	s, err := parseStep(signed.Payload)
	if err != nil {
		return s, err
	}
	if s.TrustDomain != r.TrustDomain {
		return s, fmt.Errorf("%w: %q instead of %q", keymgr.ErrTrustDomain, s.TrustDomain, r.TrustDomain)
	}
	if err := keymgr.CheckNumber(s.Number, r.Now); err != nil {
		return s, err
	}
	pool := x509.NewCertPool()
	for _, h := range roots {
		if c := known[h]; c != nil {
			pool.AddCert(c)
		}
	}
	scene := keymgr.IssuerScene{Roots: pool, TrustDomain: r.TrustDomain, At: r.Now}
	return s, scene.Verify(keymgr.ContextBundle, signed)
}

// certificates returns every certificate that may be one of the roots, by its hash: a step
// names roots by hash, and one that has come and gone meanwhile is in a chain only. Whether
// it is trusted, the steps say.
func certificates(trusted []*x509.Certificate, p Published) map[keymgr.Hash]*x509.Certificate {
	known := map[keymgr.Hash]*x509.Certificate{}
	for _, c := range slices.Concat(trusted, p.Roots) {
		known[sha256.Sum256(c.Raw)] = c
	}
	for _, s := range p.History[max(0, len(p.History)-MaxSteps):] {
		if c, err := x509.ParseCertificate(top(s.Chain)); err == nil && c.IsCA {
			known[sha256.Sum256(c.Raw)] = c
		}
	}
	return known
}

func without(all, some []keymgr.Hash) []keymgr.Hash {
	return slices.DeleteFunc(slices.Clone(all), func(h keymgr.Hash) bool { return slices.Contains(some, h) })
}

// remedy says what an operator can do.
func remedy(trusted, want []keymgr.Hash) string {
	if added := without(want, trusted); len(added) > 0 {
		return "if the new roots are yours, accept them with keys.acceptedRoots (sealaned --accepted-roots=" + names(added, ",") + ")"
	}
	return "roots are dropped only when the controller says so: is it of this version?"
}

func names(all []keymgr.Hash, by string) string {
	if len(all) == 0 {
		return "none"
	}
	var texts []string
	for _, h := range all {
		texts = append(texts, h.String())
	}
	return strings.Join(texts, by)
}
