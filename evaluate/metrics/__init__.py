"""Metrics, one per module. Each module defines `create_metric(settings)`; `registry.load_metrics` finds them."""
