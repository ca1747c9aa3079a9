{{/* Values that contradict the mode. */}}
{{- define "pneumoserve.preflight.knative" -}}
  {{- $values := $.Values -}}
  {{- $problems := list -}}
  {{- if eq $values.mode "Standard" -}}
    {{- if ne (int $values.knative.canaryTrafficPercent) 100 -}}
      {{- $problems = append $problems (cat
          "knative.canaryTrafficPercent counts with mode Knative only; leave it at 100, and give shares of the"
          "calls by a rollout.") -}}
    {{- end -}}
  {{- else -}}
    {{- if $values.route.enabled -}}
      {{- $problems = append $problems
          "In Knative mode Knative routes the calls, so the chart makes no route; set route.enabled=false." -}}
    {{- end -}}
    {{- if $values.route.limits.callsPerMinute -}}
      {{- $problems = append $problems (cat
          "route.limits need the chart's route, which Knative mode does not have; set"
          "route.limits.callsPerMinute to 0.") -}}
    {{- end -}}
    {{- if $values.podDisruptionBudget.enabled -}}
      {{- $problems = append $problems (cat
          "In Knative mode Knative owns the pods, so the chart makes no disruption budget; set"
          "podDisruptionBudget.enabled=false.") -}}
    {{- end -}}
    {{- if $values.autoscaling.enabled -}}
      {{- $problems = append $problems (cat
          "In Knative mode Knative scales by autoscaling.minReplicas, maxReplicas and target, and another"
          "autoscaler would work against it; set autoscaling.enabled=false.") -}}
    {{- end -}}
    {{- if lt (int $values.autoscaling.maxReplicas) (int $values.autoscaling.minReplicas) -}}
      {{- $problems = append $problems "autoscaling.maxReplicas is less than autoscaling.minReplicas; raise it." -}}
    {{- end -}}
    {{- if $values.release.standby -}}
      {{- $problems = append $problems (cat
          "In Knative mode the release before keeps running while knative.canaryTrafficPercent is less than"
          "100, and none beside it; leave release.standby empty.") -}}
    {{- end -}}
    {{- if $values.payloadLogger.enabled -}}
      {{- $problems = append $problems
          "The payload logger was not tried in Knative mode; set payloadLogger.enabled=false." -}}
    {{- end -}}
    {{- if or $values.monitoring.podMonitor.enabled $values.monitoring.rules.enabled -}}
      {{- $problems = append $problems (cat
          "The chart's PodMonitor and alerts know the pods and Deployments of Standard mode; set"
          "monitoring.podMonitor.enabled=false and monitoring.rules.enabled=false.") -}}
    {{- end -}}
    {{- if and $values.loadTest.enabled (not $values.loadTest.url) -}}
      {{- $problems = append $problems (cat
          "In Knative mode calls go through Knative's gateway, which the chart does not know; set loadTest.url"
          "to it.") -}}
    {{- end -}}
    {{- if and $values.loadTest.enabled (has "grpc" $values.loadTest.kinds) -}}
      {{- $problems = append $problems "Knative mode takes HTTP only; remove grpc from loadTest.kinds." -}}
    {{- end -}}
    {{- if gt (int $values.terminationGracePeriodSeconds) 600 -}}
      {{- $problems = append $problems
          "terminationGracePeriodSeconds is Knative's timeout of a call, which may be 600 at most; lower it." -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/* What the cluster lacks for it, and what runs there in the other mode. */}}
{{- define "pneumoserve.preflight.knativeCluster" -}}
  {{- $problems := list -}}
  {{- $has := $.Capabilities.APIVersions -}}
  {{- if $has.Has "serving.kserve.io/v1beta1/InferenceService" -}}
    {{- $problems = concat $problems (include "pneumoserve.preflight.oneMode" . | fromJsonArray) -}}
  {{- end -}}
  {{- if eq $.Values.mode "Knative" -}}
    {{- if $has.Has "serving.knative.dev/v1/Service" -}}
      {{- $problems = concat $problems (include "pneumoserve.preflight.knativeFeatures" . | fromJsonArray) -}}
    {{- else -}}
      {{- $problems = append $problems (printf (cat
          "The cluster has no Knative Serving; install it with a networking layer, then let KServe see it:"
          "kubectl rollout restart deployment/kserve-controller-manager -n %s; or set mode=Standard.")
          $.Values.kserve.namespace) -}}
    {{- end -}}
    {{- if $has.Has "serving.kserve.io/v1beta1/InferenceService" -}}
      {{- $problems = concat $problems (include "pneumoserve.preflight.knativeStorage" . | fromJsonArray) -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/*
KServe never changes the mode of an InferenceService, and pods of the new mode come after those of the old one are gone.
*/}}
{{- define "pneumoserve.preflight.oneMode" -}}
  {{- $problems := list -}}
  {{- range (lookup "serving.kserve.io/v1beta1" "InferenceService" $.Release.Namespace "").items -}}
    {{- $ours := eq (dig "metadata" "labels" "app.kubernetes.io/instance" "" .) $.Release.Name -}}
    {{- $mode := dig "metadata" "annotations" "serving.kserve.io/deploymentMode" "" . -}}
    {{- if and $ours (has $mode (list "Standard" "Knative")) (ne $mode $.Values.mode) -}}
      {{- $problems = append $problems (printf (cat
          "InferenceService %s runs in %s mode and mode is %s, so it would end before anything took its place;"
          "keep mode=%s here, install the other mode in another namespace, and move the callers there.")
          .metadata.name $mode $.Values.mode $mode) -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/* Fields of pods that Knative takes only where its operator has switched them on. */}}
{{- define "pneumoserve.preflight.knativeFeatures" -}}
  {{- $values := $.Values -}}
  {{- $problems := list -}}
  {{- $wanted := dict -}}
  {{- if $values.nodeSelector -}}{{- $_ := set $wanted "nodeSelector" (list "nodeselector") -}}{{- end -}}
  {{- if $values.tolerations -}}{{- $_ := set $wanted "tolerations" (list "tolerations") -}}{{- end -}}
  {{- if $values.affinity -}}{{- $_ := set $wanted "affinity" (list "affinity") -}}{{- end -}}
  {{- if $values.priorityClassName -}}
    {{- $_ := set $wanted "priorityClassName" (list "priorityclassname") -}}
  {{- end -}}
  {{- if $values.topologySpread.enabled -}}
    {{- $_ := set $wanted "topologySpread" (list "topologyspreadconstraints") -}}
  {{- end -}}
  {{- if $values.archive.journal.existingClaim -}}
    {{- $_ := set $wanted "archive.journal.existingClaim" (list "persistent-volume-claim" "persistent-volume-write") -}}
  {{- end -}}
  {{- if $wanted -}}
    {{- $features := lookup "v1" "ConfigMap" "knative-serving" "config-features" | default dict -}}
    {{- $flags := dig "data" dict $features | default dict -}}
    {{- range $value, $names := $wanted -}}
      {{- $off := dict -}}
      {{- range $name := $names -}}
        {{- $key := printf "kubernetes.podspec-%s" $name -}}
        {{- if not (has (get $flags $key | lower) (list "enabled" "allowed")) -}}
          {{- $_ := set $off $key "enabled" -}}
        {{- end -}}
      {{- end -}}
      {{- if $off -}}
        {{- $problems = append $problems (printf (cat
            "Knative refuses pods with what %s asks for; take it out of the values, or switch it on: kubectl"
            "patch configmap config-features -n knative-serving --type merge -p '%s'")
            $value (dict "data" $off | toJson)) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/*
Knative takes no pod securityContext, so under Pod Security "restricted" KServe's storage-initializer needs all of it as
its own.
*/}}
{{- define "pneumoserve.preflight.knativeStorage" -}}
  {{- $problems := list -}}
  {{- if include "pneumoserve.isRestricted" $ -}}
    {{- range include "pneumoserve.storageContainers" $ | fromJsonArray -}}
      {{- if not (and (dig "seccompProfile" "type" "" .security) (get .security "runAsNonRoot")) -}}
        {{- $security := `{"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}}` -}}
        {{- $problems = append $problems (printf (cat
            "Namespace %s enforces Pod Security \"restricted\", which KServe's storage-initializer does not"
            "meet in Knative mode, where pods have no settings of their own; run: kubectl patch"
            "clusterstoragecontainer %s --type merge"
            "-p '{\"spec\":{\"container\":{\"securityContext\":%s}}}'")
            $.Release.Namespace .name $security) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}
