"""transformers' Granite Speech and Qwen2-Audio under its Trainer, as a user would fine-tune them.

Built from configurations at the shapes that ours has, with our language model's weights (and for Qwen2-Audio our
encoder's). The encoder and the language model are frozen; the projector and LoRA on q and v train.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler, Subset
from transformers import (
    GraniteSpeechConfig,
    GraniteSpeechForConditionalGeneration,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Trainer,
    TrainingArguments,
    WhisperFeatureExtractor,
)
from transformers.audio_utils import mel_filter_bank

from lalm.bench.ours import Pace, StepReports
from lalm.bench.peer import IGNORED, Parts, PeerRun, Sample, Samples, build_parts, pad_rows, text_sizes
from lalm.bench.sizes import Sizes
from lalm.bench.workload import SAMPLE_RATE_HZ
from lalm.model.decoder import add_lora
from lalm.training.distributed import join_processes, uses_cpu

AUDIO_TOKENS = {"granite_speech": ["<|audio|>"], "qwen2_audio": ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]}
PROMPT = "<|im_start|>user\n{audio}{question}<|im_end|>\n<|im_start|>assistant\n"
END = "<|im_end|>"
WINDOW, QUERIES = 15, 3
MEL_BINS, FFT, WINDOW_SAMPLES, HOP_SAMPLES = 80, 512, 400, 160


def run_granite_speech(run: PeerRun, pace: Pace) -> None:
    """Trains Granite Speech, reporting every step to `pace`."""
    with tempfile.TemporaryDirectory(prefix="lalm-bench-") as folder:
        parts = build_parts(run, Path(folder), "granite_speech")
        tokenizer = _with_audio_tokens(parts.tokenizer, "granite_speech")
        model, samples = build_granite_speech(run.sizes, parts, tokenizer), parts.samples
        del parts  # Its copies of the weights are no part of the peer's memory.
        _train(model, samples, _GraniteCollator(tokenizer), run, pace, Path(folder))


def run_qwen2_audio(run: PeerRun, pace: Pace) -> None:
    """Trains Qwen2-Audio, reporting every step to `pace`."""
    with tempfile.TemporaryDirectory(prefix="lalm-bench-") as folder:
        parts = build_parts(run, Path(folder), "qwen2_audio")
        tokenizer = _with_audio_tokens(parts.tokenizer, "qwen2_audio")
        model, samples = build_qwen2_audio(run.sizes, parts, tokenizer), parts.samples
        del parts
        _train(model, samples, _QwenCollator(tokenizer), run, pace, Path(folder))


def build_granite_speech(
    sizes: Sizes, parts: Parts, tokenizer: PreTrainedTokenizerBase
) -> GraniteSpeechForConditionalGeneration:
    """A Conformer of Whisper's width, depth and heads; its own windows of 15 steps with 3 queries."""
    whisper, qformer = sizes.whisper, sizes.qformer
    config = GraniteSpeechConfig(
        text_config=text_sizes(parts),
        encoder_config={
            "model_type": "granite_speech_encoder",
            "input_dim": 2 * MEL_BINS,
            "num_layers": whisper["encoder_layers"],
            "hidden_dim": whisper["d_model"],
            "num_heads": whisper["encoder_attention_heads"],
            "feedforward_mult": whisper["encoder_ffn_dim"] // whisper["d_model"],
            "dropout": 0.0,
        },
        projector_config={
            "model_type": "blip_2_qformer",
            "hidden_size": qformer["hidden_size"],
            "num_hidden_layers": qformer["num_layers"],
            "num_attention_heads": qformer["num_heads"],
            "intermediate_size": qformer["intermediate_size"],
            "encoder_hidden_size": whisper["d_model"],
            "cross_attention_frequency": 1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        audio_token_index=_token_id(tokenizer, AUDIO_TOKENS["granite_speech"][0]),
        downsample_rate=WINDOW // QUERIES,
        window_size=WINDOW,
        has_lora_adapter=False,
    )
    model = GraniteSpeechForConditionalGeneration(config)
    model.model.language_model.load_state_dict(parts.model.get_decoder().state_dict())
    _freeze_but(model, model.model.projector)
    add_lora(model.model.language_model, parts.lora)
    return model


def build_qwen2_audio(
    sizes: Sizes, parts: Parts, tokenizer: PreTrainedTokenizerBase
) -> Qwen2AudioForConditionalGeneration:
    """Our Whisper's weights in its encoder; the mean of two steps through one linear layer."""
    encoder: Any = parts.model.audio_tower.encoders[0]
    config = Qwen2AudioConfig(
        text_config=text_sizes(parts),
        audio_config={**sizes.whisper, "model_type": "qwen2_audio_encoder", "num_mel_bins": MEL_BINS},
        audio_token_index=_token_id(tokenizer, AUDIO_TOKENS["qwen2_audio"][0]),
    )
    model = Qwen2AudioForConditionalGeneration(config)
    model.model.language_model.load_state_dict(parts.model.get_decoder().state_dict())
    model.model.audio_tower.load_state_dict(encoder.model.state_dict())
    _freeze_but(model, model.model.multi_modal_projector)
    add_lora(model.model.language_model, parts.lora)
    return model


class _GraniteCollator:
    """A batch as `GraniteSpeechProcessor` makes it: clips padded to the longest, an audio token for each vector.

    Its feature extractor needs torchaudio, which has no build for every machine: the same spectrogram is made here.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.mel = torch.from_numpy(
            mel_filter_bank(
                num_frequency_bins=FFT // 2 + 1,
                num_mel_filters=MEL_BINS,
                min_frequency=0.0,
                max_frequency=SAMPLE_RATE_HZ / 2,
                sampling_rate=SAMPLE_RATE_HZ,
                mel_scale="htk",
            ).astype(np.float32)
        )
        self.window = torch.hann_window(WINDOW_SAMPLES)

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        counts = [self.num_vectors(len(sample.wave)) for sample in samples]
        token = AUDIO_TOKENS["granite_speech"][0]
        prompts = [
            PROMPT.format(audio=token * count, question=sample.question)
            for sample, count in zip(samples, counts, strict=True)
        ]
        waves = nn.utils.rnn.pad_sequence([torch.from_numpy(sample.wave) for sample in samples], batch_first=True)
        is_real = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
        features = {"input_features": self.spectrogram(waves), "input_features_mask": is_real}
        return {**_text_tensors(self.tokenizer, prompts, samples), **features}

    def num_vectors(self, num_samples: int) -> int:
        """Vectors that a clip becomes: 3 for every begun window of 15 pairs of frames."""
        return -(-((num_samples // HOP_SAMPLES + 1) // 2) // WINDOW) * QUERIES

    def spectrogram(self, waves: Tensor) -> Tensor:
        """`[B, S]` -> log-mel `[B, F / 2, 160]`, two frames side by side."""
        spectrum = torch.stft(
            waves, FFT, HOP_SAMPLES, WINDOW_SAMPLES, self.window, center=True, pad_mode="reflect", return_complex=True
        )
        log = (spectrum.abs() ** 2).transpose(1, 2).matmul(self.mel).clamp(min=1e-10).log10()
        log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0) / 4 + 1
        log = log[:, : log.shape[1] // 2 * 2]
        return log.reshape(len(log), -1, 2 * MEL_BINS)


class _QwenCollator:
    """A batch as `Qwen2AudioProcessor` makes it: every clip padded to 30 s."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.processor = Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=MEL_BINS), tokenizer)

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        audio, begin, end = AUDIO_TOKENS["qwen2_audio"]
        prompts = [PROMPT.format(audio=f"{begin}{audio}{end}\n", question=sample.question) for sample in samples]
        texts = [f"{prompt}{sample.answer}{END}" for prompt, sample in zip(prompts, samples, strict=True)]
        batch = self.processor(
            text=texts,
            audio=[sample.wave for sample in samples],
            sampling_rate=SAMPLE_RATE_HZ,
            return_tensors="pt",
            padding=True,
        )
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        inputs["labels"] = _answer_labels(
            self.processor.tokenizer, inputs["input_ids"], inputs["attention_mask"], samples
        )
        return inputs | {name: batch[name] for name in ("input_features", "feature_attention_mask")}


class _OrderedTrainer(Trainer):
    """Takes the records in file order, so that every step holds each clip once, as all systems' steps do."""

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)  # type: ignore[arg-type]


