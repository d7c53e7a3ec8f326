// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containernetworking/cni/pkg/ns"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/sealane/sealane/cni/hostport"
)

// remedyDaemon says what to check when the daemon cannot be reached.
const remedyDaemon = "check that the sealane-agent pod of this node runs: " +
	"kubectl -n sealane-system get pods -o wide"

// Plugin is the behaviour of the plugin binary.
type Plugin struct {
	// Stdout receives the result of ADD for the runtime.
	Stdout io.Writer
	// Stderr receives warnings about faults that did not make a command fail.
	Stderr io.Writer
}

// Funcs returns the commands in the form that the CNI library dispatches to.
func (p Plugin) Funcs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, Status: p.status, GC: p.gc}
}

// add asks the daemon to connect the pod, and prints the result in the version that the
// runtime speaks.
func (p Plugin) add(args *skel.CmdArgs) error {
	if own, _ := ns.CheckNetNS(args.Netns); own {
		return toWire(invalid(types.ErrInvalidNetNS,
			fmt.Errorf("CNI_NETNS is %q: this is the network namespace of the host", args.Netns),
			"a pod with host network needs no CNI; see how the runtime sets the CNI environment"))
	}
	cfg, response, err := p.ask(CommandAdd, args)
	if err == nil {
		// At the next drain, an earlier DEL would disconnect the pod that is connected now.
		err = Queue{Dir: cfg.QueueDir}.Remove(request(CommandAdd, args).id())
	}
	if err != nil {
		return toWire(err)
	}
	var result types100.Result
	if err := json.Unmarshal(response.Result, &result); err != nil {
		return toWire(fmt.Errorf("read the daemon's result: %w", err))
	}
	converted, err := result.GetAsVersion(cfg.CNIVersion)
	if err != nil {
		return toWire(fmt.Errorf("convert the result to version %s: %w", cfg.CNIVersion, err))
	}
	ports := cfg.hostPorts(args.Path, converted)
	if err := ports.Do(context.Background(), string(CommandAdd)); err != nil {
		err = errors.Join(err, ports.Do(context.Background(), string(CommandDel)))
		p.disconnect(cfg, args)
		return toWire(err)
	}
	return converted.PrintTo(p.Stdout)
}

// check asks the daemon to compare the pod's network with what ADD made.
func (p Plugin) check(args *skel.CmdArgs) error {
	cfg, _, err := p.ask(CommandCheck, args)
	if err == nil {
		err = cfg.hostPorts(args.Path, cfg.toldPrev()).Do(context.Background(), string(CommandCheck))
	}
	return errorOrNil(err)
}

// gc asks the daemon to remove attachments that the runtime does not know.
func (p Plugin) gc(args *skel.CmdArgs) error {
	_, _, err := p.ask(CommandGC, args)
	return errorOrNil(err)
}

// status asks whether an ADD would work. No answer means no.
func (p Plugin) status(args *skel.CmdArgs) error {
	_, _, err := p.ask(CommandStatus, args)
	var own *Error
	if errors.As(err, &own) && own.Code == types.ErrTryAgainLater {
		own.Code = types.ErrPluginNotAvailable
	}
	return errorOrNil(err)
}

// del asks the daemon to disconnect the pod, and succeeds even without a daemon: a pod
// whose DEL fails can never be deleted. Only hostPorts make it fail, before anything else,
// and the runtime tries again: traffic for a port that stays mapped would reach the next
// pod with the address.
func (p Plugin) del(args *skel.CmdArgs) error {
	cfg := salvageConfig(args.StdinData)
	if err := cfg.hostPorts(args.Path, cfg.toldPrev()).Do(context.Background(), string(CommandDel)); err != nil {
		return toWire(err)
	}
	p.disconnect(cfg, args)
	return nil
}

// disconnect asks the daemon to disconnect the pod. If that is not possible now, the queue
// keeps the request. If the queue cannot keep it, the daemon finds the attachment later,
// because no live pod has it.
func (p Plugin) disconnect(cfg Config, args *skel.CmdArgs) {
	client, r := Client{Socket: cfg.Socket}, request(CommandDel, args)
	err := deliverOrQueue(r, Queue{Dir: cfg.QueueDir}, func() error { return deliver(client, r) })
	if err != nil {
		_, _ = fmt.Fprintf(p.Stderr, "sealane-cni: DEL goes on without the runtime: %v\n", err)
	}
}

// deliverOrQueue lets try carry the DEL out, or queues it. Its error says why the DEL was
// not carried out, or what is left to do.
func deliverOrQueue(r Request, queue Queue, try func() error) error {
	first := try()
	if first == nil {
		return nil
	}
	if err := queue.Put(r); err != nil {
		return errors.Join(first, err)
	}
	// The daemon may have begun to listen, and drained the queue, just before the request
	// was in it.
	if !errors.Is(first, ErrUnreachable) || try() != nil {
		return first
	}
	return queue.Remove(r.id())
}

// deliver sends the request; a response with an error is an error.
func deliver(client Client, r Request) error {
	response, err := client.Do(context.Background(), r)
	if err == nil && response.Error != nil {
		err = response.Error
	}
	return err
}

// ask checks the configuration and sends the command to the daemon.
func (p Plugin) ask(command Command, args *skel.CmdArgs) (Config, Response, error) {
	cfg, err := ParseConfig(args.StdinData)
	if err != nil {
		return Config{}, Response{}, err
	}
	if command == CommandAdd {
		if err := hostport.Check(cfg.PortMappings, cfg.Reserved); err != nil {
			return Config{}, Response{}, invalid(types.ErrInvalidNetworkConfig, err, "choose another hostPort for the pod")
		}
	}
	response, err := Client{Socket: cfg.Socket}.Do(context.Background(), request(command, args))
	if err != nil {
		return Config{}, Response{}, invalid(types.ErrTryAgainLater, err, remedyDaemon)
	}
	if response.Error != nil {
		return Config{}, Response{}, response.Error
	}
	return cfg, response, nil
}

// request converts what the runtime passed to the form of the wire.
func request(command Command, args *skel.CmdArgs) Request {
	return Request{
		Command:     command,
		ContainerID: args.ContainerID,
		Netns:       args.Netns,
		IfName:      args.IfName,
		Args:        args.Args,
		Path:        args.Path,
		Config:      args.StdinData,
	}
}

// errorOrNil is toWire for an error that may be nil: a nil *types.Error in an error would
// not be nil.
func errorOrNil(err error) error {
	if err == nil {
		return nil
	}
	return toWire(err)
}
