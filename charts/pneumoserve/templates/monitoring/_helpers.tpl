{{/* The form of logs, as a variable of a container. */}}
{{- define "pneumoserve.logEnvironment" -}}
- name: LOG_FORMAT
  value: {{ .Values.logging.format }}
{{- end -}}

{{/* Where a front sends its traces, and of how many calls; nothing where nothing is traced. */}}
{{- define "pneumoserve.traceEnvironment" -}}
{{- with .Values.tracing.endpoint -}}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $.Values.tracing.sampleRatio | quote }}
{{- end -}}
{{- end -}}
