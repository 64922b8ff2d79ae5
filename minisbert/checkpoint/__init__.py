"""From the name of a model to its parts, and back to files.

    hub.py               the name of a model → its files on this machine
    names.py             the names, revisions and tokens that a user may give
    cache.py             the hub's cache
    bundled.py           installed packages that bundle a model
    listing.py           the models that are on this machine
    other_files.py       advice for a checkpoint whose files have other formats
    fields.py            strict json: every error names file, field, found and expected value
    config.py            config.json, the limit in tokens, prompts and similarity function
    modules.py           modules.json, pooling and the post-pooling modules
    families.py          the weight-name mapper: one table for each model family
    tokenizer_files.py   tokenizer.json or vocab.txt, and their settings
    tokenizer_json.py    the parts of a tokenizer.json that are supported
    weights.py           weight files, each tensor checked
    pickle_reader.py     .bin files, without running code from them
    load.py              joins these: the name of a model → a `Checkpoint`
    save.py              a `Checkpoint` → files
    replace.py           replaces an older checkpoint by a new one, and never anything else
    info.py              a `Checkpoint` → all settings in force

It imports bert, pooling, tokenizer and inference (its threads, because a fork waits until weights are read; its int8 layers). It is
imported by encoder, which is built from a `Checkpoint`, and by train, corpus, tracing and cli. It never imports encoder.
"""
