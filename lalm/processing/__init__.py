"""From turns and clips to token ids: chat templates, the one assembler of prompts, and the transformers processor."""
