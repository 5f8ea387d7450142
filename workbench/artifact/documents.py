"""The two documents of an artifact, recipe.json and ledger.json: every field that loading uses is checked first."""

from workbench.bits import BitLedger
from workbench.errors import ArtifactError
from workbench.json_value import JsonValue, is_file_name, shorten_value
from workbench.quantized import MODEL_REFINEMENT
from workbench.recipe import LayerPlan, Recipe

SAVE_AGAIN_ADVICE = "save the model again"


def check_ledger(value: JsonValue) -> None:
    """ArtifactError for a ledger that lacks something, or has it of another type."""
    value.get("bytes", SAVE_AGAIN_ADVICE).as_whole()
    value.get("header", SAVE_AGAIN_ADVICE).as_text()
    value.get("sha256", SAVE_AGAIN_ADVICE).as_text()
    BitLedger.from_dict(value.get("model", SAVE_AGAIN_ADVICE))
    for layer in value.get("layers", SAVE_AGAIN_ADVICE).values():
        BitLedger.from_dict(layer)
    for digest in value.get("tensors", SAVE_AGAIN_ADVICE).values():
        digest.as_text()
    for name, digest in value.get("files", SAVE_AGAIN_ADVICE).items():
        digest.as_text()
        if not is_file_name(name):
            raise ArtifactError(
                f"{value.document} lists the file {shorten_value(name)}, not a name in its own folder; {SAVE_AGAIN_ADVICE}."
            )


def check_recipe(value: JsonValue, ledger: JsonValue) -> None:
    """ArtifactError for a recipe that lacks something, has it of another type, or has layers or tensors that the ledger lacks."""
    for name in ("source", "fingerprint"):
        value.get(name, SAVE_AGAIN_ADVICE).as_text()
    LayerPlan.from_dict(value.get("plan", SAVE_AGAIN_ADVICE))
    value.get("seconds", SAVE_AGAIN_ADVICE).as_number(0)
    _check_calibration(value.get("calibration", SAVE_AGAIN_ADVICE))
    if (fused := value.find("fused")) is not None and fused.as_object():
        fused.get("seed", SAVE_AGAIN_ADVICE).as_whole()
        fused.get("residual", SAVE_AGAIN_ADVICE).as_truth()
    if (changed := value.find("changed_tensors")) is not None:
        for tensor in changed.elements():
            _check_listed(tensor, tensor.as_text(), ledger.get("tensors"))
    recipes: set[str] = set()
    for name, layer in value.get("layers", SAVE_AGAIN_ADVICE).items():
        _check_listed(layer, name, ledger.get("layers"))
        _check_layer(layer, recipes)


def _check_calibration(value: JsonValue) -> None:
    """How the layers were calibrated; nothing of it need be there."""
    for name in ("tokens", "seed"):
        if (number := value.find(name)) is not None:
            number.as_whole()
    if (unreached := value.find("unreached")) is not None:
        unreached.as_optional(JsonValue.texts)
    check_model_refinement(value)


def check_model_refinement(value: JsonValue) -> None:
    """What the training of the whole model took and gained, where a calibration has it."""
    if (refined := value.find(MODEL_REFINEMENT)) is None:
        return
    refined.get("trains", SAVE_AGAIN_ADVICE).as_text()
    for name in ("steps", "step_tokens", "tokens", "written_tokens"):
        refined.get(name, SAVE_AGAIN_ADVICE).as_whole()
    for name in ("divergence_before", "divergence"):
        refined.get(name, SAVE_AGAIN_ADVICE).as_number()
    if (seconds := refined.find("seconds")) is not None:  # not on a card, which has all times in one place
        seconds.as_number(0)


def _check_layer(value: JsonValue, recipes: set[str]) -> None:
    """One layer; `recipes` are those that are known to be good, since most layers of a model have the same."""
    recipe = value.get("recipe", SAVE_AGAIN_ADVICE)
    if (written := repr(recipe.value)) not in recipes:
        Recipe.from_dict(recipe)
        recipes.add(written)
    value.get("relative_error", SAVE_AGAIN_ADVICE).as_number()
    value.get("output_error", SAVE_AGAIN_ADVICE).as_optional(JsonValue.as_number)
    value.get("seconds", SAVE_AGAIN_ADVICE).as_number(0)
    value.get("packed", SAVE_AGAIN_ADVICE).as_object()  # what formats declare is checked with the tensors
    if (edits := value.find("edits")) is not None:
        edits.texts()


def _check_listed(value: JsonValue, name: str, names: JsonValue) -> None:
    """ArtifactError where the ledger does not list this layer or tensor."""
    if name not in names.as_object():
        raise ArtifactError(f"{value.document} has {name!r}, which {names} does not list; {SAVE_AGAIN_ADVICE}.")
