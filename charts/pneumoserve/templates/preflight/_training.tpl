{{/* What training and signing need of the values. */}}
{{- define "pneumoserve.preflight.training" -}}
  {{- $training := $.Values.training -}}
  {{- $problems := list -}}
  {{- if and $training.enabled (not $training.films) -}}
    {{- $problems = append $problems (cat
        "training has nothing to learn from; set training.films to s3://bucket/prefix of films, or to the s3://"
        "manifest of a dataset.") -}}
  {{- end -}}
  {{- if and $training.enabled (eq $training.device "cpu") (hasKey $training.resources.limits "nvidia.com/gpu") -}}
    {{- $problems = append $problems (cat
        "training.device is cpu and training.resources asks for a GPU; leave it out, or set"
        "training.device=cuda.") -}}
  {{- end -}}
  {{- if ne (empty $training.signing.release) (empty $training.signing.existingSecret) -}}
    {{- $problems = append $problems
        "training.signing has one of release and existingSecret; set both to sign a release, or none." -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/* What they need of the cluster. */}}
{{- define "pneumoserve.preflight.trainers" -}}
  {{- $training := $.Values.training -}}
  {{- $namespace := $.Release.Namespace -}}
  {{- $problems := list -}}
  {{- if and $training.enabled (eq $training.device "cuda") -}}
    {{- $gpus := false -}}
    {{- $nodes := (lookup "v1" "Node" "" "").items -}}
    {{- range $nodes -}}
      {{- if ne (get .status.allocatable "nvidia.com/gpu" | default "0") "0" -}}{{- $gpus = true -}}{{- end -}}
    {{- end -}}
    {{- if and $nodes (not $gpus) -}}
      {{- $problems = append $problems (cat
          "No node of the cluster offers nvidia.com/gpu, so no worker would ever start; install NVIDIA's device"
          "plugin on a node with a GPU, or set training.device=cpu.") -}}
    {{- end -}}
  {{- end -}}
  {{- $secrets := dict -}}
  {{- if $training.enabled -}}
    {{- with $training.existingSecret -}}
      {{- $_ := set $secrets . (list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY") -}}
    {{- end -}}
  {{- end -}}
  {{- with $training.signing.existingSecret -}}{{- $_ := set $secrets . (list "key.pem") -}}{{- end -}}
  {{- range $name, $keys := $secrets -}}
    {{- $data := (lookup "v1" "Secret" $namespace $name | default dict).data | default dict -}}
    {{- range $keys -}}
      {{- if not (get $data .) -}}
        {{- $problems = append $problems (printf (cat
            "There is no Secret %s with %s in namespace %s, which training names; make it by kubectl create"
            "secret generic.") $name . $namespace) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}
