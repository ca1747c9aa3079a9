{{/* Values of scaling, payload logger and monitoring that contradict others: {{ include … (list $ $told) }} */}}
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
{{- if and $values.networkPolicies.enabled (not $values.networkPolicies.metricsNamespaces) -}}
{{- $new = append $new "autoscaling goes by metrics that nobody may read; set networkPolicies.metricsNamespaces to Prometheus' namespace." -}}
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
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}
