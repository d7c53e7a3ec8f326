// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/sealane/sealane/policy"
)

// Client asks the daemon of this node.
type Client struct{ Socket string }

// Monitor copies the records to w as lines of JSON until ctx ends, which is not an
// error.
func (c Client) Monitor(ctx context.Context, f Filter, w io.Writer) error {
	if err := f.Validate(); err != nil {
		return err
	}
	filter, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode filter: %w", err)
	}
	body, err := c.get(ctx, pathVerdicts, url.Values{"filter": {string(filter)}})
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, body)
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil:
		return fmt.Errorf("%w any more", ErrUnreachable)
	}
	return fmt.Errorf("copy verdicts: %w", err)
}

// Explain asks the daemon what its tables decide.
func (c Client) Explain(ctx context.Context, x policy.Traffic) (Answer, error) {
	body, err := c.get(ctx, pathExplain, url.Values{
		"from": {x.From.String()}, "to": {x.To.String()},
		"protocol": {strconv.Itoa(int(x.Protocol))}, "port": {strconv.Itoa(int(x.Port))},
	})
	if err != nil {
		return Answer{}, err
	}
	defer body.Close()
	var a Answer
	if err := json.NewDecoder(body).Decode(&a); err != nil {
		return Answer{}, fmt.Errorf("read answer of the daemon: %w", err)
	}
	return a, nil
}

func (c Client) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	asker := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
		},
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node"+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	answer, err := asker.Do(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		return nil, errors.Join(fmt.Errorf("ask the daemon: %s: %s", answer.Status, bytes.TrimSpace(text)), err)
	}
	return answer.Body, nil
}
