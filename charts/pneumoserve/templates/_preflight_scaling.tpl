{{/* Values of scaling and monitoring that contradict others: {{ include … (list $ $told) }} */}}
{{- define "pneumoserve.preflight.scaling" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $values := $root.Values -}}
{{- $scaling := $values.autoscaling -}}
{{- $new := list -}}
{{- if $scaling.enabled -}}
{{- if lt (int $scaling.maxReplicas) (int $scaling.minReplicas) -}}
{{- $new = append $new "autoscaling.maxReplicas is less than autoscaling.minReplicas; raise it." -}}
{{- end -}}
{{- if and (eq $scaling.by "keda") (not $scaling.prometheus) -}}
{{- $new = append $new "KEDA asks Prometheus for the calls in flight; set autoscaling.prometheus to its address." -}}
{{- end -}}
{{- end -}}
{{- range $name, $on := dict "autoscaling" $scaling.enabled "monitoring.podMonitor" $values.monitoring.podMonitor.enabled -}}
{{- if and $on $values.networkPolicies.enabled (not $values.networkPolicies.metricsNamespaces) -}}
{{- $new = append $new (printf "%s needs metrics that nobody may read; set networkPolicies.metricsNamespaces to Prometheus' namespace." $name) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}

{{/* What the cluster lacks for them. */}}
{{- define "pneumoserve.preflight.scalingCluster" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $scaling := $root.Values.autoscaling -}}
{{- $has := $root.Capabilities.APIVersions -}}
{{- $new := list -}}
{{- if $scaling.enabled -}}
{{- $custom := or ($has.Has "custom.metrics.k8s.io/v1beta2") ($has.Has "custom.metrics.k8s.io/v1beta1") -}}
{{- if and (eq $scaling.by "hpa") (not $custom) -}}
{{- $new = append $new "The cluster has no custom metrics API, so pods would stay at autoscaling.minReplicas; install prometheus-adapter, or set autoscaling.by=keda where KEDA is." -}}
{{- else if and (eq $scaling.by "keda") (not ($has.Has "keda.sh/v1alpha1/ScaledObject")) -}}
{{- $new = append $new "The cluster has no KEDA; install it, or set autoscaling.by=hpa where the custom metrics API is." -}}
{{- end -}}
{{- end -}}
{{- range $kind, $section := dict "PodMonitor" $root.Values.monitoring.podMonitor "PrometheusRule" $root.Values.monitoring.rules -}}
{{- if and $section.enabled (not ($has.Has (printf "monitoring.coreos.com/v1/%s" $kind))) -}}
{{- $new = append $new (printf "The cluster knows no %s; install the Prometheus operator, or switch that part of monitoring off." $kind) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}
