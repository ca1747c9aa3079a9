"""Console, alert sender and random sample in the cluster: their commands, keys, rights and networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from pneumoserve.alerts import load_policy
from pneumoserve.cli import app
from pneumoserve.console.settings import ConsoleSettings
from pneumoserve.front.settings import FrontSettings
from pneumoserve.monitoring.stop_plan import StopPlan, load_stop_plan
from tests.chart.api import Object
from tests.chart.conftest import EVERYTHING, TRIAL, Cluster, Helm, nested, of_kind, policies, the
from tests.chart.test_rendered import ARMS, allows, caller, containers, keys_job, mounted, pods, secret_of

SIGN_IN = {"issuer": "https://id.example.org/realms/hospital", "clientId": "console", "existingSecret": "client"}
CONSOLE: dict[str, Any] = {"console": {"enabled": True, "url": "https://console.example.org", "signIn": SIGN_IN}}
ALERTS: dict[str, Any] = {"alerts": {"enabled": True}}
SAMPLE: dict[str, Any] = {"sample": {"enabled": True}}
ROOM = {**CONSOLE, **ALERTS, **SAMPLE}
PARTS = ("console", "alerts", "sample")
PLAN = {"site": "pacs", "drift": {"alarm": "images", "windows": 2, "looks": 50}}
DRIFT: dict[str, Any] = {"drift": {"enabled": True, "plan": PLAN}}
EVIDENCE: dict[str, Any] = {"evidence": {"enabled": True, "claim": "evidence", "existingSecret": "evidence-key"}}
JOBS = {**DRIFT, **EVIDENCE}
REVIEW = "/etc/pneumoserve/review"


@pytest.fixture
def room(helm: Helm) -> list[Object]:
    return helm.render(TRIAL, ARMS, ROOM)


@pytest.fixture
def everything(helm: Helm) -> list[Object]:
    return helm.render(EVERYTHING)


def container_of(objects: list[Object], part: str) -> dict[str, Any]:
    (spec,) = [spec for name, spec, _ in pods(objects) if name == f"pneumoserve-{part}"]
    (found,) = spec["containers"]
    return dict(found)


def options_of(command: list[str]) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in command if word.startswith("--"))


def test_nothing_of_them_is_there_unless_it_is_asked_for(helm: Helm) -> None:
    plain = helm.render(TRIAL, ARMS)
    names = {f"pneumoserve-{part}" for part in (*PARTS, *JOBS)}
    assert not [each for each in plain if each["metadata"]["name"] in names]
    assert set(policies(plain)) == {"archive", "seal", "rollout", "releases", "setup"}
    front = options_of(containers(plain)["transformer-container"]["args"])
    assert not {"--envelope-key", "--alert-hint"} & front.keys()


@pytest.mark.parametrize("part", PARTS)
def test_each_runs_alone(helm: Helm, part: str) -> None:
    made = helm.render(TRIAL, ARMS, {part: ROOM[part]})
    assert {each for each in PARTS if f"pneumoserve-{each}" in {name for name, _, _ in pods(made)}} == {part}
    job = keys_job(made)
    assert job is not None
    assert "--review=pneumoserve-review-keys" in job["spec"]["template"]["spec"]["containers"][0]["command"]


def test_the_console_takes_its_flags(everything: list[Object], room: list[Object]) -> None:
    words = container_of(everything, "console")["command"]
    assert words[:3] == ["python", "-m", "pneumoserve.console"]
    settings = ConsoleSettings.from_flags(words[3:])
    assert settings.oidc_roles == {"xray-readers": "reader", "xray-leads": "lead"}
    assert settings.session_minutes == 20
    assert settings.prevalence == 0.01
    assert settings.secure
    assert settings.host_names == ["console.example.org"]
    plain = ConsoleSettings.from_flags(container_of(room, "console")["command"][3:])
    assert plain.oidc_roles["reader"] == "reader"
    assert plain.prevalence is None


@pytest.mark.parametrize(("part", "path"), [
    ("alerts", ("alerts", "send")), ("sample", ("sample",)),
    ("drift", ("drift",)), ("evidence", ("evidence",)),
])  # fmt: skip
def test_commands_take_their_options(everything: list[Object], part: str, path: tuple[str, ...]) -> None:
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    words = container_of(everything, part)["command"]
    assert words[: 1 + len(path)] == ["pneumoserve", *path]
    assert set(options_of(words)) <= {option for each in command.params for option in each.opts}


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ("console", ["archive-key", "archive-trust", "sealer-trust", "trust", "chance-key", "session-key", "link-keys",
                     "envelope-key", "oidc-client-secret"]),
        ("alerts", ["key", "archive-trust", "sealer-trust", "link-keys", "envelope-key", "policy"]),
        ("sample", ["key", "archive-trust", "sealer-trust", "chance-key"]),
    ],
)  # fmt: skip
def test_files_of_the_options_are_mounted(room: list[Object], part: str, options: list[str]) -> None:
    found = container_of(room, part)
    given = options_of(found["command"])
    folders = {mount["mountPath"] for mount in found["volumeMounts"]}
    for option in options:
        path = given[f"--{option}"]
        if path in folders:
            continue
        folder, _, file = path.rpartition("/")
        assert file in mounted(room, f"pneumoserve-{part}", part, folder), option


def test_each_has_the_keys_it_works_with_and_no_other(room: list[Object]) -> None:
    def seen(part: str) -> set[str]:
        files = mounted(room, f"pneumoserve-{part}", part, REVIEW)
        assert {name: each["key"] for name, each in files.items()} == {name: name for name in files}
        return set(files)

    assert {part: seen(part) for part in PARTS} == {
        "console": {"chance", "links", "session", "envelope.pem"},
        "alerts": {"links", "envelope.pem"},
        "sample": {"chance"},
    }  # fmt: skip
    front = mounted(room, "pneumonia-0123456789ab", "transformer-container", "/etc/pneumoserve/envelope")
    assert {name: each["key"] for name, each in front.items()} == {"envelope.pub.pem": "envelope.pub.pem"}
    assert key_secrets(room) == {"pneumoserve-review-keys"}


def test_the_jobs_have_no_key_but_the_one_they_sign_with(helm: Helm) -> None:
    made = helm.render(TRIAL, ARMS, JOBS)
    secrets = {
        (name, volume["name"], volume["secret"]["secretName"])
        for name, spec, _ in pods(made)
        for volume in spec["volumes"]
        if name in {"pneumoserve-drift", "pneumoserve-evidence"} and "secret" in volume
    }
    assert secrets == {
        ("pneumoserve-drift", "archive", "pneumoserve-archive-signing"),
        ("pneumoserve-evidence", "evidence-key", "evidence-key"),
    }
    # Neither needs the reading room's keys, nor a database of others.
    job = keys_job(made)
    assert job is not None
    assert "--review=" not in str(job)
    everything = helm.render(EVERYTHING)
    for part in JOBS:
        variables = {each["name"]: each for each in container_of(everything, part)["env"]}
        assert variables["REVIEW_DATABASE"]["value"] == "sqlite:////tmp/review.sqlite"


def test_the_drift_job_follows_the_plan_of_the_values(helm: Helm, tmp_path: Path) -> None:
    made = helm.render(TRIAL, ARMS, DRIFT)
    (tmp_path / "stop.yaml").write_text(the(made, "ConfigMap", "pneumoserve-drift")["data"]["stop.yaml"])
    assert load_stop_plan(tmp_path / "stop.yaml") == StopPlan.model_validate(PLAN)
    words = options_of(container_of(made, "drift")["command"])
    assert "stop.yaml" in mounted(made, "pneumoserve-drift", "drift", words["--plan"].rpartition("/")[0])
    plain = helm.render(TRIAL, ARMS, DRIFT, nested("drift.plan", None))
    assert "--plan" not in options_of(container_of(plain, "drift")["command"])


def test_the_evidence_job_leaves_its_file_on_the_claim(helm: Helm) -> None:
    made = helm.render(TRIAL, ARMS, EVIDENCE)
    found = container_of(made, "evidence")
    out = options_of(found["command"])["--out"]
    (mount,) = (each for each in found["volumeMounts"] if each["mountPath"] == out)
    (spec,) = (spec for name, spec, _ in pods(made) if name == "pneumoserve-evidence")
    (volume,) = (each for each in spec["volumes"] if each["name"] == mount["name"])
    assert (mount["readOnly"], volume["persistentVolumeClaim"]) == (False, {"claimName": "evidence"})
    others = [each for each in found["volumeMounts"] if each["mountPath"] not in {out, "/tmp"}]
    assert all(each["readOnly"] for each in others)


def key_secrets(objects: list[Object]) -> set[str]:
    """Secrets of the reading room's keys that pods mount."""
    return {
        volume["secret"]["secretName"]
        for _, spec, _ in pods(objects)
        for volume in spec["volumes"]
        if volume["name"] in ("review", "envelope-key")
    }


