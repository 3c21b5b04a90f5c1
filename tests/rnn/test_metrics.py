"""rnn.metrics, against scores counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rnn import metrics

NAN = np.nan


def test_unknown_truth_does_not_count_and_silence_is_wrong():
    assert metrics.accuracy(np.array([0, 1, 1, NAN]), np.array([0, 1, NAN, 1])) == pytest.approx(2 / 3)
    assert math.isnan(metrics.accuracy(np.array([1.0]), np.array([NAN])))


def test_f1_of_each_class():
    said, truth = np.array([0, 0, 1, 1, 1, 0]), np.array([0, 1, 1, 1, 0, NAN])
    scores = metrics.f1_of_classes(said, truth, 3)
    assert scores[:2] == pytest.approx([0.5, 2 / 3])  # 1 hit, 1 alarm, 1 miss; 2 hits, 1 alarm, 1 miss
    assert math.isnan(scores[2])
    assert metrics.macro_f1(said, truth, 3) == pytest.approx((0.5 + 2 / 3) / 2)


def test_spans_end_with_their_sequence():
    tags, end = np.array([1, 1, 0, 2, 1, 1, 1]), np.array([0, 0, 0, 0, 0, 1, 1])
    assert metrics.spans(tags, end, 0) == {(0, 0, 2, 1), (0, 3, 4, 2), (0, 4, 6, 1), (1, 6, 7, 1)}


def test_an_entity_is_right_as_a_whole_or_not():
    end = np.array([0, 0, 0, 1])
    truth = np.array([1, 1, 0, 2])
    assert metrics.span_f1(truth, truth, end, 0) == 1.0
    assert metrics.span_f1(np.array([1, 0, 0, 2]), truth, end, 0) == 0.5
    assert math.isnan(metrics.span_f1(np.zeros(4), np.zeros(4), end, 0))


def test_perplexity_of_a_fair_die_is_six():
    assert math.exp(metrics.cross_entropy(np.array([1 / 6, 1 / 6, NAN]))) == pytest.approx(6)
    assert metrics.cross_entropy(np.array([1.0, 0.25])) == pytest.approx(math.log(4) / 2)
    assert metrics.cross_entropy(np.array([0.0])) == math.inf


def test_answers_match_whole():
    assert metrics.exact_match([["a", "b"], ["a"], []], [["a", "b"], ["a", "b"], []]) == pytest.approx(2 / 3)


def test_errors_and_coverage_of_each_target():
    said = np.array([[1, 5], [3, NAN], [2, 5]], np.float32)
    truth = np.array([[2, 5], [1, 4], [NAN, 7]], np.float32)
    assert metrics.mse(said, truth) == pytest.approx([2.5, 2.0])
    assert metrics.mae(said, truth) == pytest.approx([1.5, 1.0])
    assert metrics.coverage(said - 1, said + 1, truth) == pytest.approx([0.5, 0.5])
    assert np.isnan(metrics.mse(said[:1] * NAN, truth[:1])).all()
