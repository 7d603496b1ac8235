"""From a model's text to a checked object: JSON as it stands, or nearly JSON repaired, or what is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from data_builders.llm_writer.checks import Reason
from data_builders.llm_writer.endpoint import Reply
from lalm.errors import MissingPackageError

M = TypeVar("M", bound=BaseModel)
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Parsed(Generic[M]):
    """The object, or the problem in words that a model can act on. `repaired`: the text was no JSON as it stood."""

    value: M | None
    problem: Reason = field(default_factory=lambda: Reason(""))
    repaired: bool = False


def read_reply(reply: Reply, shape: type[M]) -> Parsed[M]:
    """Reads one reply as an object of `shape`.

    A reply that was cut off is never repaired: the closing brackets would make half an answer look whole.
    """
    if reply.finish == "length":
        return Parsed(None, Reason("the reply was cut off for its length; write less"))
    text = _THINKING.sub("", reply.text).strip()
    fenced = _FENCE.search(text)
    text = fenced.group(1).strip() if fenced else text
    start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
    if start < 0:
        return Parsed(None, Reason("the reply holds no JSON object"))
    text = text[start:]
    try:
        value, repaired = json.loads(text), False
    except ValueError:
        end = max(text.rfind("}"), text.rfind("]"))
        if end < 0 or _depth(text[: end + 1]) > 0:
            return Parsed(None, Reason("the JSON of the reply does not end; write one whole object"))
        value, repaired = _repaired(text[: end + 1]), True
    try:
        return Parsed(shape.model_validate(value), repaired=repaired)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc'])) or 'reply'}: {item['msg']}" for item in error.errors()[:5]]
        return Parsed(None, Reason("the JSON has another form", "; ".join(problems)), repaired)


def json_schema(
    shape: type[BaseModel], most: int | None = None, narrowed: Mapping[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The schema that a server is asked to hold a reply to: every key wanted and no other, as strict servers demand.

    `most` bounds the lists of the outermost object; `narrowed` adds to what is asked of some of its keys, such as the
    names that one clip allows.
    """
    schema = _closed(_model_schema(shape))
    for name, value in schema["properties"].items():
        if most is not None and value.get("type") == "array":
            value["maxItems"] = most
        value |= (narrowed or {}).get(name, {})
    return schema


@cache
def _model_schema(shape: type[BaseModel]) -> dict[str, Any]:
    """Made once for a shape, and not to be changed."""
    return shape.model_json_schema()


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _closed(value) for key, value in node.items() if key not in ("title", "default", "description")}
    if node.get("type") == "object" and "properties" in node:
        node |= {"additionalProperties": False, "required": list(node["properties"])}
    return node


def _depth(text: str) -> int:
    """Brackets left open, those inside quoted text aside."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"', "", text)
    return sum(bare.count(mark) for mark in "{[") - sum(bare.count(mark) for mark in "}]")


def _repaired(text: str) -> Any:
    try:
        import json_repair
    except ImportError:
        raise MissingPackageError("json-repair", "repairing nearly-JSON replies", "data") from None
    return json_repair.loads(text)
