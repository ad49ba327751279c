"""The vLLM engine in a process of its own, and what keeps it running. Only that process imports vllm."""
