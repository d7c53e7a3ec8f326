// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sealane/sealane/internal/keylock"
)

const (
	// DefaultReuseDelay is how long a released address is not given out again, unless
	// Options say otherwise. It covers the lifetime of ARP and neighbour entries in state
	// REACHABLE and of short-lived answers of resolvers.
	DefaultReuseDelay = 30 * time.Second
	// DefaultGrace is how old a lease must be before it can be stale, unless Options say
	// otherwise: longer than any ADD takes, and than a view of the live pods lags.
	DefaultGrace = 5 * time.Minute
)

// Options are the choices of an Allocator. The zero value means the defaults.
type Options struct {
	// ReuseDelay is how long a released address is not given out again; 0 means
	// DefaultReuseDelay, and a negative value means no delay.
	ReuseDelay time.Duration
	// Grace is the age from which on a lease can be stale, and how long Missed wants an owner
	// to be away. Negative: at once.
	Grace time.Duration
	// Clock returns the present time; nil means time.Now.
	Clock func() time.Time
	// Logger receives reports of damage in the store; nil discards them.
	Logger *slog.Logger
}

// withDefaults replaces zero values with defaults.
func (o Options) withDefaults() Options {
	if o.ReuseDelay == 0 {
		o.ReuseDelay = DefaultReuseDelay
	}
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Allocator leases the addresses of a node to its pods. It is safe for
// concurrent use; leases of different owners are written to disk in parallel.
type Allocator struct {
	store Store
	opts  Options

	owners keylock.Locks[Owner] // allows one call at a time for an owner; locked before mu
	mu     sync.Mutex           // guards the fields below; never held while the store syncs
	pools  []*Pool
	// refs counts the leases, held or resting, of each address that must not be given out,
	// whether or not a pool contains it.
	refs    map[netip.Addr]int
	held    map[Owner]holding
	resting []Lease
	// lastGiven holds the most recently leased addresses; the cursors of the pools resume
	// after them.
	lastGiven []netip.Addr
}

// holding is a lease that is not released.
type holding struct {
	Lease
	// touched is when the owner last asked for the lease, in this run of the daemon.
	touched time.Time
	// missed is when Missed first got a view without the owner; zero if the latest view had
	// it.
	missed time.Time
	// unclear means that a write failed: the store may hold something else.
	unclear bool
}

// Open returns the allocator of the leases kept in dir. The list of prefixes may be empty:
// Allocate then returns ErrNoPrefix until SetPrefixes supplies some.
func Open(dir string, prefixes []netip.Prefix, opts Options) (*Allocator, error) {
	opts = opts.withDefaults()
	store, err := NewFileStore(dir, opts.Logger)
	if err != nil {
		return nil, err
	}
	return New(store, prefixes, opts)
}

// New returns the allocator of the leases kept in store.
func New(store Store, prefixes []netip.Prefix, opts Options) (*Allocator, error) {
	contents, err := store.Load()
	if err != nil {
		return nil, fmt.Errorf("load leases: %w", err)
	}
	a := &Allocator{
		store: store,
		opts:  opts.withDefaults(),
		refs:  make(map[netip.Addr]int),
		held:  make(map[Owner]holding),
	}
	a.adopt(contents)
	return a, a.SetPrefixes(prefixes)
}

// SetPrefixes changes the prefixes that new leases come from, at most one per family.
// Leases outside of them stay until they are released. After an error (which wraps
// ErrPrefix) the prefixes are unchanged.
func (a *Allocator) SetPrefixes(prefixes []netip.Prefix) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	pools := make([]*Pool, 0, len(prefixes))
	for _, prefix := range prefixes {
		pool, err := a.poolLocked(prefix)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(pools, func(p *Pool) bool { return p.prefix.Addr().Is4() == prefix.Addr().Is4() }) {
			return fmt.Errorf("%w: %v has two prefixes of one family; a node has at most one of each", ErrPrefix, prefixes)
		}
		pools = append(pools, pool)
	}
	a.pools = pools
	return nil
}

// poolLocked returns the present pool of the prefix, or a new one that knows every address
// that must not be given out.
func (a *Allocator) poolLocked(prefix netip.Prefix) (*Pool, error) {
	for _, p := range a.pools {
		if p.Prefix() == prefix {
			return p, nil
		}
	}
	pool, err := NewPool(prefix)
	if err != nil {
		return nil, err
	}
	for addr := range a.refs {
		pool.Take(addr)
	}
	for _, addr := range a.lastGiven {
		pool.SetCursor(addr)
	}
	return pool, nil
}

// Allocate leases one address per family to owner, or returns the lease that owner already
// holds. When it returns no error, the lease survives a crash. It returns ErrExhausted or
// ErrNoPrefix, with a remedy, if no address is available.
func (a *Allocator) Allocate(owner Owner, meta Meta) (Lease, error) {
	if err := owner.validate(); err != nil {
		return Lease{}, err
	}
	defer a.claim(owner)()
	a.mu.Lock()
	defer a.mu.Unlock()

	if h, ok := a.held[owner]; ok {
		return a.renewLocked(h, meta)
	}
	addrs, err := a.reserveLocked()
	if err != nil {
		return Lease{}, err
	}
	now := a.opts.Clock()
	lease := Lease{Owner: owner, Meta: meta, Addresses: addrs, Created: now}
	if err := a.putLocked(lease); err != nil {
		a.abandonLocked(lease)
		return Lease{}, fmt.Errorf("keep lease of %s: %w", owner, err)
	}
	a.held[owner] = holding{Lease: lease, touched: now}
	return lease.clone(), nil
}