def test_given_keys_are_used_and_none_are_made(helm: Helm) -> None:
    given = helm.render(TRIAL, ARMS, ROOM, nested("review.keys.existingSecret", "mine"))
    assert key_secrets(given) == {"mine"}
    assert "--review=" not in str(keys_job(given))


def test_each_reaches_the_store_with_the_credential_that_is_its_own(room: list[Object]) -> None:
    def secret(part: str) -> str:
        (key,) = [each for each in container_of(room, part)["env"] if each["name"] == "S3_SECRET_KEY"]
        return str(key["valueFrom"]["secretKeyRef"]["name"])

    assert [secret(part) for part in PARTS] == ["pneumoserve-console", "pneumoserve-alerts", "pneumoserve-console"]
    rights = policies(room)
    removing = {
        name: statement["Resource"]
        for name, policy in rights.items()
        for statement in policy["Statement"]
        if any("Delete" in action for action in statement["Action"])
    }
    assert removing == {"alerts": ["arn:aws:s3:::pneumoserve/envelopes/*"]}
    added = [each["Resource"] for each in rights["console"]["Statement"] if "s3:PutObject" in each["Action"]]
    assert added == [["arn:aws:s3:::pneumoserve/records/*"]]


def test_the_console_can_fetch_and_verify_the_release_that_answered(room: list[Object]) -> None:
    """For heat maps: it reads the bucket, unpacks where it may write, and trusts whom the models' container trusts."""
    found = container_of(room, "console")
    settings = ConsoleSettings.from_flags(found["command"][3:])
    writable = [each["mountPath"] for each in found["volumeMounts"] if not each.get("readOnly")]
    assert [place for place in writable if settings.releases.is_relative_to(place)] == ["/tmp"]
    reads = [each["Resource"] for each in policies(room)["console"]["Statement"] if "s3:GetObject" in each["Action"]]
    assert reads == [["arn:aws:s3:::pneumoserve/*"]]
    trusted = {
        volume["configMap"]["name"]
        for name, spec, _ in pods(room)
        for volume in spec["volumes"]
        if name in {"pneumoserve-console", "pneumonia-0123456789ab"} and volume["name"] == "trust"
    }
    assert trusted == {"pneumoserve-trust"}
    assert str(settings.trust) in {each["mountPath"] for each in found["volumeMounts"]}


