{{/* Names, labels and the parts that every service's pods share. */}}

{{- define "groundwork.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "groundwork.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "groundwork.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "groundwork.name" .) | trunc 40 | trimSuffix "-" }}
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

{{- define "groundwork.selector" -}}
app.kubernetes.io/name: {{ include "groundwork.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "groundwork.labels" -}}
{{ include "groundwork.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: groundwork
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "groundwork.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* Leases of every service, and their Events. */}}
{{- define "groundwork.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end }}

{{- define "groundwork.commonRules" -}}
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/*
ServiceAccount, Role for the Lease, Deployment, Service for scrapes and PodDisruptionBudget of a service.
Further keys of the dict: module, args (a list), ports, volumes and mounts (lists), roleRules (YAML), grace (seconds).
*/}}
{{- define "groundwork.workload" -}}
{{- $values := index .root.Values .key }}
{{- $common := .root.Values }}
{{- if $values.serviceAccount.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "groundwork.service.account" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "groundwork.labels" . | nindent 4 }}
  {{- with $values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
---
{{- end }}
{{- if $common.rbac.create }}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ include "groundwork.service.name" . }}
  namespace: {{ .root.Release.Namespace }}
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
  name: {{ include "groundwork.service.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "groundwork.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ include "groundwork.service.name" . }}}
subjects:
  - {kind: ServiceAccount, name: {{ include "groundwork.service.account" . }}, namespace: {{ .root.Release.Namespace }}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ include "groundwork.service.name" . }}
  labels: {{- include "groundwork.labels" . | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
  {{- include "groundwork.commonRules" . | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ include "groundwork.service.name" . }}
  labels: {{- include "groundwork.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ include "groundwork.service.name" . }}}
subjects:
  - {kind: ServiceAccount, name: {{ include "groundwork.service.account" . }}, namespace: {{ .root.Release.Namespace }}}
---
{{- end }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "groundwork.service.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "groundwork.labels" . | nindent 4 }}
spec:
  {{- if not .scaled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  selector:
    matchLabels: {{- include "groundwork.selector" . | nindent 6 }}
  strategy:
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  template:
    metadata:
      labels: {{- include "groundwork.labels" . | nindent 8 }}
        {{- with $common.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $common.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "groundwork.service.account" . }}
      terminationGracePeriodSeconds: {{ .grace | default 30 }}
      securityContext: {{- toYaml $common.podSecurityContext | nindent 8 }}
      {{- with $common.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $common.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $common.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $common.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $common.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "groundwork.selector" $ | nindent 14 }}
        {{- end }}
      containers:
        - name: manager
          image: {{ include "groundwork.image" .root }}
          imagePullPolicy: {{ $common.image.pullPolicy }}
          command: [python, -m, {{ .module }}]
          args:
            - --log-level={{ $common.logLevel }}
            - --log-format={{ $common.logFormat }}
            - --bind-address=0.0.0.0:8080
            {{- range .args }}
            - {{ . | quote }}
            {{- end }}
            {{- range $values.extraArgs }}
            - {{ . | quote }}
            {{- end }}
          {{- with $common.extraEnv }}
          env: {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            - {name: http, containerPort: 8080}
            {{- range .ports }}
            - {{ toYaml . | nindent 14 | trim }}
            {{- end }}
          livenessProbe:
            httpGet: {path: /livez, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /readyz, port: http}
            periodSeconds: 5
            timeoutSeconds: 3
          securityContext: {{- toYaml $common.securityContext | nindent 12 }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- range .mounts }}
            - {{ toYaml . | nindent 14 | trim }}
            {{- end }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
        {{- range .volumes }}
        - {{ toYaml . | nindent 10 | trim }}
        {{- end }}
{{- if and $values.podDisruptionBudget.enabled (gt (int $values.replicas) 1) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "groundwork.service.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "groundwork.labels" . | nindent 4 }}
spec:
  minAvailable: 1
  selector:
    matchLabels: {{- include "groundwork.selector" . | nindent 6 }}
{{- end }}
{{- if $common.metrics.service.enabled }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "groundwork.service.name" . }}-metrics
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "groundwork.labels" . | nindent 4 }}
spec:
  selector: {{- include "groundwork.selector" . | nindent 4 }}
  ports:
    - {name: http, port: {{ $common.metrics.service.port }}, targetPort: http}
{{- if $common.metrics.serviceMonitor.enabled }}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ include "groundwork.service.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "groundwork.labels" . | nindent 4 }}
    {{- with $common.metrics.serviceMonitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels: {{- include "groundwork.selector" . | nindent 6 }}
  endpoints:
    - {port: http, path: /metrics, interval: {{ $common.metrics.serviceMonitor.interval }}}
{{- end }}
{{- end }}
{{- end }}
