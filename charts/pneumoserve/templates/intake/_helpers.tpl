{{/*
The rules of DICOM intake, as it reads them. Fronts refuse a call that says who is to be told where nobody tells them,
so then the rules name nobody.
*/}}
{{- define "pneumoserve.intakeRules" -}}
{{- $rules := dict -}}
{{- if not .Values.alerts.enabled -}}
{{- $rules = dict "practitioner" nil "reference" nil -}}
{{- end -}}
{{- range $name, $value := .Values.intake.rules -}}{{- $_ := set $rules $name $value -}}{{- end -}}
{{- toYaml $rules -}}
{{- end -}}

{{/* Ports of the destinations of intake.to, as a JSON list. */}}
{{- define "pneumoserve.destinationPorts" -}}
{{- $ports := list -}}
{{- range .Values.intake.to -}}
{{- $ports = append $ports (trimSuffix "/tls" . | regexFind "[0-9]+$" | int) -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}
