# SPDX-License-Identifier: Apache-2.0
"""Members of a request's JSON, each checked for its type as it is taken out."""

from __future__ import annotations

from typing import Any

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.http.jsontext import kind
from fastinfer.serve.messages import Parameters

MAX_PARAMETERS = 256


def refuse(text: str) -> ServeError:
    return ServeError(Kind.INVALID_ARGUMENT, text)


def text(owner: dict[str, Any], member: str, where: str, most: int, default: str | None = None) -> str:
    value = owner.get(member, default)
    if type(value) is not str:
        raise refuse(f"{where}: '{member}' is {kind(value) if member in owner else 'missing'}; needed: a string")
    if len(value) > most:
        raise refuse(f"{where}: '{member}' has {len(value)} characters; at most {most} are taken")
    if not value.isprintable():
        raise refuse(f"{where}: '{member}' holds control characters")
    return value


def integer(owner: dict[str, Any], member: str, where: str, default: int | None = None, least: int = 0) -> int:
    value = owner.get(member, default)
    if type(value) is not int or value < least:
        given = value if type(value) is int else kind(value) if member in owner else "missing"
        raise refuse(f"{where}: '{member}' is {given}; needed: an integer of at least {least}")
    return value


def flag(owner: dict[str, Any], member: str, where: str, default: bool) -> bool:
    value = owner.get(member, default)
    if type(value) is not bool:
        raise refuse(f"{where}: '{member}' is {kind(value)}; needed: true or false")
    return value


def objects(owner: dict[str, Any], member: str, most: int) -> list[dict[str, Any]]:
    value = owner.get(member)
    if type(value) is not list or any(type(x) is not dict for x in value):
        raise refuse(f"'{member}' is {kind(value) if member in owner else 'missing'}; needed: a list of objects")
    if len(value) > most:
        raise refuse(f"{len(value)} {member} were given; at most {most} are taken")
    return value


def parameters(owner: dict[str, Any], where: str) -> Parameters:
    value = owner.get("parameters")
    if value is None:
        return {}
    if type(value) is not dict or len(value) > MAX_PARAMETERS:
        raise refuse(f"{where}: 'parameters' is {kind(value)}; needed: an object of at most {MAX_PARAMETERS} members")
    for name, parameter in value.items():
        if type(parameter) in (list, dict, type(None)):
            raise refuse(f"{where}: parameter '{name[:64]}' is {kind(parameter)}; needed: a string, number or boolean")
    return value
