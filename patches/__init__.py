"""Codemods that carry a BitTransformerLM tree through the named tasks."""
