{{/* Knative mode: one InferenceService, whose revisions are the releases. */}}

{{- define "pneumoserve.knativeService" -}}
pneumonia
{{- end -}}

{{/* The spec of the ServingRuntime, as the mode wants it. */}}
{{- define "pneumoserve.runtimeSpec" -}}
{{- if eq .Values.mode "Knative" -}}
{{- include "pneumoserve.knativeRuntimeSpec" . -}}
{{- else -}}
{{- include "pneumoserve.standardRuntimeSpec" . -}}
{{- end -}}
{{- end -}}

{{/*
What of it Knative takes (knative.dev/serving, pkg/apis/serving: fieldmask.go, k8s_validation.go): one port over all
containers, so no gRPC; no lifecycle hooks, since Knative sets its own on every container, which waits until the
queue-proxy has answered what it took in; no probes but those of the container with the port. The front is Ready only
when TorchServe's workers are, so the models need none.
*/}}
{{- define "pneumoserve.knativeRuntimeSpec" -}}
{{- $spec := include "pneumoserve.standardRuntimeSpec" . | fromYaml -}}
{{- $containers := list -}}
{{- range $spec.containers -}}
{{- $container := omit . "lifecycle" -}}
{{- if .ports -}}
{{- $args := list -}}
{{- range .args -}}{{- if not (hasPrefix "--drain-lock=" .) -}}{{- $args = append $args . -}}{{- end -}}{{- end -}}
{{- $container = merge (dict "ports" (list (first .ports))) (omit $container "args" "ports") -}}
{{- if $args -}}{{- $_ := set $container "args" $args -}}{{- end -}}
{{- else -}}
{{- $container = omit $container "startupProbe" "readinessProbe" "livenessProbe" -}}
{{- end -}}
{{- $containers = append $containers $container -}}
{{- end -}}
{{- $versions := without $spec.protocolVersions "grpc-v2" -}}
{{- merge (dict "containers" $containers "protocolVersions" $versions) $spec | toYaml -}}
{{- end -}}

{{/*
Rules of the predictor's NetworkPolicy. Knative's queue-proxy stands before the front: its gateway and its activator
call it, over HTTP or TLS, and its autoscaler reads how many calls are in flight.
*/}}
{{- define "pneumoserve.knativeCallers" -}}
- from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.networkPolicies.gatewayNamespace }}
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: knative-serving
  ports:
    - port: 8012
      protocol: TCP
    - port: 8112
      protocol: TCP
- from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: knative-serving
  ports:
    - port: 9090
      protocol: TCP
{{- end -}}
