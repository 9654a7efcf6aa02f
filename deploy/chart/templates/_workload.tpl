{{/*
ServiceAccount, rights, Deployment, PodDisruptionBudget and what scrapes need, of a service: a dict of root, key and
component, with module, args (a list), rules (YAML), and where there are any ports, volumes and mounts (lists), roleRules
(YAML), grace (seconds), scaled (by an autoscaler).
*/}}
{{- define "groundwork.workload" -}}
{{- $values := index .root.Values .key }}
{{- $common := .root.Values }}
{{- $shared := include "groundwork.shared" . | fromYaml }}
{{- $namespace := include "groundwork.namespace" .root }}
{{- if $values.serviceAccount.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "groundwork.service.account" . | quote }}
  namespace: {{ $namespace | quote }}
  labels: {{- include "groundwork.labels" . | nindent 4 }}
  {{- with $values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: {{ $values.serviceAccount.automount }}
---
{{- end }}
{{- if $common.rbac.create }}
{{ include "groundwork.rbac" . }}
---
{{- end }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "groundwork.service.name" . }}
  namespace: {{ $namespace | quote }}
  labels: {{- include "groundwork.labels" . | nindent 4 }}
spec:
  {{- if not .scaled }}
  replicas: {{ $values.replicaCount }}
  {{- end }}
  selector:
    matchLabels: {{- include "groundwork.selector" . | nindent 6 }}
  {{- /* rollingUpdate of the defaults is still there when a value says Recreate, with which the API server refuses it. */}}
  {{- $strategy := default (dict) $shared.strategy }}
  strategy: {{- ternary (omit $strategy "rollingUpdate") $strategy (eq (default "" $strategy.type) "Recreate") | toYaml | nindent 4 }}
  template:
    metadata:
      labels: {{- merge (include "groundwork.labels" . | fromYaml) (default (dict) $shared.podLabels) | toYaml | nindent 8 }}
      {{- with $shared.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "groundwork.service.account" . | quote }}
      automountServiceAccountToken: {{ $values.serviceAccount.automount }}
      terminationGracePeriodSeconds: {{ .grace | default 30 }}
      securityContext: {{- toYaml $shared.podSecurityContext | nindent 8 }}
      {{- with $common.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $shared.priorityClassName }}
      priorityClassName: {{ . | quote }}
      {{- end }}
      {{- with $shared.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $shared.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $shared.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $shared.topologySpreadConstraints }}
      topologySpreadConstraints:
        {{- $own := dict "labelSelector" (dict "matchLabels" (include "groundwork.selector" $ | fromYaml)) }}
        {{- range . }}
        - {{- merge (deepCopy .) (ternary (dict) $own (hasKey . "labelSelector")) | toYaml | nindent 10 }}
        {{- end }}
      {{- end }}
      containers:
        - name: manager
          image: {{ include "groundwork.image" .root }}
          imagePullPolicy: {{ $common.image.pullPolicy }}
          command: [python, -m, {{ .module }}]
          args:
            - --log-level={{ $shared.logLevel }}
            - --log-format={{ $shared.logFormat }}
            - --bind-address=:8080
            {{- range $shared.watchNamespaces }}
            - --watch-namespace={{ . }}
            {{- end }}
            {{- range .args }}
            - {{ . | quote }}
            {{- end }}
            {{- range $values.extraArgs }}
            - {{ . | quote }}
            {{- end }}
          {{- with $shared.env }}
          env: {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            - {name: http, containerPort: 8080}
            {{- range .ports }}
            - {{ toJson . }}
            {{- end }}
          startupProbe:
            httpGet: {path: /livez, port: http}
            periodSeconds: 2
            timeoutSeconds: 5
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /livez, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /readyz, port: http}
            periodSeconds: 5
            timeoutSeconds: 3
          securityContext: {{- toYaml $shared.securityContext | nindent 12 }}
          resources: {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- range concat (default (list) .mounts) (default (list) $shared.extraVolumeMounts) }}
            - {{ toJson . }}
            {{- end }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 64Mi}}
        {{- range concat (default (list) .volumes) (default (list) $shared.extraVolumes) }}
        - {{ toJson . }}
        {{- end }}
{{- $pods := $values.replicaCount }}
{{- if .scaled }}
{{- $pods = $values.autoscaling.minReplicas }}
{{- end }}
{{- if and $values.podDisruptionBudget.enabled (gt (int $pods) 1) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "groundwork.service.name" . }}
  namespace: {{ $namespace | quote }}
  labels: {{- include "groundwork.labels" . | nindent 4 }}
spec:
  {{- if ne (toString $values.podDisruptionBudget.maxUnavailable) "" }}
  maxUnavailable: {{ $values.podDisruptionBudget.maxUnavailable }}
  {{- else }}
  minAvailable: {{ $values.podDisruptionBudget.minAvailable }}
  {{- end }}
  selector:
    matchLabels: {{- include "groundwork.selector" . | nindent 6 }}
{{- end }}
{{- if $common.metrics.enabled }}
{{- with $common.metrics.service }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "groundwork.service.name" $ }}-metrics
  namespace: {{ $namespace | quote }}
  labels: {{- merge (include "groundwork.labels" $ | fromYaml) (dict "groundwork.dev/metrics" "true") .labels | toYaml | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  selector: {{- include "groundwork.selector" $ | nindent 4 }}
  ports:
    - {name: http, port: {{ .port }}, targetPort: http}
{{- end }}
{{- end }}
{{- with $common.metrics.serviceMonitor }}
{{- if .enabled }}
{{- if not $common.metrics.enabled }}
{{- fail "metrics.serviceMonitor.enabled: needs metrics.enabled, there is no Service to scrape without" }}
{{- end }}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ include "groundwork.service.name" $ }}
  namespace: {{ default $namespace .namespace | quote }}
  labels: {{- merge (include "groundwork.labels" $ | fromYaml) .labels | toYaml | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  namespaceSelector:
    matchNames: [{{ $namespace | quote }}]
  selector:
    # The label apart from the selector: the other Services of a service lead elsewhere.
    matchLabels: {{- include "groundwork.selector" $ | nindent 6 }}
      groundwork.dev/metrics: "true"
  endpoints:
    - port: http
      path: /metrics
      honorLabels: true  # a pool's namespace is the pool's, not that of the service which tells of it
      interval: {{ .interval }}
      {{- with .scrapeTimeout }}
      scrapeTimeout: {{ . }}
      {{- end }}
      {{- with .relabelings }}
      relabelings: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .metricRelabelings }}
      metricRelabelings: {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
{{- end }}
{{- end }}
