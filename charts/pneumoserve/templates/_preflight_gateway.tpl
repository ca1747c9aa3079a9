{{/* What sign-in, limits and TLS at the gateway need. */}}
{{- define "pneumoserve.preflight.signIn" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $route := $root.Values.route -}}
{{- $jwt := $route.signIn.jwt -}}
{{- $keys := $route.signIn.apiKeys -}}
{{- $method := $route.signIn.method -}}
{{- $new := list -}}
{{- if and (eq $method "jwt") (not $jwt.issuer) -}}
{{- $new = append $new "route.signIn.method is jwt without an issuer, so anybody's tokens would do; set route.signIn.jwt.issuer." -}}
{{- end -}}
{{- if and (eq $method "jwt") (eq (empty $jwt.jwksUri) (empty $jwt.jwksConfigMap)) -}}
{{- $new = append $new "route.signIn.method is jwt: say where the issuer's keys are, by one of route.signIn.jwt.jwksUri and route.signIn.jwt.jwksConfigMap." -}}
{{- end -}}
{{- if and (eq $method "apiKeys") (not $keys.existingSecrets) -}}
{{- $new = append $new "route.signIn.method is apiKeys and no key would be right; set route.signIn.apiKeys.existingSecrets to Secrets with one entry a client, its name the client's." -}}
{{- end -}}
{{- if and (ne $method "jwt") (or $jwt.issuer $jwt.jwksUri $jwt.jwksConfigMap $jwt.audiences) -}}
{{- $new = append $new "route.signIn.jwt is set and route.signIn.method is not jwt, so it has no effect; set the method, or leave it empty." -}}
{{- end -}}
{{- if and (ne $method "apiKeys") $keys.existingSecrets -}}
{{- $new = append $new "route.signIn.apiKeys is set and route.signIn.method is not apiKeys, so it has no effect; set the method, or leave it empty." -}}
{{- end -}}
{{- if and (ne $method "none") (not $route.enabled) -}}
{{- $new = append $new "route.signIn needs the chart's route, which route.enabled switches off; protect your own route by a policy of its own, and leave route.signIn.method at none." -}}
{{- end -}}
{{- if and (ne $method "none") $root.Values.loadTest.enabled (not $root.Values.loadTest.url) -}}
{{- $new = append $new "Callers sign in at the gateway, and loadTest would go past it and be refused; set loadTest.url to the gateway and loadTest.existingSecret to a Secret whose headers sign in." -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}

{{/* What of it is in the cluster: Envoy Gateway, the listener, and whose keys and secrets count. */}}
{{- define "pneumoserve.preflight.envoy" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $route := $root.Values.route -}}
{{- $namespace := $root.Release.Namespace -}}
{{- $new := list -}}
{{- if and (or (ne $route.signIn.method "none") $route.limits.callsPerMinute $route.limits.bodyMebibytes) (not ($root.Capabilities.APIVersions.Has "gateway.envoyproxy.io/v1alpha1/SecurityPolicy")) -}}
{{- $new = append $new "route.signIn and route.limits are policies of Envoy Gateway, which the cluster lacks; install Envoy Gateway 1.9 or later, or let your own gateway do it and leave them off." -}}
{{- end -}}
{{- with $route.signIn.jwt.jwksConfigMap -}}
{{- if not (dig "data" "jwks" "" (lookup "v1" "ConfigMap" $namespace . | default dict)) -}}
{{- $new = append $new (printf "There is no ConfigMap %s with the key jwks in namespace %s, so no token could be verified; make it: kubectl create configmap %s -n %s --from-file=jwks=FILE" . $namespace . $namespace) -}}
{{- end -}}
{{- end -}}
{{- range $route.signIn.apiKeys.existingSecrets -}}
{{- if not (lookup "v1" "Secret" $namespace .) -}}
{{- $new = append $new (printf "There is no Secret %s in namespace %s, which route.signIn.apiKeys names; make it: kubectl create secret generic %s -n %s --from-literal=CLIENT=KEY" . $namespace . $namespace) -}}
{{- end -}}
{{- end -}}
{{- with $route.gateway.sectionName -}}
{{- $gateway := lookup "gateway.networking.k8s.io/v1" "Gateway" $route.gateway.namespace $route.gateway.name -}}
{{- $names := list -}}
{{- range dig "spec" "listeners" list ($gateway | default dict) -}}{{- $names = append $names .name -}}{{- end -}}
{{- if and $gateway (not (has . $names)) -}}
{{- $new = append $new (printf "Gateway %s has no listener %s; set route.gateway.sectionName to one of: %s." $route.gateway.name . (join ", " $names)) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}
