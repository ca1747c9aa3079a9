{{/* Ids of the releases that run, the one that answers first, as a JSON list. */}}
{{- define "pneumoserve.running" -}}
{{- concat (compact (list .Values.release.id)) .Values.release.standby | toJson -}}
{{- end -}}

{{/* Pods of each release, at least and at most: {{ include "pneumoserve.leastPods" $ }} */}}
{{- define "pneumoserve.leastPods" -}}
{{- $scales := or .Values.autoscaling.enabled (eq .Values.mode "Knative") -}}
{{- ternary .Values.autoscaling.minReplicas .Values.replicas $scales -}}
{{- end -}}

{{- define "pneumoserve.mostPods" -}}
{{- $scales := or .Values.autoscaling.enabled (eq .Values.mode "Knative") -}}
{{- ternary .Values.autoscaling.maxReplicas .Values.replicas $scales -}}
{{- end -}}

{{/*
How fast pods come and go. Up at once, since callers wait; down late and one by one, since the next call may come.
*/}}
{{- define "pneumoserve.scalingBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  selectPolicy: Max
  policies:
    - {type: Percent, value: 100, periodSeconds: 15}
    - {type: Pods, value: 2, periodSeconds: 15}
scaleDown:
  stabilizationWindowSeconds: {{ .Values.autoscaling.scaleDownSeconds }}
  selectPolicy: Max
  policies:
    - {type: Pods, value: 1, periodSeconds: 60}
{{- end -}}
