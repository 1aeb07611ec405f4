"""Names of tasks: recorded ones, proxmoxer's view of them, odd ids."""

from __future__ import annotations

import json
import re

import pytest
from proxmoxer.tools import Tasks

from course.cluster.upid import Upid
from course.error import ClusterError

RECORDED = re.compile(r"UPID:[^\"\\ /]+:")


def test_recorded_upids_survive_the_way_there_and_back(recordings, compare):
    """Each UPID that a real Proxmox VE gave is taken apart and written again as it was."""
    names = sorted(set(RECORDED.findall(json.dumps(recordings))))
    compare("recorded UPIDs", [(name, name, str(Upid.parse(name))) for name in names])


@pytest.mark.parametrize("identifier", ["169", "", "vm:100", "local:iso/guest.iso", "Zürich 1"])
def test_what_proxmoxer_reads_is_what_we_wrote(identifier):
    """A UPID has nine parts whatever the id is, and proxmoxer finds pid, start and type in them."""
    upid = Upid("michael", 2623, 74417, 1710268866, "qmstart", identifier, "alice@pve!ci")
    decoded = Tasks.decode_upid(str(upid))
    assert (
        decoded["pid"],
        decoded["pstart"],
        decoded["starttime"],
        decoded["type"],
        decoded["user"],
    ) == (2623, 74417, 1710268866, "qmstart", "alice@pve")
    assert upid == Upid.parse(str(upid))


def test_a_token_is_shown_apart_from_its_user():
    """Answers about a task of a token name the user and the token in two fields."""
    record = Upid("michael", 1, 2, 0x65F0A1C2, "qmstart", "169", "alice@pve!ci").record()
    assert (record["user"], record["tokenid"]) == ("alice@pve", "ci")
    assert "tokenid" not in Upid("michael", 1, 2, 3, "qmstart", "169", "root@pam").record()
    assert Upid("michael", 1, 2, 0x65F0A1C2, "qmstart", "169", "root@pam").subfolder == "2"


@pytest.mark.parametrize("text", ["", "UPID:", "UPID:a:1:2:3:x:y:z:", "UPID:../x:00000001:00000002:00000003:t:i:u:"])
def test_what_is_no_upid_is_refused_in_the_words_of_proxmox(text):
    """A wrong name is quoted in the error."""
    with pytest.raises(ClusterError, match="unable to parse worker upid") as caught:
        Upid.parse(text)
    assert repr(text) in str(caught.value)
