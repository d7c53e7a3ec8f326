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
)

// remedyDaemon is what to check when the daemon cannot be asked.
const remedyDaemon = "check that the sealane-agent pod of this node runs: " +
	"kubectl -n sealane-system get pods -o wide"

// Plugin is the behaviour of the plugin binary.
type Plugin struct {
	// Stdout takes the result of ADD, which is what the runtime reads.
	Stdout io.Writer
	// Stderr takes warnings about what did not keep a command from succeeding.
	Stderr io.Writer
}

// Funcs returns the commands in the form that the CNI library dispatches to.
func (p Plugin) Funcs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, Status: p.status, GC: p.gc}
}

// add has the daemon connect the pod, and prints the result in the version that
// the runtime speaks.
func (p Plugin) add(args *skel.CmdArgs) error {
	if own, _ := ns.CheckNetNS(args.Netns); own {
		return toWire(invalid(types.ErrInvalidNetNS,
			fmt.Errorf("CNI_NETNS is %q: this is the network namespace of the host", args.Netns),
			"a pod with host network needs no CNI; see how the runtime sets the CNI environment"))
	}
	cfg, response, err := p.ask(CommandAdd, args)
	if err == nil {
		// A DEL from before would disconnect at the next drain what is connected now.
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

// check has the daemon compare the pod's network with what ADD made.
func (p Plugin) check(args *skel.CmdArgs) error {
	cfg, _, err := p.ask(CommandCheck, args)
	if err == nil {
		err = cfg.hostPorts(args.Path, cfg.toldPrev()).Do(context.Background(), string(CommandCheck))
	}
	return errorOrNil(err)
}

// gc has the daemon remove attachments that the runtime does not know.
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

// del has the daemon disconnect the pod, and succeeds even without one: a pod whose
// DEL fails can never be deleted. Only for hostPorts it fails, before anything else,
// and the runtime comes again: what comes for a port that stays mapped would go to
// whoever has the address next.
func (p Plugin) del(args *skel.CmdArgs) error {
	cfg := salvageConfig(args.StdinData)
	if err := cfg.hostPorts(args.Path, cfg.toldPrev()).Do(context.Background(), string(CommandDel)); err != nil {
		return toWire(err)
	}
	p.disconnect(cfg, args)
	return nil
}

// disconnect has the daemon disconnect the pod. What could not be done now is kept in
// the queue; and what cannot be kept is found by the daemon, as no live pod has it.
func (p Plugin) disconnect(cfg Config, args *skel.CmdArgs) {
	client, r := Client{Socket: cfg.Socket}, request(CommandDel, args)
	err := deliverOrQueue(r, Queue{Dir: cfg.QueueDir}, func() error { return deliver(client, r) })
	if err != nil {
		_, _ = fmt.Fprintf(p.Stderr, "sealane-cni: DEL goes on without the runtime: %v\n", err)
	}
}

// deliverOrQueue has the DEL carried out by try, or keeps it. Its error says why it
// was not carried out, or what is left to do.
func deliverOrQueue(r Request, queue Queue, try func() error) error {
	first := try()
	if first == nil {
		return nil
	}
	if err := queue.Put(r); err != nil {
		return errors.Join(first, err)
	}
	// The daemon may have begun to listen, and drained the queue, just before the
	// request was in there.
	if !errors.Is(first, ErrUnreachable) || try() != nil {
		return first
	}
	return queue.Remove(r.id())
}

// deliver has the request carried out; a response that is an error is an error.
func deliver(client Client, r Request) error {
	response, err := client.Do(context.Background(), r)
	if err == nil && response.Error != nil {
		err = response.Error
	}
	return err
}

// ask checks the configuration and has the daemon carry out the command.
func (p Plugin) ask(command Command, args *skel.CmdArgs) (Config, Response, error) {
	cfg, err := ParseConfig(args.StdinData)
	if err != nil {
		return Config{}, Response{}, err
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

// request puts what the runtime passed into the form of the wire.
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

// errorOrNil is toWire where there may be no error: a nil *types.Error in an error
// would be one.
func errorOrNil(err error) error {
	if err == nil {
		return nil
	}
	return toWire(err)
}
