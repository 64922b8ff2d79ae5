"""From the name of a model to its parts, and back to files.

    hub.py               a name → its files on this machine; cache.py: the hub's cache; bundled.py: packages that bundle a model
    listing.py           the models that are on this machine
    other_files.py       what a checkpoint has in place of what is read here
    fields.py            strict json: every complaint names file, field, found and expected
    config.py            config.json, the limit in tokens, how the vectors are meant to be used
    modules.py           modules.json, pooling and the post-pooling modules
    families.py          the families: a row each, with the names of their weights and settings
    tokenizer_files.py   tokenizer.json or vocab.txt, and the settings beside them; tokenizer_json.py: what it may hold
    weights.py           weight files, each tensor checked; pickle_reader.py: .bin files, without running them
    load.py              all of it → a `Checkpoint`
    save.py, info.py     a `Checkpoint` → files, or a table of what is in force; replace.py: only a checkpoint is ever replaced

It imports bert, pooling, tokenizer and the threads of inference. It is imported by encoder, which is built from a `Checkpoint`, by
train, corpus, tracing, cli and commands; nothing here knows the encoder.
"""
