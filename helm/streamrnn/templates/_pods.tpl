{{- /* What all pods have in common. Argument: root, component. */ -}}
{{- define "streamrnn.podSpec" -}}
serviceAccountName: {{ include "streamrnn.serviceAccount" .root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Where a pod may run. Argument: a part of the values. */ -}}
{{- define "streamrnn.placement" -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $ $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "streamrnn.container" -}}
image: {{ include "streamrnn.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* Environment of everything that runs our code. Argument: root, secret (of Kafka). */ -}}
{{- define "streamrnn.env" -}}
- {name: HOME, value: /var/home}
- {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: RAY_worker_niceness, value: "0"}
- {name: RAY_ENABLE_UV_RUN_RUNTIME_ENV, value: "0"}
{{- if .root.Values.ray.auth.enabled }}
- {name: RAY_AUTH_MODE, value: token}
- name: RAY_AUTH_TOKEN
  valueFrom: {secretKeyRef: {name: {{ include "streamrnn.raySecret" .root | quote }}, key: auth_token}}
{{- else }}
- {name: RAY_AUTH_MODE, value: disabled}
{{- end }}
{{- $secret := .secret | default .root.Values.kafka.existingSecret }}
{{- if $secret }}
{{- range .root.Values.kafka.secretKeys }}
- name: STREAMRNN__KAFKA__{{ . | upper }}
  valueFrom: {secretKeyRef: {name: {{ $secret | quote }}, key: {{ . | quote }}}}
{{- end }}
{{- end }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "streamrnn.envFrom" -}}
{{- with .Values.registry.existingSecret }}
envFrom: [{secretRef: {name: {{ . | quote }}}}]
{{- end }}
{{- end }}

{{- define "streamrnn.mounts" -}}
{{ include "streamrnn.mountsWithoutModel" . }}
{{- if ne .Values.model.source "registry" }}
- name: model
  mountPath: /etc/streamrnn/model
  readOnly: true
  {{- if eq .Values.model.source "claim" }}
  subPath: {{ .Values.model.path | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "streamrnn.mountsWithoutModel" -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /var/home}
- {name: shm, mountPath: /dev/shm}
{{- if include "streamrnn.registryClaim" . }}
- {name: registry, mountPath: /var/lib/streamrnn}
{{- end }}
{{- if .Values.kafka.tlsSecret }}
- {name: kafka-tls, mountPath: /etc/streamrnn/kafka-tls, readOnly: true}
{{- end }}
{{- include "streamrnn.extraMounts" . }}
{{- end }}

{{- define "streamrnn.volumes" -}}
{{ include "streamrnn.volumesWithoutModel" . }}
{{- if eq .Values.model.source "claim" }}
- name: model
  persistentVolumeClaim: {claimName: {{ .Values.model.name | quote }}, readOnly: true}
{{- else if eq .Values.model.source "configMap" }}
- {name: model, configMap: {name: {{ .Values.model.name | quote }}}}
{{- else if eq .Values.model.source "example" }}
- {name: model, configMap: {name: {{ include "streamrnn.fullname" . }}-model}}
{{- end }}
{{- end }}

{{- define "streamrnn.volumesWithoutModel" -}}
- {name: tmp, emptyDir: {sizeLimit: {{ .Values.scratchSize | quote }}}}
- {name: home, emptyDir: {sizeLimit: {{ .Values.scratchSize | quote }}}}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ div (mul (int64 .Values.ray.objectStoreBytes) 3) 2097152 }}Mi}
{{- with include "streamrnn.registryClaim" . }}
- name: registry
  persistentVolumeClaim: {claimName: {{ . | quote }}}
{{- end }}
{{- with .Values.kafka.tlsSecret }}
- {name: kafka-tls, secret: {secretName: {{ . | quote }}, defaultMode: 0440}}
{{- end }}
{{- include "streamrnn.extraVolumes" . }}
{{- end }}

{{- define "streamrnn.extraMounts" -}}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "streamrnn.extraVolumes" -}}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "streamrnn.settingsMount" -}}
- {name: settings, mountPath: /etc/streamrnn/streamrnn.yaml, subPath: streamrnn.yaml, readOnly: true}
{{- end }}

{{- define "streamrnn.settingsVolume" -}}
- {name: settings, configMap: {name: {{ include "streamrnn.fullname" . }}-settings}}
{{- end }}
