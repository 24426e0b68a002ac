"""How the bundled models come about: tokenizer, pretraining loop, measured build."""
