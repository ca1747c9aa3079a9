"""The training and signing Jobs as rendered: what they run, where, and what ends them."""

from __future__ import annotations

from typing import Any

import click
import pytest
import typer.main
from torch.distributed.run import get_args_parser

from tests.chart.api import Object
from tests.chart.conftest import EVERYTHING, NAMESPACE, TRIAL, Cluster, Helm, nested, of_kind, the
from tests.chart.restricted import violations
from training import job

ON: dict[str, Any] = {"training": {"enabled": True, "films": "s3://films/incoming"}}
CPU: dict[str, Any] = {"training": {**ON["training"], "device": "cpu", "workers": 2}}
NAME = "pneumoserve-training"


def spec(objects: list[Object]) -> dict[str, Any]:
    found: dict[str, Any] = the(objects, "CronJob", NAME)["spec"]["jobTemplate"]["spec"]
    return found


def container(objects: list[Object]) -> dict[str, Any]:
    (only,) = spec(objects)["template"]["spec"]["containers"]
    return dict(only)


def test_there_is_none_by_default(helm: Helm) -> None:
    assert not [each for each in helm.render(TRIAL) if "training" in each["metadata"]["name"]]


@pytest.mark.parametrize("given", [(TRIAL, ON), (TRIAL, CPU), (EVERYTHING,)])
def test_torchrun_and_the_training_take_their_words(helm: Helm, given: tuple[Any, ...]) -> None:
    objects = helm.render(*given)
    python, flag, module, *words = container(objects)["command"]
    assert (python, flag, module) == ("python", "-m", "training.launch")
    launched = get_args_parser().parse_args([word.replace("$(RANK_OF_POD)", "0") for word in words])
    assert launched.module
    assert launched.training_script == "training.job"
    workers = spec(objects)["completions"]
    assert launched.nnodes == str(workers) == str(spec(objects)["parallelism"])
    service = the(objects, "Service", NAME)
    template = spec(objects)["template"]
    assert launched.master_addr == f"$(JOB)-0.{service['metadata']['name']}.{NAMESPACE}.svc"
    assert template["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    app = typer.Typer()
    app.command()(job.main)
    command = typer.main.get_command(app)
    context: click.Context = command.make_context("job", list(launched.training_script_args))
    assert context.params["checkpoints"].endswith("/$(JOB)")
    assert context.params["films"].startswith("s3://films/")


def test_a_gpu_by_default_and_none_on_the_cpu(helm: Helm) -> None:
    assert container(helm.render(TRIAL, ON))["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in container(helm.render(TRIAL, CPU))["resources"]["limits"]
    everything = helm.render(EVERYTHING)
    assert container(everything)["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert spec(everything)["template"]["spec"]["nodeSelector"] == {"gpu": "h100", "kubernetes.io/arch": "amd64"}


def test_a_mistake_ends_the_job_and_a_lost_worker_does_not(helm: Helm) -> None:
    rules = spec(helm.render(TRIAL, ON))["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"Ignore", "FailJob"}
    (mistake,) = (rule for rule in rules if rule["action"] == "FailJob")
    # Exit status 2 is "used wrongly" of every command of ours.
    assert mistake["onExitCodes"]["values"] == [2]


@pytest.mark.parametrize("given", [(TRIAL, ON), (EVERYTHING,)])
def test_its_pods_are_restricted_and_know_their_image(helm: Helm, given: tuple[Any, ...]) -> None:
    objects = helm.render(*given)
    assert violations(spec(objects)["template"]["spec"]) == []
    environment = {each["name"]: each.get("value") for each in container(objects)["env"]}
    assert environment["PNEUMOSERVE_IMAGE"] == container(objects)["image"]


def test_signing_is_of_one_named_release_with_a_key_that_only_it_has(helm: Helm) -> None:
    assert not [each for each in of_kind(helm.render(TRIAL, ON), "Job") if "sign" in each["metadata"]["name"]]
    signing = {"training": {"signing": {"release": "0123456789ab", "existingSecret": "approver"}}}
    objects = helm.render(TRIAL, signing)
    pod = the(objects, "Job", "pneumoserve-sign")["spec"]["template"]["spec"]
    assert violations(pod) == []
    assert pod["containers"][0]["command"][:4] == ["pneumoserve", "release", "sign", "0123456789ab"]
    others = [each for each in helm.render(EVERYTHING) if each["metadata"]["name"] != "pneumoserve-sign"]
    assert "secretName: approver" not in str(others).replace("'", "")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"enabled": True}, "training has nothing to learn from; set training.films"),
        ({"signing": {"release": "0123456789ab"}}, "training.signing has one of release and existingSecret"),
        (
            {**CPU["training"], "resources": {"limits": {"nvidia.com/gpu": 1}}},
            "training.device is cpu and training.resources asks for a GPU",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(helm: Helm, given: dict[str, Any], sentence: str) -> None:
    assert sentence in helm.refusal(TRIAL, {"training": given})


def node(gpus: str | None) -> Object:
    allocatable = {"cpu": "8"} | ({} if gpus is None else {"nvidia.com/gpu": gpus})
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}, "status": {"allocatable": allocatable}}


def test_a_cluster_without_a_gpu_is_told(helm: Helm, cluster: Cluster) -> None:
    for gpus in (None, "0"):
        cluster.add(node(gpus))
        assert "No node of the cluster offers nvidia.com/gpu" in cluster.refusal(helm, TRIAL, ON)
    assert cluster.render(helm, TRIAL, CPU)
    cluster.add(node("4"))
    assert cluster.render(helm, TRIAL, ON)


def test_a_secret_that_is_not_there_is_told(helm: Helm, cluster: Cluster) -> None:
    missing = cluster.refusal(helm, TRIAL, CPU, nested("training.existingSecret", "trainer"))
    assert "no Secret trainer with AWS_ACCESS_KEY_ID" in missing
    signing = {"training": {"signing": {"release": "0123456789ab", "existingSecret": "approver"}}}
    assert "no Secret approver with key.pem" in cluster.refusal(helm, TRIAL, signing)
