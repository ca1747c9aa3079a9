{{/* Console, alert sender and their Jobs. */}}
{{- define "pneumoserve.preflight.review" -}}
  {{- $values := $.Values -}}
  {{- $problems := list -}}
  {{- if $values.console.enabled -}}
    {{- $signIn := $values.console.signIn -}}
    {{- if not $values.console.url -}}
      {{- $problems = append $problems (cat
          "The console has no address; set console.url to the one that browsers see, such as"
          "https://console.example.") -}}
    {{- else if has (include "pneumoserve.consoleHost" $) $values.route.hostnames -}}
      {{- $problems = append $problems
          "console.url has a host name of route.hostnames, which leads to a release; give the console its own." -}}
    {{- end -}}
    {{- if not (and $signIn.issuer $signIn.clientId $signIn.existingSecret) -}}
      {{- $problems = append $problems (cat
          "Nobody could sign in at the console, and without sign-in it is for one machine alone; set"
          "console.signIn.issuer, clientId and existingSecret.") -}}
    {{- end -}}
  {{- end -}}
  {{- if and $values.alerts.enabled (not $values.alerts.existingSecret) -}}
    {{- with include "pneumoserve.alertFiles" $ | fromJsonArray -}}
      {{- $problems = append $problems (printf (cat
          "alerts.policy names %s, and there is no Secret with such files; set alerts.existingSecret to one.")
          (join ", " .)) -}}
    {{- end -}}
  {{- end -}}
  {{- if and $values.drift.enabled (not $values.release.id) -}}
    {{- $problems = append $problems
        "drift.enabled is true, and there is no release to compare; set release.id, or leave drift off until then." -}}
  {{- end -}}
  {{- if and $values.evidence.enabled (not (and $values.evidence.claim $values.evidence.existingSecret)) -}}
    {{- $problems = append $problems (cat
        "The evidence Job has no place for its file or no key to sign it; set evidence.claim to a"
        "PersistentVolumeClaim, and evidence.existingSecret to a Secret with key.pem.") -}}
  {{- end -}}
  {{- range $name := list "console" "alerts" -}}
    {{- $part := get $values $name -}}
    {{- if and $part.enabled (gt (int $part.replicas) 1) (not $values.review.database.existingSecret) -}}
      {{- $problems = append $problems (printf (cat
          "%s.replicas is %d, and each pod would have an SQLite file of its own; set review.database.existingSecret to"
          "a Secret with the url of a PostgreSQL, or run one pod.") $name (int $part.replicas)) -}}
    {{- end -}}
  {{- end -}}
  {{- if not $values.trialStore.enabled -}}
    {{- $users := dict "console" (list "console" "sample") "alerts" (list "alerts") -}}
    {{- range $credential, $parts := $users -}}
      {{- $given := get $values.s3 $credential -}}
      {{- range $parts -}}
        {{- if and (get $values .).enabled (not (or $given.accessKey $given.existingSecret)) -}}
          {{- $problems = append $problems (printf (cat
              "%s.enabled is true, and it has no credential of its own; set s3.%s.existingSecret to the name of a"
              "Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, with the rights of files/rights/%s.json.")
              . $credential $credential) -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/* Secrets that they name and that must be there already. */}}
{{- define "pneumoserve.preflight.reviewCluster" -}}
  {{- $values := $.Values -}}
  {{- $wanted := list -}}
  {{- if include "pneumoserve.hasReview" $ -}}
    {{- $database := dict "value" "review.database" "secret" $values.review.database.existingSecret -}}
    {{- $database = merge $database (dict "keys" (list "url") "how" "--from-literal=url=postgresql://…") -}}
    {{- $files := list "chance" "session" "links" "envelope.pem" "envelope.pub.pem" -}}
    {{- $keys := dict "value" "review.keys" "secret" $values.review.keys.existingSecret "keys" $files -}}
    {{- $wanted = list $database (merge $keys (dict "how" (printf "--from-file=%s" (join " --from-file=" $files)))) -}}
  {{- end -}}
  {{- if $values.evidence.enabled -}}
    {{- $key := dict "value" "evidence" "secret" $values.evidence.existingSecret "keys" (list "key.pem") -}}
    {{- $wanted = append $wanted (merge $key (dict "how" "--from-file=key.pem")) -}}
  {{- end -}}
  {{- if $values.console.enabled -}}
    {{- $client := dict "value" "console.signIn" "secret" $values.console.signIn.existingSecret -}}
    {{- $wanted = append $wanted (merge $client (dict "keys" (list "secret") "how" "--from-file=secret")) -}}
  {{- end -}}
  {{- if $values.alerts.enabled -}}
    {{- $files := include "pneumoserve.alertFiles" $ | fromJsonArray -}}
    {{- $how := printf "--from-file=%s" (join " --from-file=" $files) -}}
    {{- $wanted = append $wanted
        (dict "value" "alerts" "secret" $values.alerts.existingSecret "keys" $files "how" $how) -}}
  {{- end -}}
  {{- include "pneumoserve.preflight.secrets" (list $ $wanted) -}}
{{- end -}}
