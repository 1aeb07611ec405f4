"""``course probe --engines``."""

import json

from typer.testing import CliRunner

from course.cli import app
from course.vcpu import ENGINES, availability, conformance


def test_probe_prints_engines_and_conformance_as_json():
    """Every engine is listed with its reason, and all that are here conform."""
    result = CliRunner().invoke(app, ["probe", "--engines", "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [row["name"] for row in report["engines"]] == [*ENGINES, availability.EXTENSION]
    assert all(row["why"] for row in report["engines"])
    here = {row["name"] for row in report["engines"] if row["available"] and row["name"] in ENGINES}
    assert set(report["conformance"]) == {program.name for program in conformance.PROGRAMS}
    assert all(row == dict.fromkeys(here, "") for row in report["conformance"].values())


def test_probe_fails_when_an_engine_does(monkeypatch):
    """An engine that differs is not overlooked in a script."""
    found = (availability.find("unicorn"),)
    results = {p.name: dict.fromkeys((e.name for e in found if e), "differs") for p in conformance.PROGRAMS}
    monkeypatch.setattr(availability, "examine", lambda: availability.Report(found, results))
    result = CliRunner().invoke(app, ["probe", "--engines"])
    assert (result.exit_code, "differs" in result.stdout) == (1, True)
