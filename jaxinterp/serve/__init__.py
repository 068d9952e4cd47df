"""Floor 9: a model behind the viewer. Traces prompts from the page, and answers as Neuronpedia's graph server does.

Needs the extra ``serve`` (starlette, uvicorn); the viewer itself imports nothing of this.
"""

from jaxinterp.serve.starting import serve_live

__all__ = ["serve_live"]
