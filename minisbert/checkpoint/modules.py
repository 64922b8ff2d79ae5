"""Reads `modules.json` and the configuration of each module: pooling, dense layers, layer norms, normalization.

The modules are a Transformer, a Pooling, and then the post-pooling modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, NoReturn

from minisbert.checkpoint.fields import LARGEST_WIDTH, Fields, Find, brief, read_json, unknown
from minisbert.errors import CheckpointError
from minisbert.pooling import ACTIVATIONS, POOLING_MODES, DenseConfig, LayerNormConfig, ModuleConfig, NormalizeConfig, PoolingConfig

MOST_MODULES: Final = 1 << 6

POOLING_FLAGS: Final = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def read_pooling_config(fields: Fields, load_warnings: list[str]) -> PoolingConfig:
    """Reads `1_Pooling/config.json` in both formats: a boolean for each mode, or `pooling_mode` as a text or a list."""
    old, new = "word_embedding_dimension", "embedding_dimension"
    dimension = fields.integer(old if old in fields.values else new, maximum=LARGEST_WIDTH)
    if new in fields.values and fields.integer(new, maximum=LARGEST_WIDTH) != dimension:
        fields.refuse(new, f"{dimension}, as {old} says")
    if "pooling_mode" in fields.values:
        value = fields.values["pooling_mode"]
        named = [value] if isinstance(value, str) else value
        if not isinstance(named, list) or not 1 <= len(named) <= MOST_MODULES or not all(mode in POOLING_MODES for mode in named):
            fields.refuse("pooling_mode", "one of " + ", ".join(POOLING_MODES) + ", or a list of these")
        modes = tuple(named)  # in the order of the list
    else:
        modes = tuple(mode for flag, mode in POOLING_FLAGS.items() if fields.boolean(flag, default=False))
        if not modes and not fields.values.keys() & POOLING_FLAGS.keys():
            modes = PoolingConfig.modes
            load_warnings.append(f"{fields.file}: no pooling mode is given; it is mean, as in sentence-transformers")
        elif not modes:
            raise CheckpointError(
                f"{fields.file}: no pooling mode is switched on, expected at least one of {', '.join(POOLING_FLAGS)}. "
                "Set the one the model was trained with to true (mean_tokens for most)."
            )
    known = {old, new, "pooling_mode", "include_prompt", *POOLING_FLAGS}
    load_warnings.extend(unknown(fields, known))
    return PoolingConfig(dimension, modes, fields.boolean("include_prompt", default=True) is not False)


# The dotted class names in modules.json, and their kinds. They are looked up here and never imported, because a checkpoint must not
# choose what code runs. sentence-transformers has written:
#     sentence_transformers.models.BERT                                         until 0.2.6
#     sentence_transformers.models.Pooling                                      until 5.3
#     sentence_transformers.sentence_transformer.modules.pooling.Pooling        from 5.4 on
# It also reads the class by its file (models.Pooling.Pooling) or by its package (modules.Pooling), as some people write it.
_CLASSES: Final = {
    "transformer": ("Transformer", "base"),
    "pooling": ("Pooling", "sentence_transformer"),
    "dense": ("Dense", "base"),
    "layer_norm": ("LayerNorm", "sentence_transformer"),
    "normalize": ("Normalize", "base"),
    "dropout": ("Dropout", "sentence_transformer"),
}
MODULE_KINDS: Final = {
    "sentence_transformers.models.BERT": "transformer",
    "sentence_transformers.models.BERT.BERT": "transformer",
    "sentence_transformers.sentence_transformer.modules.normalize.Normalize": "normalize",  # 5.4 to 5.x
    **{
        name: kind
        for kind, (cls, package) in _CLASSES.items()
        for name in (
            f"sentence_transformers.models.{cls}",
            f"sentence_transformers.models.{cls}.{cls}",
            f"sentence_transformers.sentence_transformer.modules.{cls}",
            f"sentence_transformers.{package}.modules.{cls}",
            f"sentence_transformers.{package}.modules.{kind}.{cls}",
        )
    },
}

# Modules of sentence-transformers that minisbert does not have, and what they are, for messages.
OTHER_MODULES: Final = {
    "ALBERT": "an ALBERT encoder",
    "Asym": "different layers for queries and documents",
    "BoW": "a bag of words",
    "CLIPModel": "CLIP, for images",
    "CNN": "a convolution over word vectors",
    "CamemBERT": "a CamemBERT encoder",
    "DistilBERT": "a DistilBERT encoder",
    "LSTM": "an LSTM over word vectors",
    "LogitScore": "the score of a cross-encoder",
    "MLMTransformer": "a sparse encoder",
    "MultiVectorMask": "a multi-vector model, which keeps a vector for each token",
    "RoBERTa": "a RoBERTa encoder",
    "Router": "different layers for queries and documents",
    "SparseAutoEncoder": "a sparse encoder",
    "SparseStaticEmbedding": "a sparse encoder",
    "SpladePooling": "a sparse encoder",
    "StaticEmbedding": "word vectors without an encoder",
    "T5": "a T5 encoder",
    "TokenPooling": "a multi-vector model, which keeps a vector for each token",
    "WeightedLayerPooling": "a weighted sum of all layers",
    "WordEmbeddings": "word vectors without an encoder",
    "WordWeights": "weights for words",
    "XLMRoBERTa": "an XLM-RoBERTa encoder",
    "XLNet": "an XLNet encoder",
}


@dataclass(frozen=True)
class Module:
    """One row of modules.json: its kind, its folder inside the checkpoint, and its class name."""

    kind: str
    folder: str
    name: str


def read_modules(find: Find) -> list[Module] | None:
    """Reads `modules.json`, or returns None for a plain BERT repository without this file.

    minisbert runs a transformer, a pooling, and then any number of dense layers, layer norms and normalizations. Dropout has no
    effect outside training, so it is skipped.
    """
    file = "modules.json"
    path = find(file)
    if path is None:
        return None
    rows = read_json(path, file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CheckpointError(f"{file}: found {brief(rows)}, expected a list of modules. Take an unchanged copy of it.")
    if len(rows) > MOST_MODULES:
        raise CheckpointError(
            f"{file}: found {len(rows):,} modules, expected at most {MOST_MODULES}. Take an unchanged copy of it."
        )
    modules = []
    names: set[str] = set()
    for number, row in enumerate(rows):
        fields = Fields(row, f"{file}, module {number}")
        kind = fields.string("type")
        if kind not in MODULE_KINDS:
            _refuse_module(fields, kind)
        name = fields.text("name")
        if name is not None and name in names:
            fields.refuse("name", "a name that no other module has")
        names.add(name or "")
        modules.append(Module(MODULE_KINDS[kind], _folder(fields), kind))
    modules = [module for module in modules if module.kind != "dropout"]
    kinds = [module.kind for module in modules]
    if kinds[:2] != ["transformer", "pooling"] or {"transformer", "pooling"} & set(kinds[2:]):
        raise CheckpointError(
            f"{file}: found the chain {' → '.join(kinds) or 'of no modules'}, expected transformer → pooling, and then only dense, "
            "layer_norm and normalize. Load this checkpoint with sentence-transformers."
        )
    return modules


def _refuse_module(fields: Fields, kind: str) -> NoReturn:
    known = OTHER_MODULES.get(kind.rpartition(".")[2]) if kind.startswith("sentence_transformers.") else None
    fields.refuse(
        "type",
        "a Transformer, Pooling, Dense, LayerNorm, Normalize or Dropout of sentence_transformers",
        (f"This is {known}; " if known else "") + "minisbert does not run this module, and no code is ever imported by name; "
        "load this checkpoint with sentence-transformers.",
    )


def _folder(fields: Fields) -> str:
    """The folder of a module, which must lie inside the checkpoint."""
    text = fields.string("path")
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or any(character in text for character in "\\:\0"):
        fields.refuse(
            "path", "a folder inside the checkpoint", "It asks for files outside of its folder: do not load this checkpoint."
        )
    return "/".join(path.parts)


_DENSE_NAMES: Final = {
    f"{package}.{name}": name
    for name in ACTIVATIONS
    for package in (
        "torch.nn",
        "torch.nn.modules",
        "torch.nn.modules.linear" if name == "Identity" else "torch.nn.modules.activation",
    )
}


def read_module(module: Module, fields: Fields, dimension: int, load_warnings: list[str]) -> ModuleConfig:
    """Reads a post-pooling module from its row in modules.json and its config.json; `dimension` is that of its input."""
    why = "minisbert has only the sentence vector there. Load this checkpoint with sentence-transformers."
    for name in "module_input_name", "module_output_name", "key_name":  # sentence-transformers wrote key_name, and never read it
        if fields.values.get(name) is not None:
            fields.must_be(name, "sentence_embedding", why)
    known = {"module_input_name", "module_output_name", "key_name"}
    if module.kind == "normalize":
        load_warnings.extend(unknown(fields, known))
        return NormalizeConfig()

    size = "dimension" if module.kind == "layer_norm" else "in_features"
    if fields.integer(size, maximum=LARGEST_WIDTH) != dimension:
        fields.refuse(
            size,
            f"{dimension}, the dimension of the vector that the module before it gives",
            "The two modules are of different models; take an unchanged copy.",
        )
    if module.kind == "layer_norm":
        load_warnings.extend(unknown(fields, known | {size}))
        return LayerNormConfig(module.folder, dimension)

    name = fields.string("activation_function", default="torch.nn.modules.activation.Tanh")
    if name not in _DENSE_NAMES:
        fields.refuse(
            "activation_function",
            "a class of torch.nn: one of " + ", ".join(ACTIVATIONS),
            "It is looked up in a table, and no code is ever imported by name; load this checkpoint with sentence-transformers.",
        )
    load_warnings.extend(unknown(fields, known | {size, "out_features", "bias", "activation_function", "use_residual"}))
    return DenseConfig(
        folder=module.folder,
        in_features=dimension,
        out_features=fields.integer("out_features", maximum=LARGEST_WIDTH),
        bias=fields.boolean("bias", default=True) is not False,
        activation=_DENSE_NAMES[name],
        residual=bool(fields.boolean("use_residual", default=False)),
    )


def describe_module(module: ModuleConfig) -> str:
    """A post-pooling module in a few words."""
    if isinstance(module, DenseConfig):
        parts = ("" if module.bias else ", no bias") + (", residual" if module.residual else "")
        return f"{module.in_features} → {module.out_features}, {module.activation}{parts}"
    return f"{module.dimension}" if isinstance(module, LayerNormConfig) else "length 1"
