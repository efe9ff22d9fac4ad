"""Code that runs in the environments of peers: it must not import edgepress, and only PEER.py imports a peer.

`python -m workers PEER JOB` calls what each `workers/PEER.py` defines:

    PACKAGE                          the distribution whose version is shown in the table
    quantize(pipeline, job) -> Any   quantizes the job's layers as users of the peer do; this is timed
    read(pipeline, job, state)       yields each layer's name with its dequantized weight and stored bits
"""
