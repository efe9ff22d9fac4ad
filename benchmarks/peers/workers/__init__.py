"""What runs in the peers' own environments: nothing here may import edgepress, and only PEER.py imports a peer.

`python -m workers PEER JOB` calls what each `workers/PEER.py` defines:

    PACKAGE                          the distribution whose version stands in the table
    quantize(pipeline, job) -> Any   quantizes the job's layers, as the peer's users do; this is what is timed
    read(pipeline, job, found)       each layer's name with the weight that its codes stand for, and the bits it takes
"""
