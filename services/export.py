"""Export: a checkpoint as a Hugging Face folder that needs nothing of ours to be used.

Weights as safetensors, tokenizer, configuration and a model card that says where it came from and
what it showed. It is loaded and made to write a few tokens before it becomes visible. Conversion to
other formats is left out.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from services.artifacts import new_folder, read_manifest
from services.errors import ArtifactError
from services.prompts import R1_PROMPTING, Prompting, compose, r1_prompt
from services.types import CheckpointRef
from services.versions import require_safetensors

CARD: Final = "README.md"
SMOKE_QUESTION: Final = "What is 2 + 3 ?"
SMOKE_TOKENS: Final = 8
_PARTS: Final = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja"})
"""Weights, configuration, and every form of tokenizer and chat template; no code."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a model card tells beside the checkpoint itself."""

    name: str
    """Name of the model, as a title."""
    pipeline: str
    """Run id."""
    recipe: str
    recipe_digest: str
    base: str
    """The model that the recipe starts from."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What its evaluation showed."""
    protocol: str = ""
    """How it was evaluated, in one sentence."""
    prompting: Prompting = R1_PROMPTING
    """How it was asked in training."""


def export_checkpoint(checkpoint: CheckpointRef, target: Path, about: Provenance) -> Path:
    """Write a checkpoint as a self-contained folder, whole or not at all.

    Args:
        checkpoint: The finished model.
        target: The folder to make; an earlier export there is replaced.
        about: For the model card.

    Returns:
        ``target``.

    Raises:
        ArtifactError: The checkpoint does not work, or ``target`` holds something else.
        RegistryError: The checkpoint holds a pickle or no safetensors.
    """
    source = Path(checkpoint.path)
    require_safetensors(source)
    if target.exists() and read_manifest(target) is None:
        raise ArtifactError(
            f"{target} exists and is no earlier export", "Name a folder that does not exist yet"
        )
    with new_folder(target, {"exported": checkpoint.digest}) as folder:
        for file in sorted(source.iterdir()):
            if file.is_file() and file.suffix in _PARTS:
                shutil.copyfile(file, folder / file.name)
        sample = smoke_test(folder)
        (folder / CARD).write_text(model_card(checkpoint, about, sample), encoding="utf-8")
    return target


def smoke_test(path: Path, question: str = SMOKE_QUESTION) -> str:
    """Load a checkpoint without running code of its own and let it write a few tokens.

    Args:
        path: Folder of the checkpoint.
        question: Asked in the R1-Zero template.

    Returns:
        What it wrote, special tokens included.

    Raises:
        ArtifactError: It cannot be loaded, lacks weights, or computes no finite numbers.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    mend = f"Delete {path} and run the stage that made it again"
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ArtifactError(f"cannot load a model from {path}: {reason}", mend) from error
    model, report = loaded
    if report["missing_keys"]:
        lacking = sorted(report["missing_keys"])[0]
        raise ArtifactError(f"{path} lacks weights, among them {lacking}", mend)
    prompt = tokenizer(r1_prompt(question), return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        if not torch.isfinite(model(**prompt).logits).all():
            raise ArtifactError(f"the model in {path} computes numbers that are not finite", mend)
        tokens = model.generate(**prompt, max_new_tokens=SMOKE_TOKENS, do_sample=False)
    return str(tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :]))


def model_card(checkpoint: CheckpointRef, about: Provenance, sample: str = "") -> str:
    """The README of an exported model, in the hub's form."""
    parents = "".join(f"\n- `{digest}`" for digest in checkpoint.parents) or " none"
    shown = f"\nAsked “{SMOKE_QUESTION}”, it begins:\n\n```text\n{sample}\n```\n" if sample else ""
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [r1flow, reasoning, {checkpoint.stage}]
---

# {about.name}

Stage `{checkpoint.stage}` of recipe `{about.recipe}`, trained by R1flow from `{about.base}` as
DeepSeek-R1 was (arXiv 2501.12948).

| | |
|---|---|
| checkpoint | `{checkpoint.digest}` |
| pipeline | `{about.pipeline}` |
| recipe digest | `{about.recipe_digest}` |

Made from:{parents}

## Evaluation

{_metric_table(about)}
## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(PATH, use_safetensors=True)
tokenizer = AutoTokenizer.from_pretrained(PATH)
```

`PATH` is this folder. There is no MLflow model file in it, so `mlflow.pyfunc.load_model` does not
apply, also where the model comes from a registry: download the folder and load it as above.

The model was trained on this prompt, a question in place of `{{question}}`, and goes on as in
`{compose("…", "…", about.prompting.form)}`:

```text
{about.prompting.prompt("{question}")}
```
{shown}"""


def _metric_table(about: Provenance) -> str:
    if not about.metrics:
        return "It was not evaluated.\n"
    rows = "".join(f"| {name} | {value:.3f} |\n" for name, value in sorted(about.metrics.items()))
    how = f"{about.protocol}\n\n" if about.protocol else ""
    return f"{how}| metric | value |\n|---|---|\n{rows}"
