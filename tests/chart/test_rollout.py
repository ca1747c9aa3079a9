"""What the chart makes for rollouts, and what it leaves to one that is under way."""

from __future__ import annotations

from typing import Any

import pytest
import typer.main

from pneumoserve.cli import app
from pneumoserve.rollout import OWNER, STABLE, fullname, read_plan, subject_header
from pneumoserve.rollout.gates import RENAMED_MARGINS
from tests.chart.api import Object
from tests.chart.conftest import EVERYTHING, NAMESPACE, TRIAL, Cluster, Helm, inference_service, nested, of_kind, the
from tests.chart.test_rendered import ARMS, RELEASE, STANDBY, allows, cron_jobs, pods

NAME = "pneumoserve-rollout"
PLAN: dict[str, Any] = {"candidate": STANDBY, "evidence": "labels", "steps": [{"percent": 100}]}
ON = {"release": {"id": RELEASE}, "rollout": {"enabled": True, "plan": PLAN}}


@pytest.fixture
def plain(helm: Helm) -> list[Object]:
    return helm.render(TRIAL, ON)


@pytest.fixture
def everything(helm: Helm) -> list[Object]:
    return helm.render(EVERYTHING)


def test_there_is_none_by_default(helm: Helm) -> None:
    objects = helm.render(TRIAL, ARMS)
    assert [role["metadata"]["name"] for role in of_kind(objects, "Role")] == ["pneumoserve-keys"]
    # The trial store's Secret of that name is for rollouts from outside of the cluster.
    assert NAME not in {item["metadata"]["name"] for item in objects if item["kind"] != "Secret"}


def test_the_job_starts_only_by_hand_with_words_that_the_command_takes(plain: list[Object]) -> None:
    job = the(plain, "CronJob", NAME)["spec"]
    assert job["suspend"] is True
    program, group, command, *words = cron_jobs(plain, "rollout")[NAME]["command"]
    assert (program, group, command) == ("pneumoserve", "rollout", "start")
    commands: Any = typer.main.get_command(app)
    start = commands.commands["rollout"].commands["start"]
    given = start.make_context("start", list(words)).params
    assert (given["namespace"], given["name"], given["render"]) == (NAMESPACE, "pneumoserve", False)
    (spec,) = [spec for name, spec, _ in pods(plain) if name == NAME]
    mounts = {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    assert {str(given["plan"].parent), str(given["trust"]), str(given["key"].parent)} < mounts


def test_a_lost_pod_is_followed_and_a_failed_candidate_is_not_tried_again(plain: list[Object]) -> None:
    spec = the(plain, "CronJob", NAME)["spec"]["jobTemplate"]["spec"]
    assert spec["backoffLimit"] > 0
    failing = [rule for rule in spec["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
    assert [rule["onExitCodes"]["values"] for rule in failing] == [[1, 2]]


def test_the_plan_is_one_that_can_be_followed(everything: list[Object], plain: list[Object]) -> None:
    for objects in (everything, plain):
        text = the(objects, "ConfigMap", f"{NAME}-plan")["data"]["plan.yaml"]
        assert read_plan(text).steps[-1].percent == 100


def test_its_account_may_do_what_a_rollout_does_and_read_no_secret(plain: list[Object]) -> None:
    rules = the(plain, "Role", NAME)["rules"]
    rights = {
        (resource, verb): rule.get("resourceNames")
        for rule in rules
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert not {"secrets", "pods/exec", "*"} & {resource for resource, _ in rights}
    assert rights["httproutes", "patch"] == ["pneumoserve"]
    assert rights["configmaps", "update"] == rights["leases", "update"] == [NAME]
    binding = the(plain, "RoleBinding", NAME)
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]
    (spec,) = [spec for name, spec, _ in pods(plain) if name == NAME]
    assert spec["serviceAccountName"] == NAME


def test_a_release_is_warmed_as_a_caller_that_signed_in(helm: Helm, everything: list[Object]) -> None:
    (named, unnamed) = (the(objects, "ServingRuntime") for objects in (everything, helm.render(TRIAL, ARMS)))
    front = next(each for each in named["spec"]["containers"] if each["name"] == "transformer-container")
    assert f"--subject-header={subject_header(named)}" in front["args"]
    assert subject_header(unnamed) == ""


def test_the_job_reaches_the_api_server_and_the_releases_it_warms(everything: list[Object]) -> None:
    (labels,) = [labels for name, _, labels in pods(everything) if name == NAME]
    policies = [item["spec"] for item in of_kind(everything, "NetworkPolicy") if allows(item, labels)]
    egress = [rule for policy in policies for rule in policy.get("egress", [])]
    assert [port["port"] for rule in egress if "to" not in rule for port in rule["ports"]][-1] == 8443
    (warmed,) = [rule for rule in egress if "podSelector" in rule.get("to", [{}])[0]]
    predictor = of_kind(everything, "InferenceService")[0]["metadata"]["labels"]
    assert warmed["to"][0]["podSelector"]["matchLabels"].items() <= predictor.items()
    (rule,) = the(everything, "NetworkPolicy", "pneumoserve-warmed")["spec"]["ingress"]
    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    assert [port["port"] for port in rule["ports"]] == [8080]


@pytest.mark.parametrize(
    "name", ["pneumoserve", "my-pneumoserve", "p" * 50, "x" * 27 + "-y", "pneumoserve-" + "a" * 41]
)
def test_the_command_line_knows_what_the_chart_calls_its_objects(helm: Helm, name: str) -> None:
    done = helm.run("template", name[:53], values=(TRIAL, ON))
    assert done.returncode == 0, done.stderr
    assert f"\n  name: {fullname(name[:53])}-rollout\n" in done.stdout


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"release": {"id": RELEASE}, "rollout": {"enabled": True}}, "rollout.plan has no candidate or no steps"),
        ({"rollout": {"enabled": True, "plan": PLAN}}, "no route that a rollout could turn"),
        ({**ON, "route": {"enabled": False}}, "no route that a rollout could turn"),
    ],
)
def test_a_rollout_of_nothing_is_refused(helm: Helm, given: dict[str, Any], sentence: str) -> None:
    assert sentence in helm.refusal(TRIAL, given)