// renewLocked returns the lease that its owner asks for again, and stores it if the stored
// form may differ.
func (a *Allocator) renewLocked(h holding, meta Meta) (Lease, error) {
	h.touched, h.missed = a.opts.Clock(), time.Time{}
	a.held[h.Owner] = h
	if h.Meta == meta && !h.unclear {
		return h.clone(), nil
	}
	renewed := h.Lease
	renewed.Meta = meta
	if err := a.putLocked(renewed); err != nil {
		h.unclear = true
		a.held[h.Owner] = h
		return Lease{}, fmt.Errorf("keep lease of %s: %w", h.Owner, err)
	}
	a.held[h.Owner] = holding{Lease: renewed, touched: h.touched}
	return renewed.clone(), nil
}

// Release returns the lease of owner; its addresses are not given out until the reuse delay
// has passed. An owner without a lease is no error. After an error the lease is still held.
func (a *Allocator) Release(owner Owner) error {
	defer a.claim(owner)()
	a.mu.Lock()
	defer a.mu.Unlock()

	h, ok := a.held[owner]
	if !ok {
		return nil
	}
	lease := h.Lease
	lease.Released = a.opts.Clock()
	if err := a.putLocked(lease); err != nil {
		h.unclear = true
		a.held[owner] = h
		return fmt.Errorf("release lease of %s: %w", owner, err)
	}
	delete(a.held, owner)
	a.resting = append(a.resting, lease)
	return nil
}

// reserveLocked takes one address of each pool, or none at all.
func (a *Allocator) reserveLocked() ([]netip.Addr, error) {
	if len(a.pools) == 0 {
		return nil, fmt.Errorf("%w: Node.spec.podCIDRs is empty; let kube-controller-manager assign it "+
			"(--allocate-node-cidrs --cluster-cidr)", ErrNoPrefix)
	}
	a.sweepLocked()
	for _, p := range a.pools {
		if uint64(p.InUse()) >= p.Size() {
			return nil, a.exhaustedLocked(p)
		}
	}
	addrs := make([]netip.Addr, len(a.pools))
	for i, p := range a.pools {
		addrs[i], _ = p.Next() // there is one: the loop above has checked
	}
	a.holdLocked(addrs)
	a.lastGiven = addrs
	return addrs, nil
}

// exhaustedLocked returns an error that says what fills the pool, and what to do.
func (a *Allocator) exhaustedLocked(p *Pool) error {
	s := a.statsLocked(p)
	return fmt.Errorf("%w: pool %s has %d addresses, %d in use, of which %d were released less than %v ago; "+
		"wait for those, delete pods of this node, or lower the kubelet's maxPods or enlarge the node's podCIDR "+
		"(kube-controller-manager --node-cidr-mask-size)",
		ErrExhausted, s.Prefix, s.Size, s.InUse, s.Resting, a.opts.ReuseDelay)
}

// sweepLocked frees the addresses whose reuse delay has passed.
func (a *Allocator) sweepLocked() {
	now := a.opts.Clock()
	a.resting = slices.DeleteFunc(a.resting, func(l Lease) bool {
		if now.Sub(l.Released) < a.opts.ReuseDelay {
			return false
		}
		// The file must go before the addresses are free, because it is named after them.
		if err := a.store.Delete(l.Addresses); err != nil {
			a.opts.Logger.Error("cannot delete a released lease; its addresses stay unavailable",
				logAddresses, l.Addresses, logError, err)
			return false
		}
		a.dropLocked(l.Addresses)
		return true
	})
}

// abandonLocked undoes the reservation of a lease that could not be stored and that nobody
// was told of. If the store cannot delete it either, its addresses stay taken until a
// restart finds out what the store holds.
func (a *Allocator) abandonLocked(l Lease) {
	if err := a.store.Delete(l.Addresses); err != nil {
		a.opts.Logger.Error("cannot delete a lease that was not given; its addresses are not given out until the next start",
			logAddresses, l.Addresses, logError, err)
		return
	}
	a.dropLocked(l.Addresses)
}

// holdLocked adds one reference to each address.
func (a *Allocator) holdLocked(addrs []netip.Addr) {
	for _, addr := range addrs {
		a.refs[addr]++
	}
}

// dropLocked removes one reference from each address, and frees those that had no other.
func (a *Allocator) dropLocked(addrs []netip.Addr) {
	for _, addr := range addrs {
		a.refs[addr]--
		if a.refs[addr] > 0 {
			continue
		}
		delete(a.refs, addr)
		for _, p := range a.pools {
			p.Free(addr)
		}
	}
}

// putLocked writes the lease with mu released, so that syncing the disk for one owner does
// not delay the others. The caller has claimed the owner.
func (a *Allocator) putLocked(l Lease) error {
	a.mu.Unlock()
	defer a.mu.Lock()
	return a.store.Put(l)
}

// claim waits until no other call works on owner, and keeps others out until release is
// called. Such a call ends when the disk has answered, so no caller needs to give up.
func (a *Allocator) claim(owner Owner) (release func()) {
	release, _ = a.owners.Lock(context.Background(), owner) // fails only with the context
	return release
}
