"""Saved folders in transformers: after `import workbench`, `AutoModelForCausalLM.from_pretrained(folder)` runs on packed layers.

Imported when transformers is, by the hook in `workbench/__init__.py`.
"""

from pathlib import Path

from torch import nn

from workbench.artifact.folder_layout import MODEL, is_artifact
from workbench.artifact.loading import find_layer_shape, read_quantized_model, replace_layers
from workbench.errors import ArtifactError
from workbench.models import plugin
from workbench.models.experts import find_stacks, split_experts


class SavedModel(plugin.PackedQuantizer):
    """The packed layers of a folder that `save` wrote, checked as `load` does."""

    file = MODEL

    def put_layers_in(self, model: nn.Module, folder: Path) -> None:
        """See `PackedQuantizer`; a folder into which only some files were downloaded raises ArtifactError."""
        if not is_artifact(folder):
            raise ArtifactError(f"{folder} holds only some files of a saved model; download all of them and give their folder.")
        split_experts(model, find_stacks(model))
        saved = read_quantized_model(folder, lambda name: _find_saved_shape(model, name)).layers
        names = {name: plugin.find_layer_name(model, name) for name in saved}
        layers = {alias: saved[name].packed for name, alias in names.items() if alias is not None}
        replace_layers(model, layers, "decoded")


def _find_saved_shape(model: nn.Module, name: str) -> tuple[int, int] | None:
    """The shape of a saved layer in the model that is being built, or None for an output head that it does not have."""
    alias = plugin.find_layer_name(model, name)
    return None if alias is None else find_layer_shape(model, alias)


def register() -> None:
    """Let transformers load saved folders."""
    plugin.register(SavedModel)
