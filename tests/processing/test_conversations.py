"""What transformers' users write: conversations with parts."""

from __future__ import annotations

import pytest

from lalm.errors import AudioError, DataError
from lalm.processing.conversations import read_conversations
from lalm.processing.templates import Clip, Message


def test_parts_become_messages_and_clips():
    conversation = [
        {"role": "system", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
        {"role": "user", "content": [{"type": "audio", "path": "a.wav"}, {"type": "text", "text": "<audio> Hi"}]},
        {"role": "assistant", "content": "Yes"},
    ]
    [(messages, clips)], is_batch = read_conversations(conversation)
    assert not is_batch
    assert clips == ["a.wav"]
    assert messages == [
        Message("system", ("Be brief.",)),
        Message("user", (Clip(), "<audio> Hi")),
        Message("assistant", ("Yes",)),
    ]
    assert read_conversations([conversation, conversation])[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"type": "image", "path": "a.png"}], "message 0: a part must be"),
        ([{"type": "text"}], "message 0: a part must be"),
        (None, "message 0: content must be a string or a list of parts, not NoneType"),
    ],
)
def test_other_content_is_refused(content, message):
    with pytest.raises(DataError, match=message):
        read_conversations([{"role": "user", "content": content}])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"url": "https://example.org/a.wav"}, r"not fetched from a URL \(https://example.org/a.wav\). Download it"),
        ({}, "needs 'path' .* or 'audio'"),
    ],
)
def test_audio_by_url_is_refused(part, message):
    with pytest.raises(AudioError, match=message):
        read_conversations([{"role": "user", "content": [{"type": "audio", **part}]}])


def test_roles_are_checked():
    with pytest.raises(DataError, match="message 0: role 'tool' is not one of"):
        read_conversations([{"role": "tool", "content": "x"}])
    with pytest.raises(DataError, match="audio may stand in user messages only"):
        read_conversations([{"role": "assistant", "content": [{"type": "audio", "path": "a.wav"}]}])
    with pytest.raises(DataError, match="empty conversation"):
        read_conversations([])
