{{/* Values of the payload logger that contradict others: {{ include … (list $ $told) }} */}}
{{- define "pneumoserve.preflight.payloads" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $logger := $root.Values.payloadLogger -}}
{{- $new := list -}}
{{- if and $logger.enabled $root.Values.trialStore.enabled -}}
{{- if or $logger.to $logger.existingSecret -}}
{{- $new = append $new "The trial store makes its own place and credential for payloads; leave payloadLogger.to and payloadLogger.existingSecret empty." -}}
{{- end -}}
{{- else if $logger.enabled -}}
{{- if not $logger.to -}}
{{- $new = append $new "The payload logger has nowhere to write to; set payloadLogger.to." -}}
{{- else if eq (regexFind "[^/]+" (trimPrefix "s3://" $logger.to)) $root.Values.s3.bucket -}}
{{- $new = append $new "payloadLogger.to is the archive's bucket, so who logs payloads could write records; name another bucket." -}}
{{- end -}}
{{- if not $logger.existingSecret -}}
{{- $new = append $new "The payload logger has no credential to write with; set payloadLogger.existingSecret." -}}
{{- else if has $logger.existingSecret (list $root.Values.s3.archive.existingSecret $root.Values.s3.releases.existingSecret) -}}
{{- $new = append $new "payloadLogger.existingSecret is the archive's or the releases' Secret, which more would then read; give the payload logger one of its own." -}}
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
{{- with $root.Values.payloadLogger.existingSecret -}}
{{- if $root.Values.payloadLogger.enabled -}}
{{- $secret := lookup "v1" "Secret" $namespace . -}}
{{- if not $secret -}}
{{- $new = append $new (printf "There is no Secret %s in namespace %s, which payloadLogger names; make it: kubectl create secret generic %s -n %s --from-literal=AWS_ACCESS_KEY_ID=… --from-literal=AWS_SECRET_ACCESS_KEY=…" . $namespace . $namespace) -}}
{{- else -}}
{{- $annotations := $secret.metadata.annotations | default dict -}}
{{- $wrong := false -}}
{{- $words := list -}}
{{- range $key, $value := include "pneumoserve.storageAnnotations" $root | fromYaml -}}
{{- if ne (get $annotations $key) $value -}}{{- $wrong = true -}}{{- end -}}
{{- $words = append $words (printf "%s=%s" $key $value) -}}
{{- end -}}
{{- if $wrong -}}
{{- $new = append $new (printf "Secret %s does not tell the payload logger where the S3 server is; run: kubectl annotate secret %s -n %s --overwrite %s" . . $namespace (join " " $words)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}