def test_each_has_an_account_of_its_own_without_a_token(room: list[Object]) -> None:
    for part in PARTS:
        (spec,) = [spec for name, spec, _ in pods(room) if name == f"pneumoserve-{part}"]
        account = the(room, "ServiceAccount", spec["serviceAccountName"])
        assert account["metadata"]["name"] == f"pneumoserve-{part}"
        assert account["automountServiceAccountToken"] is False
        bound = [each for each in of_kind(room, "RoleBinding") if f"pneumoserve-{part}" in str(each["subjects"])]
        assert bound == []


def test_the_database_is_that_of_the_secret_else_a_file_of_one_pod(
    room: list[Object], everything: list[Object]
) -> None:
    for part in PARTS:
        own, shared = (
            next(each for each in container_of(objects, part)["env"] if each["name"] == "REVIEW_DATABASE")
            for objects in (room, everything)
        )
        assert own["value"] == "sqlite:////tmp/review.sqlite"
        assert shared["valueFrom"]["secretKeyRef"] == {"name": "review-database", "key": "url"}
    for part in ("console", "alerts"):
        assert the(room, "Deployment", f"pneumoserve-{part}")["spec"]["strategy"] == {"type": "Recreate"}
        assert "strategy" not in the(everything, "Deployment", f"pneumoserve-{part}")["spec"]


