{{/* The namespace is part of the admission policies and of the Leases' names: it cannot be chosen. */}}
{{- define "numavm.namespace" -}}
{{- if ne .Release.Namespace "numavm-system" -}}
{{- fail (printf "namespace %s: NumaVM's admission policies trust the service accounts of namespace numavm-system only; install with --namespace numavm-system --create-namespace" .Release.Namespace) -}}
{{- end -}}
numavm-system
{{- end }}

{{- define "numavm.labels" -}}
app.kubernetes.io/name: numavm
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: numavm
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "numavm.selector" -}}
app.kubernetes.io/name: numavm
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "numavm.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "numavm.apiServer" -}}
{{- if .Values.apiServer.host }}
- {name: KUBERNETES_SERVICE_HOST, value: {{ .Values.apiServer.host | quote }}}
- {name: KUBERNETES_SERVICE_PORT, value: {{ .Values.apiServer.port | quote }}}
{{- end }}
{{- end }}

{{/* The operator's container runs without a single privilege. */}}
{{- define "numavm.unprivileged" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}
