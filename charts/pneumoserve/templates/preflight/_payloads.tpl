{{/* Values of the payload logger that contradict others. */}}
{{- define "pneumoserve.preflight.payloads" -}}
  {{- $logger := $.Values.payloadLogger -}}
  {{- $problems := list -}}
  {{- if and $logger.enabled $.Values.trialStore.enabled -}}
    {{- if $logger.to -}}
      {{- $problems = append $problems
          "The trial store has a place of its own for payloads; leave payloadLogger.to empty." -}}
    {{- end -}}
  {{- else if $logger.enabled -}}
    {{- if not $logger.to -}}
      {{- $problems = append $problems "The payload logger has nowhere to write to; set payloadLogger.to." -}}
    {{- else if eq (regexFind "[^/]+" (trimPrefix "s3://" $logger.to)) $.Values.s3.bucket -}}
      {{- $problems = append $problems (cat
          "payloadLogger.to is the archive's bucket, so what reads releases could write records; name another"
          "bucket.") -}}
    {{- end -}}
    {{- if eq (include "pneumoserve.archiveSecret" $) (include "pneumoserve.releasesSecret" $) -}}
      {{- $problems = append $problems (cat
          "The payload logger writes with the releases' credential, which is the archive's here; set"
          "s3.releases to one of its own that reads releases and writes to payloadLogger.to.") -}}
    {{- end -}}
  {{- end -}}
  {{- range $id := $logger.releases -}}
    {{- if not (has $id (include "pneumoserve.running" $ | fromJsonArray)) -}}
      {{- $problems = append $problems (printf (cat
          "Release %s is in payloadLogger.releases and does not run; remove it there, or add it to"
          "release.standby.") $id) -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/*
With the logger, the Service's port leads to a container that pods from before do not have: while they are replaced, a
share of the calls would be refused. So it is switched where nobody calls.
*/}}
{{- define "pneumoserve.preflight.payloadsCluster" -}}
  {{- $namespace := $.Release.Namespace -}}
  {{- $problems := list -}}
  {{- $called := compact (list $.Values.release.id) -}}
  {{- if $.Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1/HTTPRoute" -}}
    {{- with lookup "gateway.networking.k8s.io/v1" "HTTPRoute" $namespace (include "pneumoserve.fullname" $) -}}
      {{- range .spec.rules -}}
        {{- range .backendRefs -}}
          {{- if ne (int (.weight | default 1)) 0 -}}
            {{- $called = append $called (.name | trimSuffix "-predictor" | trimPrefix "pneumonia-") -}}
          {{- end -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- if $.Capabilities.APIVersions.Has "serving.kserve.io/v1beta1/InferenceService" -}}
    {{- range $id := $called | uniq -}}
      {{- $name := include "pneumoserve.isvc" $id -}}
      {{- $service := lookup "serving.kserve.io/v1beta1" "InferenceService" $namespace $name -}}
      {{- $running := has $id (include "pneumoserve.running" $ | fromJsonArray) -}}
      {{- if and $running (eq (include "pneumoserve.preflight.ready" (list $ $name)) "True") -}}
        {{- $is := ne (dig "spec" "predictor" "logger" dict $service | len) 0 -}}
        {{- $wanted := eq (include "pneumoserve.isLogged" (list $ $id)) "true" -}}
        {{- if ne $is $wanted -}}
          {{- $problems = append $problems (printf (cat
              "Release %s answers calls %s the payload logger, and calls would be lost while that changes; let"
              "another release answer first, change it while %s is in release.standby, wait for `kubectl"
              "rollout status deployment/%s-predictor -n %s`, then switch back.")
              $id (ternary "with" "without" $is) $id $name $namespace) -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}
