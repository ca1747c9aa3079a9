{{/* The Secret of one of the archive's keys: {{ include "pneumoserve.keySecret" (list . "signing") }} */}}
{{- define "pneumoserve.keySecret" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $made := printf "%s-archive-%s" (include "pneumoserve.fullname" $root) $name -}}
{{- (get $root.Values.archive $name).existingSecret | default $made -}}
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

{{/* Bytes of a quantity: {{ include "pneumoserve.bytes" "1Gi" }} */}}
{{- define "pneumoserve.bytes" -}}
{{- $units := dict "" 1 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mul (regexFind "^[0-9]+" .) (get $units (regexFind "[A-Z]?i?$" .)) -}}
{{- end -}}
