"""What an image's processes import is among the requirements that the image installs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.utils import canonicalize_name

from tests.unit.test_requirements import read_pins

pytestmark = pytest.mark.slow
# Requirement file: modules that the image's containers and Jobs run or import first; ONNX Runtime comes late.
IMAGES = {
    "models": ["pneumoserve.models.__main__", "pneumoserve.models.inprocess", "pneumoserve.replay", "onnxruntime"],
    "front": [
        "pneumoserve.front.__main__", "pneumoserve.front.server", "pneumoserve.ledger", "pneumoserve.ledger.keys",
        "pneumoserve.records.parquet", "pneumoserve.drain", "pneumoserve.release.push",
    ],
    "rollout": ["pneumoserve.rollout", "pneumoserve.replay", "pneumoserve.models.inprocess", "onnxruntime"],
    "review": [
        "pneumoserve.console.__main__", "pneumoserve.alerts", "pneumoserve.cli.alerts", "pneumoserve.cli.reviews",
        "pneumoserve.cli.sample", "pneumoserve.release.fetch", "pneumoserve.review", "onnxruntime",
    ],
    "intake": ["pneumoserve.intake.__main__", "pneumoserve.cli.intake", "pneumoserve.cli.stores"],
}  # fmt: skip
COMMANDS = ["pneumoserve.cli", "pneumoserve.records.find", "pneumoserve.store", "pneumoserve.signing"]

IMPORT = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in blocked:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)

blocked, modules = (set(words.split(",")) for words in sys.argv[1:])
sys.argv = sys.argv[:1]
sys.meta_path.insert(0, Absent())
for module in modules:
    importlib.import_module(module)
"""


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_what_its_processes_import(image: str) -> None:
    installed = {*read_pins(image), "pneumoserve"}
    absent = [
        package
        for package, distributions in packages_distributions().items()
        if not installed & {canonicalize_name(each) for each in distributions}
    ]
    modules = [*IMAGES[image], *COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, ",".join(absent), ",".join(modules)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
