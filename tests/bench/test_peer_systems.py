"""The peers do the work that their papers and sources say, on our records and weights."""

from __future__ import annotations

import math

import pytest
import torch

from lalm.bench.children import find_side
from lalm.bench.peer import PeerRun, build_parts, pad_rows
from lalm.bench.peer_salmonn import SalmonnStyle
from lalm.bench.peer_transformers import (
    _GraniteCollator,
    _QwenCollator,
    _with_audio_tokens,
    build_granite_speech,
    build_qwen2_audio,
)
from lalm.bench.sizes import TINY
from lalm.bench.workload import Workload

RUN = PeerRun(TINY, Workload(num_clips=3, questions_per_clip=2, clip_seconds=(0.3, 1.5)), batch_records=3)


@pytest.fixture
def qwen(tmp_path):
    parts = build_parts(RUN, tmp_path, "qwen2_audio")
    tokenizer = _with_audio_tokens(parts.tokenizer, "qwen2_audio")
    return parts, build_qwen2_audio(TINY, parts, tokenizer).eval(), _QwenCollator(tokenizer)


@pytest.fixture
def granite(tmp_path):
    parts = build_parts(RUN, tmp_path, "granite_speech")
    tokenizer = _with_audio_tokens(parts.tokenizer, "granite_speech")
    return parts, build_granite_speech(TINY, parts, tokenizer).eval(), _GraniteCollator(tokenizer)


def test_rows_are_padded_at_the_right():
    assert pad_rows([[1, 2, 3], [4]], 0).tolist() == [[1, 2, 3], [4, 0, 0]]


def test_salmonn_makes_88_vectors_of_any_clip(tmp_path):
    parts = build_parts(RUN, tmp_path, "salmonn", second_encoder=True)
    model = SalmonnStyle(parts)
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"ln_speech", "ln_audio", "queries", "qformer", "to_decoder", "language_model"}
    assert not any(p.requires_grad for name, p in model.named_parameters() if "language" in name and "lora" not in name)
    waves = torch.randn(2, 16000)
    vectors = model.encode(torch.randn(2, 80, 3000), waves, torch.tensor([16000, 9000]))
    assert vectors.shape == (2, 88, 32)


def test_salmonn_masks_what_is_padding_for_beats(tmp_path):
    model = SalmonnStyle(build_parts(RUN, tmp_path, "salmonn", second_encoder=True))
    # 98 frames are 6 columns of 16, 8 patches each; half of the second clip is real.
    is_padding = model._padded_patches(98, torch.tensor([16000, 8000]), 16000)
    assert is_padding.shape == (2, 48)
    assert not is_padding[0].any()
    assert is_padding[1].view(6, 8).all(1).tolist() == [False, False, False, False, True, True]


def test_qwen_has_our_encoder_and_decoder(qwen):
    parts, model, collator = qwen
    batch = collator([parts.samples[index] for index in range(3)])
    ours = parts.model.audio_tower.encoders[0].model
    features = batch["input_features"]
    assert features.shape == (3, 80, 3000)
    torch.testing.assert_close(model.model.audio_tower.conv1(features), ours.conv1(features))
    for name, tensor in parts.model.get_decoder().state_dict().items():
        theirs = dict(model.model.language_model.state_dict())
        key = name if name in theirs else name.replace("_proj.weight", "_proj.base_layer.weight")
        assert torch.equal(theirs[key], tensor), name


@pytest.mark.parametrize("peer", ["qwen", "granite"])
def test_answers_alone_are_supervised(peer: str, request: pytest.FixtureRequest):
    parts, model, collator = request.getfixturevalue(peer)
    samples = [parts.samples[index] for index in range(3)]
    batch = collator(samples)
    for sample, labels in zip(samples, batch["labels"], strict=True):
        supervised = parts.tokenizer.decode(labels[labels != -100])
        assert supervised == sample.answer + "<|im_end|>"
    with torch.no_grad():
        loss = model(**batch).loss
    assert loss.item() == pytest.approx(math.log(TINY.language_model["vocab_size"]), rel=0.05)


@pytest.mark.parametrize("num_samples", [3200, 4799, 4800, 16000, 23999, 24000])
def test_granite_counts_as_many_vectors_as_it_makes(granite, num_samples: int):
    _, model, collator = granite
    with torch.no_grad():
        features = collator.spectrogram(torch.randn(1, num_samples))
        vectors = model.get_audio_features(features).pooler_output
    assert vectors.shape[1] == collator.num_vectors(num_samples)


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("peer", ["salmonn", "granite_speech", "qwen2_audio"])
def test_a_peer_trains_step_by_step(pace, peer: str, autocast: bool):
    find_side(peer)(PeerRun(TINY, RUN.workload, num_steps=2, batch_records=3, autocast=autocast), pace)
    assert pace.waits == 2
    assert [result["records"] for result in pace.results] == [3, 3]
    expected = math.log(TINY.language_model["vocab_size"])
    assert [result["loss"] for result in pace.results] == pytest.approx([expected] * 2, rel=0.05)
