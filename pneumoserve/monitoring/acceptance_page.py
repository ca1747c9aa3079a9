"""The page of an acceptance: HTML that needs no network and no script, made of acceptance.json alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from pydantic.alias_generators import to_camel

from pneumoserve.monitoring.plan import LEAST

_WORDS: Final = {
    "sensitivity": "sensitivity of the threshold: images with pneumonia that reach it",
    "product_sensitivity": "sensitivity of the product: images with pneumonia that are not confidently normal",
    "specificity": "specificity of the threshold: images without pneumonia below it",
    "confident_false_alarms": "confident false alarms: images without pneumonia that are confidently pneumonia",
    "referred_among_normals": "referred for their finding, of images without pneumonia",
    "referred_among_pneumonias": "referred for their finding, of images with pneumonia",
    "wrong_among_confident_normals": "errors among confident normals",
    "wrong_among_confident_pneumonias": "errors among confident pneumonias",
}
_PREVALENCES: Final = (0.01, 0.05, 0.30)
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{border:1px solid #ccc;padding:.3rem .5rem;"
    "text-align:left}.outcome{font-size:1.5rem;font-weight:600}svg{max-width:100%;height:auto}"
)
_WIDTH: Final = 420


def render_page(document: Mapping[str, Any]) -> str:
    """The page of an acceptance's document, as `run_look` makes it."""
    plan = document["plan"]
    parts = [
        f"<h1>Acceptance of release {escape(document['release'])} at {escape(document['site'])}</h1>",
        "<p><strong>Not cleared for clinical use.</strong></p>",
        f'<p class="outcome">{escape(_outcome(document))}</p>',
        f"<p>{document['films']} images: {document['sick_patients']} patients with pneumonia, "
        f"{document['well_patients']} without ({escape(plan['drawn'])}). Reference: {escape(plan['reference'])}. "
        f"Rates count images, bounds and intervals patients.{_same_patients(document)}</p>",
        *_render_archive(document),
        "<h2>The plan</h2>",
        _table(
            ("figure", "limit", "believed true", "power"),
            (
                (_words(name), _limit(name, plan["criteria"][to_camel(name)]), plan["expected"][to_camel(name)], value)
                for name, value in document["power"].items()
            ),
        ),
        f"<p>Looks that are planned: {plan['looks']}, sharing alpha = {plan['alpha']} (one-sided). All criteria must "
        "hold.</p>",
    ]
    if "figures" in document:
        parts += _render_criteria(document)
    body = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Acceptance</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _render_archive(document: Mapping[str, Any]) -> list[str]:
    """Which studies labels of the archive stand for; nothing of other labels."""
    archive = document.get("archive")
    if archive is None:
        return []
    names = ("release", "answer", "studies", "chosen", "used", "cannot_tell", "not_blind", "unread", "erased")
    return [
        "<h2>The studies that the labels stand for</h2>",
        "<p>The labels are blind readings of studies in the archive. Each counts by one over its probability of being "
        "read, scaled so that each kind of answer counts as often as it was given: studies that were not read are "
        f"taken to be like the others. By these weights the patients count for {archive['effective_sick']} with "
        f"pneumonia and {archive['effective_well']} without (Kish's effective number). "
        f"{archive['without_patient']} studies name no patient, and count as a patient each.</p>",
        _table(
            (
                "answered by", "answer", "studies", "to be read", "used", "cannot tell", "not blind", "unread",
                "images erased",
            ),
            ([each[name] for name in names] for each in archive["answers"]),
        ),
    ]  # fmt: skip


def _render_criteria(document: Mapping[str, Any]) -> list[str]:
    figures = document["figures"]
    share = document["sick_patients"] / (document["sick_patients"] + document["well_patients"])
    return [
        "<h2>The criteria</h2>",
        _table(
            ("figure", "limit", "found", f"bound at {1 - document['level']:.2%}", "patients", "shown"),
            (
                (
                    _words(each["figure"]),
                    _limit(each["figure"], each["limit"]),
                    each["rate"],
                    each["bound"],
                    each["patients"],
                    "yes" if each["shown"] else "no",
                )
                for each in document["criteria"]
            ),
        ),
        "<h2>All figures</h2>",
        _draw_intervals(figures, {each["figure"]: each["limit"] for each in document["criteria"]}),
        _table(
            ("figure", "found", "95 % interval by patient", "images", "patients"),
            ((_words(name), *_cells(rate)) for name, rate in figures.items()),
        ),
        f"<p>Errors among confident answers hang on how many are sick: here {share:.0%} of the patients. "
        "At the prevalence where the release serves:</p>",
        _table(
            ("prevalence", "a confident pneumonia is right", "a confident normal is right", "referred"),
            _at_prevalences(figures),
        ),
        "<h2>Calibration</h2>",
        f"<p>Stated probabilities assume a prevalence of {document['assumed_prevalence']:.0%}; both classes weigh the "
        "same. On the line, probabilities mean what they say.</p>",
        _draw_calibration(document["calibration"]),
        "<h2>By modality, age group and device</h2>",
        "<p>A cell of fewer than 10 images is not shown. Intervals of small groups are wide.</p>",
        _table(
            ("group", "figure", "found", "95 % interval by patient", "images", "patients"),
            (
                (group, name.replace("_", " "), *(_cells(rate) if rate else ("fewer than 10 images", "", "", "")))
                for group, rates in document["strata"].items()
                for name, rate in rates.items()
            ),
        ),
    ]


