"""examples/: each is explained and run by some test; the plan can be followed."""

from __future__ import annotations

from pathlib import Path

from pneumoserve.rollout.plan import load_plan

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
TESTS = (
    "tests/integration/front/test_examples.py",
    "tests/integration/records/test_erasure.py",
    "tests/chart/test_examples.py",
    "tests/chart/test_first_install.py",
    "tests/unit/test_examples.py",
)


def test_the_plan_can_be_followed() -> None:
    plan = load_plan(EXAMPLES / "rollout-plan.yaml")
    assert plan.approval == "manual"
    assert plan.steps[-1].percent == 100


def test_every_example_is_explained_and_run_by_a_test() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    tests = "".join((ROOT / name).read_text() for name in TESTS)
    names = {path.name for path in EXAMPLES.iterdir()} - {"README.md", "__pycache__"}
    assert {name for name in names if f"({name})" not in readme or f'"{name}"' not in tests} == set()
