"""BEATs against the published code, on weights that a formula gives; and the forms that its weights come in.

The expected numbers are recomputed so: build `BEATs(BEATsConfig(CFG))` of the published code (MIT licence, a stub in
place of torchaudio), give every parameter `formula(name, shape)` under its official name (the shared position bias
under layer 0), let `preprocess` return `FILTERBANK`, call `extract_features` in eval mode with `padding_mask` None and
with `MASK`, and print `states[0, ::31, ::17]` and `states[1, 60, ::9]`. For whole batches the stub's `fbank` is
`kaldi_filterbank` of the samples divided by 2^15: pad `wave(n)` of `BATCH` with zeros to 24000 samples, mask what is
behind each, and print how many patches the returned mask keeps and `states[i, (3, kept - 1), ::9]`. For the label head,
add `finetuned_model=True, predictor_class=5` to `CFG` and print the probabilities of `wave(16000)` alone.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from lalm.encoders import build_encoder, load_encoder
from lalm.encoders.beats import BeatsEncoder, save_beats
from lalm.encoders.beats_network import BASE, BeatsNetwork, BeatsSizes
from lalm.errors import ModelError
from lalm.recipe.encoders import BeatsSection

CFG = {
    "input_patch_size": 16,
    "embed_dim": 32,
    "encoder_layers": 3,
    "encoder_embed_dim": 48,
    "encoder_ffn_embed_dim": 64,
    "encoder_attention_heads": 4,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "num_buckets": 32,
    "max_distance": 80,
    "deep_norm": True,
    "gru_rel_pos": True,
    "relative_position_embedding": True,
}
FILTERBANK = torch.sin(torch.arange(2 * 198 * 128) * 0.731).view(2, 198, 128)
MASK = torch.zeros(2, 32000, dtype=torch.bool)
MASK[1, 24000:] = True
NUM_PATCHES_KEPT = 75
"""Of the 96 patches of the second clip, by the published rule for padding."""


def formula(name: str, shape: torch.Size) -> torch.Tensor:
    phase = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16) % 1000
    wave = torch.sin(torch.arange(int(np.prod(shape)), dtype=torch.float64) * 0.913 + phase)
    return (wave * 0.2 + (1.0 if name.endswith(("norm.weight", "weight_g")) else 0.0)).float().view(shape)


def official_name(name: str) -> str:
    return name.replace(
        "encoder.relative_attention_bias.weight", "encoder.layers.0.self_attn.relative_attention_bias.weight"
    )


@pytest.fixture
def network() -> BeatsNetwork:
    network = BeatsNetwork(BeatsSizes.from_cfg(CFG)).eval()
    for name, value in network.state_dict().items():
        value.copy_(formula(official_name(name), value.shape))
    return network


ALONE = [
    [-0.25926, -1.2844, -1.04606],
    [-0.0545, -0.86162, -0.95787],
    [-0.39411, -1.25838, -1.07431],
    [-0.91383, -2.33788, -1.32988],
]
MASKED = [0.10457, 2.27932, 1.51975, -0.67108, -0.58308, 0.56672]


@pytest.mark.parity
def test_states_equal_the_published_code(network):
    with torch.no_grad():
        states = network(FILTERBANK)[-1]
    np.testing.assert_allclose(states[0, ::31, ::17].numpy(), ALONE, atol=1e-4)


@pytest.mark.parity
def test_masked_states_equal_the_published_code(network):
    is_padding = torch.arange(96).expand(2, -1) >= torch.tensor([[96], [NUM_PATCHES_KEPT]])
    with torch.no_grad():
        states = network(FILTERBANK, is_padding)[-1]
    np.testing.assert_allclose(states[1, 60, ::9].numpy(), MASKED, atol=1e-4)


BATCH = {24000: 72, 16000: 50, 12345: 39, 9000: 28}
"""Samples of each clip in a batch -> patches that the published code keeps."""
BORDERS = {
    16000: [
        [-0.28764, 0.36536, -0.16468, -0.49471, 0.94807, 2.23187],
        [-0.65521, 0.7023, 0.69021, -0.53752, 0.44449, 1.40793],
    ],
    12345: [
        [-0.56973, 1.28076, 1.31907, -0.48076, 0.05265, 0.78565],
        [-0.5576, 0.7147, 0.69376, -0.51012, 0.44212, 1.56257],
    ],
}
PROBABILITIES = [0.22564, 0.22025, 0.19998, 0.1854, 0.19438]


def wave(num_samples: int) -> np.ndarray:
    return np.random.default_rng(num_samples).normal(0, 0.1, num_samples).astype(np.float32)


def features_of(encoder: BeatsEncoder, lengths) -> tuple[torch.Tensor, torch.Tensor]:
    chunks = [encoder.front_end.extract(wave(length)) for length in lengths]
    features = torch.full((len(chunks), 128, max(chunk.features.shape[1] for chunk in chunks)), 7.0)
    for row, chunk in zip(features, chunks, strict=True):
        row[:, : chunk.features.shape[1]] = torch.from_numpy(chunk.features)
    return features, torch.tensor([chunk.num_frames for chunk in chunks])


@pytest.mark.parity
@torch.no_grad()
def test_full_padding_equals_the_published_code_in_a_batch(network):
    encoder = BeatsEncoder(
        BeatsSection(base="random", padding="full", chunk_seconds=1.5), BeatsSizes.from_cfg(CFG)
    ).eval()
    encoder.model.load_state_dict(network.state_dict())
    output = encoder(*features_of(encoder, BATCH))
    assert output.num_steps.tolist() == [*BATCH.values()]
    assert [encoder.length_rule.count(length) for length in BATCH] == [*BATCH.values()]
    for clip, length in enumerate(BATCH):
        if length in BORDERS:
            found = output.states[clip, [3, BATCH[length] - 1], ::9]
            np.testing.assert_allclose(found.numpy(), BORDERS[length], atol=1e-4)


@torch.no_grad()
def test_the_published_batch_lets_the_silence_in_and_the_clip_alone_does_not(network):
    full = BeatsEncoder(BeatsSection(base="random", padding="full", chunk_seconds=1.5), BeatsSizes.from_cfg(CFG)).eval()
    real = BeatsEncoder(BeatsSection(base="random", chunk_seconds=1.5), BeatsSizes.from_cfg(CFG)).eval()
    states = []
    for encoder in (full, real):
        encoder.model.load_state_dict(network.state_dict())
        states.append(encoder(*features_of(encoder, [12345])).states[0])
    assert [len(clip) for clip in states] == [39, 32]
    assert (states[0][:32] - states[1]).abs().max() > 0.01


@pytest.mark.parametrize(("seconds", "length", "kept"), [(2.0, 23456, 73), (2.0, 32000, 96), (30.0, 480000, 1496)])
def test_patches_that_the_published_code_keeps(seconds, length, kept):
    encoder = build_encoder(BeatsSection(base="random", padding="full", chunk_seconds=seconds))
    assert encoder.length_rule.count(length) == kept


def official_checkpoint(network: BeatsNetwork, path, **more) -> None:
    state = {official_name(name): value for name, value in network.state_dict().items()}
    bias = state["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    for layer in range(1, CFG["encoder_layers"]):
        state[f"encoder.layers.{layer}.self_attn.relative_attention_bias.weight"] = bias.clone()
    cfg = {**CFG, "dropout": 0.1, "predictor_dropout": 0.0}
    if network.predictor is not None:
        cfg |= {"finetuned_model": True, "predictor_class": network.predictor.out_features}
    torch.save({"cfg": cfg, "model": state, **more}, path)


def test_an_official_checkpoint_and_its_saved_form_give_the_same_states(network, tmp_path):
    official_checkpoint(network, tmp_path / "beats.pt")
    encoder = load_encoder(BeatsSection(base=str(tmp_path / "beats.pt")))
    assert isinstance(encoder, BeatsEncoder)
    save_beats(encoder, tmp_path / "saved")
    again = load_encoder(BeatsSection(base=str(tmp_path / "saved")))
    features, frames = torch.randn(1, 128, 100), torch.tensor([100])
    assert torch.equal(encoder(features, frames).states, again(features, frames).states)
    assert encoder(features, frames).num_steps.tolist() == [48]


@pytest.fixture
def tagger() -> BeatsNetwork:
    network = BeatsNetwork(BeatsSizes.from_cfg({**CFG, "finetuned_model": True, "predictor_class": 5})).eval()
    for name, value in network.state_dict().items():
        value.copy_(formula(official_name(name), value.shape))
    return network


LABELS = {0: "/m/09x0r", 2: "/m/0dgw9r", 1: "/m/05zppz", 3: "/m/02zsn", 4: "/m/0ytgt"}


@pytest.mark.parity
def test_the_label_head_of_a_fine_tuned_checkpoint(tagger, tmp_path):
    official_checkpoint(tagger, tmp_path / "tagger.pt", label_dict=LABELS)
    encoder = load_encoder(BeatsSection(base=str(tmp_path / "tagger.pt")))
    assert encoder.labels == tuple(LABELS[index] for index in range(5))
    found = encoder.classify(*features_of(encoder, [9000, 16000, 2000]))
    np.testing.assert_allclose(found[1].numpy(), PROBABILITIES, atol=1e-4)
    assert not found[2].any(), "a piece too short for a patch"
    save_beats(encoder, tmp_path / "saved")
    again = load_encoder(BeatsSection(base=str(tmp_path / "saved")))
    rebuilt = build_encoder(BeatsSection(base="nowhere"), encoder.config_dict())
    assert again.labels == rebuilt.labels == encoder.labels
    assert torch.equal(again.classify(*features_of(again, [16000]))[0], found[1])


def test_labels_that_do_not_fit_the_head_are_refused(network, tagger, tmp_path):
    official_checkpoint(tagger, tmp_path / "tagger.pt", label_dict={0: "/m/09x0r"})
    with pytest.raises(ModelError, match="label_dict names 1 classes, the head has 5"):
        load_encoder(BeatsSection(base=str(tmp_path / "tagger.pt")))
    official_checkpoint(network, tmp_path / "plain.pt")
    plain = load_encoder(BeatsSection(base=str(tmp_path / "plain.pt")))
    assert plain.labels == ()
    with pytest.raises(ModelError, match="not fine-tuned, it has no label head"):
        plain.classify(*features_of(plain, [16000]))


def test_position_biases_that_differ_are_refused(network, tmp_path):
    official_checkpoint(network, tmp_path / "beats.pt")
    checkpoint = torch.load(tmp_path / "beats.pt", weights_only=True)
    checkpoint["model"]["encoder.layers.2.self_attn.relative_attention_bias.weight"] += 1
    torch.save(checkpoint, tmp_path / "beats.pt")
    with pytest.raises(ModelError, match="position biases differ"):
        load_encoder(BeatsSection(base=str(tmp_path / "beats.pt")))


@pytest.mark.parametrize("name", ["left over", "missing"])
def test_weights_must_fit_exactly(network, tmp_path, name):
    official_checkpoint(network, tmp_path / "beats.pt")
    checkpoint = torch.load(tmp_path / "beats.pt", weights_only=True)
    if name == "missing":
        del checkpoint["model"]["layer_norm.weight"]
    else:
        checkpoint["model"]["surplus"] = torch.zeros(1)
    torch.save(checkpoint, tmp_path / "beats.pt")
    with pytest.raises(ModelError, match="does not fit BEATs"):
        load_encoder(BeatsSection(base=str(tmp_path / "beats.pt")))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "notes.pt").write_text("no model")
    with pytest.raises(ModelError, match="no official BEATs checkpoint"):
        load_encoder(BeatsSection(base=str(tmp_path / "notes.pt")))
    with pytest.raises(ModelError, match="no file or folder here"):
        build_encoder(BeatsSection(base="someone/beats"))
    with pytest.raises(ModelError, match="input_patch_size 8"):
        BeatsSizes.from_cfg({**CFG, "input_patch_size": 8})


def test_a_clip_has_the_states_that_it_has_alone():
    encoder = load_encoder(BeatsSection(base="random", random_sizes={"encoder_layers": 1, "encoder_embed_dim": 48}))
    waves = [
        np.random.default_rng(seed).normal(0, 0.1, length).astype(np.float32)
        for seed, length in ((0, 9000), (1, 16000))
    ]
    chunks = [encoder.front_end.extract(wave) for wave in waves]
    batch = torch.full((2, 128, 120), 9.0)
    for row, chunk in zip(batch, chunks, strict=True):
        row[:, : chunk.num_frames] = torch.tensor(chunk.features)
    output = encoder(batch, torch.tensor([chunk.num_frames for chunk in chunks]))
    for index, chunk in enumerate(chunks):
        alone = encoder(torch.tensor(chunk.features)[None], torch.tensor([chunk.num_frames]))
        count = int(alone.num_steps[0])
        assert output.num_steps[index] == count == encoder.length_rule.count(len(waves[index]))
        assert torch.equal(output.states[index, :count], alone.states[0])


def test_published_sizes():
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in BeatsNetwork(BASE).parameters())
    assert round(count / 1e6, 1) == 90.3
