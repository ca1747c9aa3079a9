{{/* What a rollout needs of the values, and what an upgrade must leave to one. */}}
{{- define "pneumoserve.preflight.rollout" -}}
  {{- $values := $.Values -}}
  {{- $knative := eq $values.mode "Knative" -}}
  {{- $problems := list -}}
  {{- if $values.rollout.enabled -}}
    {{- if not (and (get $values.rollout.plan "candidate") (get $values.rollout.plan "steps")) -}}
      {{- $problems = append $problems (cat
          "rollout.plan has no candidate or no steps; give a plan as docs/reference/rollout-plan.md describes it,"
          "or set rollout.enabled=false.") -}}
    {{- end -}}
    {{- $gates := get $values.rollout.plan "gates" -}}
    {{- range $earlier, $name := dict "sensitivity" "missedPneumonia" "specificity" "falseAlarm" -}}
      {{- if and (kindIs "map" $gates) (hasKey ($gates | default dict) $earlier) -}}
        {{- $problems = append $problems (printf (cat
            "rollout.plan.gates.%s is an earlier name, which a new plan may not have; rename it to"
            "rollout.plan.gates.%s.") $earlier $name) -}}
      {{- end -}}
    {{- end -}}
    {{- if and $knative (not $values.release.id) -}}
      {{- $problems = append $problems (cat
          "rollout.enabled is set, but no release answers that a candidate could be tried beside; set"
          "release.id.") -}}
    {{- else if not (or $knative (and $values.route.enabled $values.release.id)) -}}
      {{- $problems = append $problems (cat
          "rollout.enabled is set, but the chart makes no route that a rollout could turn; set"
          "route.enabled=true and release.id.") -}}
    {{- end -}}
  {{- end -}}
  {{- $name := include "pneumoserve.fullname" $ -}}
  {{- $switch := "route" -}}
  {{- $marked := printf "httproute %s" $name -}}
  {{- $live := include "pneumoserve.liveRoute" $ | fromYaml -}}
  {{- if $knative -}}
    {{- $switch = "percent" -}}
    {{- $marked = printf "configmap %s-traffic" $name -}}
    {{- $live = lookup "v1" "ConfigMap" $.Release.Namespace (printf "%s-traffic" $name) -}}
  {{- end -}}
  {{- $marks := dig "metadata" "annotations" dict $live | default dict -}}
  {{- $stable := get $marks "pneumoserve/stable" -}}
  {{- $asks := and $values.preflight.enabled (or $knative $values.route.enabled) -}}
  {{- if and $values.preflight.enabled $knative (get $marks "pneumoserve/rollout") -}}
    {{- $problems = append $problems (printf (cat
        "A rollout beside release %s is under way, and in Knative mode an upgrade would make a revision of its"
        "own; wait until `pneumoserve rollout status` says that it has ended, or end it with `pneumoserve"
        "rollout abort`. If nobody knows of it any more, first run: kubectl annotate %s -n %s"
        "pneumoserve/rollout-") $stable $marked $.Release.Namespace) -}}
  {{- else if and $asks $stable (ne $stable $values.release.id) -}}
    {{- $asked := $values.release.id | default "empty" -}}
    {{- if get $marks "pneumoserve/rollout" -}}
      {{- $problems = append $problems (printf (cat
          "A rollout beside release %s is under way, and release.id is %s; keep release.id=%s until"
          "`pneumoserve rollout status` says that it has ended.") $stable $asked $stable) -}}
    {{- else -}}
      {{- $problems = append $problems (printf (cat
          "A rollout settled on release %s, and release.id is %s; set release.id=%s. To turn the %s by hand"
          "instead, first run: kubectl annotate %s -n %s pneumoserve/stable-")
          $stable $asked $stable $switch $marked $.Release.Namespace) -}}
    {{- end -}}
  {{- else if and $values.preflight.enabled $knative $stable (lt (int $values.knative.canaryTrafficPercent) 100) -}}
    {{- $problems = append $problems (printf (cat
        "A rollout settled on release %s, and knative.canaryTrafficPercent would give calls back to the release"
        "before it; set it to 100.") $stable) -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}
