"""What someone who comes from sentence-transformers looks for in vain, and what there is instead.

Nothing is ignored that was asked for, and an error says what to do. README.md has the same names in its section "Coming from
sentence-transformers", with those that mean something else here.
"""

from __future__ import annotations

from collections.abc import Iterable

_ON_LOADING_DEVICE = "The device is chosen on loading: minisbert.load(name, device='cuda'), say."
_ON_LOADING_DTYPE = "The precision is chosen on loading: minisbert.load(name, dtype=torch.float16), say."
_AS_ATTRIBUTE = "It is an attribute of the encoder, to be set after loading."
_BY_THREADS = "encode uses all cores, and many threads can share one encoder; make one encoder for each further device."
_NO_TRAINING = "minisbert does not train; train with sentence-transformers, and load the result here."
_NO_MODULES = "The parts are encoder.tokenizer, encoder.bert, encoder.pooling and encoder.heads."
_NO_ADAPTERS = "Merge the adapter into the weights with peft, save the model, and load the result here."
_NO_MODEL_CARD = "encoder.save writes no README.md, and keeps the one that is there."
_BERT_ONLY = "minisbert computes BERT in PyTorch, from texts, and runs no code that comes with a checkpoint."

_ENCODE = {
    "device": _ON_LOADING_DEVICE,
    "pool": _BY_THREADS,
    "chunk_size": _BY_THREADS,
    "precision": "Vectors are not quantized here; numpy.packbits(vectors > 0, axis=-1) is what 'ubinary' gives.",
    "task": "encode_query and encode_document put the checkpoint's prompts before the texts.",
    "processing_kwargs": "The limit of the tokens can be set: encoder.max_seq_length.",
}
OPTIONS: dict[str, dict[str, str]] = {
    "load": {
        "cache_folder": "It is called cache_dir.",
        "use_auth_token": "It is called token.",
        "prompts": _AS_ATTRIBUTE,
        "default_prompt_name": _AS_ATTRIBUTE,
        "similarity_fn_name": _AS_ATTRIBUTE,
        "model_kwargs": "The precision is an option of its own, such as dtype=torch.float16; there is one kind of attention.",
        "modules": _NO_MODULES,
        "processor_kwargs": "The tokenizer's settings are the checkpoint's; the limit can be set: encoder.max_seq_length.",
        "config_kwargs": "The settings are those of the checkpoint.",
        "trust_remote_code": _BERT_ONLY,
        "backend": _BERT_ONLY,
        "model_card_data": _NO_MODEL_CARD,
    },
    "encode": _ENCODE,
    "encode_stream": _ENCODE,
}
"""Options of sentence-transformers' constructor and `encode` that `load` and `encode` have not."""

_TOGETHER: dict[tuple[str, ...], str] = {
    ("get_embedding_dimension", "get_sentence_embedding_dimension"): "Take encoder.dimension.",
    ("get_max_seq_length",): "Take encoder.max_seq_length.",
    ("tokenize", "preprocess", "get_sentence_features", "processor"): (
        "Take encoder.tokenizer(texts).ids, or encoder.count_tokens(texts)."
    ),
    ("truncate_embeddings", "truncate_sentence_embeddings"): "Pass truncate_dim, or set encoder.truncate_dim.",
    ("set_pooling_include_prompt",): "It is the checkpoint that says so; encoder.pooling.include_prompt can be set.",
    ("save_pretrained",): "Take encoder.save(folder).",
    ("push_to_hub", "save_to_hub"): "Take encoder.save(folder), then huggingface_hub.upload_folder.",
    ("start_multi_process_pool", "stop_multi_process_pool", "encode_multi_process"): _BY_THREADS,
    ("load",): "Take minisbert.load(name).",
    ("to", "cpu", "cuda"): _ON_LOADING_DEVICE,
    ("half", "bfloat16", "float", "double"): _ON_LOADING_DTYPE,
    ("eval",): "Leave it out: an encoder has no dropout, and nothing else to switch off.",
    ("train", "training", "fit", "old_fit", "smart_batching_collate", "gradient_checkpointing_enable"): _NO_TRAINING,
    ("evaluate",): "Take scripts/evaluate_sts.py, or mteb with minisbert.integrations.for_mteb(encoder).",
    ("parameters", "named_parameters", "state_dict"): "Take those of encoder.bert, and of encoder.heads if there are any.",
    ("modules", "children", "forward", "append", "insert", "extend", "pop", "transformers_model", "get_model_kwargs"): _NO_MODULES,
    ("compile",): "There is nothing to compile: encode has its own fast path.",
    (
        *("load_adapter", "add_adapter", "set_adapter", "delete_adapter", "enable_adapters", "disable_adapters", "active_adapter"),
        *("active_adapters", "get_adapter_state_dict", "has_peft_compatible_model", "check_peft_compatible_model", "merge"),
    ): _NO_ADAPTERS,
    ("backend", "get_backend", "modalities", "supports", "is_singular_input", "trust_remote_code"): _BERT_ONLY,
    ("model_card_data",): _NO_MODEL_CARD,
}

ATTRIBUTES = {name: advice for names, advice in _TOGETHER.items() for name in names}
"""Methods and attributes of sentence-transformers' model that `SentenceEncoder` has not."""


def unknown_option(function: str, names: Iterable[str]) -> TypeError:
    """The error for options that a function has not: as Python says it, and for one of sentence-transformers what to do instead.

    >>> print(unknown_option("load", ["cache_folder"]))
    load() got an unexpected keyword argument 'cache_folder'. It is called cache_dir.
    """
    name = next(iter(names))
    advice = OPTIONS[function].get(name)
    return TypeError(f"{function}() got an unexpected keyword argument {name!r}" + (f". {advice}" if advice else ""))
