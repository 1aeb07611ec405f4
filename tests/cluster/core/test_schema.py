"""Each call of ours against the official schema: what it takes, who may make it, and what a wrong parameter is told."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import requests

from course.cluster import parameters
from course.cluster.declaration import Declarations, Parameter
from course.cluster.route import Endpoint, registry
from course.error import ParameterError
from tests.cluster import documents
from tests.cluster.test_options import facts


def without_words(rule: Any) -> Any:
    """Return a rule without what is for people."""
    if isinstance(rule, dict):
        return {key: without_words(value) for key, value in rule.items() if key != "description"}
    return [without_words(part) for part in rule] if isinstance(rule, list | tuple) else rule


def official(schema: dict[str, Any], endpoint: Endpoint) -> dict[str, Any]:
    """Return what the schema says of a call."""
    return schema[endpoint.path][endpoint.method]


@pytest.fixture(scope="module")
def endpoints(schema: dict[str, Any]) -> list[Endpoint]:
    """Our calls that the schema of 8.1 has."""
    return [found for found in registry() if found.method in schema.get(found.path, {})]


def test_each_call_of_ours_is_one_of_the_schema(schema):
    """Nothing is made up: method and path of each call stand in the schema."""
    calls = [(found.method, found.path) for found in registry()]
    unknown = [call for call in calls if call[0] not in schema.get(call[1], {})]
    assert unknown == [("GET", "/")]  # the root's own list is not in the schema


def test_the_calls_of_the_first_tier_are_there(pve, schema, record_property):
    """What a course needs first is there; the summary shows what of the rest is."""
    tiers: dict[str, int] = {}
    for line in (pve / "course-endpoints.txt").read_text().splitlines():
        if re.match(r"[123] ", line):
            tier, method, path = line.split()
            tiers[f"{method} {path}"] = int(tier)
    ours = {f"{found.method} {found.path}" for found in registry()}
    everything = [f"{method} {path}" for path, methods in schema.items() for method in methods]
    table = [[call, tiers.get(call, 0), call in ours] for call in everything]
    record_property("calls", table)
    assert [call for call, tier, there in table if tier == 1 and not there] == []


def test_parameters_are_those_of_the_schema(schema, endpoints, compare):
    """Names, types, bounds, words, patterns, formats: field by field; of numbered ones the first."""
    cases = []
    for found in endpoints:
        known = official(schema, found).get("parameters", {}).get("properties") or {}
        wanted = {name: facts(each) for name, each in first_ones(documents.properties(known), known).items()}
        have = {name: facts(each) for name, each in first_ones(found.parameters, known).items()}
        wrong = sorted(name for name in wanted.keys() | have.keys() if wanted.get(name) != have.get(name))
        difference = [{name: each.get(name) for name in wrong} for each in (wanted, have)]
        cases.append((f"{found.method} {found.path}", *difference))
    compare("calls: parameters", cases)


def first_ones(declared: Declarations, known: dict[str, Any]) -> dict[str, Parameter]:
    """Leave out net1, net2 ..., and what the server itself adds to an upload."""
    return {
        name: each
        for name, each in declared.items()
        if (name in known or not re.search(r"[1-9]\d*$", name)) and name != "tmpfilename"
    }


def test_permissions_are_those_of_the_schema(schema, endpoints, compare):
    """Who may make a call."""
    cases = [
        (
            f"{found.method} {found.path}",
            json.dumps(without_words(official(schema, found).get("permissions")) or None, sort_keys=True),
            json.dumps(without_words(found.permissions) or None, sort_keys=True),
        )
        for found in endpoints
    ]
    compare("calls: permissions", cases)


def test_calls_go_to_the_node_that_they_name(schema, endpoints, compare):
    """Where the schema says that a call is for the node in its path, so does ours."""
    cases = [
        (f"{found.method} {found.path}", official(schema, found)["proxyto"], found.proxy or "node")
        for found in endpoints
        if official(schema, found).get("proxyto")
    ]
    compare("calls: node that answers", cases)


def test_tokens_may_make_the_calls_that_the_schema_lets_them(schema, endpoints, compare):
    """Logging in and passwords need a person."""
    cases = [
        (f"{found.method} {found.path}", bool(official(schema, found).get("allowtoken", 1)), found.allow_token)
        for found in endpoints
    ]
    compare("calls: API tokens", cases)


def test_the_later_release_has_the_same_types(pve, compare):
    """Where release 9 has a call and its parameter too, the type is the same: clients of either can be pointed here."""
    later = json.loads((pve / "apidoc-9.json").read_text())["paths"]
    cases = []
    for found in registry():
        there = later.get(found.path, {}).get(found.method)
        if there is None:
            continue
        known = documents.properties(there.get("parameters", {}).get("properties") or {})
        wanted = {name: known[name].type for name in found.parameters if name in known}
        cases.append((f"{found.method} {found.path}", wanted, {name: found.parameters[name].type for name in wanted}))
    compare("calls: types in release 9", cases)


WRONG = {"integer": "lots", "number": "many", "boolean": "maybe", "string": "\x01 ?*", "array": "x"}
PLACES = {
    "{node}": "franklin",
    "{vmid}": "99999999",
    "{storage}": "nowhere",
    "{upid}": "UPID:franklin:00000001:00000001:00000001:x::root@pam:",
    "{service}": "pveproxy",
    "{realm}": "pve",
    "{userid}": "nobody@pve",
    "{tokenid}": "none",
    "{groupid}": "none",
    "{roleid}": "none",
    "{poolid}": "none",
    "{snapname}": "none",
    "{pos}": "0",
    "{sid}": "vm:99999999",
    "{iface}": "vmbr7",
    "{volume}": "local:iso/none.iso",
    "{id}": "none",
}


def test_wrong_parameters_are_answered_as_the_schema_foretells(lab, schema, endpoints, compare):
    """One unknown parameter and a wrong value for each known one: 400 with these errors, and nothing happens."""
    session = login(lab)
    cases = []
    for found in endpoints:
        if found.path == "/access/ticket" or found.upload or found.additional:
            continue
        declared = documents.properties(official(schema, found).get("parameters", {}).get("properties") or {})
        path = re.sub(r"\{\w+\}", lambda word: PLACES.get(word[0], "none"), found.path)
        uri = dict(
            zip(found.uri_parameters, (PLACES.get(f"{{{n}}}", "none") for n in found.uri_parameters), strict=True)
        )
        sent = {name: WRONG[each.type] for name, each in declared.items() if name not in uri and len(declared) < 60}
        sent["no-such-parameter"] = "1"
        try:
            parameters.check(declared, {**uri, **sent})
            wanted: dict[str, str] = {}
        except ParameterError as error:
            wanted = error.errors
        body = "data" if found.method in ("POST", "PUT") else "params"
        url = f"https://{lab.host}/api2/json{path}"
        answer = session.request(found.method, url, **{body: sent}, verify=lab.ca, timeout=60)
        errors = answer.json().get("errors", {}) if answer.content else {}
        foretold = (400, "Parameter verification failed.", wanted)
        cases.append((f"{found.method} {found.path}", foretold, (answer.status_code, answer.reason, errors)))
    compare("calls: errors of wrong parameters", cases)


def login(lab) -> requests.Session:
    """Return a session of root."""
    session = requests.Session()
    answer = session.post(
        f"https://{lab.host}/api2/json/access/ticket",
        data={"username": "root@pam", "password": lab.password},
        verify=lab.ca,
        timeout=60,
    ).json()["data"]
    session.headers["CSRFPreventionToken"] = answer["CSRFPreventionToken"]
    session.cookies.set("PVEAuthCookie", answer["ticket"])
    return session
