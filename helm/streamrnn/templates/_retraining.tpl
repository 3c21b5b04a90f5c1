{{- /* Argument: root, flags. */ -}}
{{- define "streamrnn.retrain" -}}
streamrnn retrain -c /etc/streamrnn/streamrnn.yaml --workers {{ int .root.Values.retraining.workers }}{{ .flags }}
{{- end }}

{{- /* The pod that trains: of the job, or the head of the RayJob's own Ray. Argument: root. */ -}}
{{- define "streamrnn.trainerContainer" -}}
{{- include "streamrnn.container" .root }}
env:
  {{- include "streamrnn.env" (dict "root" .root) | nindent 2 }}
{{- include "streamrnn.envFrom" .root }}
resources:
  {{- $resources := deepCopy .root.Values.retraining.resources }}
  {{- if and .root.Values.retraining.gpus (eq .root.Values.ray.provider "kuberay") }}
  {{- $_ := set $resources "limits" (merge (dict "nvidia.com/gpu" (int .root.Values.retraining.gpus)) ($resources.limits | default dict)) }}
  {{- end }}
  {{- toYaml $resources | nindent 2 }}
volumeMounts:
  {{- include "streamrnn.settingsMount" .root | nindent 2 }}
  {{- include "streamrnn.mounts" .root | nindent 2 }}
{{- end }}

{{- define "streamrnn.trainerVolumes" -}}
{{ include "streamrnn.settingsVolume" . }}
{{ include "streamrnn.volumes" . }}
{{- end }}

{{- /* A pod of the RayJob's own Ray, started by the operator's own command. Argument: root, name. */ -}}
{{- define "streamrnn.trainerTemplate" -}}
metadata:
  labels:
    {{- include "streamrnn.podLabels" (dict "root" .root "component" "retraining") | nindent 4 }}
spec:
  {{- include "streamrnn.podSpec" (dict "root" .root) | nindent 2 }}
  containers:
    - name: {{ .name }}
      {{- include "streamrnn.trainerContainer" (dict "root" .root) | nindent 6 }}
  volumes:
    {{- include "streamrnn.trainerVolumes" .root | nindent 4 }}
{{- end }}

{{- /* With -0 to -3 the names of RayJobs, of 47 characters at most. */ -}}
{{- define "streamrnn.rayJobName" -}}
{{- $full := include "streamrnn.fullname" . -}}
{{- if gt (len $full) 37 }}{{ $full | trunc 31 | trimSuffix "-" }}-{{ $full | sha256sum | trunc 5 }}{{ else }}{{ $full }}{{ end }}-retrain
{{- end }}

{{- /* The training has a limit of its own, retrain.limit_minutes; this is for a process that hangs. */ -}}
{{- define "streamrnn.retrainDeadline" -}}
{{ mul (add (dig "retrain" "limit_minutes" 60 .Values.settings | int) 15) 60 }}
{{- end }}

{{- define "streamrnn.rayJob" -}}
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: {{ include "streamrnn.rayJobName" . }}
  labels:
    {{- include "streamrnn.labels" . | nindent 4 }}
    app.kubernetes.io/component: retraining
spec:
  entrypoint: {{ include "streamrnn.retrain" (dict "root" . "flags" (printf " --set fleet.ray_address=auto --set fleet.ray_node=null --set fleet.gpus_per_shard=%d" (int .Values.retraining.gpus))) }}
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: 30 # as long does its cluster live on, with its GPUs; the log is the submitter's, which stays
  backoffLimit: 0
  activeDeadlineSeconds: {{ include "streamrnn.retrainDeadline" . }}
  submitterPodTemplate:
    metadata:
      labels:
        {{- include "streamrnn.podLabels" (dict "root" . "component" "retraining") | nindent 8 }}
    spec:
      {{- include "streamrnn.podSpec" (dict "root" .) | nindent 6 }}
      restartPolicy: Never
      containers:
        - name: ray-job-submitter
          {{- include "streamrnn.container" . | nindent 10 }}
          env:
            - {name: HOME, value: /tmp}
            {{- with .Values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          resources: {requests: {cpu: 100m, memory: 256Mi}, limits: {memory: 512Mi}}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            {{- include "streamrnn.extraMounts" . | indent 12 }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: {{ .Values.scratchSize | quote }}}}
        {{- include "streamrnn.extraVolumes" . | indent 8 }}
  rayClusterSpec:
    rayVersion: 2.60.0
    authOptions: {mode: {{ ternary "token" "disabled" .Values.ray.auth.enabled }}{{ if .Values.ray.auth.enabled }}, secretName: {{ include "streamrnn.raySecret" . | quote }}{{ end }}}
    headGroupSpec:
      rayStartParams: {dashboard-host: 0.0.0.0, disable-usage-stats: "true", object-store-memory: {{ int64 .Values.ray.objectStoreBytes | quote }}}
      template:
        {{- include "streamrnn.trainerTemplate" (dict "root" . "name" "ray-head") | nindent 8 }}
    {{- if .Values.retraining.workers }}
    workerGroupSpecs:
      - groupName: trainers
        replicas: {{ int .Values.retraining.workers }}
        minReplicas: {{ int .Values.retraining.workers }}
        maxReplicas: {{ int .Values.retraining.workers }}
        numOfHosts: 1
        scaleStrategy: {}
        rayStartParams: {disable-usage-stats: "true", num-cpus: "1", object-store-memory: {{ int64 .Values.ray.objectStoreBytes | quote }}}
        template:
          {{- include "streamrnn.trainerTemplate" (dict "root" . "name" "ray-worker") | nindent 10 }}
    {{- end }}
{{- end }}
