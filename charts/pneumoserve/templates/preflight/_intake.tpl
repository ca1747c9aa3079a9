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
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}
