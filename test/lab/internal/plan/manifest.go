// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package plan

import (
	"bytes"
	_ "embed"
	"strings"
	"text/template"

	"github.com/sealane/sealane/test/lab/internal/image"
)

//go:embed manifests/base.yaml
var baseManifest string

// Manifest renders what every cluster has from its beginning.
func (o Options) Manifest() ([]byte, error) {
	indent := func(text string) string {
		return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
	}
	t, err := template.New("base").Funcs(template.FuncMap{"indent": indent}).Parse(baseManifest)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, object{"Kubeadm": o.kubeadmConfig(), "CoreDNS": image.CoreDNS, "DNS": o.Families.dns()})
	return out.Bytes(), err
}
