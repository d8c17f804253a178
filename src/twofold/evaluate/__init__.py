"""Measuring a system: whole-corpus retrieval, reranking, the oracle ceiling, paired tests, and comparing two results."""
