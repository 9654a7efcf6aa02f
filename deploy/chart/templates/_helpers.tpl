{{/* Names, labels, and what a service's values are. */}}

{{- define "groundwork.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* 36: with -machine-controller-metrics, the longest that comes behind it, that is a Service's 63. */}}
{{- define "groundwork.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 36 | trimSuffix "-" }}
{{- else if contains (include "groundwork.name" .) .Release.Name }}
{{- .Release.Name | trunc 36 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "groundwork.name" .) | trunc 36 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "groundwork.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* Labels of an object that belongs to no service; those of a service's objects say which one besides. */}}
{{- define "groundwork.commonLabels" -}}
app.kubernetes.io/name: {{ include "groundwork.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: groundwork
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- /* The chart's own stay: its selectors go by them. */}}
{{- with omit (default (dict) .Values.commonLabels) "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/part-of" "app.kubernetes.io/managed-by" "app.kubernetes.io/component" "helm.sh/chart" }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "groundwork.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* What follows takes a service: a dict of root (the chart's context), key (its values), component (its name). */}}

{{- define "groundwork.service.name" -}}
{{- printf "%s-%s" (include "groundwork.fullname" .root) .component }}
{{- end }}

{{- define "groundwork.service.account" -}}
{{- $account := (index .root.Values .key).serviceAccount }}
{{- if $account.create }}
{{- default (include "groundwork.service.name" .) $account.name }}
{{- else }}
{{- required (printf "%s.serviceAccount.name: needed when create is false" .key) $account.name }}
{{- end }}
{{- end }}

{{/* Never more than these: a selector cannot be changed. */}}
{{- define "groundwork.selector" -}}
app.kubernetes.io/name: {{ include "groundwork.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "groundwork.labels" -}}
{{ include "groundwork.commonLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Values that a service shares with the others unless its block says differently. */}}
{{- define "groundwork.shared" -}}
{{- $own := index .root.Values .key }}
{{- $found := dict }}
{{- range $name := list "logLevel" "logFormat" "watchNamespaces" "strategy" "podSecurityContext" "securityContext" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" "podAnnotations" "podLabels" "env" "extraVolumes" "extraVolumeMounts" }}
{{- $_ := set $found $name (ternary (index $own $name) (index $.root.Values $name) (hasKey $own $name)) }}
{{- end }}
{{- toYaml $found }}
{{- end }}

{{/* Services that are enabled, as YAML: a list of key and component. */}}
{{- define "groundwork.services" -}}
{{- $found := list }}
{{- range list (list "ipam" "ipam") (list "capvIntegrator" "capv-integrator") (list "podpreset" "podpreset") (list "machineController" "machine-controller") }}
{{- if (index $.Values (first .)).enabled }}
{{- $found = append $found (dict "key" (first .) "component" (last .)) }}
{{- end }}
{{- end }}
{{- toYaml $found }}
{{- end }}
