"""Encodes many texts on all cores, each with the same bits whatever the batch.

    inputs.py         checks the arguments of a caller: texts and options
    batching.py       packs sentences into batches, and decides how many tokens a batch has
    engine.py         tokenizes texts, computes their batches, and writes each vector to its row
    stream.py         windows over any number of texts, the report of truncated texts, the progress bar
    threads.py        worker threads, isolation from the caller's state, safety at forks
    kernels.py        chooses the matrix product of the linear layers on this machine
    graphs.py         runs a layer as one recorded graph, without Python between its operations
    quantization.py   linear layers in int8, on request
    vectors.py        checks vectors that a caller passes
    search.py         finds the nearest rows of a corpus, block by block

It imports bert, pooling and tokenizer. It is imported by checkpoint, util, encoder, tracing, train, corpus, files
and cli.
"""
