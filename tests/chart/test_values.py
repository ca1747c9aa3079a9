"""What is said about the chart's values, and what is refused."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import EVERYTHING, TRIAL, Helm, nested
from tests.e2e.product import CHART_BEFORE
from tools.generate.chart_values import CHART, comments, is_open, nodes, schema, values


def paths(tree: dict[str, Any], opened: set[str], above: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in tree.items():
        path = f"{above}.{key}" if above else key
        found.add(path)
        if isinstance(value, dict) and path not in opened:
            found |= paths(value, opened, path)
    return found


def test_schema_and_values_have_the_same_keys() -> None:
    described = dict(nodes(schema()))
    opened = {path for path, node in described.items() if is_open(node)}
    assert paths(values(), opened) == set(described)


def test_every_key_has_a_comment_which_is_its_description() -> None:
    sentence = comments()
    for path, node in nodes(schema()):
        assert sentence.get(path, "").endswith("."), f"{path} has no comment in values.yaml"
        assert node["title"]


def test_each_description_stands_alone() -> None:
    """A reader who searches the table sees one row and not the one above."""
    found = comments()
    about = [found[path] for path, _ in nodes(schema())]
    assert sorted(each for each in set(about) if about.count(each) > 1) == []
    dependent = re.compile(r"(Whether|When|Where|How|What|Who|Which) (it|they|those|these|them) |(It|Its|They) ")
    assert {path for path, text in found.items() if dependent.match(text) or len(text.split()) < 5} == set()


def test_no_object_of_the_schema_takes_unknown_keys() -> None:
    def closed(node: dict[str, Any], path: str) -> None:
        if "properties" in node:
            assert node["additionalProperties"] is False, path
            for key, below in node["properties"].items():
                closed(below, f"{path}.{key}")

    closed({k: v for k, v in schema().items() if k != "properties"} | {"properties": {}}, "")
    for path, node in nodes(schema()):
        closed(node, path)
        assert not isinstance(node.get("additionalProperties"), bool) or not node["additionalProperties"], path


def test_chart_and_package_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (CHART.parents[1] / "pyproject.toml").read_text()
    assert chart["version"] == chart["appVersion"]
    assert f'\nversion = "{chart["version"]}"\n' in project


@pytest.mark.parametrize("given", [TRIAL, EVERYTHING], ids=["trial", "everything"])
def test_it_passes_lint(helm: Helm, given: Path) -> None:
    done = helm.run("lint", "--strict", values=(given,))
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_sets_every_value() -> None:
    given = yaml.safe_load(EVERYTHING.read_text())
    # What excludes other values, and what has one value only.
    left_out = {
        "global",
        "s3.caConfigMap",
        "trust.existingConfigMap",
        "s3.archive.existingSecret",
        "s3.seal.existingSecret",
        "s3.rollout.existingSecret",
        "s3.console.existingSecret",
        "s3.alerts.existingSecret",
        "s3.intake.existingSecret",
        "review.keys.existingSecret",
        "s3.releases.existingSecret",
        "s3.setup.existingSecret",
    }
    left_out |= {"route.signIn.jwt.jwksConfigMap", "route.signIn.apiKeys.existingSecrets"}
    left_out |= {"training.existingSecret", "training.signing.release", "training.signing.existingSecret"}
    left_out |= {f"archive.{name}.existingSecret" for name in ("signing", "sealer", "references")}
    opened = {path for path, node in nodes(schema()) if is_open(node)}
    unset = opened - paths(given, opened) - left_out
    assert {path for path in unset if not path.startswith("trialStore.")} == set()


@pytest.mark.parametrize("path", ["replica", "s3.endpiont", "front.resources.request", "trust.revoked.key"])
def test_an_unknown_key_is_refused_by_name(helm: Helm, path: str) -> None:
    assert path.rpartition(".")[2] in helm.refusal(TRIAL, nested(path, 1))


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("replicas", "two", "got string, want integer"),
        ("replicas", 0, "minimum"),
        ("release.id", 123456789012, "got number, want string"),
        ("release.id", "latest", "pattern"),
        ("release.standby", ["0123456789ab", "0123456789ab"], "equal"),
        ("route.enabled", "yes", "got string, want boolean"),
        ("s3.endpoint", "minio:9000", "pattern"),
        ("images.front.digest", "sha256:abc", "pattern"),
        ("images.pullPolicy", "Sometimes", "must be one of"),
        ("trust.keys", {"approver.txt": "BEGIN PUBLIC KEY"}, "approver.txt"),
        ("trust.keys", {"approver.pem": "-----BEGIN PRIVATE KEY-----"}, "pattern"),
        ("front.resources.limits", {"memory": "2 GB"}, "memory"),
        ("networkPolicies.store.ports", [70000], "maximum"),
        ("archive.export.to", "/mnt/parquet", "pattern"),
        ("archive.export.to", "s3://Films", "pattern"),
        ("archive.journal.limit", "1 GB", "pattern"),
        ("archive.lock.mode", "governance", "must be one of"),
        ("archive.lock.days", -1, "minimum"),
        ("archive.seal.schedule", "every hour", "pattern"),
        ("archive.trust.writers", {"old.pem": "-----BEGIN PRIVATE KEY-----"}, "pattern"),
    ],
)
def test_a_value_of_the_wrong_form_is_refused_by_its_path(helm: Helm, path: str, value: Any, sentence: str) -> None:
    refused = helm.refusal(TRIAL, nested(path, value))
    assert "/" + path.replace(".", "/") in refused
    assert sentence in refused


EXTERNAL: dict[str, Any] = {"s3": {"endpoint": "http://minio.example.org:9000"}, "trialStore": {"enabled": False}}
ARCHIVE: dict[str, Any] = {
    "s3": {**EXTERNAL["s3"], "archive": {"existingSecret": "archive"}},
    "trialStore": {"enabled": False},
}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (nested("s3.endpoint", "http://minio.example.org:9000"), "trialStore.enabled and s3.endpoint"),
        (nested("trialStore.enabled", False), "There is no S3 server; set s3.endpoint"),
        (nested("s3.archive.existingSecret", "archive"), "makes its own credentials; leave those of s3.archive empty"),
        (EXTERNAL, "no credential to write records with"),
        ({"trialStore": {"enabled": False}, "s3": {**EXTERNAL["s3"], "archive": {"accessKey": "a"}}}, "set both"),
        (
            {**ARCHIVE, "s3": {**ARCHIVE["s3"], "releases": {"existingSecret": "r", "accessKey": "a"}}},
            "s3.releases has keys and an existingSecret",
        ),
        (nested("trust.existingConfigMap", "approvers"), "keep one of them"),
        (nested("trust", {"keys": None}), "Nobody's signature counts"),
        (
            {"trust": {"keys": None, "existingConfigMap": "approvers", "revoked": {"keys": ["0011223344556677"]}}},
            "put revoked.json into that ConfigMap",
        ),
        (
            {"release": {"id": "0123456789ab", "standby": ["0123456789ab"]}},
            "Release 0123456789ab is in release.id and in release.standby",
        ),
        (nested("archive.journal.limit", "1Gi"), "there is no journal; set archive.journal.existingClaim too"),
        (nested("archive.lock.days", 30), "archive.lock.sealedDays is less than archive.lock.days"),
        (
            {"archive": {"lock": {"sealedDays": 60}, "expire": {"filmDays": 30}}},
            "archive.expire.filmDays is less than archive.lock.sealedDays",
        ),
        (
            {"archive": {"lock": {"days": 7, "sealedDays": 7}, "expire": {"segmentDays": 3}}},
            "archive.expire.segmentDays is less than archive.lock.days",
        ),
        (
            nested("archive", {"signing": {"existingSecret": "key"}, "sealer": {"existingSecret": "key"}}),
            "give each a key of its own",
        ),
        ({"terminationGracePeriodSeconds": 40, "front": {"preStopSeconds": 30}}, "less than 20 s"),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_what_to_do(
    helm: Helm, given: dict[str, Any], sentence: str
) -> None:
    refused = helm.refusal(TRIAL, given)
    assert sentence in refused
    assert "1. " in refused


def test_all_contradictions_are_told_at_once(helm: Helm) -> None:
    refused = helm.refusal({})
    assert all(f"\n{number}. " in refused for number in (1, 2, 3))
    assert "\n4. " not in refused


def test_a_chart_that_depends_on_this_one_may_pass_its_globals(helm: Helm) -> None:
    assert helm.render(TRIAL, {"global": {"imageRegistry": "registry.example.org"}})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            (TRIAL,),
            ["not redundant, not for production", "every host name of the gateway", "service/pneumoserve-store"],
        ),
        ((EVERYTHING,), ["--header 'Host: pneumonia.example.org'", "prefer existingSecret"]),
        (
            (EVERYTHING,),
            ["-archive-signing pneumoserve-archive-sealer pneumoserve-archive-references", "pneumoserve-review-keys\n"],
        ),
        ((TRIAL,), ["no journal", "calls are refused (503)", "Object lock is off"]),
        ((TRIAL, nested("archive.seal.enabled", False)), ["Nothing seals the archive"]),
        ((TRIAL, {"replicas": 1}), ["One pod per release"]),
        ((TRIAL, nested("networkPolicies.enabled", False)), ["networkPolicies are off"]),
        ((TRIAL, nested("preflight.enabled", False)), ["preflight is off"]),
        (
            (TRIAL, ARCHIVE),
            [
                "plain HTTP",
                "reads releases with the archive's credential",
                "makes the bucket with the archive's",
                "any address on the store's port",
            ],
        ),
    ],
)
def test_the_notes_warn_of_what_is_risky(helm: Helm, given: tuple[Any, ...], sentence: list[str]) -> None:
    notes = helm.notes(*given)
    assert "NOT FOR CLINICAL USE" in notes
    assert [words for words in sentence if words not in notes] == []


def test_the_notes_warn_of_nothing_that_is_right(helm: Helm) -> None:
    secrets = {"accessKey": "", "secretKey": "", "existingSecret": "given"}
    s3 = {
        "archive": {**secrets, "existingSecret": "archive"},
        "seal": {**secrets, "existingSecret": "seal"},
        "rollout": {**secrets, "existingSecret": "rollout"},
        "console": {**secrets, "existingSecret": "console"},
        "alerts": {**secrets, "existingSecret": "alerts"},
        "intake": {**secrets, "existingSecret": "intake"},
        "releases": secrets,
        "setup": {**secrets, "existingSecret": "setup"},
    }
    right = {"s3": s3, "payloadLogger": {"enabled": False, "releases": []}}
    assert "\nMind\n" not in helm.notes(EVERYTHING, right)


def test_installs_with_three_credentials_go_on_with_a_warning(helm: Helm) -> None:
    given = {"s3": {name: {"accessKey": "", "secretKey": ""} for name in ("seal", "rollout")}}
    notes = helm.notes(EVERYTHING, given)
    assert "set s3.seal to one of its own" in notes
    assert "set s3.rollout to one of its own" in notes
    assert "to one of its own (files/rights" not in helm.notes(EVERYTHING)


def test_no_value_of_the_chart_before_is_gone(helm: Helm, tmp_path: Path) -> None:
    """Whoever upgrades keeps their values: given all of the last chart's, this one renders."""
    with tarfile.open(CHART_BEFORE) as packed:
        packed.extractall(tmp_path, filter="data")
    before = yaml.safe_load((tmp_path / "pneumoserve" / "values.yaml").read_text())
    opened = {path for path, node in nodes(schema()) if is_open(node)}
    assert paths(before, opened) - paths(values(), opened) == set()
    assert helm.render(tmp_path / "pneumoserve" / "values.yaml", TRIAL)
