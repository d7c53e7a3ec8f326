{{- /*
SPDX-License-Identifier: Apache-2.0
Copyright The Sealane Authors
*/ -}}

{{- define "sealane.image" -}}
{{ .Values.image.repository }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "sealane.labels" -}}
app.kubernetes.io/name: sealane
app.kubernetes.io/part-of: sealane
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
{{- end }}

{{- /*
Where the controller runs: as configured, but anywhere if helm sees nodes, and none of them belongs to the control plane,
as in a managed cluster. Without a cluster (helm template) there is nothing to see.
*/ -}}
{{- define "sealane.controllerPlacement" -}}
{{- $nodes := (lookup "v1" "Node" "" "").items | default list }}
{{- $found := false }}
{{- range $nodes }}
{{- if hasKey (.metadata.labels | default dict) "node-role.kubernetes.io/control-plane" }}{{ $found = true }}{{ end }}
{{- end }}
{{- if and (eq .Values.controller.placement "control-plane") $nodes (not $found) (ne .Values.ca.mode "cluster") }}any
{{- else }}{{ .Values.controller.placement }}
{{- end }}
{{- end }}

{{- /* The container that cleans a node; its arguments come last so that more can follow. */ -}}
{{- define "sealane.clean" -}}
image: {{ include "sealane.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  privileged: true
  readOnlyRootFilesystem: true
# The parents of Sealane's own folders, so that the cleanup can remove those folders, too.
volumeMounts:
- {name: cni-bin, mountPath: /host/opt/cni/bin}
- {name: cni-conf, mountPath: /host/etc/cni/net.d}
- {name: state, mountPath: /host/var/lib}
- {name: run, mountPath: /host/run}
- {name: wireguard, mountPath: /run/wireguard}
- {name: bpffs, mountPath: /sys/fs/bpf, mountPropagation: HostToContainer}
command: [/usr/bin/sealaned]
args:
- clean
- --bin-dir=/host/opt/cni/bin
- --cni-conf-dir=/host/etc/cni/net.d
- --state-dir=/host/var/lib/sealane
- --run-dir=/host/run/sealane
- --log-level={{ .Values.logLevel }}
{{- end }}
