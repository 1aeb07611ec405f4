"""Our declarations against the official schema, field by field."""

from __future__ import annotations

import dataclasses
import re

import pytest

from course.cluster import options
from course.cluster.parameters import check, config_check
from course.error import ParameterError
from tests.cluster import documents

VM = "/nodes/{node}/qemu/{vmid}/config"
CALLS = {
    "create": ("/nodes/{node}/qemu", "POST", options.CREATE),
    "change": (VM, "PUT", options.CHANGE),
    "change later": (VM, "POST", options.CHANGE_LATER),
}


def facts(parameter):
    """Return what a declaration says, patterns and defaults in one spelling, formats as their own facts."""
    found = dataclasses.asdict(dataclasses.replace(parameter, format=None, description=""))
    form = parameter.format
    found["format"] = {key: facts(one) for key, one in form.items()} if isinstance(form, dict) else form
    found["default"] = None if parameter.default is None else str(parameter.default)
    found["pattern"] = parameter.pattern and re.sub(r"\(\?:|[()^$]|\\(?=-)", "", parameter.pattern)
    return found


@pytest.mark.parametrize("name", CALLS)
def test_declarations_say_what_the_schema_says(schema, compare, name):
    """Each parameter has the schema's type, bounds, words, format and default, and none is missing."""
    path, method, ours = CALLS[name]
    official = schema[path][method]["parameters"]["properties"]
    theirs = documents.properties(official)
    first = {key: one for key, one in ours.items() if not re.search(r"[1-9]\d*$", key) or key in official}
    wanted = {key: one for key, one in theirs.items() if not re.search(r"[1-9]\d*$", key) or key in official}
    assert sorted(wanted) == sorted(first)
    compare(f"declared parameters, {name}", [(key, facts(wanted[key]), facts(first[key])) for key in wanted])


def test_how_many_of_a_device_there_may_be(schema, compare):
    """Where the schema's text says "n is 0 to N", or "n can be up to N", that many are declared."""
    cases = []
    for name, document in schema["/nodes/{node}/qemu"]["POST"]["parameters"]["properties"].items():
        if found := re.search(r"\(n is 0 to (\d+)(?:.* up to (\d+))?", document.get("description", "")):
            bare = name.removesuffix("[n]")
            cases.append(
                (
                    name,
                    int(found[2] or int(found[1]) + 1),
                    sum(bool(re.fullmatch(rf"{bare}\d+", key)) for key in options.CREATE),
                )
            )
    compare("numbers of devices", cases)


def test_a_machine_with_everything_wrong_hears_of_everything():
    """All fields are named at once."""
    with pytest.raises(ParameterError) as caught:
        check(
            options.CREATE, {"node": "michael", "vmid": "99", "memory": "lots", "net0": "virtio,tag=5000", "cors": "2"}
        )
    assert caught.value.errors == {
        "vmid": "invalid format - value does not look like a valid VM ID\n",
        "memory": "invalid format - format error\nmemory.current: type check ('integer') failed - got 'lots'\n",
        "net0": "invalid format - format error\nnet0.tag: value must have a maximum value of 4094\n",
        "cors": "property is not defined in schema and the schema does not allow additional properties",
    }


def test_a_file_is_read_with_the_same_declarations():
    """A value that the API would refuse is left out when a file is read."""
    wrong = config_check(options.VM_OPTIONS)
    assert wrong("numa", "maybe") == "type check ('boolean') failed - got 'maybe'"
    assert wrong("scsi0", "local-lvm:vm-169-disk-0,size=8G,iothread=1") is None
    assert wrong("of-the-future", "1") is None
