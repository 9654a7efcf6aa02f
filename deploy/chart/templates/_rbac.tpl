{{/* Rights of a service: reading and writing apart, and what it may do in its own namespace. */}}

{{- define "groundwork.commonRules" -}}
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- define "groundwork.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end }}

{{/* Those of the rules (YAML) that read, or, unless `reads`, those that write. */}}
{{- define "groundwork.rulesOf" -}}
{{- $reading := list "get" "list" "watch" }}
{{- $found := list }}
{{- range $rule := .rules | fromYamlArray }}
{{- $verbs := list }}
{{- range $verb := $rule.verbs }}
{{- if eq (has $verb $reading) $.reads }}
{{- $verbs = append $verbs $verb }}
{{- end }}
{{- end }}
{{- if $verbs }}
{{- $found = append $found (set (deepCopy $rule) "verbs" $verbs) }}
{{- end }}
{{- end }}
{{- toYaml $found }}
{{- end }}

{{/* Takes a service with rules (YAML) and roleRules (YAML or ""). */}}
{{- define "groundwork.rbac" -}}
{{- $name := include "groundwork.service.name" . }}
{{- $namespace := include "groundwork.namespace" .root }}
{{- $subject := dict "kind" "ServiceAccount" "name" (include "groundwork.service.account" .) "namespace" $namespace }}
{{- $rules := printf "%s\n%s" .rules (include "groundwork.commonRules" .) }}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ $namespace | quote }}
  labels: {{- include "groundwork.labels" . | nindent 4 }}
rules:
  {{- include "groundwork.leaseRules" . | nindent 2 }}
  {{- with .roleRules }}
  {{- . | nindent 2 }}
  {{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ $namespace | quote }}
  labels: {{- include "groundwork.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}}
subjects: [{{ toJson $subject }}]
{{- range $suffix, $reads := dict "read" true "write" false }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}-{{ $suffix }}
  labels: {{- include "groundwork.labels" $ | nindent 4 }}
rules: {{- include "groundwork.rulesOf" (dict "rules" $rules "reads" $reads) | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}-{{ $suffix }}
  labels: {{- include "groundwork.labels" $ | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $name }}-{{ $suffix }}}
subjects: [{{ toJson $subject }}]
{{- end }}
{{- end }}
