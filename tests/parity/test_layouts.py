"""Every layout that a checkpoint may have, against what sentence-transformers makes of the same folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from checkpoints import write_json
from layouts import HIDDEN, MODES, as_transformer, dense, laid, moved, without_modules, written
from messages import naming
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling
from torch import Tensor, nn

import minisbert
from minisbert import MinisbertWarning
from parity.compare import MINILM, TINY, close

TEXTS = [
    "a man is eating food.",
    "the cat sat on the mat, and the dog played with the red meal",
    "run",
    "",
    "A MAN IS RUNS?!",
    "zebra 42 the",
    "the dog plays in the water. " * 9,  # beyond every limit here
]
TANH = "torch.nn.modules.activation.Tanh"


def new(*modes: str, after: Callable[[], Sequence[nn.Module]] = tuple, **options: Any) -> Callable[[Path], None]:
    """A layout of today; its modules are made when it is written, since writing changes them."""
    return lambda folder: written(folder, modes or "mean", after(), **options)


def old(*modes: str, **options: Any) -> Callable[[Path], None]:
    """A layout of former years."""
    return lambda folder: laid(folder, modes or ("mean",), **options)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    **{f"new: {mode}": new(mode) for mode in MODES},
    "new: two modes, in the order of their list": new("mean", "cls"),
    "new: all modes, in another order": new(*reversed(MODES)),
    "new: the same mode twice": new("mean", "mean"),
    "new: normalize": new(after=lambda: [Normalize()]),
    "new: dense": new(after=lambda: [Dense(HIDDEN, 12)]),
    "new: dense after two modes": new("max", "mean", after=lambda: [Dense(2 * HIDDEN, 20, activation_function=nn.ReLU())]),
    "new: dense without bias and activation": new(after=lambda: [Dense(HIDDEN, 12, bias=False, activation_function=None)]),
    "new: dense, wider": new(after=lambda: [Dense(HIDDEN, 50, activation_function=nn.GELU()), Normalize()]),
    "new: three denses": new(after=lambda: [Dense(HIDDEN, 20), Dense(20, 40, activation_function=nn.SiLU()), Dense(40, 8)]),
    "new: dense with residual": new(after=lambda: [Dense(HIDDEN, HIDDEN, use_residual=True)]),
    "new: dense with residual of another width": new(after=lambda: [Dense(HIDDEN, 9, use_residual=True)]),
    "new: layer norm": new("cls", after=lambda: [LayerNorm(HIDDEN)]),
    "new: normalize, layer norm, dense, normalize": new(
        after=lambda: [Normalize(), LayerNorm(HIDDEN), Dense(HIDDEN, 16), Normalize()]
    ),
    "new: dropout": new(after=lambda: [Dropout(0.5), Dense(HIDDEN, 12), Dropout(0.1)]),
    "new: truncated": new(truncate_dim=8),
    "new: normalized, then truncated": new(after=lambda: [Normalize()], truncate_dim=8),
    "new: truncated to more than there is": new(truncate_dim=500),
    "new: a default prompt": new(prompts={"query": "a man ", "mine": "the cat "}, default_prompt_name="mine"),
    "new: a default prompt that is not pooled": new(
        *MODES, prompts={"mine": "the cat sat "}, default_prompt_name="mine", include_prompt=False
    ),
    "old: mean": old(),
    "old: all modes": old(*MODES),
    "old: 2019, in 0_BERT": old(transformer="BERT", root="0_BERT", flags=MODES[:4], pickled=True),
    "old: in 0_Transformer": old("cls", "max", root="0_Transformer", flags=MODES[:4], pickled=True),
    "old: classes by their files": old("max", names="sentence_transformers.models.{0}.{0}", after=[("Normalize", None)]),
    "old: normalize without a folder": old(after=[("Normalize", None)], usage={}),
    "old: dense": old(after=[("Dense", dense(HIDDEN, 12))], usage={}),
    "old: pickled dense, layer norm, normalize": old(
        after=[
            ("Dense", dense(HIDDEN, 12, "torch.nn.modules.linear.Identity", bias=False)),
            ("LayerNorm", {"dimension": 12}),
            ("Normalize", None),
        ],
        pickled=True,
    ),
    "old: lower-casing in front of a cased tokenizer": old(sentence={"do_lower_case": True}, tokenizer={"do_lower_case": False}),
    "old: a cased tokenizer": old(tokenizer={"do_lower_case": False}),
    "old: the limit is the tokenizer's": old(sentence={"max_seq_length": None}, tokenizer={"model_max_length": 9}),
    "old: the limit is the positions": old(sentence={"max_seq_length": None}, tokenizer={}),
    "old: a limit of three tokens": old(sentence={"max_seq_length": 3}),
    "without modules.json": without_modules,
}


class Loaded(NamedTuple):
    """One checkpoint, by either side."""

    folder: Path
    reference: SentenceTransformer
    dtype: torch.dtype

    @property
    def encoder(self) -> minisbert.SentenceEncoder:
        return minisbert.load(self.folder, dtype=self.dtype, device="cpu")

    def theirs(self, *arguments: Any, method: str = "encode", **options: Any) -> Tensor:
        return getattr(self.reference, method)(*arguments, convert_to_tensor=True, show_progress_bar=False, **options)


def reference(folder: Path, dtype: torch.dtype) -> SentenceTransformer:
    """All of it in that precision; loading in it would leave the modules after the pooling in float32."""
    return SentenceTransformer(str(folder), device="cpu").to(dtype)


def check(loaded: Loaded, **options: Any) -> None:
    encoder = loaded.encoder
    ours = encoder.encode(TEXTS, on_truncate="ignore", **options)
    close("vectors", ours, loaded.theirs(TEXTS, **options), TINY[loaded.dtype].vectors)
    assert encoder.dimension == loaded.reference.get_embedding_dimension()
    assert encoder.max_seq_length == loaded.reference.max_seq_length
    assert encoder.similarity_fn_name == loaded.reference.similarity_fn_name
    assert encoder.prompts == loaded.reference.prompts


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A layout's checkpoint, written once for both precisions."""

    @cache
    def make(layout: str) -> Path:
        folder = tmp_path_factory.mktemp("layout") / "checkpoint"
        LAYOUTS[layout](folder)
        return folder

    return make


