{{/* DICOM intake. */}}
{{- define "pneumoserve.preflight.intake" -}}
  {{- $values := $.Values -}}
  {{- $intake := $values.intake -}}
  {{- $problems := list -}}
  {{- if $intake.enabled -}}
    {{- if eq $values.mode "Knative" -}}
      {{- $problems = append $problems (cat
          "intake.enabled takes mode Standard, in which it reaches a release inside the cluster; set"
          "intake.enabled=false.") -}}
    {{- end -}}
    {{- if not $intake.rules.peers -}}
      {{- $problems = append $problems (cat
          "Nobody may send to DICOM intake; name the networks of your PACS in intake.rules.peers, such as"
          "[{aeTitle: PACS, networks: [192.0.2.0/24]}].") -}}
    {{- end -}}
    {{- if and $intake.web.enabled (not $values.networkPolicies.enabled) (not $intake.rules.webNetworks) -}}
      {{- $problems = append $problems (cat
          "Any pod could send by DICOMweb as if it were the gateway, since networkPolicies are off; name the networks"
          "of the gateway's pods in intake.rules.webNetworks, such as [10.244.0.0/16].") -}}
    {{- end -}}
    {{- if eq $intake.bucket $values.s3.bucket -}}
      {{- $problems = append $problems (cat
          "intake.bucket is the archive's bucket, where nothing may be erased; name another one.") -}}
    {{- end -}}
    {{- if not $values.alerts.enabled -}}
      {{- range $name := list "practitioner" "reference" -}}
        {{- if get $intake.rules $name -}}
          {{- $problems = append $problems (printf (cat
              "intake.rules.%s says whom answers are for, and nobody is alerted, so every call would be refused;"
              "set alerts.enabled, or leave it out.") $name) -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
    {{- if ge (float64 $intake.population.minAgeYears) (float64 $intake.population.belowAgeYears) -}}
      {{- $problems = append $problems
          "intake.population has no age; set minAgeYears to less than belowAgeYears." -}}
    {{- end -}}
    {{- $given := $values.s3.intake -}}
    {{- if not (or $values.trialStore.enabled $given.accessKey $given.existingSecret) -}}
      {{- $problems = append $problems (cat
          "intake.enabled is true, and it has no credential of its own; set s3.intake.existingSecret to the name of a"
          "Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, with the rights of files/rights/intake.json.") -}}
    {{- end -}}
  {{- else if $intake.web.enabled -}}
    {{- $problems = append $problems
        "intake.web.enabled is true and intake.enabled is not, so it has no effect; set both." -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/* Secrets that it names and that must be there already. */}}
{{- define "pneumoserve.preflight.intakeCluster" -}}
  {{- $intake := $.Values.intake -}}
  {{- $wanted := list -}}
  {{- if $intake.enabled -}}
    {{- $files := list "tls.crt" "tls.key" "ca.crt" -}}
    {{- $tls := dict "value" "intake.tls" "secret" $intake.tls.existingSecret "keys" $files -}}
    {{- $netrc := dict "value" "intake.netrc" "secret" $intake.netrc.existingSecret "keys" (list "netrc") -}}
    {{- $wanted = list
        (merge $tls (dict "how" (printf "--from-file=%s" (join " --from-file=" $files))))
        (merge $netrc (dict "how" "--from-file=netrc")) -}}
  {{- end -}}
  {{- include "pneumoserve.preflight.secrets" (list $ $wanted) -}}
{{- end -}}
