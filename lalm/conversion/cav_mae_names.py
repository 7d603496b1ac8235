"""The audio encoder that LTU and GAMA share: its names in their checkpoints."""

from __future__ import annotations

import re

from lalm.encoders.cav_mae import PREFIXES, PUBLISHED_NAMES, UNREAD_NAMES

OURS = r"audio_tower\.encoders\.0\.model\."
THEIRS, _ = PREFIXES
ENCODER_RENAMES = tuple((OURS + pattern, (THEIRS + theirs,)) for pattern, theirs in PUBLISHED_NAMES)
ENCODER_UNREAD = tuple(re.escape(THEIRS) + pattern for pattern in UNREAD_NAMES)
