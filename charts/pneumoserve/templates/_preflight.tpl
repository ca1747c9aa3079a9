{{/*
Everything that is wrong, told at once. Each part appends sentences that say what to do to a list; preflight.yaml fails
with all of them.
*/}}

{{/* Values that contradict each other or leave out what nothing can run without: {{ include … (list $ $told) }} */}}
{{- define "pneumoserve.preflight.values" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $values := $root.Values -}}
{{- $new := list -}}
{{- if and $values.trialStore.enabled $values.s3.endpoint -}}
{{- $new = append $new "trialStore.enabled and s3.endpoint name two S3 servers; switch the trial store off, or leave s3.endpoint empty." -}}
{{- else if not (or $values.trialStore.enabled $values.s3.endpoint) -}}
{{- $new = append $new "There is no S3 server; set s3.endpoint, or trialStore.enabled=true to try things out." -}}
{{- end -}}
{{- if and $values.s3.caConfigMap (not (hasPrefix "https://" (include "pneumoserve.endpoint" $root))) -}}
{{- $new = append $new "s3.caConfigMap is set, but the S3 server is not asked over https://, so no certificate is looked at; give an https:// endpoint, or leave it empty." -}}
{{- end -}}
{{- range $name := list "archive" "releases" "setup" -}}
{{- $given := get $values.s3 $name -}}
{{- $any := or $given.accessKey $given.secretKey $given.existingSecret -}}
{{- if and $values.trialStore.enabled $any -}}
{{- $new = append $new (printf "The trial store makes its own credentials; leave those of s3.%s empty." $name) -}}
{{- else if and $given.existingSecret (or $given.accessKey $given.secretKey) -}}
{{- $new = append $new (printf "s3.%s has keys and an existingSecret; keep one of them." $name) -}}
{{- else if ne (empty $given.accessKey) (empty $given.secretKey) -}}
{{- $new = append $new (printf "s3.%s has one of accessKey and secretKey; set both." $name) -}}
{{- end -}}
{{- end -}}
{{- if not (or $values.trialStore.enabled $values.s3.archive.accessKey $values.s3.archive.existingSecret) -}}
{{- $new = append $new "The front has no credential to write records with; set s3.archive.existingSecret to the name of a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY." -}}
{{- end -}}
{{- if and $values.trust.keys $values.trust.existingConfigMap -}}
{{- $new = append $new "trust.keys and trust.existingConfigMap are both set; keep one of them." -}}
{{- else if not (or $values.trust.keys $values.trust.existingConfigMap) -}}
{{- $new = append $new "Nobody's signature counts, so no release could start; give the approver's public key with --set-file 'trust.keys.approver\\.pem=FILE', or set trust.existingConfigMap." -}}
{{- end -}}
{{- if and $values.trust.existingConfigMap (or $values.trust.revoked.keys $values.trust.revoked.releases) -}}
{{- $new = append $new "trust.revoked has no effect beside trust.existingConfigMap; put revoked.json into that ConfigMap." -}}
{{- end -}}
{{- if and $values.archive.signing.existingSecret (eq $values.archive.signing.existingSecret $values.archive.sealer.existingSecret) -}}
{{- $new = append $new "archive.signing and archive.sealer name one Secret, so whoever can write records could seal them; give each a key of its own." -}}
{{- end -}}
{{- if and $values.archive.journal.limit (not $values.archive.journal.existingClaim) -}}
{{- $new = append $new "archive.journal.limit is set, but there is no journal; set archive.journal.existingClaim too, or leave the limit empty." -}}
{{- end -}}
{{- range $name := list "filmDays" "rollupDays" -}}
{{- $days := int (get $values.archive.expire $name) -}}
{{- if and $days (lt $days (int $values.archive.lock.sealedDays)) -}}
{{- $new = append $new (printf "archive.expire.%s is less than archive.lock.sealedDays, so nothing could be removed then; raise it, or set it to 0." $name) -}}
{{- end -}}
{{- end -}}
{{- if and $values.archive.expire.segmentDays (lt (int $values.archive.expire.segmentDays) (int $values.archive.lock.days)) -}}
{{- $new = append $new "archive.expire.segmentDays is less than archive.lock.days, so nothing could be removed then; raise it, or set it to 0." -}}
{{- end -}}
{{- if lt (int $values.archive.lock.sealedDays) (int $values.archive.lock.days) -}}
{{- $new = append $new "archive.lock.sealedDays is less than archive.lock.days, so the seals could be removed before what they prove; raise it." -}}
{{- end -}}
{{- if and $values.release.id (has $values.release.id $values.release.standby) -}}
{{- $new = append $new (printf "Release %s is in release.id and in release.standby; remove it from release.standby." $values.release.id) -}}
{{- end -}}
{{- if and $values.loadTest.enabled (not $values.loadTest.url) (not $values.release.id) -}}
{{- $new = append $new "loadTest has nothing to load; set release.id, or loadTest.url." -}}
{{- else if and $values.loadTest.enabled $values.loadTest.grpc (not $values.loadTest.url) -}}
{{- $new = append $new "loadTest.grpc is set and loadTest.url is not, so two services would be loaded; set both, or none." -}}
{{- end -}}
{{- if lt (int $values.terminationGracePeriodSeconds) (add (int $values.front.preStopSeconds) 20 | int) -}}
{{- $new = append $new "terminationGracePeriodSeconds leaves less than 20 s after front.preStopSeconds to answer what was taken in; raise it." -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}

{{/* What the cluster lacks. */}}
{{- define "pneumoserve.preflight.cluster" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $has := $root.Capabilities.APIVersions -}}
{{- if not ($has.Has "serving.kserve.io/v1beta1/InferenceService") -}}
{{- $_ := set $told "sentences" (append $told.sentences "The cluster has no KServe; install KServe 0.20 or later, its CRDs first.") -}}
{{- else -}}
{{- include "pneumoserve.preflight.kserve" . -}}
{{- include "pneumoserve.preflight.storage" . -}}
{{- end -}}
{{- if not ($has.Has "gateway.networking.k8s.io/v1/HTTPRoute") -}}
{{- if $root.Values.route.enabled -}}
{{- $_ := set $told "sentences" (append $told.sentences "The cluster has no Gateway API; install it with a gateway, or set route.enabled=false and bring your own way in.") -}}
{{- end -}}
{{- else if $root.Values.route.enabled -}}
{{- include "pneumoserve.preflight.gateway" . -}}
{{- if $has.Has "serving.kserve.io/v1beta1/InferenceService" -}}
{{- include "pneumoserve.preflight.switch" . -}}
{{- end -}}
{{- end -}}
{{- include "pneumoserve.preflight.given" . -}}
{{- end -}}

{{/* KServe's controller: there, new enough, answering. */}}
{{- define "pneumoserve.preflight.kserve" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $namespace := $root.Values.kserve.namespace -}}
{{- $deployment := lookup "apps/v1" "Deployment" $namespace "kserve-controller-manager" -}}
{{- $new := list -}}
{{- if not $deployment -}}
{{- $new = append $new (printf "There is no Deployment kserve-controller-manager in namespace %s; set kserve.namespace to where KServe's controller runs." $namespace) -}}
{{- else -}}
{{- $image := "" -}}
{{- range $deployment.spec.template.spec.containers -}}
{{- if eq .name "manager" -}}{{- $image = .image -}}{{- end -}}
{{- end -}}
{{- $version := regexFind ":v?[0-9]+\\.[0-9]+(\\.[0-9]+)?" $image | trimPrefix ":" | trimPrefix "v" -}}
{{- if not $version -}}
{{- $new = append $new (printf "KServe's version cannot be read from its controller's image (%s); see that it is 0.20 or later, then set preflight.enabled=false." ($image | default "none")) -}}
{{- else if semverCompare "<0.20.0" $version -}}
{{- $new = append $new (printf "KServe %s is too old; upgrade it to 0.20 or later." $version) -}}
{{- end -}}
{{- if not (dig "status" "availableReplicas" 0 $deployment) -}}
{{- $new = append $new (printf "KServe's controller is not available, so its webhooks would refuse every object; look at `kubectl get pods -n %s`." $namespace) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}

{{/*
KServe adds the storage-initializer as a ClusterStorageContainer describes it. Under Pod Security "restricted" it needs
allowPrivilegeEscalation and capabilities of its own; the rest comes from the pod. KServe's chart sets them, its plain
manifests do not.
*/}}
{{- define "pneumoserve.preflight.storage" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- if include "pneumoserve.isRestricted" $root -}}
{{- $new := list -}}
{{- $found := include "pneumoserve.storageContainers" $root | fromJsonArray -}}
{{- range $found -}}
{{- $escalates := ne (get .security "allowPrivilegeEscalation" | toString) "false" -}}
{{- $drops := has "ALL" (dig "capabilities" "drop" list .security) -}}
{{- if or $escalates (not $drops) -}}
{{- $patch := `{"spec":{"container":{"securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}}}}` -}}
{{- $new = append $new (printf "Namespace %s enforces Pod Security \"restricted\", which KServe's storage-initializer does not meet; run: kubectl patch clusterstoragecontainer %s --type merge -p '%s'" $root.Release.Namespace .name $patch) -}}
{{- end -}}
{{- end -}}
{{- if not $found -}}
{{- $new = append $new (printf "Namespace %s enforces Pod Security \"restricted\", and no ClusterStorageContainer takes s3://, so KServe's storage-initializer would be refused there; install the one of KServe's chart (kserve-resources)." $root.Release.Namespace) -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}
{{- end -}}

{{/* Whether the namespace enforces Pod Security "restricted". */}}
{{- define "pneumoserve.isRestricted" -}}
{{- $labels := dig "metadata" "labels" dict (lookup "v1" "Namespace" "" .Release.Namespace) | default dict -}}
{{- if eq (get $labels "pod-security.kubernetes.io/enforce") "restricted" -}}true{{- end -}}
{{- end -}}

{{/* The ClusterStorageContainers that KServe fetches releases with, each its name and securityContext, as a JSON list. */}}
{{- define "pneumoserve.storageContainers" -}}
{{- $uri := printf "s3://%s/releases/" .Values.s3.bucket -}}
{{- $found := list -}}
{{- range (lookup "serving.kserve.io/v1alpha1" "ClusterStorageContainer" "" "").items -}}
{{- $takes := false -}}
{{- range .spec.supportedUriFormats -}}
{{- if or (and .prefix (hasPrefix .prefix $uri)) (and .regex (regexMatch .regex $uri)) -}}{{- $takes = true -}}{{- end -}}
{{- end -}}
{{- if and $takes (not .disabled) (eq (.spec.workloadType | default "initContainer") "initContainer") -}}
{{- $found = append $found (dict "name" .metadata.name "security" (dig "container" "securityContext" dict .spec | default dict)) -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* The Gateway: there, and open to routes of this namespace. */}}
{{- define "pneumoserve.preflight.gateway" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $wanted := $root.Values.route.gateway -}}
{{- $gateway := lookup "gateway.networking.k8s.io/v1" "Gateway" $wanted.namespace $wanted.name -}}
{{- if not $gateway -}}
{{- $_ := set $told "sentences" (append $told.sentences (printf "There is no Gateway %s in namespace %s; make it, or set route.gateway.name and route.gateway.namespace to one that is there." $wanted.name $wanted.namespace)) -}}
{{- else -}}
{{- $labels := dig "metadata" "labels" dict (lookup "v1" "Namespace" "" $root.Release.Namespace) | default dict -}}
{{- $open := false -}}
{{- range $gateway.spec.listeners -}}
{{- $allowed := dig "allowedRoutes" "namespaces" dict . | default dict -}}
{{- $from := get $allowed "from" | default "Same" -}}
{{- if has .protocol (list "HTTP" "HTTPS") -}}
{{- if or (eq $from "All") (and (eq $from "Same") (eq $wanted.namespace $root.Release.Namespace)) -}}
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
{{- $_ := set $told "sentences" (append $told.sentences (printf "No HTTP or HTTPS listener of Gateway %s/%s takes routes of namespace %s; allow it in the listener's allowedRoutes, or name another Gateway." $wanted.namespace $wanted.name $root.Release.Namespace)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The route leads to one release; it is not turned to another one that cannot answer. */}}
{{- define "pneumoserve.preflight.switch" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $route := lookup "gateway.networking.k8s.io/v1" "HTTPRoute" $root.Release.Namespace (include "pneumoserve.fullname" $root) -}}
{{- if and $route $root.Values.release.id -}}
{{- $wanted := include "pneumoserve.isvc" $root.Values.release.id -}}
{{- $answering := list -}}
{{- range $route.spec.rules -}}
{{- range .backendRefs -}}
{{- if ne (int (.weight | default 1)) 0 -}}{{- $answering = append $answering (trimSuffix "-predictor" .name) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $serves := false -}}
{{- range $answering | uniq -}}
{{- if eq (include "pneumoserve.preflight.ready" (list $root .)) "True" -}}{{- $serves = true -}}{{- end -}}
{{- end -}}
{{- if and $serves (not (has $wanted $answering)) (ne (include "pneumoserve.preflight.ready" (list $root $wanted)) "True") -}}
{{- $_ := set $told "sentences" (append $told.sentences (printf "Release %s is not Ready, and %s answers now; keep release.id, add %s to release.standby, wait for `kubectl wait --for=condition=Ready inferenceservice/%s -n %s`, then switch." $root.Values.release.id (first $answering | trimPrefix "pneumonia-") $root.Values.release.id $wanted $root.Release.Namespace)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* "True" where an InferenceService is Ready. */}}
{{- define "pneumoserve.preflight.ready" -}}
{{- $root := index . 0 -}}
{{- range dig "status" "conditions" list (lookup "serving.kserve.io/v1beta1" "InferenceService" $root.Release.Namespace (index . 1)) -}}
{{- if eq .type "Ready" -}}{{- .status -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* What is named and must be there already. */}}
{{- define "pneumoserve.preflight.given" -}}
{{- $root := index . 0 -}}
{{- $told := index . 1 -}}
{{- $namespace := $root.Release.Namespace -}}
{{- $values := $root.Values -}}
{{- $new := list -}}
{{- with $values.trust.existingConfigMap -}}
{{- $map := lookup "v1" "ConfigMap" $namespace . -}}
{{- $pem := false -}}
{{- range $key, $_ := $map.data -}}{{- if hasSuffix ".pem" $key -}}{{- $pem = true -}}{{- end -}}{{- end -}}
{{- if not $map -}}
{{- $new = append $new (printf "There is no ConfigMap %s in namespace %s; make it from the approvers' public keys: kubectl create configmap %s -n %s --from-file=FOLDER" . $namespace . $namespace) -}}
{{- else if not $pem -}}
{{- $new = append $new (printf "ConfigMap %s holds no public key; its keys must end in .pem." .) -}}
{{- end -}}
{{- end -}}
{{- $keys := dict "signing" (list "key.pem" "public.pem") "sealer" (list "key.pem" "public.pem") "references" (list "key") -}}
{{- range $name, $files := $keys -}}
{{- with (get $values.archive $name).existingSecret -}}
{{- $secret := lookup "v1" "Secret" $namespace . -}}
{{- if not $secret -}}
{{- $new = append $new (printf "There is no Secret %s in namespace %s, which archive.%s names; make it: kubectl create secret generic %s -n %s --from-file=%s" . $namespace $name . $namespace (join " --from-file=" $files)) -}}
{{- else -}}
{{- range $file := $files -}}
{{- if not (get ($secret.data | default dict) $file) -}}
{{- $new = append $new (printf "Secret %s has no %s; add it." $secret.metadata.name $file) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $values.archive.journal.existingClaim -}}
{{- if not (lookup "v1" "PersistentVolumeClaim" $namespace .) -}}
{{- $new = append $new (printf "There is no PersistentVolumeClaim %s in namespace %s for the journal; make it, or leave archive.journal.existingClaim empty." . $namespace) -}}
{{- end -}}
{{- end -}}
{{- with $values.s3.caConfigMap -}}
{{- if not (dig "data" "cabundle.crt" "" (lookup "v1" "ConfigMap" $namespace . | default dict)) -}}
{{- $new = append $new (printf "There is no ConfigMap %s with the key cabundle.crt in namespace %s, which s3.caConfigMap names; make it: kubectl create configmap %s -n %s --from-file=cabundle.crt=FILE" . $namespace . $namespace) -}}
{{- end -}}
{{- end -}}
{{- if not $values.trialStore.enabled -}}
{{- range list $values.s3.archive.existingSecret $values.s3.releases.existingSecret $values.s3.setup.existingSecret | compact | uniq -}}
{{- $secret := lookup "v1" "Secret" $namespace . -}}
{{- if not $secret -}}
{{- $new = append $new (printf "There is no Secret %s in namespace %s; make it: kubectl create secret generic %s -n %s --from-literal=AWS_ACCESS_KEY_ID=… --from-literal=AWS_SECRET_ACCESS_KEY=…" . $namespace . $namespace) -}}
{{- else -}}
{{- range $key := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" -}}
{{- if not (get ($secret.data | default dict) $key) -}}
{{- $new = append $new (printf "Secret %s has no %s; add it." $secret.metadata.name $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $reader := include "pneumoserve.releasesSecret" $root -}}
{{- if has $reader (list $values.s3.archive.existingSecret $values.s3.releases.existingSecret) -}}
{{- with lookup "v1" "Secret" $namespace $reader -}}
{{- $annotations := .metadata.annotations | default dict -}}
{{- $wanted := include "pneumoserve.storageAnnotations" $root | fromYaml -}}
{{- $wrong := false -}}
{{- $words := list -}}
{{- range $key, $value := $wanted -}}
{{- if ne (get $annotations $key) $value -}}{{- $wrong = true -}}{{- end -}}
{{- $words = append $words (printf "%s=%s" $key $value) -}}
{{- end -}}
{{- if $wrong -}}
{{- $new = append $new (printf "Secret %s does not tell KServe where the releases are; run: kubectl annotate secret %s -n %s --overwrite %s" $reader $reader $namespace (join " " $words)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $told "sentences" (concat $told.sentences $new) -}}
{{- end -}}
