"""The Transformer: model, tokenizer, sampling, search, checkpoints, engine. No training, no UI."""
