"""API tokens: a user's deputies, with rights of their own or the user's."""

from __future__ import annotations

import uuid
from typing import Any

from ...error import ClusterError, ParameterError
from .. import callers
from ..config.users import Token, UserConfig
from ..userfile import editing
from .common import Call, Parameter, endpoint, flag, number, text
from .users import USERID, known_user, token_fields

_OWNER: dict[str, Any] = {"check": ["or", ["userid-param", "self"], ["userid-group", ["User.Modify"]]]}
_TOKEN = {"userid": USERID, "tokenid": Parameter(pattern=r"(?:[A-Za-z][A-Za-z0-9\.\-_]+)")}
_FIELDS = {"comment": text(), "expire": number(0, default="same as user"), "privsep": flag(1)}


def _known(config: UserConfig, user: str, token: str) -> Token:
    found = known_user(config, user).tokens.get(token)
    if found is None:
        raise ClusterError(f"no such token '{token}' for user '{user}'")
    return found


@endpoint("GET", "/access/users/{userid}/token", parameters={"userid": USERID}, permissions=_OWNER)
def tokens(call: Call) -> Any:
    """List a user's tokens."""
    user = known_user(call.node.state.users(), call.values["userid"])
    return [{"tokenid": token, **token_fields(user, token)} for token in sorted(user.tokens)]


@endpoint("GET", "/access/users/{userid}/token/{tokenid}", parameters=_TOKEN, permissions=_OWNER)
def read(call: Call) -> Any:
    """Return what is known of a token, but for its secret."""
    config, name, token = call.node.state.users(), call.values["userid"], call.values["tokenid"]
    _known(config, name, token)
    return token_fields(config.users[name], token)


@endpoint("POST", "/access/users/{userid}/token/{tokenid}", parameters={**_TOKEN, **_FIELDS}, permissions=_OWNER)
def create(call: Call) -> Any:
    """Make a token; its secret is in this answer and in no other."""
    values, state = call.values, call.node.state
    name, token = values["userid"], values["tokenid"]
    full, secret = f"{name}!{token}", str(uuid.uuid4())
    with editing(state, "generating token failed") as config:
        user = known_user(config, name)
        if token in user.tokens:
            raise ParameterError({"tokenid": "Token already exists."})
        made = Token(privsep=bool(values.get("privsep", 1)), expire=values.get("expire", user.expire))
        made.comment = values.get("comment", "")
        user.tokens[token] = made
        with state.lock("file-token_cfg"):
            known = callers.parse_tokens(state.read(callers.TOKENS))
            state.write(callers.TOKENS, callers.render_tokens({**known, full: secret}))
        info = token_fields(user, token)
    return {"full-tokenid": full, "info": info, "value": secret}


@endpoint("PUT", "/access/users/{userid}/token/{tokenid}", parameters={**_TOKEN, **_FIELDS}, permissions=_OWNER)
def update(call: Call) -> Any:
    """Change a token."""
    values = call.values
    with editing(call.node.state, "updating token info failed") as config:
        token = _known(config, values["userid"], values["tokenid"])
        token.privsep = bool(values.get("privsep", token.privsep))
        token.expire = values.get("expire", token.expire)
        token.comment = values.get("comment", token.comment)
        return token_fields(config.users[values["userid"]], values["tokenid"])


@endpoint("DELETE", "/access/users/{userid}/token/{tokenid}", parameters=_TOKEN, permissions=_OWNER)
def delete(call: Call) -> Any:
    """Remove a token with its rights."""
    name, token = call.values["userid"], call.values["tokenid"]
    with editing(call.node.state, "deleting token failed") as config:
        _known(config, name, token)
        config.remove(f"{name}!{token}")
        _forget(call, f"{name}!{token}")


def _forget(call: Call, full: str) -> None:
    state = call.node.state
    with state.lock("file-token_cfg"):
        known = callers.parse_tokens(state.read(callers.TOKENS))
        known.pop(full, None)
        state.write(callers.TOKENS, callers.render_tokens(known))
