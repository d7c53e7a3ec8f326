// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package identity

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sealane/sealane/internal/atomicfile"
	"github.com/sealane/sealane/keymgr"
)

const (
	wgKeyPrefix = "wg-"
	wgKeySuffix = ".key"
)

// WGKey is one generation of this node's WireGuard key.
type WGKey struct {
	// Generation is at least 1 and grows by one with each new key.
	Generation uint64
	Private    keymgr.PrivateKey
	Public     keymgr.PublicKey
	// Created is when the key was created, by this node's clock, to the second.
	Created time.Time
	// Asked names the operator's requests that this key answers; zero if there were none.
	Asked Asked
}

// Asked holds an operator's latest requests for a new key at the time a key was
// created. The key answers these requests even if the clock that wrote them was wrong.
type Asked struct {
	// Rotation is the time of the last request to rotate, in seconds since 1970; 0 means none.
	Rotation int64 `json:"rotationAsked,omitzero"`
	// Compromised is the time of the last report that the key is compromised, in seconds
	// since 1970; 0 means none.
	Compromised int64 `json:"compromisedAsked,omitzero"`
}

// WGKeys holds the generations on disk, one file each with mode 0600. A generation
// never changes: it is created once and removed once.
type WGKeys struct {
	dir   string
	clock func() time.Time

	mu   sync.Mutex // guards keys
	keys []WGKey    // oldest first
}

// wgKeyFile is the content of a generation's file.
type wgKeyFile struct {
	Generation uint64    `json:"generation"`
	Created    time.Time `json:"created"`
	PrivateKey string    `json:"privateKey"`
	Asked
}

func openWGKeys(dir string, clock func() time.Time) (*WGKeys, error) {
	names, err := filepath.Glob(filepath.Join(dir, wgKeyPrefix+"*"+wgKeySuffix))
	if err != nil {
		return nil, fmt.Errorf("list wireguard keys: %w", err)
	}
	w := &WGKeys{dir: dir, clock: clock}
	for _, name := range names {
		key, err := readWGKey(name)
		if err != nil {
			return nil, err
		}
		w.keys = append(w.keys, key)
	}
	slices.SortFunc(w.keys, func(a, b WGKey) int {
		if a.Generation < b.Generation {
			return -1
		}
		return 1
	})
	return w, nil
}

func readWGKey(path string) (WGKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return WGKey{}, fmt.Errorf("read wireguard key: %w", err)
	}
	key, err := parseWGKey(data)
	if err != nil {
		return WGKey{}, fmt.Errorf("read wireguard key %s: %w: %w (delete it to get a new generation)", path, keymgr.ErrCorrupt, err)
	}
	if filepath.Base(path) != wgKeyName(key.Generation) {
		return WGKey{}, fmt.Errorf("read wireguard key %s: %w: it holds generation %d", path, keymgr.ErrCorrupt, key.Generation)
	}
	return key, nil
}

func parseWGKey(data []byte) (WGKey, error) {
	var f wgKeyFile
	if err := json.Unmarshal(data, &f); err != nil {
		return WGKey{}, err
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(f.PrivateKey)
	if err != nil || len(raw) != 32 {
		return WGKey{}, errors.New("privateKey is not 32 bytes in base64")
	}
	return f.key(keymgr.PrivateKey(raw))
}

func (f wgKeyFile) key(private keymgr.PrivateKey) (WGKey, error) {
	public, err := private.Public()
	if err != nil {
		return WGKey{}, err
	}
	return WGKey{Generation: f.Generation, Private: private, Public: public, Created: f.Created, Asked: f.Asked}, nil
}

func wgKeyName(gen uint64) string {
	return wgKeyPrefix + strconv.FormatUint(gen, 10) + wgKeySuffix
}

// All returns all generations on disk, oldest first.
func (w *WGKeys) All() []WGKey {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.keys)
}

// Only returns the given generations, without those that are not on disk, oldest first.
func (w *WGKeys) Only(generations []uint64) []WGKey {
	return slices.DeleteFunc(w.All(), func(k WGKey) bool { return !slices.Contains(generations, k.Generation) })
}

// Generations returns the numbers of all generations on disk, oldest first.
func (w *WGKeys) Generations() (all []uint64) {
	for _, k := range w.All() {
		all = append(all, k.Generation)
	}
	return all
}

// Publics returns the public keys of all generations on disk, oldest first.
func (w *WGKeys) Publics() (all []keymgr.PublicKey) {
	for _, k := range w.All() {
		all = append(all, k.Public)
	}
	return all
}

// Ensure returns the newest generation and creates the first one if there is none.
func (w *WGKeys) Ensure() (WGKey, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.keys); n > 0 {
		return w.keys[n-1], nil
	}
	return w.createLocked(Asked{})
}

// Create creates the next generation. It is on disk when Create returns.
func (w *WGKeys) Create() (WGKey, error) { return w.CreateFor(Asked{}) }

// CreateFor creates the next generation as the answer to an operator's requests.
func (w *WGKeys) CreateFor(asked Asked) (WGKey, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.createLocked(asked)
}

// createLocked numbers the first generation by the clock, in seconds since 1970, and
// each later one by one more: a node that has lost its disk but not its Node object
// must not start below a generation that other nodes have seen.
func (w *WGKeys) createLocked(asked Asked) (WGKey, error) {
	now := w.clock().UTC().Truncate(time.Second)
	gen := uint64(max(now.Unix(), 1))
	if n := len(w.keys); n > 0 {
		gen = w.keys[n-1].Generation + 1
	}
	var private keymgr.PrivateKey
	if _, err := rand.Read(private[:]); err != nil {
		return WGKey{}, fmt.Errorf("generate wireguard key: %w", err)
	}
	// WireGuard clamps its keys. Store them clamped, so that they equal what a device shows.
	private[0] &= 0xf8
	private[31] = private[31]&0x7f | 0x40
	file := wgKeyFile{Generation: gen, Created: now, PrivateKey: base64.StdEncoding.EncodeToString(private[:]), Asked: asked}
	key, err := file.key(private)
	if err != nil {
		return WGKey{}, err
	}
	data, err := json.Marshal(file)
	if err != nil {
		return WGKey{}, fmt.Errorf("encode wireguard key: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(w.dir, wgKeyName(gen)), data, 0o600); err != nil {
		return WGKey{}, err
	}
	w.keys = append(w.keys, key)
	return key, nil
}

// replace creates the next generation and deletes all earlier ones. Users of an earlier
// one see that it is gone at their next call of All.
func (w *WGKeys) replace() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.createLocked(Asked{}); err != nil {
		return err
	}
	for len(w.keys) > 1 {
		if err := atomicfile.Remove(filepath.Join(w.dir, wgKeyName(w.keys[0].Generation))); err != nil {
			return err
		}
		w.keys = slices.Delete(w.keys, 0, 1)
	}
	return nil
}

// Remove deletes a generation. It returns ErrNoGeneration if the generation does not
// exist or is the newest, which would come back with the same number and another key.
func (w *WGKeys) Remove(generation uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.keys, func(k WGKey) bool { return k.Generation == generation })
	if i < 0 || i == len(w.keys)-1 {
		return fmt.Errorf("remove wireguard key: %w: %d is not an older generation", ErrNoGeneration, generation)
	}
	if err := atomicfile.Remove(filepath.Join(w.dir, wgKeyName(generation))); err != nil {
		return err
	}
	w.keys = slices.Delete(w.keys, i, i+1)
	return nil
}
