"""Hugging Face encoders and decoders, run over one packed stream of tokens without padding where that is proved exact."""
