{{/* What the cluster lacks. */}}
{{- define "pneumoserve.preflight.cluster" -}}
  {{- $problems := list -}}
  {{- $has := $.Capabilities.APIVersions -}}
  {{- if not ($has.Has "serving.kserve.io/v1beta1/InferenceService") -}}
    {{- $problems = append $problems "The cluster has no KServe; install KServe 0.20 or later, its CRDs first." -}}
  {{- else -}}
    {{- $problems = concat $problems (include "pneumoserve.preflight.kserve" . | fromJsonArray) -}}
    {{- $problems = concat $problems (include "pneumoserve.preflight.storage" . | fromJsonArray) -}}
  {{- end -}}
  {{- if not ($has.Has "gateway.networking.k8s.io/v1/HTTPRoute") -}}
    {{- if $.Values.route.enabled -}}
      {{- $problems = append $problems (cat
          "The cluster has no Gateway API; install it with a gateway, or set route.enabled=false and bring your"
          "own way in.") -}}
    {{- end -}}
  {{- else if $.Values.route.enabled -}}
    {{- $problems = concat $problems (include "pneumoserve.preflight.gateway" . | fromJsonArray) -}}
    {{- if $has.Has "serving.kserve.io/v1beta1/InferenceService" -}}
      {{- $problems = concat $problems (include "pneumoserve.preflight.switch" . | fromJsonArray) -}}
    {{- end -}}
  {{- end -}}
  {{- $problems = concat $problems (include "pneumoserve.preflight.given" . | fromJsonArray) -}}
  {{- toJson $problems -}}
{{- end -}}

{{/* KServe's controller: there, new enough, answering. */}}
{{- define "pneumoserve.preflight.kserve" -}}
  {{- $namespace := $.Values.kserve.namespace -}}
  {{- $deployment := lookup "apps/v1" "Deployment" $namespace "kserve-controller-manager" -}}
  {{- $problems := list -}}
  {{- if not $deployment -}}
    {{- $problems = append $problems (printf (cat
        "There is no Deployment kserve-controller-manager in namespace %s; set kserve.namespace to where"
        "KServe's controller runs.") $namespace) -}}
  {{- else -}}
    {{- $image := "" -}}
    {{- range $deployment.spec.template.spec.containers -}}
      {{- if eq .name "manager" -}}{{- $image = .image -}}{{- end -}}
    {{- end -}}
    {{- $version := regexFind ":v?[0-9]+\\.[0-9]+(\\.[0-9]+)?" $image | trimPrefix ":" | trimPrefix "v" -}}
    {{- if not $version -}}
      {{- $problems = append $problems (printf (cat
          "KServe's version cannot be read from its controller's image (%s); see that it is 0.20 or later, then"
          "set preflight.enabled=false.") ($image | default "none")) -}}
    {{- else if semverCompare "<0.20.0" $version -}}
      {{- $problems = append $problems (printf "KServe %s is too old; upgrade it to 0.20 or later." $version) -}}
    {{- end -}}
    {{- if not (dig "status" "availableReplicas" 0 $deployment) -}}
      {{- $problems = append $problems (printf (cat
          "KServe's controller is not available, so its webhooks would refuse every object; look at `kubectl"
          "get pods -n %s`.") $namespace) -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/*
KServe adds the storage-initializer as a ClusterStorageContainer describes it. Under Pod Security "restricted" it needs
allowPrivilegeEscalation and capabilities of its own; the rest comes from the pod. KServe's chart sets them, its plain
manifests do not.
*/}}
{{- define "pneumoserve.preflight.storage" -}}
  {{- $problems := list -}}
  {{- if include "pneumoserve.isRestricted" $ -}}
    {{- $found := include "pneumoserve.storageContainers" $ | fromJsonArray -}}
    {{- range $found -}}
      {{- $escalates := ne (get .security "allowPrivilegeEscalation" | toString) "false" -}}
      {{- $drops := has "ALL" (dig "capabilities" "drop" list .security) -}}
      {{- if or $escalates (not $drops) -}}
        {{- $security := `{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}` -}}
        {{- $problems = append $problems (printf (cat
            "Namespace %s enforces Pod Security \"restricted\", which KServe's storage-initializer does not"
            "meet; run: kubectl patch clusterstoragecontainer %s --type merge"
            "-p '{\"spec\":{\"container\":{\"securityContext\":%s}}}'")
            $.Release.Namespace .name $security) -}}
      {{- end -}}
    {{- end -}}
    {{- if not $found -}}
      {{- $problems = append $problems (printf (cat
          "Namespace %s enforces Pod Security \"restricted\", and no ClusterStorageContainer takes s3://, so"
          "KServe's storage-initializer would be refused there; install the one of KServe's chart"
          "(kserve-resources).") $.Release.Namespace) -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/* Whether the namespace enforces Pod Security "restricted". */}}
{{- define "pneumoserve.isRestricted" -}}
  {{- $labels := dig "metadata" "labels" dict (lookup "v1" "Namespace" "" .Release.Namespace) | default dict -}}
  {{- if eq (get $labels "pod-security.kubernetes.io/enforce") "restricted" -}}true{{- end -}}
{{- end -}}

