// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podnet

import (
	"errors"
	"sync"

	"github.com/sealane/sealane/internal/nl"
)

// DoomedGroup is the device group of pods' devices that are about to be deleted.
const DoomedGroup = DeviceGroup + 1

// Remover disconnects pods. Pods that come while it deletes a device wait, and are then
// deleted together: the kernel takes 17 ms to delete one pair of devices, nearly all of it
// waiting, and 30 ms for thirty; meanwhile nobody can change a device.
type Remover struct {
	host *nl.Handle
	mu   sync.Mutex // held while the kernel deletes
}

// NewRemover returns a Remover for pods of the host.
func NewRemover(host *nl.Handle) *Remover { return &Remover{host: host} }

// Disconnect deletes the pod's device, and with it all routes and neighbours. A missing
// device is no error.
func (r *Remover) Disconnect(hostIfName string) error {
	if err := validHostName(hostIfName); err != nil {
		return err
	}
	link, err := r.host.LinkByName(hostIfName)
	if err == nil {
		err = r.host.SetLink(link.Index, nl.LinkSettings{Group: DoomedGroup})
	}
	if errors.Is(err, nl.ErrNotFound) { // missing, or just deleted with the pod's namespace
		return nil
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.host.LinkByIndex(link.Index); errors.Is(err, nl.ErrNotFound) {
		return nil // another caller has deleted it
	}
	return r.host.DeleteGroup(DoomedGroup)
}
