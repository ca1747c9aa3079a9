"""DICOM intake in the cluster: its flags, rules, rights and networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pneumoserve.intake import load_rules
from pneumoserve.intake.settings import IntakeSettings
from tests.chart.api import Object
from tests.chart.conftest import EVERYTHING, KNATIVE, TRIAL, Cluster, Helm, nested, of_kind, policies, the
from tests.chart.test_rendered import ARMS, RELEASE, allows, caller, containers, mounted, pods, secret_of

PEERS = [{"aeTitle": "PACS", "networks": ["192.0.2.0/24", "2001:db8::/64"]}]
DICOM: dict[str, Any] = {"intake": {"enabled": True, "rules": {"peers": PEERS}}}
NAME = "pneumoserve-intake"
DICOM_PORT = 11112


@pytest.fixture
def dicom(helm: Helm) -> list[Object]:
    return helm.render(TRIAL, ARMS, DICOM)


@pytest.fixture
def everything(helm: Helm) -> list[Object]:
    return helm.render(EVERYTHING)


def container_of(objects: list[Object]) -> dict[str, Any]:
    (found,) = the(objects, "Deployment", NAME)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def settings_of(objects: list[Object]) -> IntakeSettings:
    """What the process makes of its flags."""
    assert container_of(objects)["command"] == ["python", "-m", "pneumoserve.intake"]
    return IntakeSettings.from_flags(container_of(objects)["args"])


def environment_of(objects: list[Object]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container_of(objects)["env"]}


def test_nothing_of_it_is_there_by_default_and_before_a_release_runs(helm: Helm) -> None:
    for given in ((ARMS,), (DICOM,)):
        made = helm.render(TRIAL, *given)
        assert not [
            each for each in made if each["kind"] in {"Deployment", "Service"} and each["metadata"]["name"] == NAME
        ]
    # The trial store knows its credential from the first: it would start anew with another one.
    assert "intake" in policies(helm.render(TRIAL, DICOM))
    assert "intake" not in policies(helm.render(TRIAL, ARMS))


def test_it_takes_its_flags(dicom: list[Object], everything: list[Object]) -> None:
    plain, whole = settings_of(dicom), settings_of(everything)
    assert plain.front == f"http://pneumonia-{RELEASE}-predictor.pneumo.svc"
    assert (plain.min_age_years, plain.below_age_years, plain.to) == (1, 6, [])
    assert (whole.min_age_years, whole.below_age_years) == (2, 12.5)
    assert whole.to == [
        "PACS@192.0.2.69:4242", "RESEARCH@research.example.org:11113/tls", "https://pacs.example.org/dicom-web",
    ]  # fmt: skip
    assert (plain.fhir_to, whole.fhir_to) == ([], ["https://ehr.example.org:8443/fhir"])
    ports = {each["name"]: each["containerPort"] for each in container_of(dicom)["ports"]}
    assert ports == {"dicom": plain.port, "metrics": plain.metrics_port}


def test_where_callers_sign_in_it_says_who_it_is(dicom: list[Object], everything: list[Object]) -> None:
    assert settings_of(dicom).subject_header is None
    header = settings_of(everything).subject_header
    assert f"--subject-header={header}" in containers(everything)["transformer-container"]["args"]
    secret = settings_of(everything).gateway_secret
    assert secret is not None
    assert secret.name in mounted(everything, NAME, "intake", str(secret.parent))


def test_files_of_its_flags_are_mounted(dicom: list[Object]) -> None:
    settings = settings_of(dicom)
    assert settings.rules is not None
    assert settings.archive_bucket == "pneumoserve"
    for file in (settings.rules, settings.reference_key, settings.archive_key):
        assert file.name in mounted(dicom, NAME, "intake", str(file.parent))


def test_it_takes_dicom_by_tls_where_there_is_a_certificate(dicom: list[Object], everything: list[Object]) -> None:
    assert settings_of(dicom).tls_certificate is None
    settings = settings_of(everything)
    for file in (settings.tls_certificate, settings.tls_key, settings.tls_authority):
        assert file is not None
        assert file.name in mounted(everything, NAME, "intake", str(file.parent))


def test_web_servers_are_told_who_it_is_by_its_netrc_file(dicom: list[Object], everything: list[Object]) -> None:
    assert settings_of(dicom).netrc is None
    file = settings_of(everything).netrc
    assert file is not None
    assert file.name in mounted(everything, NAME, "intake", str(file.parent))


SECRETS = {"intake.tls": ("dicom-tls", ["tls.crt", "tls.key", "ca.crt"]), "intake.netrc": ("web-passwords", ["netrc"])}


@pytest.mark.parametrize("value", SECRETS)
def test_a_secret_that_is_not_there_is_told_with_the_command(helm: Helm, cluster: Cluster, value: str) -> None:
    given = (TRIAL, DICOM, *(nested(f"{path}.existingSecret", name) for path, (name, _) in SECRETS.items()))
    for name, keys in SECRETS.values():
        cluster.add(secret_of(name, *keys))
    assert cluster.render(helm, *given)
    missing, keys = SECRETS[value]
    del cluster.objects[f"Secret/{missing}"]
    refused = cluster.refusal(helm, *given)
    files = " ".join(f"--from-file={key}" for key in keys)
    assert f"1. There is no Secret {missing} in namespace pneumo, which {value}.existingSecret names" in refused
    assert f"kubectl create secret generic {missing} -n pneumo {files}" in refused
    cluster.add(secret_of(missing, *keys[1:], "other"))
    assert f"Secret {missing} has no {keys[0]}; add it." in cluster.refusal(helm, *given)


# --- rules


def rules_of(objects: list[Object], folder: Path) -> Any:
    (folder / "rules.yaml").write_text(the(objects, "ConfigMap", NAME)["data"]["rules.yaml"])
    return load_rules(folder / "rules.yaml")


def test_its_rules_are_those_of_the_values(everything: list[Object], tmp_path: Path) -> None:
    rules = rules_of(everything, tmp_path)
    assert (rules.ae_title, rules.flagged_ae_title, rules.quiet_seconds) == ("PNEUMO", None, 20)
    assert rules.allows("PACS", "192.0.2.68")
    assert not rules.allows("PACS", "192.0.2.69")
    assert (rules.read.lateral, rules.practitioner, rules.reference) == (
        True, "ReferringPhysicianName", "AccessionNumber",
    )  # fmt: skip


def test_nobody_is_named_to_fronts_that_alert_nobody(helm: Helm, dicom: list[Object], tmp_path: Path) -> None:
    rules = rules_of(dicom, tmp_path)
    assert (rules.practitioner, rules.reference) == (None, None)
    alerting = rules_of(helm.render(TRIAL, ARMS, DICOM, nested("alerts.enabled", True)), tmp_path)
    assert alerting.practitioner == "ReferringPhysicianName"


def test_other_rules_start_other_pods(helm: Helm, dicom: list[Object]) -> None:
    def annotations(objects: list[Object]) -> dict[str, str]:
        return dict(the(objects, "Deployment", NAME)["spec"]["template"]["metadata"]["annotations"])

    changed = helm.render(TRIAL, ARMS, DICOM, nested("intake.rules.quietSeconds", 30))
    assert annotations(dicom) != annotations(changed)


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"peers": [{"aeTitle": "PACS"}]}, "missing property 'networks'"),
        ({"peers": PEERS, "quiet": 3}, "additional properties 'quiet' not allowed"),
        ({"peers": PEERS, "aeTitle": "OF SEVENTEEN CHARS"}, "/intake/rules/aeTitle"),
        ({"peers": PEERS, "read": {"lateral": "yes"}}, "got string, want boolean"),
    ],
)
def test_rules_of_the_wrong_form_are_refused(helm: Helm, rules: dict[str, Any], sentence: str) -> None:
    assert sentence in helm.refusal(TRIAL, ARMS, {"intake": {"enabled": True, "rules": rules}})


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("intake.to", ["PACS:4242"]),
        ("intake.to", ["https://me:password@pacs.example:443"]),
        ("intake.to", ["https://pacs.example/dicom-web?of=us"]),
        ("intake.fhirTo", ["ehr.example/fhir"]),
        ("intake.service.nodePort", 104),
        ("intake.service.type", "ExternalName"),
    ],
)
def test_values_of_the_wrong_form_are_refused(helm: Helm, path: str, wrong: Any) -> None:
    assert f"/{path.replace('.', '/')}" in helm.refusal(TRIAL, ARMS, DICOM, nested(path, wrong))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((TRIAL, nested("intake.enabled", True)), "Nobody may send to DICOM intake; name the networks"),
        ((TRIAL, DICOM, nested("intake.bucket", "pneumoserve")), "intake.bucket is the archive's bucket"),
        (
            (TRIAL, DICOM, nested("intake.rules.reference", "StudyID")),
            "intake.rules.reference says whom answers are for",
        ),
        ((TRIAL, DICOM, nested("intake.population.minAgeYears", 6)), "intake.population has no age"),
        ((KNATIVE, DICOM), "intake.enabled takes mode Standard"),
        ((TRIAL, nested("intake.web.enabled", True)), "intake.web.enabled is true and intake.enabled is not"),
        (
            (TRIAL, DICOM, nested("intake.web.enabled", True), nested("networkPolicies.enabled", False)),
            "name the networks of the gateway's pods in intake.rules.webNetworks",
        ),
        (
            (EVERYTHING, nested("s3.intake", {"accessKey": "", "secretKey": ""})),
            "intake.enabled is true, and it has no credential of its own",
        ),
    ],
)
def test_what_could_not_work_is_refused_with_what_to_do(helm: Helm, given: tuple[Any, ...], sentence: str) -> None:
    assert sentence in helm.refusal(*given)


# --- store


def test_its_credential_reaches_its_own_bucket_and_adds_records(dicom: list[Object], everything: list[Object]) -> None:
    assert environment_of(dicom)["S3_BUCKET"] == "pneumoserve-intake"
    assert environment_of(everything)["S3_BUCKET"] == "dicom-spool"
    for objects in (dicom, everything):
        assert environment_of(objects)["S3_ACCESS_KEY"]["secretKeyRef"]["name"] == NAME
    resources = {each for statement in policies(dicom)["intake"]["Statement"] for each in statement["Resource"]}
    spool = {"arn:aws:s3:::pneumoserve-intake", "arn:aws:s3:::pneumoserve-intake/*"}
    # Flags and withdrawals go on record.
    assert resources - spool == {"arn:aws:s3:::pneumoserve/records/*"}
    others = {name: text for name, text in policies(dicom).items() if name != "intake"}
    assert "pneumoserve-intake" not in json.dumps(others)


# --- networks


def test_the_service_leads_to_its_pods(dicom: list[Object], everything: list[Object]) -> None:
    for objects in (dicom, everything):
        service = the(objects, "Service", NAME)["spec"]
        (labels,) = [labels for name, _, labels in pods(objects) if name == NAME]
        assert service["selector"].items() <= labels.items()
        (port,) = service["ports"]
        assert port["targetPort"] in {each["name"] for each in container_of(objects)["ports"]}
    inside, outside = the(dicom, "Service", NAME)["spec"], the(everything, "Service", NAME)["spec"]
    assert (inside["type"], inside["ports"][0]["port"]) == ("ClusterIP", DICOM_PORT)
    assert "externalTrafficPolicy" not in inside
    assert (outside["type"], outside["ports"][0]["port"], outside["ports"][0]["nodePort"]) == (
        "LoadBalancer",
        104,
        30104,
    )
    # The rules ask for the sender's own address.
    assert outside["externalTrafficPolicy"] == "Local"


def rules_for(objects: list[Object], labels: dict[str, str], direction: str) -> list[Any]:
    return [
        rule
        for policy in of_kind(objects, "NetworkPolicy")
        if allows(policy, labels)
        for rule in policy["spec"].get(direction, [])
    ]


def senders(objects: list[Object]) -> list[Any]:
    """Who may send DICOM."""
    (labels,) = [labels for name, _, labels in pods(objects) if name == NAME]
    (rule,) = [
        each for each in rules_for(objects, labels, "ingress") if DICOM_PORT in [port["port"] for port in each["ports"]]
    ]
    return list(rule["from"])


def test_they_alone_send_whom_values_name(dicom: list[Object], everything: list[Object]) -> None:
    assert senders(dicom) == [{"ipBlock": {"cidr": each}} for each in PEERS[0]["networks"]]
    assert senders(everything) == [
        {"ipBlock": {"cidr": "192.0.2.68/32"}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "pacs"}}},
    ]


def test_it_reaches_releases_the_store_and_destinations(
    helm: Helm, dicom: list[Object], everything: list[Object]
) -> None:
    (labels,) = [labels for name, _, labels in pods(dicom) if name == NAME]

    def reached(objects: list[Object]) -> list[tuple[list[int], list[str]]]:
        found = rules_for(objects, labels, "egress")
        return [
            ([port["port"] for port in rule["ports"]], [caller(to) for to in rule.get("to", []) if "ipBlock" not in to])
            for rule in found
        ]

    assert ([8080], ["predictor"]) in reached(dicom)
    assert ([8333], ["store"]) in reached(dicom)
    assert ([4242], ["pacs"]) in reached(everything)
    to = nested("intake.to", ["A@one.example:4242", "B@two.example:104/tls", "C@three.example:4242"])
    assert ([4242, 104], []) in reached(helm.render(TRIAL, ARMS, DICOM, to))
    web = {"to": ["https://one.example/dicom-web", "http://two.example:8042"], "fhirTo": ["http://three.example/fhir"]}
    assert ([443, 8042, 80], []) in reached(helm.render(TRIAL, ARMS, DICOM, {"intake": web}))
    alone = nested("intake.fhirTo", ["https://ehr.example:8443/fhir"])
    assert ([8443], []) in reached(helm.render(TRIAL, ARMS, DICOM, alone))
    assert ([9081], ["predictor"]) in reached(helm.render(TRIAL, ARMS, DICOM, nested("payloadLogger.enabled", True)))


def test_a_release_and_the_store_let_it_in(dicom: list[Object]) -> None:
    release = of_kind(dicom, "InferenceService")[0]["metadata"]["labels"]
    assert "intake" in {caller(each) for rule in rules_for(dicom, release, "ingress") for each in rule["from"]}
    (store,) = [labels for name, _, labels in pods(dicom) if name == "pneumoserve-store"]
    ((source,),) = [rule["from"] for rule in rules_for(dicom, store, "ingress")]
    assert "intake" in source["podSelector"]["matchExpressions"][0]["values"]


# --- DICOMweb

WEB = {**DICOM["intake"], "web": {"enabled": True}}


def test_stow_rs_comes_by_the_gateway_alone(helm: Helm, dicom: list[Object], everything: list[Object]) -> None:
    assert settings_of(dicom).web_port is None
    assert NAME not in [each["metadata"]["name"] for each in of_kind(dicom, "HTTPRoute")]
    for objects in (helm.render(TRIAL, ARMS, {"intake": WEB}), everything):
        web = settings_of(objects).web_port
        ports = {each["name"]: each["containerPort"] for each in container_of(objects)["ports"]}
        service = the(objects, "Service", f"{NAME}-web")["spec"]
        (labels,) = [labels for name, _, labels in pods(objects) if name == NAME]
        assert service["selector"].items() <= labels.items()
        assert "type" not in service
        (port,) = service["ports"]
        assert ports[port["targetPort"]] == web
        (rule,) = the(objects, "HTTPRoute", NAME)["spec"]["rules"]
        assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/dicom-web"}}]
        assert [(each["name"], each["port"]) for each in rule["backendRefs"]] == [(f"{NAME}-web", port["port"])]
        release = the(objects, "NetworkPolicy", "pneumoserve-predictor")["spec"]
        (sources,) = [
            each["from"]
            for each in rules_for(objects, labels, "ingress")
            if web in [at["port"] for at in each["ports"]]
        ]
        assert sources == release["ingress"][0]["from"]


def test_its_route_asks_callers_as_the_services_does(helm: Helm, everything: list[Object]) -> None:
    targets = the(everything, "SecurityPolicy")["spec"]["targetRefs"]
    assert {each["name"] for each in targets} == {"pneumoserve", NAME}
    own, services = (the(everything, "HTTPRoute", name)["spec"] for name in (NAME, "pneumoserve"))
    assert (own["parentRefs"], own["hostnames"]) == (services["parentRefs"], services["hostnames"])
    # A study of many objects is larger than any call.
    limits, calls = (the(everything, "BackendTrafficPolicy", name)["spec"] for name in (NAME, "pneumoserve"))
    assert limits["targetRefs"][0]["name"] == NAME
    assert (limits["rateLimit"], "requestBuffer" in limits) == (calls["rateLimit"], False)
    without = helm.render(EVERYTHING, nested("intake.web.enabled", False))
    assert [each["name"] for each in the(without, "SecurityPolicy")["spec"]["targetRefs"]] == ["pneumoserve"]


def test_pods_of_the_gateway_may_send_from_wherever_they_are(helm: Helm, dicom: list[Object], tmp_path: Path) -> None:
    assert not rules_of(dicom, tmp_path).allows_web("10.244.0.7")
    rules = rules_of(helm.render(TRIAL, ARMS, {"intake": WEB}), tmp_path)
    assert all(rules.allows_web(each) for each in ("10.244.0.7", "fd00::7"))
    named = {**WEB, "rules": {"peers": PEERS, "webNetworks": ["10.244.0.0/16"]}}
    for policies_on in (True, False):
        given = ({"intake": named}, nested("networkPolicies.enabled", policies_on))
        rules = rules_of(helm.render(TRIAL, ARMS, *given), tmp_path)
        assert (rules.allows_web("10.244.0.7"), rules.allows_web("10.245.0.7")) == (True, False)


# --- pods


def test_two_pods_share_the_spool_and_a_drain_takes_one(dicom: list[Object]) -> None:
    deployment = the(dicom, "Deployment", NAME)["spec"]
    budget = the(dicom, "PodDisruptionBudget", NAME)["spec"]
    assert (deployment["replicas"], budget["maxUnavailable"]) == (2, 1)
    assert budget["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    assert not [name for name, _, _ in pods(dicom) if name == "pneumoserve-console"]


def test_what_an_install_adds_is_there(everything: list[Object]) -> None:
    template = the(everything, "Deployment", NAME)["spec"]["template"]
    assert {"name": "HTTPS_PROXY", "value": "http://proxy.example.org:3128"} in container_of(everything)["env"]
    assert {"name": "extra-intake", "configMap": {"name": "intake"}} in template["spec"]["volumes"]
    assert template["metadata"]["annotations"]["example.org/of"] == "intake"
    assert template["spec"]["priorityClassName"] == "intake-pods"
    account = the(everything, "ServiceAccount", template["spec"]["serviceAccountName"])
    assert account["metadata"]["annotations"] == {"example.org/role": "intake"}
    assert the(everything, "Service", NAME)["metadata"]["annotations"] == {"example.org/pool": "imaging"}


def test_the_notes_say_how_to_ask_each_destination(helm: Helm) -> None:
    notes = helm.notes(EVERYTHING)
    for each in yaml.safe_load(EVERYTHING.read_text())["intake"]["to"]:
        # C-ECHO is of DICOM alone.
        assert (f"deployment/{NAME} -- pneumoserve intake echo {each}" in notes) == ("://" not in each)
    assert "calls PNEUMO:" in notes
    assert "Results of DICOM studies are sent to nobody" in helm.notes(TRIAL, ARMS, DICOM)
    fhir = nested("intake.fhirTo", ["https://ehr.example/fhir"])
    assert "Results of DICOM studies are sent to nobody" not in helm.notes(TRIAL, ARMS, DICOM, fhir)
