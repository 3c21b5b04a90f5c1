{{- define "streamrnn.rayStart" -}}
ray start {{ .flags }} {{ include "streamrnn.rayPorts" .root }} --object-store-memory={{ int64 .root.Values.ray.objectStoreBytes }} --disable-usage-stats --block &
child=$!
{{- end }}

{{- /* As process 1 Ray would not hear SIGTERM. */ -}}
{{- define "streamrnn.headScript" -}}
{{ include "streamrnn.rayStart" (dict "root" . "flags" "--head --port=6379 --num-cpus=0 --num-gpus=0 --include-dashboard=false") }}
trap 'kill -TERM "$child"' TERM INT
wait "$child"
{{- end }}

{{- /* A worker waits for its head, also where only its container restarts. When a head was started anew, a node takes
       three quarters of a minute to find out that it belongs to nobody: this looks for itself. */ -}}
{{- define "streamrnn.workerScript" -}}
up() { timeout 3 bash -c 'exec 3<>/dev/tcp/{{ include "streamrnn.rayAddress" .root | replace ":" "/" }}' 2>/dev/null; }
trap 'exit 143' TERM INT
until up; do sleep 1 & wait $!; done
{{ include "streamrnn.rayStart" (dict "root" .root "flags" (printf "--address=%s --num-cpus=%d --num-gpus=%d" (include "streamrnn.rayAddress" .root) (int .group.cpus) (int .group.gpus))) }}
trap 'kill -TERM "$child"; exit 143' TERM INT
away=0
while kill -0 "$child" 2>/dev/null; do
  if ! up; then away=$((away + 1))
  elif [ "$away" -lt 2 ]; then away=0
  else echo 'the head was started anew: this node leaves, and joins it'; exit 1; fi
  sleep 1 & wait $!
done
wait "$child"
{{- end }}

{{- /* Without the model, so that another one does not restart it: a shard that wants no CPU and no GPU alone may get here. */ -}}
{{- define "streamrnn.headTemplate" -}}
{{- $bare := ternary "WithoutModel" "" (or (gt (float64 (dig "fleet" "cpus_per_shard" 1.0 .Values.settings)) 0.0) (gt (float64 (dig "fleet" "gpus_per_shard" 0.0 .Values.settings)) 0.0)) }}
metadata:
  labels:
    {{- include "streamrnn.podLabels" (dict "root" . "component" "head") | nindent 4 }}
    streamrnn.io/part: ray
  annotations: {ray.io/overwrite-container-cmd: "true"}
spec:
  {{- include "streamrnn.podSpec" (dict "root" .) | nindent 2 }}
  {{- include "streamrnn.placement" .Values.ray.head | indent 2 }}
  terminationGracePeriodSeconds: 15
  containers:
    - name: ray-head
      {{- include "streamrnn.container" . | nindent 6 }}
      command: [bash, -c]
      args:
        - |
          {{- include "streamrnn.headScript" . | nindent 10 }}
      {{- include "streamrnn.rayContainer" (dict "root" . "port" "gcs" "number" 6379 "resources" .Values.ray.head.resources "bare" $bare) | nindent 6 }}
  volumes:
    {{- include (print "streamrnn.volumes" $bare) . | nindent 4 }}
{{- end }}

{{- /* Argument: root, name, group (with its defaults). */ -}}
{{- define "streamrnn.workerTemplate" -}}
metadata:
  labels:
    {{- include "streamrnn.podLabels" (dict "root" .root "component" (printf "worker-%s" .name)) | nindent 4 }}
    streamrnn.io/part: ray
  annotations:
    ray.io/overwrite-container-cmd: "true"
    checksum/model: {{ include "streamrnn.modelSum" .root | quote }}
spec:
  {{- include "streamrnn.podSpec" (dict "root" .root) | nindent 2 }}
  {{- include "streamrnn.placement" .group | indent 2 }}
  terminationGracePeriodSeconds: 15
  containers:
    - name: ray-worker
      {{- include "streamrnn.container" .root | nindent 6 }}
      command: [bash, -c]
      args:
        - |
          {{- include "streamrnn.workerScript" . | nindent 10 }}
      {{- $resources := deepCopy .group.resources }}
      {{- if .group.gpus }}
      {{- $_ := set $resources "limits" (merge (dict "nvidia.com/gpu" (int .group.gpus)) ($resources.limits | default dict)) }}
      {{- end }}
      {{- include "streamrnn.rayContainer" (dict "root" .root "port" "node-manager" "number" 6380 "resources" $resources "bare" "") | nindent 6 }}
  volumes:
    {{- include "streamrnn.volumes" .root | nindent 4 }}
{{- end }}

{{- /* Probes are spelled out, so that the operator adds none: its own want wget and a dashboard. */ -}}
{{- define "streamrnn.rayContainer" -}}
env:
  {{- include "streamrnn.env" (dict "root" .root) | nindent 2 }}
{{- include "streamrnn.envFrom" .root }}
ports:
  - {name: {{ .port }}, containerPort: {{ .number }}}
  - {name: metrics, containerPort: 8080} # KubeRay adds one of this number unless there is one of this name
startupProbe: {tcpSocket: {port: {{ .port }}}, periodSeconds: 2, failureThreshold: 300}
readinessProbe: {tcpSocket: {port: {{ .port }}}, periodSeconds: 5}
livenessProbe: {tcpSocket: {port: {{ .port }}}, periodSeconds: 10, failureThreshold: 6}
resources:
  {{- toYaml .resources | nindent 2 }}
volumeMounts:
  {{- include (print "streamrnn.mounts" .bare) .root | nindent 2 }}
{{- end }}
