// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/sealane/sealane/cni/hostport"
	"github.com/sealane/sealane/internal/unixsocket"
)

const (
	// PluginType is the type of the plugin in a network configuration, and therefore the
	// name of its binary.
	PluginType = "sealane-cni"
	// DefaultSocket is where the daemon listens.
	DefaultSocket = "/run/sealane/cni.sock"
	// DefaultQueueDir is where the plugin keeps DELs that found no daemon.
	DefaultQueueDir = "/var/lib/sealane/cni-del"

	keyVersion      = "cniVersion"
	keyName         = "name"
	keySocket       = "socket"
	keyQueueDir     = "delQueueDir"
	keyPrevResult   = "prevResult"
	keyAttachments  = "cni.dev/valid-attachments"
	keyRuntime      = "runtimeConfig"
	keyPortmap      = "portmap"
	keyReserved     = "reservedHostPorts"
	remedyConflist  = "correct the network configuration in /etc/cni/net.d, or delete it: the node daemon writes it again"
	remedyOwnFields = "remove it; fields of its own are only " + keySocket + ", " + keyQueueDir + ", " + keyPortmap + " and " + keyReserved
)

// Config is the network configuration of the plugin.
type Config struct {
	// CNIVersion is the version of the specification that the runtime speaks.
	CNIVersion string
	// Name is the name of the network.
	Name string
	// Socket is where the daemon listens.
	Socket string
	// QueueDir is the directory for DELs that found no daemon.
	QueueDir string
	// Prev is the result that the runtime got from the ADD; nil if the runtime did not pass
	// it.
	Prev *types100.Result
	// Valid are the attachments that the runtime wants to keep, if ValidKnown is set.
	Valid      []AttachmentID
	ValidKnown bool
	// PortMappings are the pod's hostPorts, in the form of the runtime, and Portmap holds
	// the other settings for the portmap plugin; see package hostport.
	PortMappings []json.RawMessage
	Portmap      map[string]json.RawMessage
	// Reserved are ports that no pod may have as hostPort, written like 51871/udp.
	Reserved []string
}

// Versions returns the versions of the CNI specification that the plugin speaks.
func Versions() version.PluginInfo {
	return version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0")
}

// ParseConfig reads a network configuration. An unknown field is an error, because a user
// would believe that a silently ignored field works. Errors are of type Error, and name the
// field, the value and the remedy.
func ParseConfig(data []byte) (Config, error) {
	fields, err := splitConfig(data)
	if err != nil {
		return Config{}, err
	}
	cfg := defaultConfig()
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if err := cfg.set(key, fields[key]); err != nil {
			return Config{}, err
		}
	}
	if err := cfg.checkVersion(); err != nil {
		return Config{}, err
	}
	if cfg.Name == "" {
		return Config{}, invalid(types.ErrInvalidNetworkConfig, errors.New("name is missing"), remedyConflist)
	}
	return cfg, nil
}

// salvageConfig reads what it can from a network configuration and uses defaults for the
// rest: a DEL must not fail because somebody has broken the configuration since the ADD.
func salvageConfig(data []byte) Config {
	cfg := defaultConfig()
	fields, _ := splitConfig(data)
	for key, value := range fields {
		_ = cfg.set(key, value) // leaves cfg as it is on error
	}
	return cfg
}

func defaultConfig() Config {
	return Config{Socket: DefaultSocket, QueueDir: DefaultQueueDir}
}

// splitConfig splits the JSON object into its fields.
func splitConfig(data []byte) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	err := json.Unmarshal(data, &fields)
	if err == nil && fields == nil {
		err = errors.New("null")
	}
	if err != nil {
		return nil, invalid(types.ErrDecodingFailure,
			fmt.Errorf("network configuration is not a JSON object: %w", err), remedyConflist)
	}
	return fields, nil
}

// set sets one field. After an error c is unchanged.
func (c *Config) set(key string, raw json.RawMessage) error {
	switch key {
	case keyVersion:
		return setString(&c.CNIVersion, key, raw, func(string) error { return nil })
	case keyName:
		return setString(&c.Name, key, raw, validName)
	case keySocket:
		return setString(&c.Socket, key, raw, unixsocket.Check)
	case keyQueueDir:
		return setString(&c.QueueDir, key, raw, validDir)
	case keyPrevResult:
		return c.setPrev(raw)
	case keyAttachments:
		return c.setAttachments(raw)
	case keyRuntime:
		return c.setRuntime(raw)
	case keyPortmap:
		return decode(&c.Portmap, key, raw)
	case keyReserved:
		return decode(&c.Reserved, key, raw)
	case "type", "capabilities", "args":
		return nil // known to the specification, and irrelevant to the plugin
	case "ipam":
		return unsupported(key, raw, "remove it: pods get addresses from Node.spec.podCIDRs")
	case "dns":
		return unsupported(key, raw, "remove it: the kubelet configures the resolver of pods")
	}
	if strings.Contains(key, "/") {
		return nil // an extension of the runtime, prefixed with a domain of its own
	}
	return unsupported(key, raw, remedyOwnFields)
}

