{{/* What a rollout needs of the values, and what an upgrade must leave to one: {{ include … (list $ $told) }} */}}
{{- define "pneumoserve.preflight.rollout" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $values := $root.Values -}}
{{- $knative := eq $values.mode "Knative" -}}
{{- $new := list -}}
{{- if $values.rollout.enabled -}}
{{- if not (and (get $values.rollout.plan "candidate") (get $values.rollout.plan "steps")) -}}
{{- $new = append $new "rollout.plan has no candidate or no steps; give a plan as docs/rollouts.md describes it, or set rollout.enabled=false." -}}
{{- end -}}
{{- if and $knative (not $values.release.id) -}}
{{- $new = append $new "rollout.enabled is set, but no release answers that a candidate could be tried beside; set release.id." -}}
{{- else if not (or $knative (and $values.route.enabled $values.release.id)) -}}
{{- $new = append $new "rollout.enabled is set, but the chart makes no route that a rollout could turn; set route.enabled=true and release.id." -}}
{{- end -}}
{{- end -}}
{{- $name := include "pneumoserve.fullname" $root -}}
{{- $switch := "route" -}}
{{- $marked := printf "httproute %s" $name -}}
{{- $live := include "pneumoserve.liveRoute" $root | fromYaml -}}
{{- if $knative -}}
{{- $switch = "percent" -}}
{{- $marked = printf "configmap %s-traffic" $name -}}
{{- $live = lookup "v1" "ConfigMap" $root.Release.Namespace (printf "%s-traffic" $name) -}}
{{- end -}}
{{- $marks := dig "metadata" "annotations" dict $live | default dict -}}
{{- $stable := get $marks "pneumoserve/stable" -}}
{{- if and $values.preflight.enabled $knative (get $marks "pneumoserve/rollout") -}}
{{- $new = append $new (printf "A rollout beside release %s is under way, and in Knative mode an upgrade would make a revision of its own; wait until `pneumoserve rollout status` says that it has ended, or end it with `pneumoserve rollout abort`. If nobody knows of it any more, first run: kubectl annotate %s -n %s pneumoserve/rollout-" $stable $marked $root.Release.Namespace) -}}
{{- else if and $values.preflight.enabled (or $knative $values.route.enabled) $stable (ne $stable $values.release.id) -}}
{{- $asked := $values.release.id | default "empty" -}}
{{- if get $marks "pneumoserve/rollout" -}}
{{- $new = append $new (printf "A rollout beside release %s is under way, and release.id is %s; keep release.id=%s until `pneumoserve rollout status` says that it has ended." $stable $asked $stable) -}}
{{- else -}}
{{- $new = append $new (printf "A rollout settled on release %s, and release.id is %s; set release.id=%s. To turn the %s by hand instead, first run: kubectl annotate %s -n %s pneumoserve/stable-" $stable $asked $stable $switch $marked $root.Release.Namespace) -}}
{{- end -}}
{{- else if and $values.preflight.enabled $knative $stable (lt (int $values.knative.canaryTrafficPercent) 100) -}}
{{- $new = append $new (printf "A rollout settled on release %s, and knative.canaryTrafficPercent would give calls back to the release before it; set it to 100." $stable) -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}

{{/* The route as it is in the cluster; nothing where there is no cluster, as under `helm template`. */}}
{{- define "pneumoserve.liveRoute" -}}
{{- if .Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1/HTTPRoute" -}}
{{- lookup "gateway.networking.k8s.io/v1" "HTTPRoute" .Release.Namespace (include "pneumoserve.fullname" .) | toYaml -}}
{{- end -}}
{{- end -}}
