"""The live page in a real browser, of a real service whose sensors send; and the spans that it sends meanwhile."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import opened
from otlp import Collector
from sensors import WATCHED
from serving import Serving

from services.predictor.stats import PHASES
from services.telemetry.collector import new_registry
from services.telemetry.endpoint import Endpoint, Health
from services.telemetry.live import Live
from services.telemetry.page import Page

LUMINANCE = "() => getComputedStyle(document.body).backgroundColor"


@pytest.fixture
def url(serving: Serving) -> str:
    return f"http://127.0.0.1:{serving.port()}/"


def stream(page: Any, name: str = "pump-1") -> Any:
    return page.locator(f'article[data-stream="{name}"]')


def drawn(page: Any) -> None:
    """Waits until values, forecasts and bands of a stream stand there as lines."""
    for kind in ("actual", "predicted", "band"):
        found = f'article[data-stream="pump-1"] path.{kind}'
        page.wait_for_function(
            "(found) => (document.querySelector(found)?.getAttribute('d') ?? '').length > 40", arg=found
        )


def brightness(color: str) -> float:
    return sum(map(int, re.findall(r"\d+", color)[:3])) / 765


def test_draws_the_spotlight_and_numbers_move_and_nobody_else_is_asked(browser: Any, url: str) -> None:
    with opened(browser, url) as seen:
        page = seen.page
        drawn(page)
        assert page.title() == "watched · streamrnn"
        assert page.locator("article.stream h3").all_inner_texts() == WATCHED
        assert stream(page).locator("figure").count() == 4  # three targets and the score
        assert "forecast" in stream(page).locator("figcaption").first.inner_text()
        assert "spelled exactly" in stream(page, "not here yet").inner_text()
        page.wait_for_function("() => Number(document.querySelector('#rate').textContent.replace(/\\D/g, '')) > 10")
        page.wait_for_function("() => document.querySelector('#p99').textContent.endsWith('s')")
        assert page.locator("#state").inner_text() == "serving"
        before = page.locator("#readings").inner_text()
        path = stream(page).locator("path.actual").first.get_attribute("d")
        page.wait_for_function("(before) => document.querySelector('#readings').textContent !== before", arg=before)
        assert stream(page).locator("path.actual").first.get_attribute("d") != path
        assert page.locator("#shards tr").first.inner_text().split()[:2] == ["0", "ready"]
        assert all(asked.startswith(url) for asked in seen.asked)
        assert len([asked for asked in seen.asked if "live.json" in asked]) >= 2
        assert seen.complaints == []


def test_its_values_are_there_without_eyes_and_without_a_mouse(browser: Any, url: str) -> None:
    with opened(browser, url) as seen:
        page = seen.page
        drawn(page)
        reached = []
        for _ in range(12):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("() => document.activeElement.id || document.activeElement.tagName"))
        assert reached[0] == "A" and "pause" in reached and reached.count("SUMMARY") >= 2
        page.locator(f"summary:has-text('{WATCHED[0]}')").focus()
        page.keyboard.press("Enter")
        rows = stream(page).locator("tbody tr")
        rows.nth(1).wait_for()
        cells = rows.first.locator("td").all_inner_texts()
        assert len(cells) == 10 and float(cells[0].replace("−", "-")) == pytest.approx(0, abs=1)
        label = stream(page).locator("svg[role=img]").first.get_attribute("aria-label")
        assert re.search(r"of pump-1, last \d+ readings: came .*, forecast .*, band .* to ", label)
        assert page.locator("#said").inner_text() == "serving"
        for landmark in ("header.top", "main", "footer", "nav[aria-label]"):
            assert page.locator(landmark).count() == 1


def test_pause_holds_everything_still_until_it_is_pressed_again(browser: Any, url: str) -> None:
    with opened(browser, url) as seen:
        page = seen.page
        drawn(page)
        page.locator("#pause").focus()
        page.keyboard.press("Space")
        assert page.locator("#pause").get_attribute("aria-pressed") == "true"
        assert page.locator("#said").inner_text() == "paused"
        asked = len(seen.asked)
        still = page.locator("#readings").inner_text()
        page.wait_for_timeout(1500)
        assert (len(seen.asked), page.locator("#readings").inner_text()) == (asked, still)
        page.keyboard.press("Space")
        page.wait_for_function("(still) => document.querySelector('#readings').textContent !== still", arg=still)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_has_no_barrier_that_axe_knows_of(browser: Any, url: str, scheme: str) -> None:
    with opened(browser, url, color_scheme=scheme, reduced_motion="reduce") as seen:
        drawn(seen.page)
        for details in seen.page.locator("summary").all()[:1]:
            details.click()
        assert (brightness(seen.page.evaluate(LUMINANCE)) > 0.5) == (scheme == "light")
        found = Axe().run(seen.page)
        assert found.response["violations"] == [], found.generate_report()
        assert seen.page.evaluate("() => document.getAnimations().length") == 0


def test_fits_a_telephone(browser: Any, url: str) -> None:
    with opened(browser, url, viewport={"width": 360, "height": 740}) as seen:
        drawn(seen.page)
        assert seen.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_says_when_the_server_is_gone_and_goes_on_when_it_is_back(browser: Any, url: str) -> None:
    with opened(browser, url) as seen:
        page = seen.page
        drawn(page)
        page.context.set_offline(True)
        page.wait_for_function("() => document.querySelector('#said').textContent.startsWith('no answer')")
        page.context.set_offline(False)
        page.wait_for_function("() => document.querySelector('#said').textContent === 'serving'")


def test_answers_what_is_new_only_and_the_same_to_everyone(serving: Serving) -> None:
    first = json.loads(serving.get("/live.json")[1])
    assert first["after"] is None and first["spotlight"][0]["count"] >= len(first["spotlight"][0]["at_ms"])
    serving.until(lambda: json.loads(serving.get("/live.json")[1])["mark"] != first["mark"], "a newer document")
    later = json.loads(serving.get(f"/live.json?after={first['mark']}")[1])
    old, new = first["spotlight"][0], later["spotlight"][0]
    assert later["after"] == first["mark"]
    assert len(new["at_ms"]) == new["count"] - old["count"]
    assert json.loads(serving.get("/live.json?after=somebody-elses")[1])["after"] is None
    began_s = time.monotonic()
    marks = {json.loads(serving.get("/live.json")[1])["mark"] for _ in range(20)}
    assert len(marks) <= 2 + (time.monotonic() - began_s), "made once a second, however many ask"


def test_values_are_metrics_of_the_streams_that_were_named_and_of_no_other(serving: Serving) -> None:
    text = serving.until(lambda: (page := serving.get("/metrics")[1]).count("spotlight_lower{") == 6 and page, "bands")
    assert set(re.findall(r'stream="([^"]*)"', text)) == set(WATCHED[:2])
    for name in ("actual", "prediction", "lower", "upper"):
        labels = re.findall(rf"^streamrnn_spotlight_{name}\{{(.*)\}}", text, re.MULTILINE)
        assert len(labels) == 6 and all(re.fullmatch(r'stream="pump-[14]",target="\w+"', one) for one in labels)
    assert len(re.findall(r"^streamrnn_spotlight_score\{", text, re.MULTILINE)) == 2


def test_without_a_spotlight_it_says_how_to_set_one_and_why_nothing_is_served_yet(browser: Any) -> None:
    health = Health(unready=["waiting for the broker and its topics"])
    live = Live("empty", (), lambda: health)
    endpoint = Endpoint(new_registry(), lambda: health, "127.0.0.1", 0, Page(live.document))
    with endpoint, opened(browser, endpoint.url) as seen:
        seen.page.wait_for_selector("#none:visible")
        assert "spotlight: [pump-1, pump-2]" in seen.page.locator("#none").inner_text()
        assert seen.page.locator("#reasons").inner_text() == "waiting for the broker and its topics"
        assert seen.page.locator("#state").inner_text() == "not ready"
        assert Axe().run(seen.page).response["violations"] == []
        assert seen.complaints == []


def test_page_forbids_what_it_does_not_need(serving: Serving) -> None:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{serving.port()}/") as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert "<script>" not in (text := answer.read().decode()) and "style=" not in text


def test_a_service_sends_one_span_an_epoch_and_none_a_reading(serving: Serving, collector: Collector) -> None:
    serving.until(lambda: sum(span.attributes["streamrnn.readings"] for span in collector.spans) > 50, "spans")
    spans = [span for span in collector.spans if span.attributes["streamrnn.readings"]]
    assert collector.paths == {"/v1/traces"}
    assert {span.name for span in spans} == {"epoch"}
    assert {span.resource["service.name"] for span in spans} == {"streamrnn"}
    one = spans[-1].attributes
    assert one["messaging.destination.name"] == "watched.readings"
    assert (one["streamrnn.shard"], one["streamrnn.incarnation"], one["streamrnn.outcome"]) == (0, 0, "kept")
    numbers = [span.attributes["streamrnn.epoch"] for span in spans]
    assert len(set(numbers)) == len(numbers), "one span an epoch"
    assert {f"streamrnn.{phase}_seconds" for phase in PHASES} <= one.keys()
    assert spans[-1].events.keys() == set(PHASES)
    for span in spans:
        took_s = (span.ended_ns - span.began_ns) / 1e9
        phases_s = sum(span.attributes[f"streamrnn.{phase}_seconds"] for phase in PHASES)
        assert 0 < phases_s <= took_s + 0.001
        assert abs(time.time() - span.ended_ns / 1e9) < 600
    ends = [max(span.attributes["streamrnn.position"]) for span in sorted(spans, key=lambda span: span.began_ns)]
    assert ends[-1] > ends[0]
