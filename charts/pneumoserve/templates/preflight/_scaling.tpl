{{/* Values of scaling and monitoring that contradict others. */}}
{{- define "pneumoserve.preflight.scaling" -}}
  {{- $values := $.Values -}}
  {{- $scaling := $values.autoscaling -}}
  {{- $problems := list -}}
  {{- if $scaling.enabled -}}
    {{- if lt (int $scaling.maxReplicas) (int $scaling.minReplicas) -}}
      {{- $problems = append $problems "autoscaling.maxReplicas is less than autoscaling.minReplicas; raise it." -}}
    {{- end -}}
    {{- if and (eq $scaling.by "keda") (not $scaling.prometheus) -}}
      {{- $problems = append $problems
          "KEDA asks Prometheus for the calls in flight; set autoscaling.prometheus to its address." -}}
    {{- end -}}
  {{- end -}}
  {{- $readers := dict "autoscaling" $scaling.enabled "monitoring.podMonitor" $values.monitoring.podMonitor.enabled -}}
  {{- range $name, $on := $readers -}}
    {{- if and $on $values.networkPolicies.enabled (not $values.networkPolicies.metricsNamespaces) -}}
      {{- $problems = append $problems (printf (cat
          "%s needs metrics that nobody may read; set networkPolicies.metricsNamespaces to Prometheus'"
          "namespace.") $name) -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/* What the cluster lacks for them. */}}
{{- define "pneumoserve.preflight.scalingCluster" -}}
  {{- $scaling := $.Values.autoscaling -}}
  {{- $has := $.Capabilities.APIVersions -}}
  {{- $problems := list -}}
  {{- if $scaling.enabled -}}
    {{- $custom := or ($has.Has "custom.metrics.k8s.io/v1beta2") ($has.Has "custom.metrics.k8s.io/v1beta1") -}}
    {{- if and (eq $scaling.by "hpa") (not $custom) -}}
      {{- $problems = append $problems (cat
          "The cluster has no custom metrics API, so pods would stay at autoscaling.minReplicas; install"
          "prometheus-adapter, or set autoscaling.by=keda where KEDA is.") -}}
    {{- else if and (eq $scaling.by "keda") (not ($has.Has "keda.sh/v1alpha1/ScaledObject")) -}}
      {{- $problems = append $problems
          "The cluster has no KEDA; install it, or set autoscaling.by=hpa where the custom metrics API is." -}}
    {{- end -}}
  {{- end -}}
  {{- $monitoring := $.Values.monitoring -}}
  {{- range $kind, $section := dict "PodMonitor" $monitoring.podMonitor "PrometheusRule" $monitoring.rules -}}
    {{- if and $section.enabled (not ($has.Has (printf "monitoring.coreos.com/v1/%s" $kind))) -}}
      {{- $problems = append $problems (printf
          "The cluster knows no %s; install the Prometheus operator, or switch that part of monitoring off."
          $kind) -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}
