"""Packed = unpacked: every example keeps the loss and the gradients that it has alone."""

import numpy as np
import pytest
import torch
from tiny_data import VOCABULARY, make_example
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from lalm.data.packing import IGNORED, balance_rows, common_prefix_length, pack, share_key, sharing
from lalm.model.attention_mask import mask_from_segments
from lalm.model.grouped_attention import attend_in_groups, grouped_inputs, is_grouped

WHO_SEES_WHOM = ("group_ids", "branch_ids", "position_ids", "attention_mask")


def tiny_model(family, attention):
    if attention == "grouped":
        model = tiny_model(family, "eager")
        attend_in_groups(model)
        return model
    torch.manual_seed(0)
    if family == "llama":
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, attn_implementation=attention,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval()
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, attn_implementation=attention,
        bos_token_id=3, eos_token_id=2,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def audio_vectors(example, clip):
    """Vectors that only the clip decides, so that another clip of the same length would be noticed."""
    start, end = example.audio_spans[clip]
    seed = sum(map(ord, example.audio_hashes[clip]))
    return torch.randn(end - start, 32, generator=torch.Generator().manual_seed(seed))


def run(model, examples, layout):
    """Sum of the losses, the loss of each supervised token by (record, position, label), and gradients."""
    packed = pack(examples, layout, pad_token_id=0, in_one_row=is_grouped(model))
    tensors = packed.tensors
    ids = tensors["input_ids"]
    embeds = model.get_input_embeddings()(ids).clone()
    vectors = [audio_vectors(examples[index], clip) for index, clip in packed.audio]
    if vectors:
        embeds[ids == 1] = torch.cat(vectors)
    if is_grouped(model):
        seen = grouped_inputs(*(tensors.get(name) for name in WHO_SEES_WHOM), embeds.dtype)
    elif "group_ids" in tensors:
        mask = mask_from_segments(tensors["group_ids"], tensors["branch_ids"], embeds.dtype)
        seen = {"attention_mask": mask}
    else:
        seen = {"attention_mask": tensors["attention_mask"]}
    out = model(inputs_embeds=embeds, position_ids=tensors["position_ids"], use_cache=False, **seen)
    logits, labels = out.logits[:, :-1].flatten(0, 1), tensors["labels"][:, 1:].flatten()
    losses = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
    model.zero_grad()
    losses.sum().backward()
    gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return losses[labels != IGNORED].detach(), gradients.clone()


@pytest.mark.parametrize("attention", ["sdpa", "eager", "grouped"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("layout", ["none", "rows", "shared_prefix"])
def test_loss_and_gradients_equal_those_of_each_example_alone(examples, family, attention, layout):
    model = tiny_model(family, attention)
    alone = [run(model, [example], "none") for example in examples]
    losses, gradients = run(model, examples, layout)
    expected = torch.cat([item[0] for item in alone])
    torch.testing.assert_close(losses.sort().values, expected.sort().values, atol=1e-5, rtol=0)
    torch.testing.assert_close(gradients, sum(item[1] for item in alone), atol=2e-4, rtol=1e-4)


def test_branches_of_one_clip_keep_their_own_loss(examples):
    model = tiny_model("llama", "sdpa")
    group = [examples[0], examples[2], examples[4]]
    packed, _ = run(model, group, "shared_prefix")
    expected = torch.cat([run(model, [example], "none")[0] for example in group])
    torch.testing.assert_close(packed, expected, atol=1e-5, rtol=0)


def test_shared_prefix_lays_out_audio_once_for_each_clip(examples):
    packed = pack(examples, "shared_prefix", 0)
    assert packed.tensors["input_ids"].eq(1).sum() == 7 + 7 + 12 + 14
    names = sorted(examples[index].audio_hashes[clip] for index, clip in packed.audio)
    assert names == ["a", "a", "b", "b", "c"]
    supervised = sum(example.num_supervised for example in examples)
    for layout in ("none", "rows", "shared_prefix"):
        labels = pack(examples, layout, 0).tensors["labels"]
        assert int((labels[:, 1:] != IGNORED).sum()) == supervised


@pytest.mark.parametrize("layout", ["none", "rows", "shared_prefix"])
def test_audio_is_listed_in_the_order_of_its_spans(examples, layout):
    packed = pack(examples, layout, 0)
    spans = [len(range(*examples[index].audio_spans[clip])) for index, clip in packed.audio]
    ids = packed.tensors["input_ids"].numpy()
    assert sum(spans) == (ids == 1).sum()
    for row in range(len(ids)):  # runs of audio tokens in a row are sums of whole spans, in order
        run_lengths = np.diff(np.flatnonzero(np.diff(np.r_[0, ids[row] == 1, 0])))[::2]
        for length in run_lengths:
            while length > 0:
                length -= spans.pop(0)
            assert length == 0
    assert spans == []


def test_every_segment_opens_without_a_label(examples):
    tensors = pack(examples, "shared_prefix", 0).tensors
    changed = (tensors["group_ids"].diff() != 0) | (tensors["branch_ids"].diff() != 0)
    opens = torch.cat([torch.ones(len(changed), 1, dtype=torch.bool), changed], dim=1)
    assert (tensors["labels"][opens] == IGNORED).all()


def test_sharing_needs_the_same_clips_and_no_label_before_the_end_of_the_audio(examples):
    assert share_key(examples[0]) == share_key(examples[2]) != share_key(examples[1])
    assert share_key(examples[6]) is None
    assert share_key(examples[7]) != share_key(examples[0])
    assert share_key(make_example("m", ["a"], "abc", "d", [3], train_on_inputs=True)) is None


def test_prefix_ends_before_the_first_label_even_for_equal_questions():
    same = [make_example(str(number), ["a"], "what?", "dog", [4]) for number in range(3)]
    first_label = int(np.flatnonzero(same[0].labels != IGNORED)[0])
    assert common_prefix_length(same) == first_label - 1
    groups, prefixes = sharing(same)
    assert set(groups) == {0}
    assert set(prefixes) == {first_label - 1}


def test_long_micro_batches_are_laid_out_in_several_balanced_rows():
    many = [make_example(str(number), [str(number)], "q" * 200, "answer", [150]) for number in range(8)]
    tensors = pack(many, "rows", 0).tensors
    rows, length = tensors["input_ids"].shape
    assert rows > 1
    assert rows * length <= 1.2 * sum(map(len, many))
    assert len(balance_rows([])) in (0, 1)


@pytest.mark.parametrize("layout", ["rows", "shared_prefix"])
def test_one_row_holds_everything_without_padding(examples, layout):
    one = pack(examples, layout, 0, in_one_row=True)
    assert len(one.tensors["input_ids"]) == 1
    assert (one.tensors["group_ids"] >= 0).all()
    several = pack(examples, layout, 0)
    for name in ("input_ids", "labels"):
        kept = several.tensors[name][several.tensors["group_ids"] >= 0]
        assert sorted(one.tensors[name][0].tolist()) == sorted(kept.tolist())
    assert sorted(one.audio) == sorted(several.audio)


def test_a_label_on_the_first_position_is_refused():
    example = make_example("x", [], "q", "a", [])
    example.labels[0] = 5
    with pytest.raises(ValueError, match="record 'x'"):
        pack([example], "rows", 0)
    with pytest.raises(ValueError, match="unknown layout 'diagonal'"):
        pack([make_example("y", [], "q", "a", [])], "diagonal", 0)
