"""What transformers calls the keys and values of earlier positions, in arguments and outputs: `cache` from 5.24 on."""

from __future__ import annotations

from dataclasses import fields

from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE = "cache" if any(field.name == "cache" for field in fields(CausalLMOutputWithPast)) else "past_key_values"
"""The name in the version that is installed."""
