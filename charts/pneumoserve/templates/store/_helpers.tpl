{{- define "pneumoserve.endpoint" -}}
{{- if .Values.trialStore.enabled -}}
{{- printf "http://%s-store.%s.svc:8333" (include "pneumoserve.fullname" .) .Release.Namespace -}}
{{- else -}}
{{- .Values.s3.endpoint | trimSuffix "/" -}}
{{- end -}}
{{- end -}}

{{- define "pneumoserve.endpointPort" -}}
{{- include "pneumoserve.portOf" (include "pneumoserve.endpoint" .) -}}
{{- end -}}

{{/* The port of an address: {{ include "pneumoserve.portOf" "https://host/path" }} */}}
{{- define "pneumoserve.portOf" -}}
{{- $port := regexFind "^https?://[^/]+" . | regexFind ":[0-9]+$" | trimPrefix ":" -}}
{{- $port | default (ternary "443" "80" (hasPrefix "https://" .)) -}}
{{- end -}}

{{- define "pneumoserve.archiveSecret" -}}
{{- if and .Values.s3.archive.existingSecret (not .Values.trialStore.enabled) -}}
{{- .Values.s3.archive.existingSecret -}}
{{- else -}}
{{- include "pneumoserve.fullname" . }}-archive
{{- end -}}
{{- end -}}

{{/* Names of the credentials that this install has, as s3 has them and the trial store makes them; a JSON list. */}}
{{- define "pneumoserve.credentials" -}}
{{- $names := list "archive" "seal" "rollout" "releases" "setup" -}}
{{- if or .Values.console.enabled .Values.sample.enabled -}}
{{- $names = append $names "console" -}}
{{- end -}}
{{- if .Values.alerts.enabled -}}
{{- $names = append $names "alerts" -}}
{{- end -}}
{{- if .Values.intake.enabled -}}
{{- $names = append $names "intake" -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/*
The Secret of s3.seal, s3.rollout, s3.releases or s3.setup, the archive's where no other one is given, and that of
s3.console, s3.alerts or s3.intake:
{{ include "pneumoserve.storeSecret" (list . "setup") }}
*/}}
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

{{- define "pneumoserve.storeEnvironment" -}}
{{- include "pneumoserve.storeEnvironmentOf" (list . (include "pneumoserve.archiveSecret" .)) -}}
{{- end -}}

{{/*
The environment of a container that talks to the store with the credential of a Secret, in another bucket than the
archive's where one is named:
{{ include "pneumoserve.storeEnvironmentOf" (list . "secret" "bucket") }}
*/}}
{{- define "pneumoserve.storeEnvironmentOf" -}}
{{- $secret := index . 1 -}}
{{- $bucket := "" -}}
{{- if gt (len .) 2 -}}{{- $bucket = index . 2 -}}{{- end -}}
{{- with index . 0 -}}
- name: S3_ENDPOINT
  value: {{ include "pneumoserve.endpoint" . | quote }}
- name: S3_REGION
  value: {{ .Values.s3.region | quote }}
- name: S3_BUCKET
  value: {{ $bucket | default .Values.s3.bucket | quote }}
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

{{/* Mount and volume of the authorities by which a container knows the store. Empty without s3.caConfigMap. */}}
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

{{/* By which KServe's storage-initializer finds the store: annotations of the Secret it reads with. */}}
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

{{/*
The trial store's policies, one of each credential's name, as a JSON list. An object store of yours takes the same
documents.
*/}}
{{- define "pneumoserve.rights" -}}
{{- $bucket := .Values.s3.bucket -}}
{{- $more := dict -}}
{{- with .Values.archive.export.to -}}
{{- $_ := set $more "seal" (printf "%s/*" (trimPrefix "s3://" . | trimSuffix "/")) -}}
{{- end -}}
{{- if .Values.payloadLogger.enabled -}}
{{- /* What KServe's payload logger writes with. */ -}}
{{- $_ := set $more "releases" (printf "%s/payloads/*" $bucket) -}}
{{- end -}}
{{- $policies := list -}}
{{- range $name := include "pneumoserve.credentials" $ | fromJsonArray -}}
{{- $text := $.Files.Get (printf "files/rights/%s.json" $name) -}}
{{- $policy := $text | replace "BUCKET" $bucket | replace "SPOOL" $.Values.intake.bucket | fromJson -}}
{{- with get $more $name -}}
{{- $to := printf "arn:aws:s3:::%s" . -}}
{{- $write := dict "Effect" "Allow" "Action" (list "s3:PutObject") "Resource" (list $to) -}}
{{- $statement := merge (dict "Sid" "AddWhatValuesSay") $write -}}
{{- $_ := set $policy "Statement" (append $policy.Statement $statement) -}}
{{- end -}}
{{- $policies = append $policies (dict "name" $name "content" (toJson $policy)) -}}
{{- end -}}
{{- toJson $policies -}}
{{- end -}}

{{/*
Lines of NOTES.txt that let a person's commands reach the store with a credential:
{{ include "pneumoserve.notesStore" (list . "setup") }}
*/}}
{{- define "pneumoserve.notesStore" -}}
{{- $secret := include "pneumoserve.storeSecret" . -}}
{{- with index . 0 -}}
{{- $key := printf "$(kubectl get secret -n %s %s -o jsonpath=" .Release.Namespace $secret -}}
{{- if .Values.trialStore.enabled }}
  kubectl port-forward -n {{ .Release.Namespace }} service/{{ include "pneumoserve.fullname" . }}-store 8333:8333 &
{{- end }}
  export S3_ENDPOINT={{ ternary "http://127.0.0.1:8333" (include "pneumoserve.endpoint" .) .Values.trialStore.enabled }}
  {{- printf " S3_BUCKET=%s S3_REGION=%s" .Values.s3.bucket .Values.s3.region }}
  export S3_ACCESS_KEY={{ $key }}'{.data.AWS_ACCESS_KEY_ID}' | base64 -d)
  export S3_SECRET_KEY={{ $key }}'{.data.AWS_SECRET_ACCESS_KEY}' | base64 -d)
{{- end -}}
{{- end -}}
