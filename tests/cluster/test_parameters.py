"""Parameter checks: recorded requests and refusals, what the official schema predicts, property strings."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qsl

import pytest

from course.cluster import properties
from course.cluster.config.guest import GuestConfig
from course.cluster.declaration import Parameter, numbered
from course.cluster.parameters import check, combine, config_check, parse_properties
from course.error import ClusterError, ParameterError
from tests.cluster import documents


def errors(declarations, values):
    """Return the errors of each field, empty when all is well."""
    try:
        check(declarations, values)
    except ParameterError as error:
        return error.errors
    return {}


def call_of(schema, method, uri):
    """Find the schema's call for a recorded request; return its declarations and the path's own parameters."""
    parts = uri.removeprefix("/api2/json").partition("?")[0].strip("/").split("/")
    for template, methods in schema.items():
        names = template.strip("/").split("/")
        if len(names) != len(parts) or method not in methods:
            continue
        pairs = list(zip(names, parts, strict=True))
        if all(name == part or name.startswith("{") for name, part in pairs):
            return (methods[method].get("parameters") or {}).get("properties", {}), {
                name.strip("{}"): part for name, part in pairs if name.startswith("{")
            }
    return None


def test_recorded_requests_are_accepted_and_refused_as_recorded(schema, recordings, compare):
    """What a real cluster took, the same schema takes here; what it refused is refused in the same words."""
    cases, seen = [], set()
    for exchange in recordings:
        found = call_of(schema, exchange["method"], exchange["uri"])
        sent = dict(parse_qsl(exchange["uri"].partition("?")[2] + "&" + (exchange["request_body"] or "")))
        key = (exchange["method"], exchange["uri"], str(sent))
        if found is None or key in seen or exchange["status"] not in (200, 400):
            continue
        seen.add(key)
        body = json.loads(exchange["body"] or "{}") if exchange["status"] == 400 else {}
        expected = {k: v for k, v in (body.get("errors") or {}).items() if "exists" not in v}
        got = errors(documents.properties(found[0]), combine(found[1], sent))
        cases.append((f"{exchange['method']} {exchange['uri']} {sent}", expected, got))
    compare("recorded requests", cases)


def predictions(name, document):
    """Yield a wrong value and the words for it, for each bound that a parameter of the schema has."""
    kind, form = document.get("type", "string"), document.get("format")
    if kind in ("integer", "number", "boolean") and form is None:
        yield "lots", f"type check ('{kind}') failed - got 'lots'"
    if kind in ("integer", "number") and form is None:
        if "minimum" in document:
            low = float(document["minimum"]) - 1
            yield str(int(low)), f"value must have a minimum value of {document['minimum']}"
        if "maximum" in document:
            high = float(document["maximum"]) + 1
            yield str(int(high)), f"value must have a maximum value of {document['maximum']}"
    if document.get("enum") and form is None:
        yield "~", f"value '~' does not have a value in the enumeration '{', '.join(document['enum'])}'"
    if "maxLength" in document and form is None:
        yield "x" * (document["maxLength"] + 1), f"value may only be {document['maxLength']} characters long"
    if "minLength" in document and form is None:
        yield "x" * (document["minLength"] - 1), f"value must be at least {document['minLength']} characters long"
    odd = "\t" * document.get("minLength", 1)
    if "pattern" in document and not re.fullmatch(documents.python_pattern(document["pattern"]), odd):
        yield odd, "value does not match the regex pattern"
    if isinstance(form, dict):
        yield from inside(name, form)


def inside(name, form):
    """Yield wrong property strings and the words for them."""
    first = [
        f"{key}={good(inner)}" for key, inner in form.items() if not inner.get("optional") and "alias" not in inner
    ]
    if any("=~" in part for part in first):
        return
    head = "invalid format - format error\n"
    for key, inner in form.items():
        for value, words in predictions(key, inner) if "alias" not in inner else ():
            if "," not in value and value.strip():
                rest = [part for part in first if not part.startswith(f"{key}=")]
                yield ",".join([*rest, f"{key}={value}"]), f"{head}{name}.{key}: {words}\n"
    unknown = "property is not defined in schema and the schema does not allow additional properties"
    yield ",".join([*first, "zz=1"]), f"{head}{name}.zz: {unknown}\n"


def good(document):
    """Return a value that a required property takes, or ~ when none is at hand."""
    if "enum" in document:
        return document["enum"][0]
    samples = {"integer": document.get("minimum", 1), "number": 1, "boolean": 1}
    named = {"pve-volume-id": "local:x", "pve-volume-id-or-qm-path": "local:x", "pve-configid": "abc"}
    return samples.get(document.get("type")) or named.get(document.get("format"), "~")


@pytest.mark.parametrize("tier", ["1", "2", "3"])
def test_wrong_parameters_are_refused_as_the_schema_predicts(pve, schema, compare, tier):
    """Each bound of each parameter of the course's calls is checked, with the words that go with it."""
    cases = []
    for line in (pve / "course-endpoints.txt").read_text().splitlines():
        words = line.split()
        if not words or words[0] != tier:
            continue
        call = schema[words[2]][words[1]].get("parameters") or {}
        declared = documents.properties(call.get("properties", {}))
        if call.get("additionalProperties") == 0:
            found = errors(declared, {"no-such-thing": "1"})
            cases.append((f"{line} unknown", True, "is not defined in schema" in found["no-such-thing"]))
            missing = {name for name, one in declared.items() if not one.optional}
            cases.append((f"{line} missing", missing, set(found) - {"no-such-thing"}))
        for name, document in call.get("properties", {}).items():
            one = name.replace("[n]", "0")
            for value, expected in predictions(one, document):
                cases.append((f"{line} {one}={value[:20]}", expected, errors(declared, {one: value}).get(one)))
    compare(f"predicted refusals, tier {tier}", cases)


