// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"encoding/json"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// MaxMessage bounds a request and a response, in bytes. The largest legitimate message is
// the GC of a full node: a few hundred attachments of about 100 bytes each.
const MaxMessage = 1 << 20

// Command is a CNI operation as CNI_COMMAND names it.
type Command string

// The operations that reach the daemon; the plugin answers VERSION itself.
const (
	CommandAdd    Command = "ADD"
	CommandDel    Command = "DEL"
	CommandCheck  Command = "CHECK"
	CommandStatus Command = "STATUS"
	CommandGC     Command = "GC"
)

// Request is what the plugin sends to the daemon: the environment of the CNI
// call and the network configuration as it was read.
type Request struct {
	Command     Command         `json:"command"`
	ContainerID string          `json:"containerID,omitempty"`
	Netns       string          `json:"netns,omitempty"`
	IfName      string          `json:"ifName,omitempty"`
	Args        string          `json:"args,omitempty"`
	Path        string          `json:"path,omitempty"`
	Config      json.RawMessage `json:"config,omitempty"`
}

// Response is the daemon's answer: a result of ADD, an error, or neither, which means
// success of any other command.
type Response struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  *types.Error    `json:"error,omitempty"`
}

// AttachmentID names an attachment: the pair that is unique on a node.
type AttachmentID struct {
	ContainerID, IfName string
}

// PodRef names the pod of an attachment, as the kubelet passes it in CNI_ARGS.
type PodRef struct {
	Namespace, Name, UID string
}

// String returns namespace/name.
func (p PodRef) String() string { return p.Namespace + "/" + p.Name }

// IsZero reports whether the runtime named no pod.
func (p PodRef) IsZero() bool { return p == PodRef{} }

// Attachment is one device in one pod, as an ADD, CHECK or DEL describes it.
type Attachment struct {
	// ContainerID is the runtime's name of the sandbox.
	ContainerID string
	// IfName is the name of the device inside the pod.
	IfName string
	// Netns is the path of the pod's network namespace. On DEL it may be empty, or name a
	// missing file.
	Netns string
	// Network is the name of the network configuration.
	Network string
	// Pod is zero if the runtime named no pod (a runtime that does not serve a kubelet).
	Pod PodRef
	// Prev is the result of the ADD: set on CHECK, and on DEL if the runtime has kept it;
	// else nil.
	Prev *types100.Result
}

// ID returns the pair that names the attachment.
func (a Attachment) ID() AttachmentID {
	return AttachmentID{ContainerID: a.ContainerID, IfName: a.IfName}
}
