"""Drift is a number that JSON can express, however good or bad a model is."""

import json
import math

import pytest

from edgepress.quantize.drift import to_decibels


def test_a_tenth_of_the_power_is_ten_decibels():
    assert to_decibels(0.1) == pytest.approx(-10)
    assert to_decibels(2.0) == pytest.approx(3.0103, abs=1e-4)


def test_outputs_without_error_and_outputs_that_are_not_finite_are_the_best_and_the_worst():
    shares = [0.0, 1e-12, 1.0, 1e30, math.nan]
    drifts = [to_decibels(share) for share in shares]
    assert drifts == sorted(drifts)
    assert len(set(drifts)) == len(shares)
    assert to_decibels(math.inf) == drifts[-1]
    assert json.loads(json.dumps(drifts, allow_nan=False)) == drifts
