"""A model behind HTTP: the engine with a queue before it, and an interface like OpenAI's. Needs the extra `serve`."""
