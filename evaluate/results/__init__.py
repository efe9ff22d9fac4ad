"""The results of an evaluation: their schema, aggregates, gates, and the comparison with earlier runs."""
