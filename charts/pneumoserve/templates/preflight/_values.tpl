{{/* Values that contradict each other or leave out what nothing can run without. */}}
{{- define "pneumoserve.preflight.values" -}}
  {{- $values := $.Values -}}
  {{- $problems := list -}}
  {{- if and $values.trialStore.enabled $values.s3.endpoint -}}
    {{- $problems = append $problems (cat
        "trialStore.enabled and s3.endpoint name two S3 servers; switch the trial store off, or leave"
        "s3.endpoint empty.") -}}
  {{- else if not (or $values.trialStore.enabled $values.s3.endpoint) -}}
    {{- $problems = append $problems
        "There is no S3 server; set s3.endpoint, or trialStore.enabled=true to try things out." -}}
  {{- end -}}
  {{- if and $values.s3.caConfigMap (not (hasPrefix "https://" (include "pneumoserve.endpoint" $))) -}}
    {{- $problems = append $problems (cat
        "s3.caConfigMap is set, but the S3 server is not asked over https://, so no certificate is looked at;"
        "give an https:// endpoint, or leave it empty.") -}}
  {{- end -}}
  {{- range $name := include "pneumoserve.credentials" $ | fromJsonArray -}}
    {{- $given := get $values.s3 $name -}}
    {{- $any := or $given.accessKey $given.secretKey $given.existingSecret -}}
    {{- if and $values.trialStore.enabled $any -}}
      {{- $problems = append $problems (printf
          "The trial store makes its own credentials; leave those of s3.%s empty." $name) -}}
    {{- else if and $given.existingSecret (or $given.accessKey $given.secretKey) -}}
      {{- $problems = append $problems (printf "s3.%s has keys and an existingSecret; keep one of them." $name) -}}
    {{- else if ne (empty $given.accessKey) (empty $given.secretKey) -}}
      {{- $problems = append $problems (printf "s3.%s has one of accessKey and secretKey; set both." $name) -}}
    {{- end -}}
  {{- end -}}
  {{- if not (or $values.trialStore.enabled $values.s3.archive.accessKey $values.s3.archive.existingSecret) -}}
    {{- $problems = append $problems (cat
        "The front has no credential to write records with; set s3.archive.existingSecret to the name of a"
        "Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.") -}}
  {{- end -}}
  {{- if and $values.trust.keys $values.trust.existingConfigMap -}}
    {{- $problems = append $problems "trust.keys and trust.existingConfigMap are both set; keep one of them." -}}
  {{- else if not (or $values.trust.keys $values.trust.existingConfigMap) -}}
    {{- $problems = append $problems (cat
        "Nobody's signature counts, so no release could start; give the approver's public key with --set-file"
        "'trust.keys.approver\\.pem=FILE', or set trust.existingConfigMap.") -}}
  {{- end -}}
  {{- if and $values.trust.existingConfigMap (or $values.trust.revoked.keys $values.trust.revoked.releases) -}}
    {{- $problems = append $problems
        "trust.revoked has no effect beside trust.existingConfigMap; put revoked.json into that ConfigMap." -}}
  {{- end -}}
  {{- if and $values.trust.existingConfigMap (gt (int $values.trust.signatures) 1) -}}
    {{- $problems = append $problems
        "trust.signatures has no effect beside trust.existingConfigMap; put policy.json into that ConfigMap." -}}
  {{- else if and $values.trust.keys (gt (int $values.trust.signatures) (len $values.trust.keys)) -}}
    {{- $problems = append $problems
        "trust.signatures is more than there are trust.keys, so no release could start; lower it, or add keys." -}}
  {{- end -}}
  {{- $signer := $values.archive.signing.existingSecret -}}
  {{- if and $signer (eq $signer $values.archive.sealer.existingSecret) -}}
    {{- $problems = append $problems (cat
        "archive.signing and archive.sealer name one Secret, so whoever can write records could seal them; give"
        "each a key of its own.") -}}
  {{- end -}}
  {{- if and $values.archive.journal.limit (not $values.archive.journal.existingClaim) -}}
    {{- $problems = append $problems (cat
        "archive.journal.limit is set, but there is no journal; set archive.journal.existingClaim too, or leave"
        "the limit empty.") -}}
  {{- end -}}
  {{- range $name := list "filmDays" "rollupDays" -}}
    {{- $days := int (get $values.archive.expire $name) -}}
    {{- if and $days (lt $days (int $values.archive.lock.sealedDays)) -}}
      {{- $problems = append $problems (printf (cat
          "archive.expire.%s is less than archive.lock.sealedDays, so nothing could be removed then; raise it,"
          "or set it to 0.") $name) -}}
    {{- end -}}
  {{- end -}}
  {{- $segmentDays := int $values.archive.expire.segmentDays -}}
  {{- if and $segmentDays (lt $segmentDays (int $values.archive.lock.days)) -}}
    {{- $problems = append $problems (cat
        "archive.expire.segmentDays is less than archive.lock.days, so nothing could be removed then; raise it,"
        "or set it to 0.") -}}
  {{- end -}}
  {{- if lt (int $values.archive.lock.sealedDays) (int $values.archive.lock.days) -}}
    {{- $problems = append $problems (cat
        "archive.lock.sealedDays is less than archive.lock.days, so the seals could be removed before what they"
        "prove; raise it.") -}}
  {{- end -}}
  {{- if and $values.release.id (has $values.release.id $values.release.standby) -}}
    {{- $problems = append $problems (printf
        "Release %s is in release.id and in release.standby; remove it from release.standby." $values.release.id) -}}
  {{- end -}}
  {{- if and $values.loadTest.enabled (not $values.loadTest.url) (not $values.release.id) -}}
    {{- $problems = append $problems "loadTest has nothing to load; set release.id, or loadTest.url." -}}
  {{- else if and $values.loadTest.enabled $values.loadTest.grpc (not $values.loadTest.url) -}}
    {{- $problems = append $problems
        "loadTest.grpc is set and loadTest.url is not, so two services would be loaded; set both, or none." -}}
  {{- end -}}
  {{- $ours := join "|" (list "S3_.+" "REVIEW_DATABASE" "PNEUMOSERVE_GATEWAY_SECRET" "PNEUMOSERVE_IMAGE" "JOB"
      "RANK_OF_POD" "COLUMNS" "LOG_FORMAT" "OTEL_EXPORTER_OTLP_ENDPOINT" "OTEL_TRACES_SAMPLER.*") -}}
  {{- range $part := list "front" "models" "archive" "rollout" "training" "review" "intake" -}}
    {{- range (get $values $part).extraEnv -}}
      {{- if regexMatch (printf "^(%s)$" $ours) .name -}}
        {{- $problems = append $problems (printf
            "%s.extraEnv sets %s, which the chart sets itself; leave it out." $part .name) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- if lt (int $values.terminationGracePeriodSeconds) (add (int $values.front.preStopSeconds) 20 | int) -}}
    {{- $problems = append $problems (cat
        "terminationGracePeriodSeconds leaves less than 20 s after front.preStopSeconds to answer what was"
        "taken in; raise it.") -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}
