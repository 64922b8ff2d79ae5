"""Many texts on all cores, each with the same bits whatever the batch.

    inputs.py      what a caller passes: texts and options, checked
    batching.py    which sentences are computed together: how many tokens a batch has
    engine.py      tokenizes and computes batches, each row into its place
    stream.py      windows over any number of texts; what a caller is told
    threads.py     worker threads, the state of a caller, and processes that fork
    kernels.py     which matrix product this machine gets
    graphs.py      a layer as one recorded call, without Python between its operations
    quantization.py   linear layers in int8, on request
    vectors.py     vectors that a caller passes, checked; search.py: the nearest rows of a corpus, block by block

It imports bert, pooling and tokenizer. It is imported by checkpoint, util, encoder, tracing, train, corpus, files
and commands.
"""
