"""Retention: upstream's vectors, and what must hold for any rules."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course.cluster.prune import PERIODS, parse_rules, prune
from course.error import ParameterError
from tests.cluster.steady import steady


def test_upstream_retentions(pve, compare):
    """Each list of upstream's own tests is marked as there, in the same order."""
    data = json.loads((pve / "vectors/storage/prune_backups.json").read_text())
    cases = []
    for case in data["tests"]:
        volumes = data["mocked_backups_lists"][case.get("list", "default")]
        found = prune(volumes, case["keep"], vmid=case.get("vmid"), type=case.get("type"))
        cases.append((case["description"], case["expected"], [backup.record() for backup in found]))
    compare("retentions", cases)


def archive(day, hour):
    """Return a storage's entry for an archive of VM 100."""
    return {"volid": f"local:backup/vzdump-qemu-100-2026_11_{day:02}-{hour:02}_00_00.vma.zst", "ctime": 1, "vmid": 100}


times = st.lists(st.tuples(st.integers(1, 28), st.integers(0, 23)), unique=True, max_size=20)


@steady
@given(times, st.dictionaries(st.sampled_from(sorted(PERIODS)), st.integers(0, 5)))
def test_never_more_than_the_rules_add_up_to_and_always_the_newest(moments, rules):
    """The newest backup is kept, and no more are kept than the sum of all rules."""
    kept = [b for b in prune([archive(*moment) for moment in moments], rules) if b.mark == "keep"]
    wanted = sum(rules.values()) or len(moments)
    assert len(kept) <= wanted
    if moments:
        assert archive(*max(moments))["volid"] in {backup.volid for backup in kept}


@steady
@given(times, st.integers(1, 25))
def test_last_keeps_exactly_that_many(moments, number):
    """keep-last alone keeps the newest ones and no others."""
    kept = {b.volid for b in prune([archive(*m) for m in moments], {"keep-last": number}) if b.mark == "keep"}
    assert {archive(*moment)["volid"] for moment in sorted(moments)[-number:]} == kept


def test_rules_are_read_from_their_property_string():
    """Known rules with numbers are read, others are refused."""
    assert parse_rules("keep-last=3,keep-weekly=2") == {"keep-last": 3, "keep-weekly": 2}
    for text in ("keep-lats=3", "keep-last=many", "keep-last"):
        with pytest.raises(ParameterError):
            parse_rules(text)


def test_an_impossible_date_is_nobodys_backup():
    """A file with the name of a backup of the 31st of February is not removed."""
    volume = {"volid": "local:backup/vzdump-qemu-100-2026_02_31-00_00_00.vma", "ctime": 1, "vmid": 100}
    assert [backup.mark for backup in prune([volume], {"keep-last": 1})] == ["renamed"]
