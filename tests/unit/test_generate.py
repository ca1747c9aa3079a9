"""What is generated: the check sees each way to be out of step, and writing mends it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools.generate import Files, Generator, find_differences, write_files
from tools.generate.__main__ import GENERATORS, ROOT, main

# A file of each generator, and what somebody may have changed by hand in it.
BREAKAGES = {
    "schemas": ("docs/schemas/label.schema.json", '"additionalProperties": false', '"additionalProperties": true'),
    "benchmarks": ("benchmarks/kills.json", '"answered_without_record": 0', '"answered_without_record": 1'),
    "intake": ("benchmarks/intake.json", '"cores": 2', '"cores": 3'),
    "experiments": ("docs/explanation/models.md", "| earliest | 800 |", "| earliest | 900 |"),
    "meanings": ("docs/explanation/metrics.md", "The share of studies that show pneumonia.", "The share."),
    "metrics": ("benchmarks/metrics.json", '"true_sensitivity": 0.98', '"true_sensitivity": 0.97'),
    "readers": ("benchmarks/metrics.json", '"read_by": "one reader"', '"read_by": "two readers"'),
    "traces": ("benchmarks/traces.json", '"spans_percent_of_a_call": ', '"spans_percent_of_a_call": 1'),
    "drift": ("benchmarks/drift.json", '"rate": 0.0033', '"rate": 0.0133'),
    "dashboards": ("charts/pneumoserve/files/dashboards/people.json", '"unit": "s"', '"unit": "h"'),
    "chart-values": ("charts/pneumoserve/values.yaml", "  # ", "  # Otherwise: "),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The repository as far as quick generators read and write it."""
    for name in ("docs", "benchmarks", "charts", "training/experiments"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", BREAKAGES)
def test_the_check_names_what_is_out_of_step(name: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, before, after = BREAKAGES[name]
    text = (copy / path).read_text()
    assert before in text
    (copy / path).write_text(text.replace(before, after, 1))
    changed = {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    assert main(["--check", "--quick"], copy) == 1
    said = capsys.readouterr().err
    assert "make generate" in said
    assert f"({name})" in said
    assert {file: file.read_bytes() for file in changed} == changed
    assert main([name], copy) == 0
    assert main(["--check", "--quick"], copy) == 0


def test_every_quick_generator_is_broken_above() -> None:
    assert set(BREAKAGES) == {name for name, generator in GENERATORS.items() if generator.needs is None}


def test_a_page_without_its_place_is_refused(copy: Path) -> None:
    page = copy / "charts/pneumoserve/README.md"
    page.write_text(page.read_text().replace("<!-- end of values -->", ""))
    with pytest.raises(ValueError, match="no place for values"):
        main(["chart-values"], copy)


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "schemas" in capsys.readouterr().err


def test_files_that_nothing_generates_any_more_go(tmp_path: Path) -> None:
    def generate(_: Path) -> Files:
        return {Path("made/new.yaml"): "new\n"}

    generator = Generator("a folder", generate, owned=("made/*.yaml",))
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "old.yaml").write_text("old\n")
    (tmp_path / "made" / "by-hand.txt").write_text("stays\n")
    changed = [Path("made/new.yaml"), Path("made/old.yaml")]
    assert find_differences(generator, tmp_path) == changed
    assert write_files(generator, tmp_path) == changed
    assert write_files(generator, tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["by-hand.txt", "new.yaml"]