def test_a_plan_with_the_earlier_names_of_margins_is_refused(helm: Helm) -> None:
    def given(gates: Any) -> dict[str, Any]:
        return {**ON, "rollout": {"enabled": True, "plan": {**PLAN, "gates": gates}}}

    refused = helm.refusal(TRIAL, given(dict.fromkeys(RENAMED_MARGINS, 0.05)))
    for earlier, name in RENAMED_MARGINS.items():
        assert f"rollout.plan.gates.{earlier} is an earlier name" in refused
        assert f"rename it to rollout.plan.gates.{name}." in refused
    for taken in (dict.fromkeys(RENAMED_MARGINS.values(), 0.05), None, 0.05):
        assert helm.render(TRIAL, given(taken))


# --- a rollout that is under way, or has settled


def live_route(weights: dict[str, int], **annotations: str) -> Object:
    rules = [
        {
            "matches": [{"path": {"type": "PathPrefix", "value": path}}],
            "timeouts": {"request": "60s"},
            "backendRefs": [
                {
                    "group": "",
                    "kind": "Service",
                    "name": f"pneumonia-{release}-predictor",
                    "port": port,
                    "weight": weight,
                }
                for release, weight in weights.items()
            ],
        }
        for path, port in (("/inference.GRPCInferenceService", 8081), ("/", 80))
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "pneumoserve", "namespace": NAMESPACE, "annotations": annotations},
        "spec": {"rules": rules},
    }


def test_an_upgrade_moves_no_weight_of_a_rollout(helm: Helm, cluster: Cluster) -> None:
    for release in (RELEASE, STANDBY):
        cluster.add(inference_service(release))
    route = live_route({RELEASE: 75, STANDBY: 25}, **{OWNER: "r", STABLE: RELEASE})
    cluster.add(route)
    rendered = the(cluster.render(helm, TRIAL, nested("release.id", RELEASE)), "HTTPRoute")
    assert rendered["spec"]["rules"] == route["spec"]["rules"]
    assert rendered["spec"]["parentRefs"]


def test_once_it_has_ended_the_chart_has_its_own_rules_again(helm: Helm, cluster: Cluster) -> None:
    cluster.add(inference_service(STANDBY))
    route = live_route({STANDBY: 100}, **{STABLE: STANDBY})
    cluster.add(route)
    rendered = the(cluster.render(helm, TRIAL, nested("release.id", STANDBY)), "HTTPRoute")
    # A rollout leaves nothing that an upgrade would change.
    assert rendered["spec"]["rules"] == route["spec"]["rules"]


def test_an_upgrade_that_would_turn_back_what_a_rollout_settled_is_refused(helm: Helm, cluster: Cluster) -> None:
    for release in (RELEASE, STANDBY):
        cluster.add(inference_service(release))
    cluster.add(live_route({STANDBY: 100}, **{STABLE: STANDBY}))
    refused = cluster.refusal(helm, TRIAL, nested("release.id", RELEASE))
    assert f"A rollout settled on release {STANDBY}, and release.id is {RELEASE}; set release.id={STANDBY}." in refused
    assert f"kubectl annotate httproute pneumoserve -n {NAMESPACE} pneumoserve/stable-" in refused


def test_an_upgrade_to_a_candidate_that_is_still_tried_is_refused(helm: Helm, cluster: Cluster) -> None:
    for release in (RELEASE, STANDBY):
        cluster.add(inference_service(release))
    cluster.add(live_route({RELEASE: 75, STANDBY: 25}, **{OWNER: "r", STABLE: RELEASE}))
    refused = cluster.refusal(helm, TRIAL, nested("release.id", STANDBY))
    assert f"A rollout beside release {RELEASE} is under way" in refused
    assert f"keep release.id={RELEASE}" in refused


def test_the_notes_tell_how_to_start_it(helm: Helm) -> None:
    command = f"kubectl create job -n {NAMESPACE} --from=cronjob/{NAME} rollout-{STANDBY}"
    assert command in helm.notes(TRIAL, ON)
    assert command not in helm.notes(TRIAL, ARMS)
