{{/* Whether a list of revocations has another form than the containers take; they look closer. */}}
{{- define "pneumoserve.isMisread" -}}
  {{- $read := fromJson . -}}
  {{- if hasKey $read "Error" -}}true{{- end -}}
  {{- range $name, $entries := $read -}}
    {{- $digits := get (dict "keys" 16 "releases" 64) $name -}}
    {{- if not (and $digits (kindIs "slice" $entries)) -}}true
    {{- else -}}
      {{- range $entries -}}
        {{- if not (regexMatch (printf "^[0-9a-f]{%d}$" (int $digits)) (toString .)) -}}true{{- end -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}

{{/* What is named and must be there already. */}}
{{- define "pneumoserve.preflight.given" -}}
  {{- $namespace := $.Release.Namespace -}}
  {{- $values := $.Values -}}
  {{- $problems := list -}}
  {{- with $values.trust.existingConfigMap -}}
    {{- $map := lookup "v1" "ConfigMap" $namespace . -}}
    {{- $pem := false -}}
    {{- range $key, $_ := $map.data -}}{{- if hasSuffix ".pem" $key -}}{{- $pem = true -}}{{- end -}}{{- end -}}
    {{- if not $map -}}
      {{- $problems = append $problems (printf (cat
          "There is no ConfigMap %s in namespace %s; make it from the approvers' public keys: kubectl create"
          "configmap %s -n %s --from-file=FOLDER") . $namespace . $namespace) -}}
    {{- else if not $pem -}}
      {{- $problems = append $problems (printf "ConfigMap %s holds no public key; its keys must end in .pem." .) -}}
    {{- end -}}
    {{- with get ($map.data | default dict) "revoked.json" -}}
      {{- if include "pneumoserve.isMisread" . -}}
        {{- $problems = append $problems (printf (cat
            "revoked.json of ConfigMap %s has another form than {\"keys\": [16 lower-case hex digits],"
            "\"releases\": [64 lower-case hex digits]}, so nothing would start; `pneumoserve release revoke`"
            "writes it.") $map.metadata.name) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- $pair := list "key.pem" "public.pem" -}}
  {{- range $name, $files := dict "signing" $pair "sealer" $pair "references" (list "key") -}}
    {{- with (get $values.archive $name).existingSecret -}}
      {{- $secret := lookup "v1" "Secret" $namespace . -}}
      {{- if not $secret -}}
        {{- $problems = append $problems (printf (cat
            "There is no Secret %s in namespace %s, which archive.%s names; make it: kubectl create secret"
            "generic %s -n %s --from-file=%s") . $namespace $name . $namespace (join " --from-file=" $files)) -}}
      {{- else -}}
        {{- range $file := $files -}}
          {{- if not (get ($secret.data | default dict) $file) -}}
            {{- $problems = append $problems (printf "Secret %s has no %s; add it." $secret.metadata.name $file) -}}
          {{- end -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- with $values.archive.seal.copiesClaim -}}
    {{- if not (lookup "v1" "PersistentVolumeClaim" $namespace .) -}}
      {{- $problems = append $problems (printf (cat
          "There is no PersistentVolumeClaim %s in namespace %s for copies of seals; make it, or leave"
          "archive.seal.copiesClaim empty.") . $namespace) -}}
    {{- end -}}
  {{- end -}}
  {{- $evidence := $values.evidence -}}
  {{- if and $evidence.enabled (not (lookup "v1" "PersistentVolumeClaim" $namespace $evidence.claim)) -}}
    {{- $problems = append $problems (printf (cat
        "There is no PersistentVolumeClaim %s in namespace %s for evidence; make it, or leave evidence.enabled false.")
        $evidence.claim $namespace) -}}
  {{- end -}}
  {{- with $values.archive.journal.existingClaim -}}
    {{- if not (lookup "v1" "PersistentVolumeClaim" $namespace .) -}}
      {{- $problems = append $problems (printf (cat
          "There is no PersistentVolumeClaim %s in namespace %s for the journal; make it, or leave"
          "archive.journal.existingClaim empty.") . $namespace) -}}
    {{- end -}}
  {{- end -}}
  {{- with $values.s3.caConfigMap -}}
    {{- if not (dig "data" "cabundle.crt" "" (lookup "v1" "ConfigMap" $namespace . | default dict)) -}}
      {{- $problems = append $problems (printf (cat
          "There is no ConfigMap %s with the key cabundle.crt in namespace %s, which s3.caConfigMap names; make"
          "it: kubectl create configmap %s -n %s --from-file=cabundle.crt=FILE") . $namespace . $namespace) -}}
    {{- end -}}
  {{- end -}}
  {{- if not $values.trialStore.enabled -}}
    {{- $secrets := list -}}
    {{- range include "pneumoserve.credentials" $ | fromJsonArray -}}
      {{- $secrets = append $secrets (get $values.s3 .).existingSecret -}}
    {{- end -}}
    {{- range $secrets | compact | uniq -}}
      {{- $secret := lookup "v1" "Secret" $namespace . -}}
      {{- if not $secret -}}
        {{- $problems = append $problems (printf (cat
            "There is no Secret %s in namespace %s; make it: kubectl create secret generic %s -n %s"
            "--from-literal=AWS_ACCESS_KEY_ID=… --from-literal=AWS_SECRET_ACCESS_KEY=…")
            . $namespace . $namespace) -}}
      {{- else -}}
        {{- range $key := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" -}}
          {{- if not (get ($secret.data | default dict) $key) -}}
            {{- $problems = append $problems (printf "Secret %s has no %s; add it." $secret.metadata.name $key) -}}
          {{- end -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
    {{- $reader := include "pneumoserve.releasesSecret" $ -}}
    {{- if has $reader (list $values.s3.archive.existingSecret $values.s3.releases.existingSecret) -}}
      {{- with lookup "v1" "Secret" $namespace $reader -}}
        {{- $annotations := .metadata.annotations | default dict -}}
        {{- $wanted := include "pneumoserve.storageAnnotations" $ | fromYaml -}}
        {{- $wrong := false -}}
        {{- $words := list -}}
        {{- range $key, $value := $wanted -}}
          {{- if ne (get $annotations $key) $value -}}{{- $wrong = true -}}{{- end -}}
          {{- $words = append $words (printf "%s=%s" $key $value) -}}
        {{- end -}}
        {{- if $wrong -}}
          {{- $problems = append $problems (printf (cat
              "Secret %s does not tell KServe where the releases are; run: kubectl annotate secret %s -n %s"
              "--overwrite %s") $reader $reader $namespace (join " " $words)) -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/*
Of Secrets that values name, those that are not there or lack a key. Each is a dict: `value`, the values' path above
existingSecret; `secret`, its name or nothing; `keys`; and `how`, what `kubectl create secret generic` is to read.
{{ include … (list $ $wanted) }}
*/}}
{{- define "pneumoserve.preflight.secrets" -}}
  {{- $namespace := (index . 0).Release.Namespace -}}
  {{- $problems := list -}}
  {{- range $each := index . 1 -}}
    {{- if $each.secret -}}
      {{- $secret := lookup "v1" "Secret" $namespace $each.secret -}}
      {{- if not $secret -}}
        {{- $problems = append $problems (printf (cat
            "There is no Secret %s in namespace %s, which %s.existingSecret names; make it: kubectl create secret"
            "generic %s -n %s %s") $each.secret $namespace $each.value $each.secret $namespace $each.how) -}}
      {{- else -}}
        {{- range $each.keys -}}
          {{- if not (get ($secret.data | default dict) .) -}}
            {{- $problems = append $problems (printf "Secret %s has no %s; add it." $each.secret .) -}}
          {{- end -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}