// decode reads a field into target, which is unchanged after an error.
func decode[T any](target *T, key string, raw json.RawMessage) error {
	var value T
	if err := json.Unmarshal(raw, &value); err != nil {
		return malformed(key, raw, err)
	}
	*target = value
	return nil
}

// checkVersion returns an error unless the plugin speaks the version of the runtime.
func (c *Config) checkVersion() error {
	known := Versions().SupportedVersions()
	if slices.Contains(known, c.CNIVersion) {
		return nil
	}
	return invalid(types.ErrIncompatibleCNIVersion, fmt.Errorf("%s is %q", keyVersion, c.CNIVersion),
		"use one of "+strings.Join(known, ", "))
}

// setPrev reads a result of any version since 0.3.0. The versions differ only in fields
// that this package does not use, so no conversion is needed.
func (c *Config) setPrev(raw json.RawMessage) error {
	if string(raw) == "null" {
		return nil
	}
	var prev types100.Result
	err := json.Unmarshal(raw, &prev)
	if err == nil && (slices.Contains(prev.IPs, nil) || slices.Contains(prev.Interfaces, nil) || slices.Contains(prev.Routes, nil)) {
		err = errors.New("it has a null in a list")
	}
	if err != nil {
		return malformed(keyPrevResult, raw, err)
	}
	prev.CNIVersion = types100.ImplementedSpecVersion
	c.Prev = &prev
	return nil
}

// setRuntime reads, from the runtime's data for capabilities, that of the one capability
// which the plugin declares.
func (c *Config) setRuntime(raw json.RawMessage) error {
	var runtime struct{ PortMappings []json.RawMessage }
	if err := json.Unmarshal(raw, &runtime); err != nil {
		return malformed(keyRuntime, raw, err)
	}
	c.PortMappings = runtime.PortMappings
	return nil
}

// hostPorts returns the call of the portmap plugin, found in path, for the pod.
func (c *Config) hostPorts(path string, prev types.Result) hostport.Call {
	return hostport.Call{Path: path, CNIVersion: c.CNIVersion, Network: c.Name, Settings: c.Portmap, Mappings: c.PortMappings, Prev: prev}
}

// toldPrev returns Prev in the version that the runtime speaks, or nil if there is none.
func (c *Config) toldPrev() types.Result {
	if c.Prev == nil {
		return nil
	}
	prev, err := c.Prev.GetAsVersion(c.CNIVersion)
	if err != nil { // a DEL whose configuration is broken
		return nil
	}
	return prev
}

// setAttachments reads the list that comes with GC. Null differs from an empty list: it
// means that the runtime did not say which attachments are valid.
func (c *Config) setAttachments(raw json.RawMessage) error {
	var list []types.GCAttachment
	if err := json.Unmarshal(raw, &list); err != nil {
		return malformed(keyAttachments, raw, err)
	}
	c.ValidKnown = list != nil
	for _, a := range list {
		c.Valid = append(c.Valid, AttachmentID{ContainerID: a.ContainerID, IfName: a.IfName})
	}
	return nil
}

// setString sets *field to the string in raw if it is valid.
func setString(field *string, key string, raw json.RawMessage, valid func(string) error) error {
	var s string
	err := json.Unmarshal(raw, &s)
	if err == nil {
		err = valid(s)
	}
	if err != nil {
		return malformed(key, raw, err)
	}
	*field = s
	return nil
}

func validName(s string) error {
	if err := utils.ValidateNetworkName(s); err != nil {
		return errors.New("use letters, digits, dots, hyphens and underscores")
	}
	return nil
}

func validDir(s string) error {
	if !filepath.IsAbs(s) || strings.ContainsRune(s, 0) {
		return errors.New("it must be an absolute path")
	}
	return nil
}

// malformed returns the error for a value that does not fit its field.
func malformed(key string, raw json.RawMessage, cause error) error {
	return invalid(types.ErrInvalidNetworkConfig, fmt.Errorf("%s is %s: %w", key, shorten(raw), cause), remedyConflist)
}

// unsupported returns the error for a field that must not be present.
func unsupported(key string, raw json.RawMessage, remedy string) error {
	return invalid(types.ErrUnsupportedField, fmt.Errorf("unsupported field %q: %s", key, shorten(raw)), remedy)
}

// shorten keeps long values from flooding the runtime's log.
func shorten(raw json.RawMessage) string {
	const enough = 100
	if len(raw) <= enough {
		return string(raw)
	}
	return strings.ToValidUTF8(string(raw[:enough]), "") + "…"
}