def test_kubelet_asks_the_console_by_its_own_name(everything: list[Object]) -> None:
    found = container_of(everything, "console")
    # It is alive while it makes its database from the archive, and is not called before.
    for probe, path in (("startupProbe", "/health"), ("readinessProbe", "/ready")):
        asked = found[probe]["httpGet"]
        assert asked["path"] == path
        assert asked["httpHeaders"] == [{"name": "Host", "value": "console.example.org"}]


def test_fronts_seal_to_the_alert_sender_and_hint_at_its_service(room: list[Object]) -> None:
    front = FrontSettings.from_flags(containers(room)["transformer-container"]["args"])
    assert front.envelope_key == Path("/etc/pneumoserve/envelope/envelope.pub.pem")
    host, _, port = str(front.alert_hint).rpartition(":")
    service = the(room, "Service", host)
    assert service["spec"]["ports"] == [{"name": "hints", "port": int(port), "targetPort": "hints", "protocol": "UDP"}]
    sender = container_of(room, "alerts")
    assert options_of(sender["command"])["--hint-port"] == port
    assert {"name": "hints", "containerPort": int(port), "protocol": "UDP"} in sender["ports"]


def test_the_policy_is_one_that_the_sender_reads_with_its_files_beside_it(
    everything: list[Object], room: list[Object], tmp_path: Path
) -> None:
    text = the(everything, "ConfigMap", "pneumoserve-alerts")["data"]["alerts.yaml"]
    path = tmp_path / "alerts.yaml"
    path.write_text(text)
    (tmp_path / "mail-password").write_text("x")
    policy = load_policy(path)
    assert [route.name for route in policy.routes] == ["all"]
    (spec,) = [spec for name, spec, _ in pods(everything) if name == "pneumoserve-alerts"]
    (volume,) = [each for each in spec["volumes"] if each["name"] == "alerts"]
    assert volume["projected"]["sources"] == [
        {"configMap": {"name": "pneumoserve-alerts"}}, {"secret": {"name": "alert-files"}}
    ]  # fmt: skip
    path.write_text(the(room, "ConfigMap", "pneumoserve-alerts")["data"]["alerts.yaml"])
    assert load_policy(path).routes == ()


def test_another_policy_restarts_the_sender(helm: Helm, everything: list[Object]) -> None:
    changed = helm.render(EVERYTHING, nested("alerts.policy.timeZone", "Europe/Berlin"))
    before, after = (
        the(objects, "Deployment", "pneumoserve-alerts")["spec"]["template"]["metadata"]["annotations"]
        for objects in (everything, changed)
    )
    assert before.pop("pneumoserve/policy") != after.pop("pneumoserve/policy")
    assert before == after == {"example.org/of": "review"}


# --- networks


def rules_of(objects: list[Object], part: str, direction: str) -> list[dict[str, Any]]:
    (labels,) = [labels for name, _, labels in pods(objects) if name == f"pneumoserve-{part}"]
    found = [each for each in of_kind(objects, "NetworkPolicy") if allows(each, labels)]
    return [rule for each in found for rule in each["spec"].get(direction, [])]


@pytest.mark.parametrize(
    ("part", "callers"),
    [
        ("console", {("gateways", 8090), ("monitoring", 8082)}),
        ("alerts", {("predictor", 9125), ("monitoring", 8082)}),
        ("sample", set()),
        ("drift", set()),
        ("evidence", set()),
    ],
)
def test_each_is_reached_from_where_it_is_called_alone(
    everything: list[Object], part: str, callers: set[tuple[str, int]]
) -> None:
    found = {
        (caller(source), port["port"])
        for rule in rules_of(everything, part, "ingress")
        for source in rule["from"]
        for port in rule["ports"]
    }
    assert found == callers


@pytest.mark.parametrize(
    ("part", "ports"),
    [
        ("console", [[5433], [8443]]),
        ("alerts", [[443, 465], [5433]]),
        ("sample", [[5433]]),
        # They work on the archive alone.
        ("drift", []),
        ("evidence", []),
    ],
)
def test_each_reaches_dns_the_store_and_what_it_needs(
    everything: list[Object], part: str, ports: list[list[int]]
) -> None:
    found = rules_of(everything, part, "egress")
    beside = [rule for rule in found if {port["port"] for port in rule["ports"]} not in ({53, 5353}, {9443, 9000})]
    assert len(found) == len(beside) + 2
    assert sorted([port["port"] for port in rule["ports"]] for rule in beside) == ports
    # No rule leads everywhere.
    assert all(len(rule["to"]) == 2 for rule in beside)