def _train(model: nn.Module, samples: Samples, collator: Any, run: PeerRun, pace: Pace, folder: Path) -> None:
    join_processes()
    num_records = len(samples)
    order = [number % num_records for number in range(run.num_steps * run.batch_records)]
    args = TrainingArguments(
        output_dir=str(folder / "peer"),
        max_steps=run.num_steps,
        per_device_train_batch_size=run.batch_records,
        bf16=run.autocast,
        learning_rate=1e-4,
        save_strategy="no",
        logging_steps=1,
        log_level="error",
        disable_tqdm=True,
        report_to=[],
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=False,
        use_cpu=uses_cpu(),
    )
    steps = StepReports(pace, None, run.batch_records)
    trainer = _OrderedTrainer(
        model=model,
        args=args,
        train_dataset=Subset(samples, order),
        data_collator=collator,
        callbacks=[steps],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def _with_audio_tokens(tokenizer: PreTrainedTokenizerBase, peer: str) -> PreTrainedTokenizerBase:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *AUDIO_TOKENS[peer]]})
    return tokenizer


def _token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    number = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(number, int)
    return number


def _text_tensors(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], samples: Sequence[Sample]
) -> dict[str, Tensor]:
    texts = [f"{prompt}{sample.answer}{END}" for prompt, sample in zip(prompts, samples, strict=True)]
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    ids, real = pad_rows(rows, tokenizer.pad_token_id), pad_rows([[1] * len(row) for row in rows], 0)
    return {"input_ids": ids, "attention_mask": real, "labels": _answer_labels(tokenizer, ids, real, samples)}


def _answer_labels(tokenizer: PreTrainedTokenizerBase, ids: Tensor, real: Tensor, samples: Sequence[Sample]) -> Tensor:
    """Labels at the answer and its end token, which close each row (padding is at the right)."""
    labels = torch.full_like(ids, IGNORED)
    for row, length, sample in zip(range(len(ids)), real.sum(dim=1).tolist(), samples, strict=True):
        count = len(tokenizer(sample.answer + END, add_special_tokens=False)["input_ids"])
        labels[row, length - count : length] = ids[row, length - count : length]
    return labels


def _freeze_but(model: nn.Module, trained: nn.Module) -> None:
    model.requires_grad_(False)
    trained.requires_grad_(True)
