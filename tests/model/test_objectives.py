"""The weighted sum of a stage's objectives on the tiny model: equal to its terms, classification equal to NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lalm.data.clips import ClipStore
from lalm.data.dataset import build_stage_data
from lalm.model.build import build_model
from lalm.model.contrastive import mean_rows
from lalm.model.objectives import classification_loss
from lalm.recipe.projectors import MlpSection
from lalm.recipe.schema import LearningRates, ObjectiveWeights
from lalm.training.stages import enter_stage

WEIGHTS = {"language_model": 1.0, "contrastive": 0.5, "matching": 0.25, "classification": 2.0}


@pytest.fixture
def made(tiny_recipe):
    """`made(weights)`: model and first micro-batch of a stage with these objectives."""

    def make(weights, projector=None, **changes):
        has_heads = {"matching", "classification"} & set(weights)
        rates = LearningRates(projector=0.01, heads=0.01 if has_heads else None)
        section = tiny_recipe.stages[0].model_copy(
            update={"objectives": ObjectiveWeights(**weights), "learning_rates": rates, **changes}
        )
        recipe = tiny_recipe.model_copy(update={"stages": (section,), "projector": projector or tiny_recipe.projector})
        model, processor = build_model(recipe)
        data = build_stage_data(recipe, 0, processor, ClipStore(processor.sampling_rate))
        enter_stage(model, section, num_classes=len(data.classes), seed=3)
        return model, data

    return make


def test_classification_equals_numpy():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.tensor([0, 3, 3, 1, 2])
    shares = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    one_hot = np.eye(4)[targets.numpy()]
    expected = -(one_hot * np.log(shares)).sum() / 5
    assert classification_loss(logits, targets).item() == pytest.approx(expected, rel=1e-12)
    assert classification_loss(logits, targets, num_items=10).item() == pytest.approx(expected / 2, rel=1e-12)


def test_the_sum_is_of_its_weighted_terms(made):
    """Each objective alone gives what it gives beside the others, also where questions share a clip."""
    model, data = made(WEIGHTS)
    together = model(**data.dataset[0])
    assert set(together.losses) == set(WEIGHTS)
    expected = sum(WEIGHTS[name] * float(loss) for name, loss in together.losses.items())
    assert together.loss.item() == pytest.approx(expected, rel=1e-5)
    batch, heads = data.dataset[0], model.objective_heads
    for name in ("contrastive", "matching", "classification"):
        heads.weights = {name: 1.0}
        given = {key: value for key, value in batch.items() if "audio" in key or "feature" in key or "chunk" in key}
        alone = alignment_only(model, name, given, batch["objective_items"])
        assert alone == pytest.approx(float(together.losses[name]), rel=1e-4), name
    model.end_objectives()
    alone = model(**{key: value for key, value in batch.items() if key != "objective_items"}).loss
    assert alone.item() == pytest.approx(float(together.losses["language_model"]), rel=1e-5)


def alignment_only(model, name, audio, items) -> float:
    """One objective on the same clips, without the decoder."""
    heads = model.objective_heads
    kept = heads.matching, heads.classification
    heads.matching = kept[0] if name == "matching" else None
    heads.classification = kept[1] if name == "classification" else None
    output = model(**audio, objective_items=items)
    heads.matching, heads.classification = kept
    assert set(output.losses) == {name}
    return output.loss.item()


def test_the_mean_behind_a_clip_is_no_stretch_of_it(made):
    """Spans and the pooled clip are of the other positions; the decoder reads the mean too."""
    losses = []
    for ends_with in ("nothing", "mean"):
        section = MlpSection(stack_steps=2, hidden_size=8, ends_with=ends_with)
        model, data = made({"language_model": 1.0, "contrastive": 0.5}, projector=section)
        batch = data.dataset[0]
        batch["objective_items"]["span_starts"] = torch.full_like(batch["objective_items"]["span_starts"], 0.6)
        losses.append(model(**batch).losses)
    without, with_mean = losses
    assert with_mean["contrastive"].item() == pytest.approx(without["contrastive"].item(), rel=1e-5)
    assert with_mean["language_model"].item() != pytest.approx(without["language_model"].item(), rel=1e-5)


def test_a_learned_summary_is_asked_what_the_whole_clip_is_asked(made):
    """Its loss comes on top of the other positions' own, and reaches its weights; of a stretch it is asked nothing."""
    section = MlpSection(stack_steps=2, hidden_size=8, ends_with="statistics")
    model, data = made({"contrastive": 1.0}, projector=section)
    batch, projector = data.dataset[0], model.multi_modal_projector
    both = model(**batch).loss
    both.backward()
    assert projector.summary_layer.weight.grad.any()
    projector.summary_is_learned = False
    without = model(**batch).loss
    projector.summary_is_learned = True
    summaries = positions_of(model, batch)
    items, heads = batch["objective_items"], model.objective_heads
    table = model.get_input_embeddings()(items["candidate_ids"])
    texts = mean_rows(table, items["candidate_lengths"]) - heads.embedding_centre
    audio = summaries[items["audio_rows"]] - heads.embedding_centre
    logits = torch.nn.functional.normalize(audio, dim=-1) @ torch.nn.functional.normalize(texts, dim=-1).T
    own = items["groups"][:, None] == items["candidate_groups"][None]
    logits = (logits / heads.temperature).masked_fill(~own, -torch.inf)
    alone = torch.nn.functional.cross_entropy(logits, items["targets"])
    assert alone.item() > 0.01
    assert both.item() == pytest.approx(without.item() + alone.item(), rel=1e-4)
    items["span_starts"] = torch.full_like(items["span_starts"], 0.6)
    projector.zero_grad()
    model(**batch).loss.backward()
    assert not projector.summary_layer.weight.grad.any()