def _outcome(document: Mapping[str, Any]) -> str:
    look = f"look {document['look']} of {document['plan']['looks']}" if document["look"] else "no look was spent"
    if document["outcome"] != "insufficient":
        return f"{document['outcome']} ({look})"
    return (
        f"insufficient ({look}): {document['missing_sick']} more patients with pneumonia and "
        f"{document['missing_well']} more without are needed"
    )


def _same_patients(document: Mapping[str, Any]) -> str:
    count = document["same_patient_numbers"]
    if not count:
        return ""
    return (
        f" {count} patients have a number that a patient of the training has too. If they are the same people, these "
        "figures are too good."
    )


def _at_prevalences(figures: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    """What the rates mean at a prevalence, and at worst: with every interval's unfavourable end."""
    sensitivity, alarms, referred_well, referred_sick = (
        figures[name]
        for name in (
            "product_sensitivity", "confident_false_alarms", "referred_among_normals", "referred_among_pneumonias",
        )
    )  # fmt: skip
    for share in _PREVALENCES:
        right = [share * (sensitivity[end] - referred_sick["rate"]) for end in ("rate", "low")]
        false = [(1 - share) * alarms[end] for end in ("rate", "high")]
        missed = [share * (1 - sensitivity[end]) for end in ("rate", "low")]
        cleared = [(1 - share) * (1 - alarms[end] - referred_well["rate"]) for end in ("rate", "high")]
        referred = share * referred_sick["rate"] + (1 - share) * referred_well["rate"]
        yield (
            f"{share:.0%}",
            " (at worst ".join(_share(*each) for each in zip(right, false, strict=True)) + ")",
            " (at worst ".join(_share(*each) for each in zip(cleared, missed, strict=True)) + ")",
            f"{referred:.1%}",
        )


def _share(right: float, wrong: float) -> str:
    right = max(0.0, right)
    return f"{right / (right + wrong):.2%}" if right + wrong > 0 else "none is stated"


def _draw_intervals(figures: Mapping[str, Any], limits: Mapping[str, float]) -> str:
    """Each rate with its interval, and the limit of its criterion as a stroke."""
    rows = []
    for number, (name, rate) in enumerate(figures.items()):
        y = 20 + 24 * number
        low, middle, high = (_WIDTH * rate[key] for key in ("low", "rate", "high"))
        rows.append(
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="#336" stroke-width="2"/>'
            f'<circle cx="{middle:.1f}" cy="{y}" r="4" fill="#336"/>'
            f'<text x="{_WIDTH + 12}" y="{y + 4}" font-size="12">{escape(name.replace("_", " "))}</text>'
        )
        if name in limits:
            at = _WIDTH * limits[name]
            rows.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y - 8}" y2="{y + 8}" stroke="#c33" stroke-width="2"/>')
    height = 24 * len(figures) + 30
    ticks = "".join(
        f'<text x="{_WIDTH * tick:.0f}" y="{height}" font-size="11" text-anchor="middle">{tick:g}</text>'
        for tick in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    return (
        f'<svg viewBox="-10 0 {_WIDTH + 260} {height + 6}" width="{_WIDTH + 260}" role="img" '
        f'aria-label="rates with their intervals; red: limits of the plan">{"".join(rows)}{ticks}</svg>'
    )


def _draw_calibration(points: Sequence[Mapping[str, float]]) -> str:
    side = 260
    dots = "".join(
        f'<circle cx="{side * point["stated"]:.1f}" cy="{side * (1 - point["sick"]):.1f}" r="5" fill="#336"/>'
        for point in points
    )
    return (
        f'<svg viewBox="-30 -10 {side + 50} {side + 50}" width="{side + 50}" role="img" aria-label="calibration">'
        f'<rect width="{side}" height="{side}" fill="none" stroke="#ccc"/>'
        f'<line x1="0" y1="{side}" x2="{side}" y2="0" stroke="#999"/>{dots}'
        f'<text x="{side // 2}" y="{side + 24}" font-size="12" text-anchor="middle">stated probability</text>'
        f'<text x="-{side // 2}" y="-12" font-size="12" text-anchor="middle" transform="rotate(-90)">share sick</text>'
        "</svg>"
    )


def _cells(rate: Mapping[str, Any]) -> tuple[Any, ...]:
    return rate["rate"], f"{rate['low']} to {rate['high']}", rate["films"], rate["patients"]


def _limit(name: str, value: float) -> str:
    return f"{'at least' if name in LEAST else 'at most'} {value}"


def _words(name: str) -> str:
    return _WORDS.get(name, name)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"
