{{- /* streamrnn.yaml: the values of `settings`, and what only the chart can know. */ -}}
{{- define "streamrnn.settings" -}}
{{- $service := printf "%s-server.%s" (include "streamrnn.fullname" .) .Release.Namespace -}}
{{- $names := concat (dig "telemetry" "names" list .Values.settings) (list $service (printf "%s.svc" $service) (printf "%s.svc.cluster.local" $service)) -}}
{{- $own := dict
  "telemetry" (dict "host" "0.0.0.0" "port" 9464 "names" ($names | uniq))
  "fleet" (dict "ray_address" (include "streamrnn.rayAddress" .) "ray_node" (include "streamrnn.rayPorts" .))
-}}
{{- if .Values.kafka.dev.enabled }}{{ $_ := set $own "kafka" (dict "bootstrap_servers" (printf "%s-kafka:9092" (include "streamrnn.fullname" .))) }}{{ end -}}
{{- if ne .Values.model.source "registry" }}{{ $_ := set $own "model" "/etc/streamrnn/model" }}{{ end -}}
{{- with include "streamrnn.registry" . }}{{ $_ := set $own "registry" . }}{{ end -}}
{{- $runs := ternary "/var/lib/streamrnn/runs" "/tmp/runs" (ne (include "streamrnn.registryClaim" .) "") -}}
{{- if include "streamrnn.registry" . }}{{ $_ := set $own "retrain" (dict "runs" $runs) }}{{ end -}}
{{ toYaml (mergeOverwrite (deepCopy .Values.settings) $own) }}
{{- end }}

{{- /* Ray's ports, the same in every pod. */ -}}
{{- define "streamrnn.rayPorts" -}}
--node-ip-address=$POD_IP --node-manager-port=6380 --object-manager-port=6381 --runtime-env-agent-port=6382 --dashboard-agent-grpc-port=6383 --dashboard-agent-listen-port=52365 --metrics-export-port=8080 --min-worker-port=11000 --max-worker-port=11999
{{- end }}

{{- define "streamrnn.settingsSum" -}}{{ include "streamrnn.settings" . | sha256sum | trunc 16 }}{{- end }}

{{- define "streamrnn.modelSum" -}}
{{- if eq .Values.model.source "example" -}}{{ printf "%s%s" (.Files.Get "files/model/card.json") .Values.model.source | sha256sum | trunc 16 }}
{{- else -}}{{ printf "%s/%s/%s" .Values.model.source .Values.model.name .Values.model.path | sha256sum | trunc 16 }}{{- end -}}
{{- end }}

{{- /* Milliseconds of a setting in days; null: for ever. Argument: the section, the key, the default. */ -}}
{{- define "streamrnn.keptMs" -}}
{{- $days := ternary (index (index . 0) (index . 1)) (index . 2) (hasKey (index . 0) (index . 1)) -}}
{{- if eq (toString $days) "<nil>" }}-1{{ else }}{{ mulf $days 86400000.0 | int64 }}{{ end -}}
{{- end }}
