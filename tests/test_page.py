"""The page in a real browser: what a person sees, by mouse, keyboard and screen reader."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from serving import serving
from skimage import data

from idetex_edge import Assessor
from idetex_edge.serve.guarded import GuardedAssessor
from idetex_edge.serve.settings import Settings

CHROMIUM = next(
    (found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))),
    None,
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
PATIENCE = 60_000


@pytest.fixture(scope="module")
def server(served_bundle: Path) -> Generator[str]:
    with serving([GuardedAssessor(served_bundle, threads=1)]) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not work for root.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, server: str) -> Generator[Page]:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(server)
    yield page
    page.close()
    assert not [error for error in errors if "status of 422" not in error]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "coffee.png"
    Image.fromarray(data.coffee()).save(path)
    return path


def test_everything_that_the_assessor_says(page: Page, served_bundle: Path, photo: Path) -> None:
    page.get_by_label("choose a file").set_input_files(photo)
    expect(page.get_by_role("status").first).to_have_text("Done.")
    expected = Assessor(served_bundle).assess(photo)
    expect(page.locator("#score")).to_have_text(f"{expected.score:.1f}")
    expect(page.locator("#level")).to_have_text(expected.level)
    found = expected.distortions
    boxes = page.locator("#boxes g")
    expect(boxes).to_have_count(len(found))
    expect(page.locator("#none")).to_be_visible(visible=not found)
    description = page.locator("#description").text_content() or ""
    # The tiny model's words are random: markers are all that is left out.
    assert "<|" not in description
    with page.expect_download() as download:
        page.get_by_role("button", name="Download JSON").click()
    saved = json.loads(download.value.path().read_text())
    assert saved["score"] == expected.score
    assert [d["box"] for d in saved["distortions"]] == [list(d.box or ()) for d in found]
    with page.expect_download() as download:
        page.get_by_role("button", name="Download overlay").click()
    with Image.open(download.value.path()) as overlay:
        assert overlay.size == (600, 400)


def test_boxes_lie_where_they_were_found(page: Page, photo: Path) -> None:
    grounded = {
        "width": 600,
        "height": 400,
        "distortions": [
            {
                "type": "Motion blur",
                "severity": "severe",
                "box": [60, 40, 300, 200],
                "box_1000": [100, 100, 500, 500],
                "confidence": 0.83,
            }
        ],
    }
    page.route(
        "**/v1/ground", lambda route: route.fulfill(json={"model": "x", "results": [grounded]})
    )
    page.get_by_label("choose a file").set_input_files(photo)
    box = page.get_by_role("img", name="Motion blur, severe, 83% sure")
    expect(box).to_be_visible()
    outer, inner = page.locator("#image").bounding_box(), box.locator("rect").bounding_box()
    assert outer is not None
    assert inner is not None
    scale = outer["width"] / 600
    for side, offset, length in (("x", 60, 240), ("y", 40, 160)):
        size = "width" if side == "x" else "height"
        assert inner[side] - outer[side] == pytest.approx(offset * scale, abs=4)
        assert inner[size] == pytest.approx(length * scale, abs=8)
    box.hover()
    expect(page.locator("#tip")).to_have_text("Motion blur, severe, 83% sure")
    expect(page.locator("#found tbody tr")).to_have_class("marked")
    page.mouse.move(0, 0)
    expect(page.locator("#tip")).to_have_text("")
    box.focus()
    expect(page.locator("#tip")).to_have_text("Motion blur, severe, 83% sure")


def test_a_question(page: Page, served_bundle: Path, photo: Path) -> None:
    page.get_by_label("choose a file").set_input_files(photo)
    page.get_by_label("Question", exact=True).fill("Which?")
    page.get_by_label("Answers to choose from").fill("Noise\n\nBlur\n")
    page.get_by_role("button", name="Ask").press("Enter")
    expected = Assessor(served_bundle).ask(photo, "Which?", ["Noise", "Blur"])
    expect(page.locator("#answer p")).to_have_text(f"Answer: {expected.choice}")
    expect(page.locator("#answer tr")).to_have_count(2)


def test_what_is_no_picture(page: Page, photo: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    page.get_by_label("choose a file").set_input_files(text)
    status = page.get_by_role("status").first
    expect(status).to_have_text(re.compile("did not work: .*not a picture"))
    page.get_by_label("choose a file").set_input_files(photo)
    expect(status).to_have_text("Done.")


def test_a_key_is_asked_for(browser: Browser, served_bundle: Path, photo: Path) -> None:
    with serving([GuardedAssessor(served_bundle, threads=1)], Settings(api_key="sesame")) as server:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(server)
        page.get_by_label("choose a file").set_input_files(photo)
        page.get_by_label("API key").fill("sesame")
        page.get_by_label("API key").press("Enter")
        expect(page.get_by_role("status").first).to_have_text("Done.", timeout=PATIENCE)
        page.close()


def test_tab_reaches_everything_in_order(page: Page, photo: Path) -> None:
    page.get_by_label("choose a file").set_input_files(photo)
    expect(page.get_by_role("status").first).to_have_text("Done.")
    boxes = page.locator("#boxes g").count()
    reached: list[str] = []
    page.locator("body").press("Tab")
    for _ in range(6 + boxes):
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        page.keyboard.press("Tab")
    wanted = ["file", *["g"] * boxes, "question", "choices", "BUTTON", "save-json", "save-overlay"]
    assert reached == wanted


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2 of a CSS rgb()."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_and_nothing_is_cut_off(page: Page, photo: Path, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.get_by_label("choose a file").set_input_files(photo)
    expect(page.get_by_role("status").first).to_have_text("Done.")
    for selector in ("#description", ".tip", "#status", "h1", "#model", "th", "label", "button"):
        colours = page.evaluate(
            """selector => {
              const style = getComputedStyle(document.querySelector(selector));
              let behind = document.querySelector(selector);
              while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)")
                behind = behind.parentElement;
              return [style.color, getComputedStyle(behind).backgroundColor];
            }""",
            selector,
        )
        dark, light = sorted(luminance(colour) for colour in colours)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (selector, colours)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(background) < 0.5) == (scheme == "dark")
    for width in (320, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
