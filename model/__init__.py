"""Hosting a generative model: token ids in, token ids out."""
