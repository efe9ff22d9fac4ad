"""Exports pipelines to RKNN: graphs are split into parts, built with rknn-toolkit2, and verified in its simulator."""
