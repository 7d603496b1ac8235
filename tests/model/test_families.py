"""The field's families of language models, tiny and random: LoRA targets, a training step, packing, generation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lalm.data.records import Turn
from lalm.encoders import load_encoder
from lalm.errors import ModelError
from lalm.model.audio_tower import AudioTower
from lalm.model.build import build_config, build_processor, embedding_scale
from lalm.model.decoder import check_packing, resolve_targets
from lalm.model.modeling import LalmForConditionalGeneration
from lalm.recipe.load import load_recipe

SIZES = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES = {
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "phi3": {},
    "smollm3": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "falcon": {},
    "gpt_neox": {},
}
LLAMA_LIKE = {
    "qv": ["q_proj", "v_proj"],
    "attention": ["k_proj", "o_proj", "q_proj", "v_proj"],
    "attention_mlp": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
}
NEOX_LIKE = {
    "qv": ["query_key_value"],
    "attention": ["dense", "query_key_value"],
    "attention_mlp": ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"],
}
TARGETS = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "smollm3"), LLAMA_LIKE),
    **dict.fromkeys(("falcon", "gpt_neox"), NEOX_LIKE),
    "phi3": {
        "qv": ["qkv_proj"],
        "attention": ["o_proj", "qkv_proj"],
        "attention_mlp": ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"],
    },
    "opt": {
        "qv": ["q_proj", "v_proj"],
        "attention": ["k_proj", "out_proj", "q_proj", "v_proj"],
        "attention_mlp": ["fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj"],
    },
    "gpt2": {
        "qv": ["c_attn"],
        "attention": ["attn.c_proj", "c_attn"],
        "attention_mlp": ["c_attn", "c_fc", "c_proj"],
    },
}


def language_model(family: str, **options):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SIZES, **FAMILIES[family], **options})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():  # random attention is so even that a wrong mask would not show
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def parts():
    recipe = load_recipe("tiny", ["encoders.0.dtype=float32", "language_model.lora.targets=attention"])
    tower = AudioTower([load_encoder(section) for section in recipe.encoders])
    return recipe, tower, build_processor(recipe, tower)


def build(parts, family: str, **options):
    recipe, tower, processor = parts
    decoder = language_model(family, **options)
    config = build_config(recipe, tower, decoder.config, processor.audio_token_id)
    model = LalmForConditionalGeneration(config, audio_tower=tower, language_model=decoder).eval()
    model.multi_modal_projector.match_scale(embedding_scale(decoder))
    return model, processor


def conversation(processor, seed: int, answer: str):
    clip = (0.2 * np.random.default_rng(seed).standard_normal(8000 + 4000 * seed)).astype(np.float32)
    turns = (Turn(role="user", content="<audio>What is heard?"), Turn(role="assistant", content=answer))
    return clip, processor.encode_turns(turns, [processor.num_positions(len(clip))])


def test_targets_of_every_family_are_known():
    assert set(TARGETS) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_groups_name_the_same_matrices(family):
    model = language_model(family)
    assert {group: resolve_targets(model, group) for group in TARGETS[family]} == TARGETS[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_name_that_matches_nothing_lists_what_exists(family):
    existing = sorted({name.rpartition(".")[2] for name in TARGETS[family]["attention_mlp"]})
    with pytest.raises(ModelError) as error:
        resolve_targets(language_model(family), ("zzz",))
    assert "['zzz'] names no linear layer of" in str(error.value)
    assert all(name in str(error.value) for name in existing)


def test_a_target_may_say_which_of_two():
    assert resolve_targets(language_model("gpt2"), ("mlp.c_proj", "c_attn")) == ["c_attn", "mlp.c_proj"]
    with pytest.raises(ModelError, match=r"\['mlp.c_attn'\] names no linear layer of GPT2LMHeadModel"):
        resolve_targets(language_model("gpt2"), ("mlp.c_attn",))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_trains_packs_and_generates(parts, family):
    model, processor = build(parts, family)
    pairs = [conversation(processor, seed, answer) for seed, answer in enumerate(("A tone.", "It is noise", "Yes"))]
    losses, counts = [], []
    for clip, encoded in pairs:
        ids, labels = torch.tensor([encoded.input_ids]), torch.tensor([encoded.labels])
        losses.append(model(input_ids=ids, labels=labels, **processor.audio_inputs([clip])).loss)
        counts.append(encoded.num_supervised)
    alone = (torch.stack(losses) * torch.tensor(counts)).sum() / sum(counts)

    packed = {
        "input_ids": torch.tensor([[token for _, item in pairs for token in item.input_ids]]),
        "labels": torch.tensor([[label for _, item in pairs for label in item.labels]]),
        "position_ids": torch.tensor([[place for _, item in pairs for place in range(len(item.input_ids))]]),
        "group_ids": torch.tensor([[number for number, (_, item) in enumerate(pairs) for _ in item.input_ids]]),
    }
    audio = processor.audio_inputs([clip for clip, _ in pairs])
    together = model(**packed, branch_ids=torch.zeros_like(packed["group_ids"]), **audio).loss
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=2e-5)

    together.backward()
    trained = [value for part in ("projector", "lora") for _, value in model.parts()[part]]
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in trained)
    torch.optim.SGD(trained, lr=1e-2 / max(value.grad.norm().item() for value in trained)).step()
    after = model(**packed, branch_ids=torch.zeros_like(packed["group_ids"]), **audio).loss
    assert after.item() < together.item()

    prompts = [
        processor.prompts.encode_markup("<audio>" + text, [processor.num_positions(len(clip))]).input_ids
        for text, (clip, _) in zip(("Who?", "What is it that is heard?"), pairs[:2], strict=True)
    ]
    length = max(map(len, prompts))
    ids = torch.tensor([[0] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    audio = processor.audio_inputs([clip for clip, _ in pairs[:2]])
    batch = model.generate(input_ids=ids, attention_mask=mask, **audio, **options)
    for row, (prompt, (clip, _)) in enumerate(zip(prompts, pairs[:2], strict=True)):
        alone = model.generate(input_ids=torch.tensor([prompt]), **processor.audio_inputs([clip]), **options)
        assert batch[row, -4:].tolist() == alone[0, -4:].tolist()


@pytest.mark.parametrize("family", ["mistral", "phi3", "gemma2", "gemma3_text"])
def test_a_sliding_window_is_kept_in_packed_rows(parts, family):
    """A window much shorter than a conversation: of six places, counted in its own positions."""
    model, processor = build(parts, family, sliding_window=6)
    pairs = [conversation(processor, seed, answer) for seed, answer in enumerate(("A tone.", "It is noise"))]
    losses, counts, blocks = [], [], []
    for number, (clip, encoded) in enumerate(pairs):
        ids, labels = torch.tensor([encoded.input_ids]), torch.tensor([encoded.labels])
        losses.append(model(input_ids=ids, labels=labels, **processor.audio_inputs([clip])).loss)
        counts.append(encoded.num_supervised)
        blocks.append((ids, labels, torch.arange(ids.shape[1])[None], torch.full_like(ids, number)))
    names = ("input_ids", "labels", "position_ids", "group_ids")
    packed = {name: torch.cat(parts_, dim=1) for name, parts_ in zip(names, zip(*blocks, strict=True), strict=True)}
    audio = processor.audio_inputs([clip for clip, _ in pairs])
    together = model(**packed, branch_ids=torch.zeros_like(packed["group_ids"]), **audio).loss
    alone = (torch.stack(losses) * torch.tensor(counts)).sum() / sum(counts)
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=2e-5)
    model.config.text_config.sliding_window = model.language_model.config.sliding_window = 512
    wide = model(**packed, branch_ids=torch.zeros_like(packed["group_ids"]), **audio).loss
    assert abs(wide.item() - together.item()) > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_scale_of_embeddings_is_that_of_what_the_layers_get(family):
    model = language_model(family)
    given = model.get_input_embeddings()(torch.arange(512)).std().item()
    assert embedding_scale(model) == pytest.approx(given, rel=0.05)


@pytest.mark.parametrize(("family", "options"), [("falcon", {"alibi": True}), ("bloom", {}), ("mpt", {})])
def test_packing_is_refused_where_distances_are_counted_in_the_row(family, options):
    config = AutoConfig.for_model(family, **options)
    with pytest.raises(ModelError, match=rf"data.packing: rows is not exact for '{family}'"):
        check_packing(config, "rows")
    check_packing(config, "none")


def test_packing_is_refused_for_layers_that_follow_no_mask():
    config = AutoConfig.for_model("qwen2", layer_types=["linear_attention", "full_attention"], num_hidden_layers=2)
    with pytest.raises(ModelError, match="its layers of linear_attention follow no attention mask"):
        check_packing(config, "shared_prefix")
