{{/* What sign-in, limits and TLS at the gateway need. */}}
{{- define "pneumoserve.preflight.signIn" -}}
  {{- $route := $.Values.route -}}
  {{- $jwt := $route.signIn.jwt -}}
  {{- $keys := $route.signIn.apiKeys -}}
  {{- $method := $route.signIn.method -}}
  {{- $problems := list -}}
  {{- if and (eq $method "jwt") (not $jwt.issuer) -}}
    {{- $problems = append $problems (cat
        "route.signIn.method is jwt without an issuer, so anybody's tokens would do; set"
        "route.signIn.jwt.issuer.") -}}
  {{- end -}}
  {{- if and (eq $method "jwt") (eq (empty $jwt.jwksUri) (empty $jwt.jwksConfigMap)) -}}
    {{- $problems = append $problems (cat
        "route.signIn.method is jwt: say where the issuer's keys are, by one of route.signIn.jwt.jwksUri and"
        "route.signIn.jwt.jwksConfigMap.") -}}
  {{- end -}}
  {{- if and (eq $method "apiKeys") (not $keys.existingSecrets) -}}
    {{- $problems = append $problems (cat
        "route.signIn.method is apiKeys and no key would be right; set route.signIn.apiKeys.existingSecrets to"
        "Secrets with one entry a client, its name the client's.") -}}
  {{- end -}}
  {{- if and (ne $method "jwt") (or $jwt.issuer $jwt.jwksUri $jwt.jwksConfigMap $jwt.audiences) -}}
    {{- $problems = append $problems (cat
        "route.signIn.jwt is set and route.signIn.method is not jwt, so it has no effect; set the method, or"
        "leave it empty.") -}}
  {{- end -}}
  {{- if and (ne $method "apiKeys") $keys.existingSecrets -}}
    {{- $problems = append $problems (cat
        "route.signIn.apiKeys is set and route.signIn.method is not apiKeys, so it has no effect; set the"
        "method, or leave it empty.") -}}
  {{- end -}}
  {{- if and $route.signIn.gatewaySecret (eq $method "none") -}}
    {{- $problems = append $problems (cat
        "route.signIn.gatewaySecret is set and callers do not sign in, so it has no effect; set"
        "route.signIn.method, or leave it empty.") -}}
  {{- end -}}
  {{- if and (ne $method "none") (not $route.enabled) -}}
    {{- $problems = append $problems (cat
        "route.signIn needs the chart's route, which route.enabled switches off; protect your own route by a"
        "policy of its own, and leave route.signIn.method at none.") -}}
  {{- end -}}
  {{- if and (ne $method "none") $.Values.loadTest.enabled (not $.Values.loadTest.url) -}}
    {{- $problems = append $problems (cat
        "Callers sign in at the gateway, and loadTest would go past it and be refused; set loadTest.url to the"
        "gateway and loadTest.existingSecret to a Secret whose headers sign in.") -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/* What of it is in the cluster: Envoy Gateway, the listener, and whose keys and secrets count. */}}
{{- define "pneumoserve.preflight.envoy" -}}
  {{- $route := $.Values.route -}}
  {{- $namespace := $.Release.Namespace -}}
  {{- $problems := list -}}
  {{- $limits := or $route.limits.callsPerMinute $route.limits.bodyMebibytes $route.limits.receiveSeconds -}}
  {{- $wanted := and $route.enabled (or (ne $route.signIn.method "none") $limits) -}}
  {{- if and $wanted (not ($.Capabilities.APIVersions.Has "gateway.envoyproxy.io/v1alpha1/SecurityPolicy")) -}}
    {{- $problems = append $problems (cat
        "route.signIn and route.limits are policies of Envoy Gateway, which the cluster lacks; install Envoy"
        "Gateway 1.9 or later, or let your own gateway do it: set route.limits' values to 0 and leave"
        "route.signIn.method at none.") -}}
  {{- end -}}
  {{- with $route.signIn.jwt.jwksConfigMap -}}
    {{- if not (dig "data" "jwks" "" (lookup "v1" "ConfigMap" $namespace . | default dict)) -}}
      {{- $problems = append $problems (printf (cat
          "There is no ConfigMap %s with the key jwks in namespace %s, so no token could be verified; make it:"
          "kubectl create configmap %s -n %s --from-file=jwks=FILE") . $namespace . $namespace) -}}
    {{- end -}}
  {{- end -}}
  {{- range $route.signIn.apiKeys.existingSecrets -}}
    {{- if not (lookup "v1" "Secret" $namespace .) -}}
      {{- $problems = append $problems (printf (cat
          "There is no Secret %s in namespace %s, which route.signIn.apiKeys names; make it: kubectl create"
          "secret generic %s -n %s --from-literal=CLIENT=KEY") . $namespace . $namespace) -}}
    {{- end -}}
  {{- end -}}
  {{- with $route.signIn.gatewaySecret -}}
    {{- if not (dig "data" "credential" "" (lookup "v1" "Secret" $namespace . | default dict)) -}}
      {{- $problems = append $problems (printf (cat
          "There is no Secret %s with credential in namespace %s, which route.signIn.gatewaySecret names; make"
          "it: kubectl create secret generic %s -n %s --from-literal=credential=$(openssl rand -hex 32)")
          . $namespace . $namespace) -}}
    {{- end -}}
  {{- end -}}
  {{- with $route.gateway.sectionName -}}
    {{- $gateway := lookup "gateway.networking.k8s.io/v1" "Gateway" $route.gateway.namespace $route.gateway.name -}}
    {{- $names := list -}}
    {{- range dig "spec" "listeners" list ($gateway | default dict) -}}{{- $names = append $names .name -}}{{- end -}}
    {{- if and $gateway (not (has . $names)) -}}
      {{- $problems = append $problems (printf
          "Gateway %s has no listener %s; set route.gateway.sectionName to one of: %s."
          $route.gateway.name . (join ", " $names)) -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}
