{{/*
The name of this install's objects. It always holds "pneumoserve", so it is never an InferenceService's name, and the
command line finds it by itself: `pneumoserve rollout --name` takes it as it takes the Helm release's.
*/}}
{{- define "pneumoserve.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (.Release.Name | trunc 28 | trimSuffix "-") .Chart.Name -}}
{{- end -}}
{{- end -}}

{{/* The InferenceService of a release: {{ include "pneumoserve.isvc" "0123456789ab" }} */}}
{{- define "pneumoserve.isvc" -}}
pneumonia-{{ . }}
{{- end -}}

{{/* Labels that never change. A label of an InferenceService is a label of its pods, so those carry no version. */}}
{{- define "pneumoserve.stableLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* A version that is a valid label: build metadata has a plus sign. */}}
{{- define "pneumoserve.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | quote }}
{{ include "pneumoserve.stableLabels" . }}
{{- end -}}

{{- define "pneumoserve.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* {{ include "pneumoserve.image" (list . .Values.images.front) }} */}}
{{- define "pneumoserve.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $repository := $image.repository -}}
{{- with $root.Values.images.registry -}}
{{- /* What looks like a host is one, as container engines read it. */ -}}
{{- $repository = printf "%s/%s" . (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($image.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "pneumoserve.pullSecrets" -}}
{{- range $index, $name := .Values.images.pullSecrets -}}
{{- if $index }}{{ "\n" }}{{ end -}}
- name: {{ $name }}
{{- end -}}
{{- end -}}

{{/* Where a pod runs and with what its images are pulled; empty where nothing is said of it. */}}
{{- define "pneumoserve.placement" -}}
{{- $placement := dict -}}
{{- with include "pneumoserve.pullSecrets" . -}}
{{- $_ := set $placement "imagePullSecrets" (fromYamlArray .) -}}
{{- end -}}
{{- with .Values.nodeSelector -}}{{- $_ := set $placement "nodeSelector" . -}}{{- end -}}
{{- with .Values.tolerations -}}{{- $_ := set $placement "tolerations" . -}}{{- end -}}
{{- with $placement -}}{{- toYaml . -}}{{- end -}}
{{- end -}}

{{/* A rule of a NetworkPolicy for DNS, by its ports: it may run on the node itself, which no selector can name. */}}
{{- define "pneumoserve.dnsEgress" -}}
- ports:
    {{- range .Values.networkPolicies.dnsPorts }}
    - port: {{ . }}
      protocol: UDP
    - port: {{ . }}
      protocol: TCP
    {{- end }}
{{- end -}}

{{/* What Pod Security "restricted" asks of a container, and a file system nobody writes to. */}}
{{- define "pneumoserve.containerSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "pneumoserve.podSecurity" -}}
runAsNonRoot: true
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}
