"""Models written in the formats of other tools: GGUF, compressed-tensors, GPTQ, plain Hugging Face folders, and their recipes."""

from workbench.exchange.writing.export_model import export
from workbench.exchange.writing.outcome import Export, Outcome
from workbench.exchange.writing.tool_recipes import ToolRecipe, write_recipe

__all__ = ["Export", "Outcome", "ToolRecipe", "export", "write_recipe"]
