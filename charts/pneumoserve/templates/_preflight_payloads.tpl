{{/* Values of the payload logger that contradict others: {{ include … (list $ $told) }} */}}
{{- define "pneumoserve.preflight.payloads" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $logger := $root.Values.payloadLogger -}}
{{- $new := list -}}
{{- if and $logger.enabled $root.Values.trialStore.enabled -}}
{{- if $logger.to -}}
{{- $new = append $new "The trial store has a place of its own for payloads; leave payloadLogger.to empty." -}}
{{- end -}}
{{- else if $logger.enabled -}}
{{- if not $logger.to -}}
{{- $new = append $new "The payload logger has nowhere to write to; set payloadLogger.to." -}}
{{- else if eq (regexFind "[^/]+" (trimPrefix "s3://" $logger.to)) $root.Values.s3.bucket -}}
{{- $new = append $new "payloadLogger.to is the archive's bucket, so what reads releases could write records; name another bucket." -}}
{{- end -}}
{{- if eq (include "pneumoserve.archiveSecret" $root) (include "pneumoserve.releasesSecret" $root) -}}
{{- $new = append $new "The payload logger writes with the releases' credential, which is the archive's here; set s3.releases to one of its own that reads releases and writes to payloadLogger.to." -}}
{{- end -}}
{{- end -}}
{{- range $id := $logger.releases -}}
{{- if not (has $id (include "pneumoserve.running" $root | fromJsonArray)) -}}
{{- $new = append $new (printf "Release %s is in payloadLogger.releases and does not run; remove it there, or add it to release.standby." $id) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}

{{/*
With the logger, the Service's port leads to a container that pods from before do not have: while they are replaced, a
share of the calls would be refused. So it is switched where nobody calls.
*/}}
{{- define "pneumoserve.preflight.payloadsCluster" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $namespace := $root.Release.Namespace -}}
{{- $new := list -}}
{{- $called := compact (list $root.Values.release.id) -}}
{{- if $root.Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1/HTTPRoute" -}}
{{- with lookup "gateway.networking.k8s.io/v1" "HTTPRoute" $namespace (include "pneumoserve.fullname" $root) -}}
{{- range .spec.rules -}}
{{- range .backendRefs -}}
{{- if ne (int (.weight | default 1)) 0 -}}{{- $called = append $called (.name | trimSuffix "-predictor" | trimPrefix "pneumonia-") -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $root.Capabilities.APIVersions.Has "serving.kserve.io/v1beta1/InferenceService" -}}
{{- range $id := $called | uniq -}}
{{- $name := include "pneumoserve.isvc" $id -}}
{{- $service := lookup "serving.kserve.io/v1beta1" "InferenceService" $namespace $name -}}
{{- if and (has $id (include "pneumoserve.running" $root | fromJsonArray)) (eq (include "pneumoserve.preflight.ready" (list $root $name)) "True") -}}
{{- $is := ne (dig "spec" "predictor" "logger" dict $service | len) 0 -}}
{{- $wanted := eq (include "pneumoserve.isLogged" (list $root $id)) "true" -}}
{{- if ne $is $wanted -}}
{{- $new = append $new (printf "Release %s answers calls %s the payload logger, and calls would be lost while that changes; let another release answer first, change it while %s is in release.standby, wait for `kubectl rollout status deployment/%s-predictor -n %s`, then switch back." $id (ternary "with" "without" $is) $id $name $namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}
