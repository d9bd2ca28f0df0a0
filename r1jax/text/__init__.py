"""Text: tokenizers, chat templates, the tags of a completion."""
