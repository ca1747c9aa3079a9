{{/*
The rules of DICOM intake, as it reads them. Fronts refuse a call that says who is to be told where nobody tells them,
so then the rules name nobody. STOW-RS comes from the gateway's pods, whose addresses nobody knows beforehand: where
NetworkPolicies let no other pod in, any address may send.
*/}}
{{- define "pneumoserve.intakeRules" -}}
{{- $rules := dict -}}
{{- if not .Values.alerts.enabled -}}
{{- $rules = dict "practitioner" nil "reference" nil -}}
{{- end -}}
{{- if and .Values.intake.web.enabled .Values.networkPolicies.enabled -}}
{{- $_ := set $rules "webNetworks" (list "0.0.0.0/0" "::/0") -}}
{{- end -}}
{{- range $name, $value := .Values.intake.rules -}}{{- $_ := set $rules $name $value -}}{{- end -}}
{{- toYaml $rules -}}
{{- end -}}

{{/* Ports of the destinations of intake.to and intake.fhirTo, as a JSON list. */}}
{{- define "pneumoserve.destinationPorts" -}}
{{- $ports := list -}}
{{- range concat .Values.intake.to .Values.intake.fhirTo -}}
{{- $port := ternary (include "pneumoserve.portOf" .) (trimSuffix "/tls" . | regexFind "[0-9]+$") (contains "://" .) -}}
{{- $ports = append $ports (int $port) -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}
