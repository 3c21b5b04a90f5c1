{{- /* Names, labels, addresses. */ -}}
{{- define "streamrnn.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}{{- end -}}
{{- end }}

{{- define "streamrnn.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "streamrnn.labels" -}}
{{ include "streamrnn.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: streamrnn
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels of a pod: nothing that changes with the chart's version, or every upgrade would restart every pod, and for
       the same reason no commonLabels. */ -}}
{{- define "streamrnn.podLabels" -}}
{{ include "streamrnn.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "streamrnn.image" -}}
{{ .Values.image.repository }}{{ with .Values.image.digest }}@{{ . }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "streamrnn.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ include "streamrnn.fullname" . }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end -}}
{{- end }}

{{- define "streamrnn.rayAddress" -}}{{ include "streamrnn.fullname" . }}-ray:6379{{- end }}

{{- define "streamrnn.raySecret" -}}
{{ .Values.ray.auth.existingSecret | default (printf "%s-ray-auth" (include "streamrnn.fullname" .)) }}
{{- end }}

{{- define "streamrnn.registryClaim" -}}
{{- if .Values.registry.existingClaim -}}{{ .Values.registry.existingClaim }}
{{- else if .Values.registry.create -}}{{ include "streamrnn.fullname" . }}-registry{{- end -}}
{{- end }}

{{- define "streamrnn.registry" -}}
{{- if .Values.registry.url -}}{{ .Values.registry.url }}
{{- else if include "streamrnn.registryClaim" . -}}/var/lib/streamrnn/models{{- end -}}
{{- end }}

{{- /* Replicas, and what else a group says, over workerDefaults. */ -}}
{{- define "streamrnn.group" -}}
{{ toYaml (mergeOverwrite (deepCopy .root.Values.workerDefaults) .group) }}
{{- end }}
