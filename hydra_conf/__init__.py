"""The configuration groups of twinkle, in YAML; their types are the dataclasses of ``twinkle.config``."""