def positions_of(model, batch):
    """The last position of each clip."""
    names = ("input_features", "feature_lengths", "chunk_counts", "audio_states", "audio_state_lengths")
    positions, counts = model.project_audio(**{name: batch.get(name) for name in names})
    return positions[torch.arange(len(counts)), counts - 1].detach()


def test_all_trained_parts_get_gradients_and_no_others(made):
    model, data = made(WEIGHTS)
    model(**data.dataset[0]).loss.backward()
    parts = model.parts()
    assert all(value.grad is not None for part in ("projector", "heads") for _, value in parts[part])
    assert all(value.grad is None for part in ("lora", "encoder", "language_model") for _, value in parts[part])


def test_a_linear_probe_reads_encoder_states_and_trains_its_head_alone(made):
    model, data = made({"classification": 1.0}, head_input="encoder", learning_rates=LearningRates(heads=0.01))
    assert data.classes == [("sound_name", "a tone"), ("sound_name", "noise")]
    batch = data.dataset[0]
    states, steps = model.encode_audio(batch["input_features"], batch["feature_lengths"], batch["chunk_counts"])
    means = np.stack([clip[:count].float().mean(dim=0).numpy() for clip, count in zip(states, steps, strict=True)])
    head = model.objective_heads.classification
    items = batch["objective_items"]
    logits = means[items["class_rows"]] @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    rows = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), items["class_targets"].numpy()]
    loss = model(**batch).loss
    assert loss.item() == pytest.approx(rows.mean(), rel=1e-4)
    loss.backward()
    assert {name for name, value in model.named_parameters() if value.grad is not None} == {
        "objective_heads.classification.weight",
        "objective_heads.classification.bias",
    }


def test_heads_start_alike_for_a_seed_and_disturb_no_other_draw(made):
    model, _ = made({"matching": 1.0})
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    model.begin_objectives({"matching": 1.0}, seed=3)
    first = model.objective_heads.matching.layers[0].weight.clone()
    assert torch.equal(torch.rand(1), expected)
    model.begin_objectives({"matching": 1.0}, seed=3)
    assert torch.equal(model.objective_heads.matching.layers[0].weight, first)
    model.begin_objectives({"matching": 1.0}, seed=4)
    assert not torch.equal(model.objective_heads.matching.layers[0].weight, first)
    model.end_objectives()
    assert "heads" not in model.parts()


def test_items_without_heads_are_refused(made):
    model, data = made({"contrastive": 1.0})
    model.end_objectives()
    with pytest.raises(ValueError, match="objective_items need heads"):
        model(**data.dataset[0])


def test_silence_that_no_text_holds_changes_no_loss_and_reaches_the_projector(made):
    """What a process with text alone sends through tower and projector, so that the others need not wait for it."""
    model, data = made({"language_model": 1.0})
    batch = {name: value for name, value in data.dataset[0].items() if name in ("input_ids", "labels", "position_ids")}
    batch["input_ids"] = batch["input_ids"].masked_fill(batch["input_ids"] == model.config.audio_token_id, 5)
    alone = model(**batch).loss
    silence = data.dataset._unheard()
    beside = model(**batch, **silence).loss
    assert beside.item() == alone.item()
    beside.backward()
    assert all(value.grad is not None and not value.grad.any() for _, value in model.parts()["projector"])