def test_with_a_file_of_its_own_none_reaches_a_database(room: list[Object]) -> None:
    assert not any(
        port["port"] == 5432 for part in PARTS for rule in rules_of(room, part, "egress") for port in rule["ports"]
    )
    # The port of the issuer, where values name none.
    assert [443] in [[port["port"] for port in rule["ports"]] for rule in rules_of(room, "console", "egress")]


def test_fronts_alone_hint(everything: list[Object]) -> None:
    policy = the(everything, "NetworkPolicy", "pneumoserve-hints")
    assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "predictor"
    (rule,) = policy["spec"]["egress"]
    assert rule["ports"] == [{"port": 9125, "protocol": "UDP"}]


def test_the_console_has_a_route_of_its_own(helm: Helm, everything: list[Object]) -> None:
    route = the(everything, "HTTPRoute", "pneumoserve-console")["spec"]
    assert route["hostnames"] == ["console.example.org"]
    assert route["parentRefs"] == the(everything, "HTTPRoute", "pneumoserve")["spec"]["parentRefs"]
    (backend,) = route["rules"][0]["backendRefs"]
    assert route["rules"][0]["timeouts"] == {"request": "60s"}
    assert the(everything, "Service", backend["name"])["spec"]["ports"][0]["port"] == backend["port"]
    # What callers of a release are asked for is not asked of people.
    policies = [each for kind in ("SecurityPolicy", "BackendTrafficPolicy") for each in of_kind(everything, kind)]
    targets = {target["name"] for policy in policies for target in policy["spec"]["targetRefs"]}
    assert "pneumoserve" in targets
    assert "pneumoserve-console" not in targets
    alone = helm.render(TRIAL, CONSOLE, nested("route.enabled", False))
    assert of_kind(alone, "HTTPRoute") == []


def test_a_drain_leaves_one_of_each_and_they_are_spread(everything: list[Object]) -> None:
    for part in ("console", "alerts"):
        budget = the(everything, "PodDisruptionBudget", f"pneumoserve-{part}")["spec"]
        labels = the(everything, "Deployment", f"pneumoserve-{part}")["spec"]["template"]["metadata"]["labels"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"].items() <= labels.items()
        (spec,) = [spec for name, spec, _ in pods(everything) if name == f"pneumoserve-{part}"]
        (spread,) = spec["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"].items() <= labels.items()


# --- what is refused


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (({"console": {"enabled": True, "signIn": SIGN_IN}},), "set console.url"),
        (({"console": {**CONSOLE["console"], "signIn": {}}},), "Nobody could sign in at the console"),
        (({"console": {**CONSOLE["console"], "signIn": {**SIGN_IN, "existingSecret": ""}}},), "Nobody could sign in"),
        ((CONSOLE, nested("console.replicas", 2)), "console.replicas is 2"),
        ((ALERTS, nested("alerts.replicas", 3)), "alerts.replicas is 3"),
        ((CONSOLE, nested("route.hostnames", ["console.example.org"])), "give the console its own"),
        (
            (ALERTS, nested("alerts.policy.channels.m", {"kind": "webhook", "secretFile": "webhook-secret"})),
            "alerts.policy names webhook-secret",
        ),
        ((EVIDENCE, nested("evidence.claim", "")), "set evidence.claim to a PersistentVolumeClaim"),
        ((EVIDENCE, nested("evidence.existingSecret", "")), "evidence.existingSecret to a Secret with key.pem"),
        ((DRIFT, nested("release.id", "")), "drift.enabled is true, and there is no release to compare"),
        ((CONSOLE, nested("s3.console.accessKey", "a")), "leave those of s3.console empty"),
    ],
)
def test_values_that_would_not_do_are_told(helm: Helm, given: tuple[dict[str, Any], ...], sentence: str) -> None:
    refused = helm.refusal(TRIAL, *given)
    assert sentence in refused
    assert "1. " in refused


