{{/* KServe's payload logger: a container of its own in the pod, before the front's HTTP, that copies bodies to S3. */}}

{{/* Whether a release has it, as "true" or nothing: {{ include "pneumoserve.isLogged" (list $ $id) }} */}}
{{- define "pneumoserve.isLogged" -}}
{{- $logger := (index . 0).Values.payloadLogger -}}
{{- if and $logger.enabled (or (not $logger.releases) (has (index . 1) $logger.releases)) -}}
true
{{- end -}}
{{- end -}}

{{- define "pneumoserve.payloadsTo" -}}
{{- .Values.payloadLogger.to | default (printf "s3://%s/payloads" .Values.s3.bucket) | trimSuffix "/" -}}
{{- end -}}

{{/*
KServe takes neither a path, a key nor parameters for granted; the key names an entry of a secret that is not used here.
Another service account would have no effect: KServe 0.20 merges its credential into that of the pod's own, which wins.
*/}}
{{- define "pneumoserve.payloadLogger" -}}
mode: all
url: {{ include "pneumoserve.payloadsTo" . }}
storage:
  path: logs
  key: unused
  parameters:
    type: s3
    format: json
  serviceAccountName: {{ include "pneumoserve.fullname" . }}
{{- end -}}