def test_upstream_configurations_satisfy_the_schema(pve, schema, compare):
    """Each value of upstream's configuration files is taken, but for a form of `machine` that is newer than 8.1."""
    declared = documents.properties(schema["/nodes/{node}/qemu"]["POST"]["parameters"]["properties"])
    wrong = config_check(declared)
    cases = []
    for path in sorted((pve / "vectors/qemu-8.4").rglob("*.conf")):
        for key, value in GuestConfig.parse(path.read_text()).current.values.items():
            newer = key == "machine" and "viommu=" in value
            if key in declared and value and not newer:
                cases.append((f"{path.name} {key}: {value}", None, wrong(key, value)))
    compare("values of configuration files", cases)


def test_property_strings_survive(pve, schema, compare):
    """Drives and network cards of upstream's files are taken apart and put together as they were."""
    declared = documents.properties(schema["/nodes/{node}/qemu"]["POST"]["parameters"]["properties"])
    cases = {}
    for path in sorted((pve / "vectors").rglob("*.conf")):
        for key, value in GuestConfig.parse(path.read_text()).current.values.items():
            form = declared[key].format if key in declared else None
            if not isinstance(form, dict) or re.search(r"^\w+=(?!\w\w:)", value):
                continue
            _head, *rest = value.split(",")
            if rest == sorted(rest):
                cases[key, value] = (f"{key}: {value}", value, properties.render(properties.parse(value, form), form))
    compare("property strings", list(cases.values()))


NET = {
    "model": Parameter(enum=("virtio", "e1000"), default_key=True),
    "macaddr": Parameter(format="mac-addr", optional=True),
    "bridge": Parameter(format="pve-bridge-id", optional=True),
    "firewall": Parameter(type="boolean", optional=True),
    **{name: Parameter(alias="macaddr", key_alias="model") for name in ("virtio", "e1000")},
}


def test_a_network_card_in_all_its_spellings():
    """The model alone, with its address, or both by name mean the same."""
    full = {"model": "virtio", "macaddr": "BC:24:11:00:00:01", "bridge": "vmbr0", "firewall": 1}
    assert parse_properties("virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=yes", NET) == full
    assert parse_properties("model=virtio,macaddr=BC:24:11:00:00:01,bridge=vmbr0,firewall=1", NET) == full
    assert parse_properties("virtio,bridge=vmbr0", NET) == {"model": "virtio", "bridge": "vmbr0"}
    assert properties.render(full, NET) == "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1"
    assert properties.render({"model": "e1000", "bridge": "x"}, NET) == "e1000,bridge=x"


