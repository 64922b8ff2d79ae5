"""Every name of sentence-transformers is here, or an error and minisbert/inference/README.md say what to do instead."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from messages import naming
from sentence_transformers import SentenceTransformer, util

import minisbert
import minisbert.integrations
import minisbert.train
from minisbert import SentenceEncoder
from minisbert.inference.inputs import ATTRIBUTES, OPTIONS
from minisbert.util import semantic_search

README = (Path(__file__).parents[2] / "minisbert/inference/README.md").read_text("utf-8")
SECTION = README.partition("## Coming from sentence-transformers\n")[2].partition("\n#")[0]
NAMED = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", SECTION))))

# Internals of their classes, and the helpers of util that are not about vectors.
INSIDE = {
    *("SUPPORTED_SIMILARITY_FN_NAMES", "default_huggingface_organization", "model_card_data_class", "model_type"),
    *("clear_placement_cache", "is_hpu_graph_enabled", "module_kwargs"),
}
HELPERS = {
    "save_to_hub_args_decorator",
    *("all_gather", "all_gather_padded", "all_gather_with_grad", "get_rank", "get_world_size", "is_dist_initialized"),
    *("get_device_name", "check_package_availability", "check_version_requirements", "is_accelerate_available"),
    *("is_datasets_available", "is_training_available", "is_sentence_transformer_model", "load_dir_path", "load_file_path"),
    *("http_get", "disabled_tqdm", "LoggingHandler", "install_logger", "fullname", "similarity_fct_name"),
    *("check_teacher_targets", "import_from_string", "import_module_class", "disable_datasets_caching", "disable_logging"),
    *("append_to_last_row", "ORIGINAL_TRANSFORMER_MODELS", "batch_to_device", "cat_padded_token_embeddings"),
    *("compute_count_vector", "repad_flattened_features", "select_max_active_dims", "stack_padded_token_embeddings"),
    *("to_scipy_coo", "resolve_ids"),
}


@pytest.fixture
def encoder(tiny_folder: Path) -> SentenceEncoder:
    return minisbert.load(tiny_folder, device="cpu")


def public(thing: Any) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def parameters(function: Any) -> set[str]:
    return inspect.signature(function).parameters.keys() - {"self", "kwargs", "unknown"}


# Complete


def test_every_attribute_of_their_model_is_here_or_in_the_table_and_named_in_the_readme(
    encoder: SentenceEncoder, tiny_folder: Path
) -> None:
    theirs = public(SentenceTransformer(str(tiny_folder), device="cpu")) - public(torch.nn.Module) - INSIDE
    assert len(theirs) > 50
    assert theirs - public(encoder) - ATTRIBUTES.keys() == set()
    assert not ATTRIBUTES.keys() & public(encoder), "advice for what is here"
    assert theirs - {"encode"} <= NAMED
    assert ATTRIBUTES.keys() <= NAMED


@pytest.mark.parametrize(
    ("theirs", "ours", "function"),
    [
        (SentenceTransformer.__init__, minisbert.load, "load"),
        (SentenceTransformer.encode, SentenceEncoder.encode, "encode"),
        (SentenceTransformer.encode, SentenceEncoder.encode_stream, "encode_stream"),
    ],
)
def test_every_option_is_here_or_in_the_table_and_named_in_the_readme(theirs: Any, ours: Any, function: str) -> None:
    first = {"model_name_or_path", "inputs"} - OPTIONS[function].keys()
    only_encode = {"output_value"} if function == "encode_stream" else set()
    taken = parameters(ours)
    if function == "encode_stream":  # which takes those of encode, and says so
        taken = taken | parameters(SentenceEncoder.encode) - {"output_value"}
    assert parameters(theirs) - taken - OPTIONS[function].keys() == first & parameters(theirs) | only_encode
    assert not OPTIONS[function].keys() & taken, "advice for what is here"
    assert parameters(theirs) - {"model_name_or_path"} <= NAMED
    assert OPTIONS[function].keys() <= NAMED


def test_every_function_of_their_util_that_is_about_vectors_is_here_or_named_in_the_readme() -> None:
    about_vectors = {name for name in util.__all__ if not name.startswith("_")} - HELPERS
    module = inspect.getmodule(semantic_search)
    missing = {name for name in about_vectors if not hasattr(module, name)}
    assert about_vectors - missing >= {"cos_sim", "pairwise_dot_score", "community_detection", "paraphrase_mining_embeddings"}
    assert missing <= NAMED
    assert {name for name in about_vectors - missing if not name.startswith("pairwise_")} <= NAMED


def test_the_advice_is_to_take_what_exists(encoder: SentenceEncoder) -> None:
    advice = " ".join([*ATTRIBUTES.values(), *(text for options in OPTIONS.values() for text in options.values()), SECTION])
    paths = re.findall(r"\b((?:encoder|minisbert|torch|numpy|huggingface_hub)(?:\.[a-z_]\w*)+)", advice)
    assert len(set(paths)) > 12
    import huggingface_hub

    roots = {"encoder": encoder, "minisbert": minisbert, "torch": torch, "numpy": np, "huggingface_hub": huggingface_hub}
    for path in set(paths):
        root, *names = path.split(".")
        thing = roots[root]
        for name in names:
            thing = getattr(thing, name)
    for name in re.findall(r"It is called (\w+)", advice):
        assert name in parameters(minisbert.load)


# What is said


@pytest.mark.parametrize("name", ["get_sentence_embedding_dimension", "to", "start_multi_process_pool", "fit", "push_to_hub"])
def test_an_attribute_that_is_not_here_says_what_to_do_instead(encoder: SentenceEncoder, name: str) -> None:
    with pytest.raises(AttributeError, match=f"^'SentenceEncoder' object has no attribute '{name}'. ") as caught:
        getattr(encoder, name)
    assert str(caught.value).endswith(ATTRIBUTES[name])
    assert not hasattr(encoder, name), "so that programs which ask first go another way"


def test_any_other_attribute_is_an_error_as_always_and_one_within_a_property_keeps_its_cause(encoder: SentenceEncoder) -> None:
    with pytest.raises(AttributeError, match=r"^'SentenceEncoder' object has no attribute 'encoding'$"):
        _ = encoder.encoding
    del encoder.bert.embeddings
    with pytest.raises(AttributeError, match="'Bert' object has no attribute 'embeddings'"):
        _ = encoder.device


@pytest.mark.parametrize("option", OPTIONS["encode"])
def test_an_option_that_is_not_here_says_what_to_do_instead(encoder: SentenceEncoder, option: str) -> None:
    said = f"got an unexpected keyword argument {option!r}. {OPTIONS['encode'][option]}"
    for encode in (
        encoder.encode,
        encoder.encode_query,
        encoder.encode_document,
        lambda text, **o: minisbert.encode(text, encoder, **o),
    ):
        with pytest.raises(TypeError, match=re.escape(f"encode() {said}")):
            encode("a man", **{option: None})
    with pytest.raises(TypeError, match=re.escape(f"encode_stream() {said}")):
        encoder.encode_stream(["a man"], **{option: None})


@pytest.mark.parametrize("option", OPTIONS["load"])
def test_an_option_of_loading_that_is_not_here_says_what_to_do_instead_before_anything_is_loaded(option: str) -> None:
    said = f"load() got an unexpected keyword argument {option!r}. {OPTIONS['load'][option]}"
    with pytest.raises(TypeError, match=re.escape(said)):
        minisbert.load("no/such-model", **{option: None})


def test_an_option_that_nobody_has_is_an_error_as_always(encoder: SentenceEncoder) -> None:
    for call in encoder.encode, encoder.encode_stream, minisbert.load:
        with pytest.raises(TypeError, match=r"\(\) got an unexpected keyword argument 'normalize'$"):
            call(["a man"], normalize=True)


# Tensors and arrays

ASKED = [
    ({}, torch.Tensor),
    ({"convert_to_tensor": True}, torch.Tensor),
    ({"convert_to_tensor": True, "convert_to_numpy": True}, torch.Tensor),
    ({"convert_to_tensor": True, "convert_to_numpy": False}, torch.Tensor),
    ({"convert_to_numpy": False}, torch.Tensor),
    ({"convert_to_numpy": True}, np.ndarray),
    ({"convert_to_numpy": True, "convert_to_tensor": False}, np.ndarray),
    ({"convert_to_tensor": False}, np.ndarray),
    ({"convert_to_numpy": None, "convert_to_tensor": None}, torch.Tensor),
]


@pytest.mark.parametrize(("options", "kind"), ASKED, ids=str)
def test_tensors_or_arrays_are_given_as_asked_for(encoder: SentenceEncoder, options: dict[str, Any], kind: type) -> None:
    assert isinstance(encoder.encode("a man", **options), kind)
    assert isinstance(encoder.encode(["a man", "a cat"], **options), kind)
    assert isinstance(encoder.encode([], **options), kind)
    assert isinstance(next(encoder.encode_stream(["a man"], **options)), kind)
    assert isinstance(encoder.encode(["a man"], output_value="token_embeddings", **options)[0], kind)


def test_neither_is_refused(encoder: SentenceEncoder) -> None:
    for call in encoder.encode, encoder.encode_stream:
        with pytest.raises(ValueError, match=naming("convert_to_tensor", False, "convert_to_numpy", "list(vectors)")):
            call(["a man"], convert_to_numpy=False, convert_to_tensor=False)
        with pytest.raises(TypeError, match=naming("convert_to_tensor", "int", True, False)):
            call(["a man"], convert_to_tensor=1)
