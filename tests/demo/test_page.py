"""`valle demo` in headless Chromium: an upload, a click, an audible result, a download; nothing from elsewhere."""

import io
import json
import shutil
import socket
import subprocess
import sys
import urllib.parse
import urllib.request

import numpy as np
import pytest
import soundfile

from valle_jax.audio import write_audio
from valle_jax.cli import main
from valle_jax.inference.request import Options
from valle_jax.inference.sampling import Sampling
from valle_jax.inference.takes import SILENCE
from valle_jax.inference.voice import find_voice
from valle_jax.inference.voice_command import Add

pytest.importorskip("gradio", reason="gradio is not installed (the extra `demo`)")
pytest.importorskip("selenium", reason="selenium is not installed (the extra `test`)")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

SECONDS = 180  # to wait for: two cores that compile
# No two alike and none as it comes, so that the page cannot exchange them.
OPTIONS = Options(
    Sampling(temperature=0.9, top_k=40, top_p=0.83, min_p=0.01, repetition_window=4, guidance=2.0),
    tries=1,
    nar_temperature=0.5,
    nar_guidance=1.5,
)
SETTINGS = """--temperature 0.9 --top-k 40 --top-p 0.83 --min-p 0.01 --repetition-window 4 --guidance 2
    --nar-temperature 0.5 --nar-guidance 1.5"""
FLAGS = [
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "disable-dev-shm-usage",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "no-proxy-server",
    "window-size=1240,900",
    "use-fake-ui-for-media-stream",
    "use-fake-device-for-media-stream",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, which logs what it fetches, downloads into `browser.downloads`, and whose microphone hears nothing."""
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not chromium or not driver:
        pytest.skip("there is no Chromium: apt-get install chromium chromium-driver")
    folder = tmp_path_factory.mktemp("browser")
    write_audio(folder / "room.wav", np.zeros(48000), 48000)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS, f"user-data-dir={folder}/profile", f"use-file-for-fake-audio-capture={folder}/room.wav"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    started.downloads = tmp_path_factory.mktemp("downloads")
    settings = {"behavior": "allow", "downloadPath": str(started.downloads)}
    started.execute_cdp_cmd("Browser.setDownloadBehavior", settings)
    yield started
    started.quit()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A second of a tone, not at the codec's rate."""
    path = tmp_path_factory.mktemp("recording") / "tone.wav"
    write_audio(path, 0.3 * np.sin(np.arange(48000) * 0.05), 48000)
    return str(path)


@pytest.fixture(scope="module")
def voices(recording, tmp_path_factory):
    """A folder with the voice anna."""
    folder = str(tmp_path_factory.mktemp("voices"))
    Add("anna", recording, text="one two", voices=folder).run()
    return folder


@pytest.fixture(scope="module")
def url(browser, model_dir, voices):
    """Where `valle demo` serves; at the end it is terminated."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "valle_jax.cli", "demo", "--model", model_dir, "--port", port, "--voices", voices]
    with subprocess.Popen([*command, *SETTINGS.split()], stdout=subprocess.PIPE, text=True) as server:
        yield server.stdout.readline().strip()
        server.terminate()  # SIGINT is ignored by what a shell starts in the background
        assert server.wait(60) == 0


def _wait(browser, condition):
    """What the condition of the browser gives as soon as that is something."""
    return WebDriverWait(browser, SECONDS).until(condition)


def _find(browser, selector: str):
    """The first element, as soon as it is there."""
    return _wait(browser, lambda b: b.find_elements(By.CSS_SELECTOR, selector))[0]


def _complaint(browser, words: str) -> bool:
    """Waits for a message with these words."""
    return _wait(browser, lambda b: any(words in e.text for e in b.find_elements(By.CSS_SELECTOR, ".toast-body")))


def _heard(browser, name: str) -> tuple[bytes, np.ndarray]:
    """The file that the first take's player plays, when it has that name; and its samples."""
    source = _find(browser, f"#take-0 audio[src$='{name}']").get_attribute("src")
    with urllib.request.urlopen(source) as answer:
        file = answer.read()
    return file, soundfile.read(io.BytesIO(file))[0]


def test_a_click_speaks_in_the_voice_that_was_uploaded(browser, url, recording, voices, tts):
    browser.get(url)
    _find(browser, "#text textarea").send_keys("three")
    _find(browser, "#speak").click()
    assert _complaint(browser, "record a voice")

    _find(browser, "#prompt input[type=file]").send_keys(recording)
    _find(browser, "#prompt #waveform")
    _find(browser, "#transcript textarea, #transcript input").send_keys("one two")
    _find(browser, "#speak").click()
    file, samples = _heard(browser, "seed0-take0.wav")
    assert np.abs(samples).max() > SILENCE
    said = tts.synthesize("three", prompt=recording, prompt_text="one two", options=OPTIONS)
    np.testing.assert_allclose(samples, said.samples, atol=2 / 32768)  # 16 bits
    duration = "return document.querySelector('#take-0 audio').duration"  # as the browser decodes it
    assert _wait(browser, lambda b: b.execute_script(duration)) == pytest.approx(said.info["seconds"], abs=0.01)
    assert _find(browser, "#take-1 audio[src]") and not browser.find_elements(By.CSS_SELECTOR, "#take-2")
    assert _find(browser, "#take-0 img").size["width"] > 200
    assert f"{said.info['log_probability']:.3f}" in _find(browser, "#table").text

    _find(browser, "#take-0 a[download$='.wav']").click()
    (download,) = _wait(browser, lambda b: list(b.downloads.glob("*.wav")))
    assert download.read_bytes() == file


def test_a_stored_voice_and_another_seed(browser, url, voices, tts):
    _find(browser, "#voice input").click()
    _wait(browser, lambda b: [e for e in b.find_elements(By.CSS_SELECTOR, "[role=option]") if "anna" in e.text])[
        0
    ].click()
    _find(browser, "#seed input").send_keys(Keys.BACKSPACE, "1", Keys.TAB)
    _find(browser, "#speak").click()
    _, samples = _heard(browser, "seed1-take0.wav")
    said = tts.synthesize("three", prompt=find_voice("anna", voices), seed=1, options=OPTIONS)
    np.testing.assert_allclose(samples, said.samples, atol=2 / 32768)


def test_a_recording_from_the_microphone_is_heard(browser, url):
    browser.get(url)
    _find(browser, "#text textarea").send_keys("three")
    _find(browser, "#prompt button[aria-label='Record audio']").click()
    _find(browser, "#prompt .record-button").click()
    _wait(browser, lambda b: _find(b, "#prompt .duration").text >= "0:01")
    _find(browser, "#prompt .stop-button").click()
    _find(browser, "#prompt .play-pause-button")
    _find(browser, "#speak").click()
    assert _complaint(browser, "hears no words")


def test_nothing_is_fetched_from_elsewhere(browser, url):
    browser.get(url)
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    hosts = {part.netloc for part in map(urllib.parse.urlsplit, urls) if part.scheme.startswith(("http", "ws"))}
    assert hosts == {urllib.parse.urlsplit(url).netloc}


def test_a_port_that_is_taken_is_one_line(url, model_dir, capsys):
    port = str(urllib.parse.urlsplit(url).port)
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--model", str(model_dir), "--port", port])
    assert stop.value.code == 2
    assert "--port names another one" in capsys.readouterr().err
