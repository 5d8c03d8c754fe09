{{- define "clickmill.fullname" -}}
{{- if contains "clickmill" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-clickmill" (.Release.Name | trunc 30 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* Labels that find the pods of a part: (dict "root" $ "part" "ingest") */}}
{{- define "clickmill.selector" -}}
app.kubernetes.io/name: clickmill
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "clickmill.labels" -}}
{{ include "clickmill.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* Set for all containers of ours: NATS, tokens, and the settings of values.yaml. */}}
{{- define "clickmill.env" -}}
{{- $values := .Values -}}
- name: CLICKMILL_HOST
  value: 0.0.0.0
- name: CLICKMILL_STATS_HOST
  value: 0.0.0.0
- name: CLICKMILL_NODE
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- if $values.nats.enabled }}
- name: NATS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $values.natsSecret.name }}
      key: {{ $values.natsSecret.passwordKey }}
- name: CLICKMILL_NATS_URL
  value: nats://clickmill:$(NATS_PASSWORD)@{{ include "clickmill.natsHost" . }}:4222
{{- else }}
- name: CLICKMILL_NATS_URL
  valueFrom:
    secretKeyRef:
      name: {{ $values.natsSecret.name }}
      key: {{ $values.natsSecret.urlKey }}
{{- end }}
{{- if $values.tokens.open }}
- name: CLICKMILL_OPEN
  value: "yes"
{{- else }}
- name: CLICKMILL_STATS_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ $values.tokens.secret }}
      key: stats-token
- name: CLICKMILL_WRITE_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ $values.tokens.secret }}
      key: write-token
{{- end }}
{{- range $name, $value := $values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* The Service of the NATS chart: it names itself as that chart does. */}}
{{- define "clickmill.natsHost" -}}
{{- if contains "nats" .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-nats" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "clickmill.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The pod: not root, nothing to write to but its own volumes, no way to Kubernetes' API. */}}
{{- define "clickmill.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "clickmill.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Where pods go: (dict "root" $ "part" "ingest" "values" .Values.ingest) */}}
{{- define "clickmill.placement" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: {{ .values.spread }}
    # A node that is being emptied must not hold back the pods that leave it.
    nodeTaintsPolicy: Honor
    labelSelector:
      matchLabels:
        {{- include "clickmill.selector" . | nindent 8 }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