{{/* The ClusterStorageContainers that KServe fetches releases with: a JSON list of name and securityContext. */}}
{{- define "pneumoserve.storageContainers" -}}
  {{- $uri := printf "s3://%s/releases/" .Values.s3.bucket -}}
  {{- $found := list -}}
  {{- range (lookup "serving.kserve.io/v1alpha1" "ClusterStorageContainer" "" "").items -}}
    {{- $takes := false -}}
    {{- range .spec.supportedUriFormats -}}
      {{- if or (and .prefix (hasPrefix .prefix $uri)) (and .regex (regexMatch .regex $uri)) -}}
        {{- $takes = true -}}
      {{- end -}}
    {{- end -}}
    {{- if and $takes (not .disabled) (eq (.spec.workloadType | default "initContainer") "initContainer") -}}
      {{- $security := dig "container" "securityContext" dict .spec | default dict -}}
      {{- $found = append $found (dict "name" .metadata.name "security" $security) -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $found -}}
{{- end -}}

{{/* The Gateway: there, and open to routes of this namespace. */}}
{{- define "pneumoserve.preflight.gateway" -}}
  {{- $problems := list -}}
  {{- $wanted := $.Values.route.gateway -}}
  {{- $gateway := lookup "gateway.networking.k8s.io/v1" "Gateway" $wanted.namespace $wanted.name -}}
  {{- if not $gateway -}}
    {{- $problems = append $problems (printf (cat
        "There is no Gateway %s in namespace %s; make it, or set route.gateway.name and route.gateway.namespace"
        "to one that is there.") $wanted.name $wanted.namespace) -}}
  {{- else -}}
    {{- $labels := dig "metadata" "labels" dict (lookup "v1" "Namespace" "" $.Release.Namespace) | default dict -}}
    {{- $open := false -}}
    {{- range $gateway.spec.listeners -}}
      {{- $allowed := dig "allowedRoutes" "namespaces" dict . | default dict -}}
      {{- $from := get $allowed "from" | default "Same" -}}
      {{- if has .protocol (list "HTTP" "HTTPS") -}}
        {{- if or (eq $from "All") (and (eq $from "Same") (eq $wanted.namespace $.Release.Namespace)) -}}
          {{- $open = true -}}
        {{- else if eq $from "Selector" -}}
          {{- $fits := true -}}
          {{- range $key, $value := dig "selector" "matchLabels" dict $allowed -}}
            {{- if ne (get $labels $key) $value -}}{{- $fits = false -}}{{- end -}}
          {{- end -}}
          {{- if $fits -}}{{- $open = true -}}{{- end -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
    {{- if not $open -}}
      {{- $problems = append $problems (printf (cat
          "No HTTP or HTTPS listener of Gateway %s/%s takes routes of namespace %s; allow it in the listener's"
          "allowedRoutes, or name another Gateway.") $wanted.namespace $wanted.name $.Release.Namespace) -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/* The route leads to one release; it is not turned to another one that cannot answer. */}}
{{- define "pneumoserve.preflight.switch" -}}
  {{- $problems := list -}}
  {{- $name := include "pneumoserve.fullname" $ -}}
  {{- $route := lookup "gateway.networking.k8s.io/v1" "HTTPRoute" $.Release.Namespace $name -}}
  {{- if and $route $.Values.release.id -}}
    {{- $wanted := include "pneumoserve.isvc" $.Values.release.id -}}
    {{- $answering := list -}}
    {{- range $route.spec.rules -}}
      {{- range .backendRefs -}}
        {{- if ne (int (.weight | default 1)) 0 -}}
          {{- $answering = append $answering (trimSuffix "-predictor" .name) -}}
        {{- end -}}
      {{- end -}}
    {{- end -}}
    {{- $serves := false -}}
    {{- range $answering | uniq -}}
      {{- if eq (include "pneumoserve.preflight.ready" (list $ .)) "True" -}}{{- $serves = true -}}{{- end -}}
    {{- end -}}
    {{- $ready := eq (include "pneumoserve.preflight.ready" (list $ $wanted)) "True" -}}
    {{- if and $serves (not (has $wanted $answering)) (not $ready) -}}
      {{- $problems = append $problems (printf (cat
          "Release %s is not Ready, and %s answers now; keep release.id, add %s to release.standby, wait for"
          "`kubectl wait --for=condition=Ready inferenceservice/%s -n %s`, then switch.")
          $.Values.release.id (first $answering | trimPrefix "pneumonia-") $.Values.release.id
          $wanted $.Release.Namespace) -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $problems -}}
{{- end -}}

{{/* "True" where an InferenceService is Ready: {{ include … (list $ "pneumonia-0123456789ab") }} */}}
{{- define "pneumoserve.preflight.ready" -}}
  {{- $namespace := (index . 0).Release.Namespace -}}
  {{- $service := lookup "serving.kserve.io/v1beta1" "InferenceService" $namespace (index . 1) -}}
  {{- range dig "status" "conditions" list $service -}}
    {{- if eq .type "Ready" -}}{{- .status -}}{{- end -}}
  {{- end -}}
{{- end -}}
