"""A plain SALMONN step, written from the paper (arXiv 2310.13289), as its users run it.

Whisper sees 30 s whatever the clip, BEATs the longest clip of the batch; both run in every step. Their states are
joined, cut into windows of 17, and a Q-Former makes one vector of each window of the 30 s. A row holds one question;
rows are padded to the longest, and logits are computed at every position. Encoders are kept in eval mode, which is
cheaper than the published code, whose dropout is on.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerModel, PreTrainedModel, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lalm.audio.features import kaldi_filterbank
from lalm.bench.machine import synchronize
from lalm.bench.ours import Pace
from lalm.bench.peer import IGNORED, Parts, PeerRun, Sample, build_parts, pad_rows
from lalm.bench.workload import SAMPLE_RATE_HZ
from lalm.encoders.beats import FILTERBANK_MEAN, FILTERBANK_STD, NUM_MEL_BINS
from lalm.encoders.beats_network import PATCH_FRAMES, BeatsNetwork
from lalm.model.decoder import add_lora

WINDOW_STEPS = 17
LEARNING_RATE = 3e-5
WEIGHT_DECAY = 0.05


class SalmonnStyle(nn.Module):
    """Both encoders, the Q-Former and the language model of `parts`, joined as the paper does."""

    whisper: WhisperEncoder
    beats: BeatsNetwork
    qformer: Blip2QFormerModel
    language_model: PreTrainedModel

    def __init__(self, parts: Parts):
        super().__init__()
        encoders: Any = parts.model.audio_tower.encoders
        self.whisper, self.beats = encoders[0].model, encoders[1].model
        self.ln_speech, self.ln_audio = nn.LayerNorm(encoders[0].width), nn.LayerNorm(encoders[1].width)
        projector: Any = parts.model.multi_modal_projector
        self.queries, self.qformer = projector.queries, projector.qformer
        self.to_decoder = projector.to_decoder
        self.language_model = parts.model.language_model
        for frozen in (self.whisper, self.beats, self.language_model):
            frozen.requires_grad_(False)
        add_lora(self.language_model, parts.lora)
        self.tokenizer = parts.tokenizer
        self.to(parts.model.device)

    def encode(self, mel: Tensor, waves: Tensor, num_samples: Tensor) -> Tensor:
        """`mel [B, M, 3000]`, `waves [B, S]` padded with zeros -> `[B, 88, D]` for 30 s."""
        with torch.no_grad():
            speech = self.whisper(mel).last_hidden_state
            filterbank = torch.stack(
                [torch.from_numpy(kaldi_filterbank(wave.cpu().numpy(), NUM_MEL_BINS)).T for wave in waves]
            ).to(mel.device)
            is_padding = self._padded_patches(filterbank.shape[1], num_samples, waves.shape[1])
            audio = self.beats((filterbank - FILTERBANK_MEAN) / (2 * FILTERBANK_STD), is_padding)[-1]
        speech, audio = self.ln_speech(speech), self.ln_audio(audio)
        length = max(speech.shape[1], audio.shape[1])
        joined = torch.cat([nn.functional.pad(x, (0, 0, 0, length - x.shape[1])) for x in (speech, audio)], dim=-1)
        windows = joined.unfold(1, WINDOW_STEPS, WINDOW_STEPS).transpose(2, 3)
        batch, count = windows.shape[:2]
        flat = windows.flatten(0, 1)
        answers = self.qformer(
            query_embeds=self.queries.expand(len(flat), -1, -1), encoder_hidden_states=flat
        ).last_hidden_state
        return self.to_decoder(answers).view(batch, count, -1)

    def forward(self, mel: Tensor, waves: Tensor, num_samples: Tensor, samples: Sequence[Sample]) -> Tensor:
        """The loss of a batch."""
        audio = self.encode(mel, waves, num_samples)
        embed = self.language_model.get_input_embeddings()
        before = self._ids(["USER: <Speech>"] * len(samples), audio.device)
        texts = [f"</Speech> {sample.question}\nASSISTANT:" for sample in samples]
        prompts = [self._encode_text(text) for text in texts]
        end = self.tokenizer.eos_token_id
        answers = [[*self._encode_text(sample.answer), end] for sample in samples]
        rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        labels = [[IGNORED] * len(prompt) + answer for prompt, answer in zip(prompts, answers, strict=True)]
        ids, targets = pad_rows(rows, end).to(audio.device), pad_rows(labels, IGNORED).to(audio.device)
        front = before.shape[1] + audio.shape[1]
        text = embed(ids)
        embeds = torch.cat([embed(before), audio.to(text.dtype), text], dim=1)
        real = pad_rows([[1] * (front + len(row)) for row in rows], 0).to(audio.device)
        targets = nn.functional.pad(targets, (front, 0), value=IGNORED)
        return self.language_model(inputs_embeds=embeds, attention_mask=real, labels=targets, use_cache=False).loss

    def _padded_patches(self, num_frames: int, num_samples: Tensor, longest: int) -> Tensor:
        """`[B, P]`: patches in which no frame holds the clip, with the frames cut as BEATs' own mask is."""
        num_columns = num_frames // PATCH_FRAMES
        order = torch.arange(num_columns * PATCH_FRAMES, device=num_samples.device) * (longest // num_frames)
        is_padding = (order >= num_samples[:, None]).view(-1, num_columns, PATCH_FRAMES).all(-1)
        return is_padding.repeat_interleave(NUM_MEL_BINS // PATCH_FRAMES, dim=1)

    def _ids(self, texts: Sequence[str], device: torch.device) -> Tensor:
        return torch.tensor([self._encode_text(text) for text in texts], device=device)

    def _encode_text(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def run_salmonn(run: PeerRun, pace: Pace) -> None:
    """Trains, reporting every step to `pace`."""
    with tempfile.TemporaryDirectory(prefix="lalm-bench-") as folder:
        parts = build_parts(run, Path(folder), "salmonn", second_encoder=True)
        model = SalmonnStyle(parts)
        device = next(model.parameters()).device
        extractor = WhisperFeatureExtractor(feature_size=model.whisper.config.num_mel_bins)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        for step in range(run.num_steps):
            pace.wait()
            started = time.perf_counter()
            first = step * run.batch_records
            chosen = [parts.samples[(first + i) % len(parts.samples)] for i in range(run.batch_records)]
            waves = [sample.wave for sample in chosen]
            mel = extractor(waves, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_features
            padded = nn.utils.rnn.pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
            lengths = torch.tensor([len(wave) for wave in waves])
            with torch.autocast(device.type, torch.bfloat16, enabled=run.autocast):
                loss = model(mel.to(device), padded.to(device), lengths.to(device), chosen)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            synchronize()
            seconds = time.perf_counter() - started
            pace.done({"kind": "step", "seconds": seconds, "records": run.batch_records, "loss": loss.item()})
