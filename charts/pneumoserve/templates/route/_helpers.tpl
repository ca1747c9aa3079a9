{{/* The header in which the gateway names the caller. */}}
{{- define "pneumoserve.subjectHeader" -}}
Pneumoserve-Subject
{{- end -}}

{{/* Has the gateway add its secret to a call. */}}
{{- define "pneumoserve.gatewayFilter" -}}
- type: ExtensionRef
  extensionRef:
    group: gateway.envoyproxy.io
    kind: HTTPRouteFilter
    name: {{ include "pneumoserve.fullname" . }}
{{- end -}}

{{/* The gateway's secret, for what calls a front past the gateway. */}}
{{- define "pneumoserve.gatewaySecret" -}}
{{- with .Values.route.signIn.gatewaySecret -}}
- name: PNEUMOSERVE_GATEWAY_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: credential
{{- end -}}
{{- end -}}

{{/* The route as it is in the cluster; nothing where there is no cluster, as under `helm template`. */}}
{{- define "pneumoserve.liveRoute" -}}
  {{- if .Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1/HTTPRoute" -}}
    {{- $name := include "pneumoserve.fullname" . -}}
    {{- lookup "gateway.networking.k8s.io/v1" "HTTPRoute" .Release.Namespace $name | toYaml -}}
  {{- end -}}
{{- end -}}
