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

{{/* Whether STOW-RS comes by a route of the chart. */}}
{{- define "pneumoserve.hasWebRoute" -}}
{{- $intake := .Values.intake -}}
{{- if and .Values.route.enabled .Values.release.id $intake.enabled $intake.web.enabled -}}true{{- end -}}
{{- end -}}

{{/* The limit on a caller's calls, as a part of a BackendTrafficPolicy; nothing where there is none. */}}
{{- define "pneumoserve.rateLimit" -}}
{{- with .Values.route.limits.callsPerMinute -}}
rateLimit:
  local:
    rules:
      # A bucket of each caller's own: by verified name, where callers sign in, else by address.
      - clientSelectors:
          {{- if ne $.Values.route.signIn.method "none" }}
          - headers:
              - name: {{ include "pneumoserve.subjectHeader" $ }}
                type: Distinct
          {{- else }}
          - sourceCIDR:
              type: Distinct
              value: 0.0.0.0/0
          {{- end }}
        limit:
          requests: {{ . }}
          unit: Minute
      {{- if eq $.Values.route.signIn.method "none" }}
      - clientSelectors:
          - sourceCIDR:
              type: Distinct
              value: ::/0
        limit:
          requests: {{ . }}
          unit: Minute
      {{- end }}
{{- end -}}
{{- end -}}

{{/* The route as it is in the cluster; nothing where there is no cluster, as under `helm template`. */}}
{{- define "pneumoserve.liveRoute" -}}
  {{- if .Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1/HTTPRoute" -}}
    {{- $name := include "pneumoserve.fullname" . -}}
    {{- lookup "gateway.networking.k8s.io/v1" "HTTPRoute" .Release.Namespace $name | toYaml -}}
  {{- end -}}
{{- end -}}