@pytest.mark.parametrize(("part", "credential"), [("console", "console"), ("alerts", "alerts"), ("sample", "console")])
def test_the_fronts_credential_does_not_stand_in(helm: Helm, part: str, credential: str) -> None:
    others = {each: {"enabled": False} for each in PARTS if each != part}
    refused = helm.refusal(EVERYTHING, others, {"s3": {credential: {"accessKey": "", "secretKey": ""}}})
    assert f"{part}.enabled is true, and it has no credential of its own; set s3.{credential}.existingSecret" in refused


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("console.url", "console.example.org"),
        ("console.url", "https://console.example.org/room"),
        ("console.replicas", 0),
        ("console.signIn.roles", {"xray": "reeder"}),
        ("alerts.policy", "alerts.yaml"),
        ("sample.capacity", 0),
        ("sample.schedule", "daily"),
        ("drift.plan", "stop.yaml"),
        ("evidence.claim", "Evidence"),
        ("networkPolicies.database.ports", []),
    ],
)
def test_a_value_of_the_wrong_form_is_refused_by_its_path(helm: Helm, path: str, value: Any) -> None:
    assert f"/{path.replace('.', '/')}" in helm.refusal(TRIAL, nested(path, value))


NAMED = {
    "review-database": ["url"],
    "room-keys": ["chance", "session", "links", "envelope.pem", "envelope.pub.pem"],
    "console-client": ["secret"],
    "alert-files": ["mail-password"],
    "evidence-key": ["key.pem"],
}
LOOKED = {"review": {"database": {"existingSecret": "review-database"}, "keys": {"existingSecret": "room-keys"}}}


@pytest.fixture
def installed(helm: Helm) -> tuple[Path | dict[str, Any], ...]:
    """Values of a room in the trial store's cluster that name all of their Secrets."""
    policy = yaml.safe_load(EVERYTHING.read_text())["alerts"]["policy"]
    alerts = {"alerts": {"enabled": True, "policy": policy, "existingSecret": "alert-files"}}
    return TRIAL, {**ROOM, **EVIDENCE, **alerts}, LOOKED, nested("console.signIn.existingSecret", "console-client")


def test_a_cluster_that_has_the_secrets_is_taken(
    helm: Helm, cluster: Cluster, installed: tuple[Path | dict[str, Any], ...]
) -> None:
    for name, keys in NAMED.items():
        cluster.add(secret_of(name, *keys))
    assert cluster.render(helm, *installed)


@pytest.mark.parametrize("missing", NAMED)
def test_a_secret_that_is_not_there_is_told_with_the_command(
    helm: Helm, cluster: Cluster, installed: tuple[Path | dict[str, Any], ...], missing: str
) -> None:
    for name, keys in NAMED.items():
        cluster.add(secret_of(name, *keys))
    del cluster.objects[f"Secret/{missing}"]
    refused = cluster.refusal(helm, *installed)
    assert f"1. There is no Secret {missing} in namespace pneumo" in refused
    assert f"kubectl create secret generic {missing} -n pneumo --from-" in refused
    assert "\n2. " not in refused
    cluster.add(secret_of(missing, *NAMED[missing][1:], "other"))
    assert f"Secret {missing} has no {NAMED[missing][0]}; add it." in cluster.refusal(helm, *installed)


@pytest.mark.parametrize(
    ("given", "sentences"),
    [
        ((ROOM,), ["https://console.example.org/sign-in/done", "nobody is told; set alerts.policy", "with SQLite"]),
        ((CONSOLE,), ["Practitioners get no alerts"]),
        ((CONSOLE, nested("console.url", "http://console.example.org")), ["console.url is plain HTTP"]),
        ((ROOM,), ["pneumoserve-archive-references pneumoserve-review-keys"]),
    ],
)
def test_the_notes_tell_what_is_left_to_do(helm: Helm, given: tuple[dict[str, Any], ...], sentences: list[str]) -> None:
    notes = helm.notes(TRIAL, *given)
    assert [each for each in sentences if each not in notes] == []


def test_the_senders_metrics_are_read(everything: list[Object]) -> None:
    monitor = the(everything, "PodMonitor", "pneumoserve-alerts")["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    (labels,) = [labels for name, _, labels in pods(everything) if name == "pneumoserve-alerts"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    ports = {each["name"]: each["containerPort"] for each in container_of(everything, "alerts")["ports"]}
    assert str(ports[endpoint["port"]]) == options_of(container_of(everything, "alerts")["command"])["--metrics-port"]
