"""Class names become embeddings: names, prompts, text encoders, and the LTE pool."""