def test_a_property_string_that_contradicts_itself_is_refused():
    """Twice the same property, by whatever name, and a comma in a value."""
    for text in ("virtio=BC:24:11:00:00:01,model=e1000", "virtio,bridge=a,bridge=b"):
        with pytest.raises(ClusterError, match="duplicate key in comma-separated list property"):
            properties.parse(text, NET)
    with pytest.raises(ClusterError, match="value without key"):
        properties.parse("x", {"size": Parameter()})
    with pytest.raises(ClusterError, match="cannot hold"):
        properties.render({"model": "virtio", "bridge": "a,firewall=0"}, NET)


def test_values_come_out_as_their_types():
    """Numbers, booleans in all their spellings, lists of one and of many; wrong types are named."""
    declared = {
        "vmid": Parameter(type="integer"),
        "cpulimit": Parameter(type="number", optional=True),
        "onboot": Parameter(type="boolean", optional=True),
        "command": Parameter(type="array", optional=True, items=Parameter(max_length=3)),
        **numbered("net", 2, Parameter(format=NET, optional=True)),
    }
    given = {"vmid": "169", "cpulimit": "1.5", "onboot": "Yes", "command": "ls", "net1": "virtio"}
    expected = {"vmid": 169, "cpulimit": 1.5, "onboot": 1, "command": ["ls"], "net1": "virtio"}
    assert check(declared, given) == expected
    assert check(declared, {"vmid": 1, "onboot": True, "command": ["a", "b"]})["command"] == ["a", "b"]
    assert errors(declared, {"onboot": "maybe", "command": ["four"], "net2": "virtio"}) == {
        "vmid": "property is missing and it is not optional",
        "onboot": "type check ('boolean') failed - got 'maybe'",
        "command": "value may only be 3 characters long",
        "net2": "property is not defined in schema and the schema does not allow additional properties",
    }


def test_the_path_wins_over_what_was_sent():
    """A parameter that contradicts the path is refused; the same one again is not."""
    assert combine({"vmid": "100"}, {"vmid": "100", "a": "1"}) == {"vmid": "100", "a": "1"}
    with pytest.raises(ParameterError) as caught:
        combine({"vmid": "100"}, {"vmid": "101"})
    words = "duplicate parameter (already defined in URI) with conflicting values!"
    assert (caught.value.errors, caught.value.status) == ({"vmid": words}, 400)


@pytest.mark.parametrize(
    ("name", "good_ones", "bad_ones"),
    [
        ("pve-vmid", ["100", "999999999"], ["99", "0100", "1000000000", "x"]),
        ("pve-node", ["michael", "pve-1"], ["-a", "a_b", "", "../x"]),
        ("pve-userid", ["root@pam", "a.b@pve"], ["root", "a b@pve", "a:b@pve"]),
        ("pve-storage-id", ["local-lvm"], ["1x", "a/b", "-"]),
        ("mac-addr", ["BC:24:11:00:00:01"], ["01:00:00:00:00:01", "BC:24:11:00:00", "x"]),
        ("CIDR", ["10.0.0.1/8", "fe80::1/64"], ["10.0.0.1", "10.0.0.1/33"]),
        ("ipv4", ["10.0.0.1"], ["fe80::1", "10.0.0.256"]),
        ("pve-vmid-list", ["100,101 102", ""], ["100,1"]),
        ("email-opt", ["", "a@b.c"], ["x"]),
        ("disk-size", ["8G", "528K", "32"], ["8X", "-1", "+1G"]),
        ("pve-calendar-event", ["mon 20:00"], ["61"]),
        ("pve-format-of-the-future", ["anything"], []),
    ],
)
def test_named_formats(name, good_ones, bad_ones):
    """Each format takes what it means and says what it does not."""
    declared = {"x": Parameter(format=name)}
    assert [value for value in good_ones if errors(declared, {"x": value})] == []
    assert [value for value in bad_ones if not errors(declared, {"x": value})] == []
    for value in bad_ones:
        assert errors(declared, {"x": value})["x"].startswith("invalid format - ")
