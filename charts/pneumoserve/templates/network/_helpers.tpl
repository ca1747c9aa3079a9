{{/* The gateway's proxy pods, as peers of a NetworkPolicy. */}}
{{- define "pneumoserve.gatewayPeers" -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ .Values.networkPolicies.gatewayNamespace }}
  podSelector:
    matchLabels:
      {{- if .Values.networkPolicies.gatewayPods }}
      {{- toYaml .Values.networkPolicies.gatewayPods | nindent 6 }}
      {{- else }}
      gateway.envoyproxy.io/owning-gateway-name: {{ .Values.route.gateway.name }}
      gateway.envoyproxy.io/owning-gateway-namespace: {{ .Values.route.gateway.namespace }}
      {{- end }}
{{- end -}}

{{/*
Networks and namespaces of a value as peers of a NetworkPolicy; nothing where there are none:
{{ include "pneumoserve.peers" .Values.networkPolicies.store }}
*/}}
{{- define "pneumoserve.peers" -}}
{{- $peers := list -}}
{{- range .cidrs -}}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" .)) -}}
{{- end -}}
{{- range .namespaces -}}
{{- $labels := dict "kubernetes.io/metadata.name" . -}}
{{- $peers = append $peers (dict "namespaceSelector" (dict "matchLabels" $labels)) -}}
{{- end -}}
{{- with $peers -}}{{- toYaml . -}}{{- end -}}
{{- end -}}

{{/* Components that reach the store, as a JSON list. */}}
{{- define "pneumoserve.storeClients" -}}
{{- $clients := list "predictor" "setup" "archive" "training" "signing" "rollout" -}}
{{- range list "console" "alerts" "sample" "drift" "evidence" "intake" -}}
{{- if (get $.Values .).enabled -}}
{{- $clients = append $clients . -}}
{{- end -}}
{{- end -}}
{{- toJson $clients -}}
{{- end -}}
