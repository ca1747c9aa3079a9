{{/* What training and signing need of the values. */}}
{{- define "pneumoserve.preflight.training" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $training := $root.Values.training -}}
{{- $new := list -}}
{{- if and $training.enabled (not $training.films) -}}
{{- $new = append $new "training has nothing to learn from; set training.films to s3://bucket/prefix of films, or to the s3:// manifest of a dataset." -}}
{{- end -}}
{{- if and $training.enabled (eq $training.device "cpu") (hasKey $training.resources.limits "nvidia.com/gpu") -}}
{{- $new = append $new "training.device is cpu and training.resources asks for a GPU; leave it out, or set training.device=cuda." -}}
{{- end -}}
{{- if ne (empty $training.signing.release) (empty $training.signing.existingSecret) -}}
{{- $new = append $new "training.signing has one of release and existingSecret; set both to sign a release, or none." -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}

{{/* What they need of the cluster. */}}
{{- define "pneumoserve.preflight.trainers" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $training := $root.Values.training -}}
{{- $namespace := $root.Release.Namespace -}}
{{- $new := list -}}
{{- if and $training.enabled (eq $training.device "cuda") -}}
{{- $gpus := false -}}
{{- $nodes := (lookup "v1" "Node" "" "").items -}}
{{- range $nodes -}}
{{- if ne (get .status.allocatable "nvidia.com/gpu" | default "0") "0" -}}{{- $gpus = true -}}{{- end -}}
{{- end -}}
{{- if and $nodes (not $gpus) -}}
{{- $new = append $new "No node of the cluster offers nvidia.com/gpu, so no worker would ever start; install NVIDIA's device plugin on a node with a GPU, or set training.device=cpu." -}}
{{- end -}}
{{- end -}}
{{- $secrets := dict -}}
{{- if $training.enabled -}}
{{- with $training.existingSecret -}}{{- $_ := set $secrets . (list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY") -}}{{- end -}}
{{- end -}}
{{- with $training.signing.existingSecret -}}{{- $_ := set $secrets . (list "key.pem") -}}{{- end -}}
{{- range $name, $keys := $secrets -}}
{{- $data := (lookup "v1" "Secret" $namespace $name | default dict).data | default dict -}}
{{- range $keys -}}
{{- if not (get $data .) -}}
{{- $new = append $new (printf "There is no Secret %s with %s in namespace %s, which training names; make it by kubectl create secret generic." $name . $namespace) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}
