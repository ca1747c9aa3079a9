{{- define "pneumoserve.trustName" -}}
{{- .Values.trust.existingConfigMap | default (printf "%s-trust" (include "pneumoserve.fullname" .)) -}}
{{- end -}}

{{- define "pneumoserve.trustPolicy" -}}
{{- dict "signatures" (int .Values.trust.signatures) | toJson -}}
{{- end -}}

{{- define "pneumoserve.revoked" -}}
{{- dict "keys" .Values.trust.revoked.keys "releases" .Values.trust.revoked.releases | toJson -}}
{{- end -}}

{{/* A digest of what a pod reads only when it starts. */}}
{{- define "pneumoserve.configuration" -}}
{{- $trust := list (include "pneumoserve.revoked" .) (include "pneumoserve.trustPolicy" .) .Values.trust.keys -}}
{{- concat $trust (list .Values.s3.archive .Values.s3.releases) | toJson | sha256sum | trunc 16 -}}
{{- end -}}
