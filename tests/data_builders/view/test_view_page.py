"""The page in a real browser: it draws, plays, filters, and keys and buttons decide."""

import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from headless import Chromium, browser

from data_builders.view.app import make_app
from data_builders.view.items import load_items
from data_builders.view.review import ReviewFile
from lalm.data.records import read_records, write_records

uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn (pip install 'lalm[view]')")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser() is None, reason="there is no chromium, chromium-browser or google-chrome"),
]
SCRIPT = "<img src=x onerror=\"document.title='taken'\">"


@pytest.fixture
def address(tiny_data):
    """A running page over eight records; one holds markup, one has choices and another task."""
    records = list(read_records(tiny_data / "train.jsonl"))
    turns = ({"role": "user", "content": SCRIPT}, {"role": "assistant", "content": "noise"})
    records[1] = records[1].model_copy(update={"id": SCRIPT, "turns": type(records[1]).model_validate(
        {"id": "x", "turns": turns}).turns})  # fmt: skip
    records[2] = records[2].model_copy(
        update={"task": "choice", "choices": ("a tone", "noise"), "provenance": {"clips": [{"package": "invented"}]}}
    )
    write_records(tiny_data / "train.jsonl", records)
    folder, items = load_items(tiny_data, sample=0, seed=0)
    app = make_app(folder, items, ReviewFile(tiny_data / "review.jsonl"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(timeout=10)


@pytest.fixture
def page(address, tmp_path):
    page = Chromium(tmp_path / "profile")
    page.call("Page.navigate", url=address)
    page.wait("document.getElementById('main')?.dataset.number === '0'")
    yield page
    page.close()


def decisions(folder):
    lines = (folder / "review.jsonl").read_text().splitlines()
    return [(row["id"], row["verdict"], row["note"]) for row in map(json.loads, lines)]


def test_listening_looking_and_deciding(page, tiny_data):
    shown = "document.getElementById('main').dataset.number"
    assert page.run("document.querySelectorAll('#list button').length") == 8
    page.wait("document.querySelector('figure img').naturalWidth === 900")
    page.wait("document.querySelector('audio').duration > 0.3")
    page.press(" ")
    page.wait("document.querySelector('audio').currentTime > 0.05")

    page.press("a")
    page.wait(f"{shown} === '1'")
    assert page.run("document.getElementById('name').textContent") == SCRIPT
    assert page.run("document.title") == "lalm data view"
    page.press("n")
    for letter in "jar":
        page.press(letter)
    page.press("Escape")
    page.press("r")
    page.wait(f"{shown} === '2'")
    page.press("k")
    page.wait(f"{shown} === '1'")
    assert page.run("document.getElementById('note').value") == "jar"
    page.press("j")
    page.wait(f"{shown} === '2'")
    page.wait("document.querySelector('figure img').naturalWidth === 900")
    assert page.run("document.querySelector('.choices .right').textContent") == "a tone"
    assert "invented" in page.run("document.getElementById('provenance').textContent")
    page.screenshot(Path(os.environ.get("LALM_TEST_SCREENSHOT", tiny_data / "page.png")))
    page.click("#reject")
    page.wait(f"{shown} === '3'")
    page.press("k")
    page.wait(f"{shown} === '2'")
    page.press("u")
    page.wait("!document.getElementById('reject').classList.contains('chosen')")
    assert decisions(tiny_data) == [
        ("r0", "accept", ""), (SCRIPT, "reject", "jar"), ("r2", "reject", ""), ("r2", "clear", ""),
    ]  # fmt: skip
    assert page.run("document.getElementById('problem').hidden")


def test_the_list_is_filtered_by_task_and_state(page):
    choose = "(id, value) => { const s = document.getElementById(id); s.value = value; "
    choose += "s.dispatchEvent(new Event('change')); }"
    page.run(f"({choose})('task', 'choice')")
    page.wait("document.querySelectorAll('#list button').length === 1")
    page.run(f"({choose})('task', '')")
    page.wait("document.querySelectorAll('#list button').length === 8")
    page.wait("document.getElementById('main').dataset.number === '0'")
    page.press("r")
    page.wait("document.getElementById('counts').textContent.includes('1 rejected')")
    page.run(f"({choose})('state', 'reject')")
    page.wait("document.querySelectorAll('#list button').length === 1")
    page.wait("document.getElementById('name').textContent === 'r0'")
