{{/* Names ------------------------------------------------------------------------------------------------------- */}}

{{/* What this install's objects are called. It always holds "pneumoserve", so it is never an InferenceService's name. */}}
{{- define "pneumoserve.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (.Release.Name | trunc 28 | trimSuffix "-") .Chart.Name -}}
{{- end -}}
{{- end -}}

{{/* The InferenceService of a release: {{ include "pneumoserve.isvc" "0123456789ab" }} */}}
{{- define "pneumoserve.isvc" -}}
pneumonia-{{ . }}
{{- end -}}

{{/* The name carries the content: neither an upgrade nor a changed value edits a runtime under a running release. */}}
{{- define "pneumoserve.runtimeName" -}}
{{- $version := regexReplaceAll "[^a-z0-9]+" (lower .Chart.AppVersion) "-" | trimSuffix "-" -}}
{{- $digest := include "pneumoserve.runtimeSpec" . | fromYaml | toJson | sha256sum | trunc 8 -}}
{{- $mode := ternary "-knative" "" (eq .Values.mode "Knative") -}}
{{- printf "%s-%s%s-%s" (include "pneumoserve.fullname" .) $version $mode $digest -}}
{{- end -}}

{{- define "pneumoserve.trustName" -}}
{{- .Values.trust.existingConfigMap | default (printf "%s-trust" (include "pneumoserve.fullname" .)) -}}
{{- end -}}

{{- define "pneumoserve.archiveSecret" -}}
{{- if and .Values.s3.archive.existingSecret (not .Values.trialStore.enabled) -}}
{{- .Values.s3.archive.existingSecret -}}
{{- else -}}
{{- include "pneumoserve.fullname" . }}-archive
{{- end -}}
{{- end -}}

{{/* The Secret of one of the archive's keys: {{ include "pneumoserve.keySecret" (list . "signing") }} */}}
{{- define "pneumoserve.keySecret" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- (get $root.Values.archive $name).existingSecret | default (printf "%s-archive-%s" (include "pneumoserve.fullname" $root) $name) -}}
{{- end -}}

{{/* The Secret of s3.releases or s3.setup, the archive's where no other one is given: {{ include "pneumoserve.storeSecret" (list . "setup") }} */}}
{{- define "pneumoserve.storeSecret" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $given := get $root.Values.s3 $name -}}
{{- if or $root.Values.trialStore.enabled $given.accessKey -}}
{{- printf "%s-%s" (include "pneumoserve.fullname" $root) $name -}}
{{- else -}}
{{- $given.existingSecret | default (include "pneumoserve.archiveSecret" $root) -}}
{{- end -}}
{{- end -}}

{{/* What the storage-initializer reads with. */}}
{{- define "pneumoserve.releasesSecret" -}}
{{- include "pneumoserve.storeSecret" (list . "releases") -}}
{{- end -}}

{{/* What the bucket is made and releases are pushed with. */}}
{{- define "pneumoserve.setupSecret" -}}
{{- include "pneumoserve.storeSecret" (list . "setup") -}}
{{- end -}}

{{/* The trial store's policies, one of each credential's name, as a JSON list; an object store of yours takes the same documents. */}}
{{- define "pneumoserve.rights" -}}
{{- $bucket := .Values.s3.bucket -}}
{{- $more := dict -}}
{{- with .Values.archive.export.to -}}
{{- $_ := set $more "archive" (printf "%s/*" (trimPrefix "s3://" . | trimSuffix "/")) -}}
{{- end -}}
{{- if .Values.payloadLogger.enabled -}}
{{- /* What KServe's payload logger writes with. */ -}}
{{- $_ := set $more "releases" (printf "%s/payloads/*" $bucket) -}}
{{- end -}}
{{- $policies := list -}}
{{- range $name := list "archive" "releases" "setup" -}}
{{- $policy := $.Files.Get (printf "files/rights/%s.json" $name) | replace "BUCKET" $bucket | fromJson -}}
{{- with get $more $name -}}
{{- $statement := dict "Sid" "AddWhatValuesSay" "Effect" "Allow" "Action" (list "s3:PutObject") "Resource" (list (printf "arn:aws:s3:::%s" .)) -}}
{{- $_ := set $policy "Statement" (append $policy.Statement $statement) -}}
{{- end -}}
{{- $policies = append $policies (dict "name" $name "content" (toJson $policy)) -}}
{{- end -}}
{{- toJson $policies -}}
{{- end -}}

{{/* The header in which the gateway tells who calls. */}}
{{- define "pneumoserve.subjectHeader" -}}
Pneumoserve-Subject
{{- end -}}

{{/* Labels ------------------------------------------------------------------------------------------------------ */}}

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

{{/* Containers -------------------------------------------------------------------------------------------------- */}}

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
{{- with include "pneumoserve.pullSecrets" . -}}{{- $_ := set $placement "imagePullSecrets" (fromYamlArray .) -}}{{- end -}}
{{- with .Values.nodeSelector -}}{{- $_ := set $placement "nodeSelector" . -}}{{- end -}}
{{- with .Values.tolerations -}}{{- $_ := set $placement "tolerations" . -}}{{- end -}}
{{- with $placement -}}{{- toYaml . -}}{{- end -}}
{{- end -}}

{{/* A rule of a NetworkPolicy for DNS: it may run on the node itself, which no selector can name, so the ports are all that is said. */}}
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

{{/* The archive -------------------------------------------------------------------------------------------------- */}}

{{/* Bytes of a quantity: {{ include "pneumoserve.bytes" "1Gi" }} */}}
{{- define "pneumoserve.bytes" -}}
{{- $units := dict "" 1 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mul (regexFind "^[0-9]+" .) (get $units (regexFind "[A-Z]?i?$" .)) -}}
{{- end -}}

{{/*
A folder of trusted keys as a volume: the public half of the key in use, and those of earlier times. The private half
stays out of it. {{ include "pneumoserve.archiveTrust" (list . "signing" "writers") }}
*/}}
{{- define "pneumoserve.archiveTrust" -}}
{{- $root := index . 0 -}}
projected:
  sources:
    - secret:
        name: {{ include "pneumoserve.keySecret" (list $root (index . 1)) }}
        items:
          - key: public.pem
            path: in-use.pem
    {{- if get $root.Values.archive.trust (index . 2) }}
    - configMap:
        name: {{ include "pneumoserve.fullname" $root }}-archive-{{ index . 2 }}
    {{- end }}
{{- end -}}

{{/* The store ---------------------------------------------------------------------------------------------------- */}}

{{- define "pneumoserve.endpoint" -}}
{{- if .Values.trialStore.enabled -}}
{{- printf "http://%s-store.%s.svc:8333" (include "pneumoserve.fullname" .) .Release.Namespace -}}
{{- else -}}
{{- .Values.s3.endpoint | trimSuffix "/" -}}
{{- end -}}
{{- end -}}

{{- define "pneumoserve.endpointPort" -}}
{{- $endpoint := include "pneumoserve.endpoint" . -}}
{{- $port := regexFind ":[0-9]+$" $endpoint | trimPrefix ":" -}}
{{- $port | default (ternary "443" "80" (hasPrefix "https://" $endpoint)) -}}
{{- end -}}

{{/* How KServe's storage-initializer is told where the store is: annotations of the secret it reads with. */}}
{{- define "pneumoserve.storageAnnotations" -}}
{{- $endpoint := include "pneumoserve.endpoint" . -}}
serving.kserve.io/s3-endpoint: {{ regexReplaceAll "^https?://" $endpoint "" | quote }}
serving.kserve.io/s3-usehttps: {{ ternary "1" "0" (hasPrefix "https://" $endpoint) | quote }}
serving.kserve.io/s3-region: {{ .Values.s3.region | quote }}
serving.kserve.io/s3-usevirtualbucket: "false"
{{- with .Values.s3.caConfigMap }}
serving.kserve.io/s3-cabundle-configmap: {{ . | quote }}
serving.kserve.io/s3-cabundle: /etc/ssl/custom-certs/cabundle.crt
{{- end }}
{{- end -}}

{{/* Where a container that talks to the store finds its authorities: a mount, and its volume. Empty without s3.caConfigMap. */}}
{{- define "pneumoserve.storeMount" -}}
{{- if .Values.s3.caConfigMap -}}
- name: store-ca
  mountPath: {{ include "pneumoserve.storeCaFolder" . }}
  readOnly: true
{{- end -}}
{{- end -}}

{{- define "pneumoserve.storeVolume" -}}
{{- with .Values.s3.caConfigMap -}}
- name: store-ca
  configMap:
    name: {{ . }}
{{- end -}}
{{- end -}}

{{- define "pneumoserve.storeCaFolder" -}}
/etc/pneumoserve/store
{{- end -}}

{{- define "pneumoserve.storeEnvironment" -}}
{{- include "pneumoserve.storeEnvironmentOf" (list . (include "pneumoserve.archiveSecret" .)) -}}
{{- end -}}

{{/* The same with the credential of another Secret: {{ include "pneumoserve.storeEnvironmentOf" (list . "secret") }} */}}
{{- define "pneumoserve.storeEnvironmentOf" -}}
{{- $secret := index . 1 -}}
{{- with index . 0 -}}
- name: S3_ENDPOINT
  value: {{ include "pneumoserve.endpoint" . | quote }}
- name: S3_REGION
  value: {{ .Values.s3.region | quote }}
- name: S3_BUCKET
  value: {{ .Values.s3.bucket | quote }}
{{- if .Values.s3.caConfigMap }}
- name: S3_CA_FILE
  value: {{ include "pneumoserve.storeCaFolder" . }}/cabundle.crt
{{- end }}
- name: S3_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: AWS_ACCESS_KEY_ID
- name: S3_SECRET_KEY
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: AWS_SECRET_ACCESS_KEY
{{- end -}}
{{- end -}}

{{/* A digest of what a pod reads only when it starts. */}}
{{- define "pneumoserve.configuration" -}}
{{- list (include "pneumoserve.revoked" .) .Values.trust.keys .Values.s3.archive .Values.s3.releases | toJson | sha256sum | trunc 16 -}}
{{- end -}}

{{- define "pneumoserve.revoked" -}}
{{- dict "keys" .Values.trust.revoked.keys "releases" .Values.trust.revoked.releases | toJson -}}
{{- end -}}