@pytest.mark.filterwarnings("ignore:.*no such file, so this is a plain BERT")
@pytest.mark.filterwarnings("ignore:.*truncate_dim is 500, but a vector has 32")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_in_this_layout_gives_what_sentence_transformers_gives(
    layout: str, folder_of: Callable[[str], Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = folder_of(layout)
    known = as_transformer(folder, tmp_path / "known") if "0_BERT" in layout else folder
    check(Loaded(folder, reference(known, dtype), dtype))


@pytest.mark.parametrize("normalize", [False, True])
def test_vectors_are_truncated_after_the_modules_and_before_they_are_normalized(
    tmp_path: Path, dtype: torch.dtype, normalize: bool
) -> None:
    written(tmp_path / "one", after=[Dense(HIDDEN, 12), Normalize()], truncate_dim=8)
    loaded = Loaded(tmp_path / "one", reference(tmp_path / "one", dtype), dtype)
    expected = loaded.theirs(TEXTS, truncate_dim=5, normalize_embeddings=normalize)
    options: dict[str, Any] = {"on_truncate": "ignore", "normalize_embeddings": normalize}
    close("vectors", loaded.encoder.encode(TEXTS, truncate_dim=5, **options), expected, TINY[dtype].vectors)
    encoder = minisbert.load(tmp_path / "one", dtype=dtype, device="cpu", truncate_dim=5)
    assert encoder.dimension == 5
    close("loaded so", encoder.encode(TEXTS, **options), expected, TINY[dtype].vectors)


PROMPTS = {"query": "a man is eating ", "passage": "the cat: ", "empty": ""}


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("modes", [(mode,) for mode in MODES] + [MODES], ids="+".join)
def test_prompts_are_put_before_the_text_and_left_out_of_the_pooling_where_the_checkpoint_says_so(
    tmp_path: Path, dtype: torch.dtype, modes: tuple[str, ...], include_prompt: bool
) -> None:
    written(tmp_path / "one", modes, prompts=PROMPTS, include_prompt=include_prompt)
    loaded = Loaded(tmp_path / "one", reference(tmp_path / "one", dtype), dtype)
    encoder = loaded.encoder
    ways: list[tuple[str, dict[str, Any]]] = [
        ("encode", {}),
        ("encode", {"prompt_name": "query"}),
        ("encode", {"prompt_name": "empty"}),
        ("encode", {"prompt": "red blue "}),
        ("encode", {"prompt": ""}),
        ("encode", {"prompt": "the dog plays in the water. " * 9}),  # longer than the limit
        ("encode", {"prompt": "[SEP] zebra"}),
        ("encode_query", {}),
        ("encode_query", {"prompt_name": "passage"}),
        ("encode_document", {"prompt_name": "passage"}),
        ("encode_document", {"prompt": "green "}),
    ]
    for method, options in ways:
        ours = getattr(encoder, method)(TEXTS, on_truncate="ignore", **options)
        close(f"{method} {options}", ours, loaded.theirs(TEXTS, method=method, **options), TINY[dtype].vectors)
    with pytest.warns(MinisbertWarning, match=naming("encode_document", "'passage'", "'document'")):
        ours = encoder.encode_document(TEXTS, on_truncate="ignore")
    close("encode_document", ours, loaded.theirs(TEXTS, method="encode_document"), TINY[dtype].vectors)
    with pytest.warns(MinisbertWarning, match=naming("prompt_name", "'query'")):
        ours = encoder.encode(TEXTS, on_truncate="ignore", prompt="red ", prompt_name="query")
    close("both", ours, loaded.theirs(TEXTS, prompt="red ", prompt_name="query"), TINY[dtype].vectors)


def test_a_document_has_the_first_prompt_that_there_is_when_document_is_deleted(tmp_path: Path) -> None:
    written(tmp_path / "one", prompts={"passage": "the cat: ", "corpus": "blue "})
    loaded = Loaded(tmp_path / "one", reference(tmp_path / "one", torch.float64), torch.float64)
    encoder = loaded.encoder
    for prompts in encoder.prompts, loaded.reference.prompts:
        del prompts["document"]
    ours = encoder.encode_document(TEXTS, on_truncate="ignore")
    close("passage", ours, loaded.theirs(TEXTS, method="encode_document"), 1e-12)
    assert not ours.equal(encoder.encode(TEXTS, on_truncate="ignore", prompt=""))


@pytest.mark.parametrize("layout", ["new", "old"])
def test_the_real_minilm_gives_the_same_bits_in_another_layout(
    layout: str, minilm_folder: Path, tmp_path: Path, sts_sentences: list[str], dtype: torch.dtype
) -> None:
    folder = tmp_path / "relaid"
    if layout == "new":
        SentenceTransformer(str(minilm_folder), device="cpu").save(str(folder), create_model_card=False)
        assert "sentence_transformer.modules.pooling" in (folder / "modules.json").read_text()
    else:
        ignore = shutil.ignore_patterns("modules.json", "1_Pooling", "2_Normalize", "config_sentence_transformers.json")
        shutil.copytree(minilm_folder, folder / "0_Transformer", ignore=ignore)
        shutil.copytree(minilm_folder / "1_Pooling", folder / "1_Pooling")
        paths = {"Transformer": "0_Transformer", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
        rows = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(paths.items())
        ]
        write_json(folder / "modules.json", rows)
    sentences = sts_sentences[:12]
    ours = minisbert.load(folder, dtype=dtype, device="cpu").encode(sentences)
    assert ours.equal(minisbert.load(minilm_folder, dtype=dtype, device="cpu").encode(sentences))
    theirs = Loaded(folder, reference(folder, dtype), dtype).theirs(sentences)
    close("vectors", ours, theirs, MINILM[dtype].vectors)


def test_a_vector_that_went_through_dense_layers_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    """In a product of few rows the bits of a row depend on how many there are."""
    written(tmp_path / "one", after=[Dense(HIDDEN, 100), LayerNorm(100), Dense(100, 50), Normalize()])
    encoder = minisbert.load(tmp_path / "one", device="cpu")
    words = ["man", "food", "cat", "dog", "red", "blue", "meal", "water"]
    texts = [f"the {a} is {b}" for a in words for b in words]
    together = encoder.encode(texts)
    for batch_size in 1, 2, 3, 5, 7, 13, 30:
        assert encoder.encode(texts, batch_size=batch_size).equal(together)
    assert encoder.encode(texts[5]).equal(together[5])


def test_the_modules_are_those_of_sentence_transformers_one_by_one(tmp_path: Path) -> None:
    """Not only the last vector: what comes out of the pooling and of each module."""
    written(tmp_path / "one", ("max", "mean"), [Dense(2 * HIDDEN, 20), LayerNorm(20), Normalize(), Dense(20, 6)])
    encoder, theirs = minisbert.load(tmp_path / "one", dtype=torch.float64), reference(tmp_path / "one", torch.float64)
    moved(encoder.modules[0])  # and it can be told when one differs
    moved(theirs[2].linear)
    torch.manual_seed(0)
    vectors = torch.randn(4, 2 * HIDDEN, dtype=torch.float64)
    features: dict[str, Tensor] = {"sentence_embedding": vectors}
    with torch.no_grad():
        for ours, module in zip(encoder.modules, list(theirs)[2:], strict=True):
            vectors, features = ours(vectors), module(features)
            close(type(ours).__name__, vectors, features["sentence_embedding"], 1e-12)
    assert isinstance(theirs[0], Transformer)
    assert isinstance(theirs[1], Pooling)
