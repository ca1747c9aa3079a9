{{/* Values that contradict the mode: {{ include … (list $ $told) }} */}}
{{- define "pneumoserve.preflight.knative" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $values := $root.Values -}}
{{- $new := list -}}
{{- if eq $values.mode "Standard" -}}
{{- if ne (int $values.knative.canaryTrafficPercent) 100 -}}
{{- $new = append $new "knative.canaryTrafficPercent counts with mode Knative only; leave it at 100, and give shares of the calls by a rollout." -}}
{{- end -}}
{{- else -}}
{{- if $values.route.enabled -}}
{{- $new = append $new "In Knative mode Knative routes the calls, so the chart makes no route; set route.enabled=false." -}}
{{- end -}}
{{- if or $values.route.limits.callsPerMinute $values.route.limits.bodyMebibytes -}}
{{- $new = append $new "route.limits need the chart's route, which Knative mode does not have; set both to 0." -}}
{{- end -}}
{{- if $values.podDisruptionBudget.enabled -}}
{{- $new = append $new "In Knative mode Knative owns the pods, so the chart makes no disruption budget; set podDisruptionBudget.enabled=false." -}}
{{- end -}}
{{- if $values.autoscaling.enabled -}}
{{- $new = append $new "In Knative mode Knative scales by autoscaling.minReplicas, maxReplicas and target, and another autoscaler would work against it; set autoscaling.enabled=false." -}}
{{- end -}}
{{- if lt (int $values.autoscaling.maxReplicas) (int $values.autoscaling.minReplicas) -}}
{{- $new = append $new "autoscaling.maxReplicas is less than autoscaling.minReplicas; raise it." -}}
{{- end -}}
{{- if $values.release.standby -}}
{{- $new = append $new "In Knative mode the release before keeps running while knative.canaryTrafficPercent is less than 100, and none beside it; leave release.standby empty." -}}
{{- end -}}
{{- if $values.payloadLogger.enabled -}}
{{- $new = append $new "The payload logger was not tried in Knative mode; set payloadLogger.enabled=false." -}}
{{- end -}}
{{- if or $values.monitoring.podMonitor.enabled $values.monitoring.rules.enabled -}}
{{- $new = append $new "The chart's PodMonitor and alerts know the pods and Deployments of Standard mode; set monitoring.podMonitor.enabled=false and monitoring.rules.enabled=false." -}}
{{- end -}}
{{- if and $values.loadTest.enabled (not $values.loadTest.url) -}}
{{- $new = append $new "In Knative mode calls go through Knative's gateway, which the chart does not know; set loadTest.url to it." -}}
{{- end -}}
{{- if and $values.loadTest.enabled (has "grpc" $values.loadTest.kinds) -}}
{{- $new = append $new "Knative mode takes HTTP only; remove grpc from loadTest.kinds." -}}
{{- end -}}
{{- if gt (int $values.terminationGracePeriodSeconds) 600 -}}
{{- $new = append $new "terminationGracePeriodSeconds is Knative's timeout of a call, which may be 600 at most; lower it." -}}
{{- end -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}

{{/* What the cluster lacks for it, and what runs there in the other mode. */}}
{{- define "pneumoserve.preflight.knativeCluster" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $has := $root.Capabilities.APIVersions -}}
{{- if $has.Has "serving.kserve.io/v1beta1/InferenceService" -}}
{{- include "pneumoserve.preflight.oneMode" . -}}
{{- end -}}
{{- if eq $root.Values.mode "Knative" -}}
{{- if $has.Has "serving.knative.dev/v1/Service" -}}
{{- include "pneumoserve.preflight.knativeFeatures" . -}}
{{- else -}}
{{- $_ := set $told "sentences" (append $told.sentences (printf "The cluster has no Knative Serving; install it with a networking layer, then let KServe see it: kubectl rollout restart deployment/kserve-controller-manager -n %s; or set mode=Standard." $root.Values.kserve.namespace)) -}}
{{- end -}}
{{- if $has.Has "serving.kserve.io/v1beta1/InferenceService" -}}
{{- include "pneumoserve.preflight.knativeStorage" . -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* KServe never changes the mode of an InferenceService, and pods of the new mode come after those of the old one are gone. */}}
{{- define "pneumoserve.preflight.oneMode" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- range (lookup "serving.kserve.io/v1beta1" "InferenceService" $root.Release.Namespace "").items -}}
{{- $ours := eq (dig "metadata" "labels" "app.kubernetes.io/instance" "" .) $root.Release.Name -}}
{{- $mode := dig "metadata" "annotations" "serving.kserve.io/deploymentMode" "" . -}}
{{- if and $ours (has $mode (list "Standard" "Knative")) (ne $mode $root.Values.mode) -}}
{{- $_ := set $told "sentences" (append $told.sentences (printf "InferenceService %s runs in %s mode and mode is %s, so it would end before anything took its place; keep mode=%s here, install the other mode in another namespace, and move the callers there." .metadata.name $mode $root.Values.mode $mode)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fields of pods that Knative takes only where its operator has switched them on. */}}
{{- define "pneumoserve.preflight.knativeFeatures" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $values := $root.Values -}}
{{- $new := list -}}
{{- $wanted := dict -}}
{{- if $values.nodeSelector -}}{{- $_ := set $wanted "nodeSelector" (list "nodeselector") -}}{{- end -}}
{{- if $values.tolerations -}}{{- $_ := set $wanted "tolerations" (list "tolerations") -}}{{- end -}}
{{- if $values.affinity -}}{{- $_ := set $wanted "affinity" (list "affinity") -}}{{- end -}}
{{- if $values.topologySpread.enabled -}}{{- $_ := set $wanted "topologySpread" (list "topologyspreadconstraints") -}}{{- end -}}
{{- if $values.archive.journal.existingClaim -}}{{- $_ := set $wanted "archive.journal.existingClaim" (list "persistent-volume-claim" "persistent-volume-write") -}}{{- end -}}
{{- if $wanted -}}
{{- $flags := dig "data" dict (lookup "v1" "ConfigMap" "knative-serving" "config-features" | default dict) | default dict -}}
{{- range $value, $names := $wanted -}}
{{- $off := dict -}}
{{- range $name := $names -}}
{{- $key := printf "kubernetes.podspec-%s" $name -}}
{{- if not (has (get $flags $key | lower) (list "enabled" "allowed")) -}}{{- $_ := set $off $key "enabled" -}}{{- end -}}
{{- end -}}
{{- if $off -}}
{{- $new = append $new (printf "Knative refuses pods with what %s asks for; take it out of the values, or switch it on: kubectl patch configmap config-features -n knative-serving --type merge -p '%s'" $value (dict "data" $off | toJson)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}

{{/*
Knative takes no pod securityContext, so under Pod Security "restricted" KServe's storage-initializer needs all of it as
its own.
*/}}
{{- define "pneumoserve.preflight.knativeStorage" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- if include "pneumoserve.isRestricted" $root -}}
{{- range include "pneumoserve.storageContainers" $root | fromJsonArray -}}
{{- if not (and (dig "seccompProfile" "type" "" .security) (get .security "runAsNonRoot")) -}}
{{- $patch := `{"spec":{"container":{"securityContext":{"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}}}}}` -}}
{{- $_ := set $told "sentences" (append $told.sentences (printf "Namespace %s enforces Pod Security \"restricted\", which KServe's storage-initializer does not meet in Knative mode, where pods have no settings of their own; run: kubectl patch clusterstoragecontainer %s --type merge -p '%s'" $root.Release.Namespace .name $patch)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
