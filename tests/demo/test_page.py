"""The page in headless Chromium: an upload, a click, an audible result, a download; nothing from elsewhere."""

import io
import json
import shutil
import socket
import urllib.parse
import urllib.request

import numpy as np
import pytest
import soundfile

from valle_jax.audio import write_audio
from valle_jax.inference.request import Options
from valle_jax.inference.takes import SILENCE

pytest.importorskip("gradio", reason="gradio is not installed (the extra `demo`)")
pytest.importorskip("selenium", reason="selenium is not installed (the extra `test`)")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from valle_jax.demo.page import Page
from valle_jax.demo.speaking import recorded_voice

SECONDS = 120  # to wait for: two cores that compile
FLAGS = [
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "no-proxy-server",
    "window-size=1240,900",
]


@pytest.fixture(scope="module")
def url(tts, tmp_path_factory):
    """Where the page is served."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    voices = str(tmp_path_factory.mktemp("voices"))
    page = Page(tts, Options(), voices=voices, recogniser="pocketsphinx", most_takes=3)
    yield page.launch("127.0.0.1", port)
    page.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, which logs what it fetches and downloads into `browser.downloads`."""
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not chromium or not driver:
        pytest.skip("there is no Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    started.downloads = tmp_path_factory.mktemp("downloads")
    started.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(started.downloads)}
    )
    yield started
    started.quit()


def _wait(browser, condition):
    """What the condition of the browser gives as soon as that is something."""
    return WebDriverWait(browser, SECONDS).until(condition)


def _find(browser, selector: str):
    """The first element, as soon as it is there."""
    return _wait(browser, lambda b: b.find_elements(By.CSS_SELECTOR, selector))[0]


def _fetched(browser) -> set[str]:
    """Hosts that the page asked for anything so far."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return {part.netloc for part in map(urllib.parse.urlsplit, urls) if part.scheme in ("http", "https", "ws", "wss")}


def test_a_click_speaks_in_the_voice_that_was_uploaded(url, browser, tts, tmp_path):
    write_audio(tmp_path / "voice.wav", 0.3 * np.sin(np.arange(48000) * 0.05), 48000)
    browser.get(url)
    _find(browser, "#text textarea").send_keys("three")
    _find(browser, "#speak").click()
    _wait(browser, lambda b: "record a voice" in _find(b, ".toast-body").text)  # a mistake in one line

    _find(browser, "#prompt input[type=file]").send_keys(str(tmp_path / "voice.wav"))
    _find(browser, "#prompt audio, #prompt #waveform")
    _find(browser, "#transcript textarea, #transcript input").send_keys("one two")
    _find(browser, "#speak").click()
    source = _find(browser, "#take-0 audio[src]").get_attribute("src")
    assert _find(browser, "#take-1 audio[src]").get_attribute("src") != source
    assert not browser.find_elements(By.CSS_SELECTOR, "#take-2")  # two are asked for

    with urllib.request.urlopen(source) as answer:
        audio = answer.read()
    samples, rate = soundfile.read(io.BytesIO(audio))
    assert rate == tts.codec.info.sample_rate and np.abs(samples).max() > SILENCE
    voice = recorded_voice(tts, tmp_path / "voice.wav", "one two")
    said = tts.synthesize("three", prompt=voice, options=Options(tries=1))
    np.testing.assert_allclose(samples, said.samples, atol=2 / 32768)  # 16 bits
    duration = "return document.querySelector('#take-0 audio').duration"
    assert _wait(browser, lambda b: b.execute_script(duration)) == pytest.approx(len(samples) / rate, abs=0.01)

    assert "problems" in _find(browser, "#table").text
    assert _find(browser, "#take-0 img").size["width"] > 200
    _find(browser, "#take-0 a[download$='.wav']").click()
    (file,) = _wait(browser, lambda b: list(b.downloads.glob("*.wav")))
    assert file.read_bytes() == audio
    assert _fetched(browser) == {urllib.parse.urlsplit(url).netloc}
