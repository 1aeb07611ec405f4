"""Answers to `demux`."""

from __future__ import annotations

import json
import re

from .. import alternative, mutant


def _whole(message, out):
    if "QMP" in message:
        out["greeting"] = message
    elif "event" in message:
        out["events"].append(message)
    else:
        out["replies"][message["id"]] = message


def _new():
    return {"greeting": None, "replies": {}, "events": []}


def _lines(chunks):
    return b"".join(chunks).split(b"\n")[:-1]


@mutant("demux", "one-recv-one-message")
def one_json_per_chunk(chunks):
    out = _new()
    for chunk in chunks:
        _whole(json.loads(chunk), out)
    return out


@mutant("demux", "one-recv-one-message")
def lines_of_each_chunk(chunks):
    out = _new()
    for chunk in chunks:
        for line in chunk.splitlines():
            _whole(json.loads(line), out)
    return out


@mutant("demux", "one-recv-one-message")
def first_of_each_chunk(chunks):
    out = _new()
    for chunk in chunks:
        try:
            _whole(json.loads(chunk.splitlines()[0]), out)
        except ValueError:
            pass
    return out


@mutant("demux", "event-as-reply")
def whatever_follows_is_the_reply(chunks):
    out = _new()
    for line in _lines(chunks):
        message = json.loads(line)
        if "QMP" in message:
            out["greeting"] = message
        else:
            out["replies"][message.get("id")] = message
    return out


@mutant("demux", "event-by-text")
def the_word_event_somewhere(chunks):
    out = _new()
    for line in _lines(chunks):
        message = json.loads(line)
        if "QMP" in message:
            out["greeting"] = message
        elif b'"event"' in line:
            out["events"].append(message)
        else:
            out["replies"][message["id"]] = message
    return out


@mutant("demux", "errors-dropped")
def only_returns(chunks):
    out = _new()
    for line in _lines(chunks):
        message = json.loads(line)
        if "QMP" in message:
            out["greeting"] = message
        elif "event" in message:
            out["events"].append(message)
        elif "return" in message:
            out["replies"][message["id"]] = message
    return out


@mutant("demux", "utf8-split")
def decode_each_chunk(chunks):
    out = _new()
    for line in "".join(chunk.decode() for chunk in chunks).splitlines():
        _whole(json.loads(line), out)
    return out


@mutant("demux", "utf8-split")
def decode_each_chunk_and_ignore(chunks):
    out = _new()
    for line in "".join(chunk.decode(errors="ignore") for chunk in chunks).splitlines():
        _whole(json.loads(line), out)
    return out


@mutant("demux", "utf8-split")
def decode_each_chunk_and_replace(chunks):
    out = _new()
    for line in "".join(chunk.decode(errors="replace") for chunk in chunks).splitlines():
        _whole(json.loads(line), out)
    return out


@mutant("demux", "falsy-id")
def id_must_be_true(chunks):
    out = _new()
    for line in _lines(chunks):
        message = json.loads(line)
        if "QMP" in message:
            out["greeting"] = message
        elif "event" in message:
            out["events"].append(message)
        elif message.get("id"):
            out["replies"][message["id"]] = message
    return out


@mutant("demux", "by-order")
def numbered_replies(chunks):
    out = _new()
    for line in _lines(chunks):
        message = json.loads(line)
        if "QMP" in message:
            out["greeting"] = message
        elif "event" in message:
            out["events"].append(message)
        else:
            out["replies"][len(out["replies"])] = message
    return out


@mutant("demux", "by-order")
def listed_replies(chunks):
    out = {"greeting": None, "replies": [], "events": []}
    for line in _lines(chunks):
        message = json.loads(line)
        if "QMP" in message:
            out["greeting"] = message
        elif "event" in message:
            out["events"].append(message)
        else:
            out["replies"].append(message)
    return out


@mutant("demux", "incomplete-tail")
def every_line_is_whole(chunks):
    out = _new()
    for line in b"".join(chunks).splitlines():
        _whole(json.loads(line), out)
    return out


@mutant("demux", "greeting-as-reply")
def the_greeting_is_a_reply(chunks):
    out = _new()
    for line in _lines(chunks):
        message = json.loads(line)
        if "event" in message:
            out["events"].append(message)
        else:
            out["replies"][message.get("id")] = message
    return out


@mutant("demux", "events-merged")
def one_event_per_name(chunks):
    out = _new()
    for line in _lines(chunks):
        _whole(json.loads(line), out)
    out["events"] = list({m["event"]: m for m in out["events"]}.values())
    return out


@mutant("demux", "events-order")
def sorted_events(chunks):
    out = _new()
    for line in _lines(chunks):
        _whole(json.loads(line), out)
    out["events"].sort(key=lambda m: (m["event"], m["timestamp"]["seconds"]))
    return out


@mutant("demux", "message-not-whole")
def names_of_events(chunks):
    out = _new()
    for line in _lines(chunks):
        _whole(json.loads(line), out)
    out["events"] = [m["event"] for m in out["events"]]
    return out


@mutant("demux", "message-not-whole")
def values_of_replies(chunks):
    out = _new()
    for line in _lines(chunks):
        _whole(json.loads(line), out)
    out["replies"] = {k: m.get("return", m.get("error")) for k, m in out["replies"].items()}
    return out


@mutant("demux", "id-changed")
def ids_as_text(chunks):
    out = _new()
    for line in _lines(chunks):
        _whole(json.loads(line), out)
    out["replies"] = {str(k): m for k, m in out["replies"].items()}
    return out


@mutant("demux", "shape")
def a_tuple(chunks):
    out = _new()
    for line in _lines(chunks):
        _whole(json.loads(line), out)
    return out["greeting"], out["replies"], out["events"]


@mutant("demux", "printed")
def printed(chunks):
    out = _new()
    for line in _lines(chunks):
        _whole(json.loads(line), out)
    print(out)


@alternative("demux")
def join_and_split(chunks):
    out = _new()
    for line in _lines(chunks):
        _whole(json.loads(line), out)
    return out


@alternative("demux")
def with_raw_decode(chunks):
    out, decoder = _new(), json.JSONDecoder()
    text = b"".join(chunks).decode(errors="ignore")
    at = 0
    while True:
        at = re.compile(r"\s*").match(text, at).end()
        try:
            message, at = decoder.raw_decode(text, at)
        except ValueError:
            return out
        _whole(message, out)


@alternative("demux")
def with_a_growing_buffer(chunks):
    out, buffer = _new(), bytearray()
    for chunk in chunks:
        buffer += chunk
        while (end := buffer.find(b"\r\n")) >= 0:
            _whole(json.loads(bytes(buffer[:end])), out)
            del buffer[: end + 2]
    return out


@alternative("demux")
async def with_a_stream_reader(chunks):
    import asyncio

    out, reader = _new(), asyncio.StreamReader()
    for chunk in chunks:
        reader.feed_data(chunk)
    reader.feed_eof()
    while (line := await reader.readline()).endswith(b"\n"):
        _whole(json.loads(line), out)
    return out


@alternative("demux")
def with_an_incremental_decoder(chunks):
    import codecs

    out, decoder, text = _new(), codecs.getincrementaldecoder("utf-8")(), ""
    for chunk in chunks:
        text += decoder.decode(chunk)
        *lines, text = text.split("\n")
        for line in lines:
            _whole(json.loads(line), out)
    return out
