"""Named priors: the list, downloads from a server on loopback that misbehaves, hashes, the command."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import os
import re
import socket
import sys
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import adm
import pytest
import torch
from diffusers import DDPMScheduler
from test_checkpoint import Trap, unet

import restore
from restore import zoo
from restore.cli import main
from restore.quality import QualityWarning
from restore.zoo import cache, download
from restore.zoo.catalogue import Entry, File
from restore.zoo.command import readable

BODY = bytes(range(256)) * 4000  # a million bytes
SHA = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files`` by path with ETags and ranges; ``plan`` says how the next answers go wrong."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/file.pt": BODY}
        self.ranges, self.etag, self.plan, self.seen, self.redirects = True, '"one"', [], [], {}
        self.etags, self.extra, self.sent, self.stalled = {}, {}, 0, threading.Event()

    def handle_error(self, *args):
        """Clients hang up here on purpose."""

    def url(self, path="/file.pt"):
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        server = self.server
        server.seen.append((self.command, self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        fault = server.plan.pop(0) if server.plan else None
        if isinstance(fault, int) and fault >= 400:
            return self.send_error(fault)
        if self.path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[self.path])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if self.path not in server.files:
            return self.send_error(404)
        content, start, etag = server.files[self.path], 0, server.etags.get(self.path, server.etag)
        wanted = self.headers.get("Range")
        if server.ranges and wanted and self.headers.get("If-Range") in (None, etag):
            start = int(re.fullmatch(r"bytes=(\d+)-.*", wanted)[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if fault != "no length":
            self.send_header("Content-Length", "many" if fault == "odd length" else str(len(content) - start))
        if fault == "more":  # Chunks go on as long as they like, whatever else was said.
            self.send_header("Transfer-Encoding", "chunked")
        if etag:
            self.send_header("ETag", etag)
        for name, value in server.extra.items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return None
        if fault == "more":
            for _ in range(100):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
                server.sent += len(content)
            return None
        if isinstance(fault, tuple) and fault[0] == "stall":
            self.wfile.write(content[start : start + fault[1]])
            self.wfile.flush()
            server.stalled.wait(20)
            return None
        end = (
            start + fault[1] if isinstance(fault, tuple) else len(content)
        )  # ("cut", bytes): then the line is dead
        self.wfile.write(content[start:end])
        self.close_connection = True
        return None


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of our own, and an empty cache of the hub."""
    import huggingface_hub.constants

    monkeypatch.setenv("RESTORE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home"


def get(server, folder, sha256=SHA, path="/file.pt"):
    return download.download(server.url(path), folder / "file.pt", sha256=sha256, progress=False, pause=0.001)


def leftovers(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


# ------------------------------------------------------------------------------------------- the list


def test_names_are_unique_and_hashes_are_hashes():
    names = [entry.name for entry in zoo.entries()]
    assert len(names) == len(set(names)) == 10
    for entry in zoo.entries():
        for file in entry.files:
            assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256), (entry.name, file.name)
            assert file.url is None or file.url.startswith("https://")
        assert (entry.repo is None) == (entry.revision is None)
        assert entry.revision is None or re.fullmatch(r"[0-9a-f]{40}", entry.revision)
        assert all(getattr(entry, f) for f in ("description", "trained_on", "domain", "licence", "source"))
    # No two files that lie in one folder have the same name.
    plain = [file.name for entry in zoo.entries() if entry.repo is None for file in entry.files]
    assert len(plain) == len(set(plain))


@pytest.mark.parametrize("name", ["photo", "colours"])
def test_the_entries_of_the_package_say_what_is_in_the_package(name):
    entry, prior = zoo.find(name), restore.load_prior(name)
    assert entry.parameters == sum(p.numel() for p in prior.network.parameters())
    assert entry.value_range == prior.value_range
    assert entry.size == (zoo.path(name) / "model.safetensors").stat().st_size
    assert zoo.fetch(name) == zoo.checked(name) == zoo.path(name)


def test_the_numbers_of_parameters_are_those_of_the_architectures():
    from diffusers import UNet2DModel

    def count(channels, attention):
        down = ["AttnDownBlock2D" if i == attention else "DownBlock2D" for i in range(len(channels))]
        up = ["AttnUpBlock2D" if i == attention else "UpBlock2D" for i in reversed(range(len(channels)))]
        with torch.device("meta"):
            network = UNet2DModel(
                block_out_channels=channels,
                down_block_types=down,
                up_block_types=up,
                attention_head_dim=None,
            )
        return sum(p.numel() for p in network.parameters())

    assert zoo.find("google/ddpm-cat-256").parameters == count((128, 128, 256, 256, 512, 512), 4)
    assert zoo.find("google/ddpm-cifar10-32").parameters == count((128, 256, 256, 256), 1)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("google/ddpm-cats-256", "'google/ddpm-cat-256'"),
        ("ddpm-church-256", "'google/ddpm-church-256'"),
        ("imagnet-256", "'imagenet-256'"),
        ("?", "photo, colours, google"),
    ],
)
def test_an_unknown_name_is_answered_with_similar_ones(wrong, meant):
    with pytest.raises(ValueError, match="restore zoo") as raised:
        zoo.find(wrong)
    assert meant in str(raised.value)


def test_the_folder_is_the_ecosystems_unless_told_otherwise(monkeypatch, tmp_path):
    assert zoo.home() == tmp_path / "home"
    monkeypatch.delenv("RESTORE_HOME")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert zoo.home() == tmp_path / "torch" / "hub" / "checkpoints"


# ------------------------------------------------------------------------------------------- downloads


def test_a_file_arrives_whole_and_alone(server, folder):
    assert get(server, folder) == SHA
    assert (folder / "file.pt").read_bytes() == BODY
    assert leftovers(folder) == ["file.pt"]
    assert get(server, folder, None) == SHA
    assert len(server.seen) == 1, "it was there"


def test_progress_is_shown_on_a_terminal_alone(server, folder, capsys, monkeypatch):
    for name, terminal in (("pipe.pt", False), ("screen.pt", True)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        download.download(server.url(), folder / name, sha256=SHA)
    shown = capsys.readouterr().err
    assert "pipe.pt" not in shown
    assert re.search(r"screen.pt: 100%.*1.02M/1.02M", shown)


def test_a_broken_download_goes_on_where_it_broke_off(server, folder):
    server.plan = [("cut", 300_000), ("cut", 300_000)]
    assert get(server, folder) == SHA
    assert [request[2:] for request in server.seen] == [
        (None, None),
        ("bytes=300000-", '"one"'),
        ("bytes=600000-", '"one"'),
    ]


def test_a_server_that_breaks_off_often_still_gets_there(server, folder):
    server.plan = [("cut", 100_000)] * 10
    assert get(server, folder) == SHA
    assert len(server.seen) == 11


def test_a_later_process_goes_on_too(server, folder):
    server.plan = [("cut", 400_000), *[503] * download.ATTEMPTS]
    with pytest.raises(OSError, match=r"503.*goes on from there"):
        get(server, folder)
    assert (folder / "file.pt.part").stat().st_size == 400_000
    assert get(server, folder) == SHA
    assert server.seen[-1][2:] == ("bytes=400000-", '"one"')


def test_versions_are_not_glued_together(server, folder):
    server.plan = [("cut", 400_000), *[503] * download.ATTEMPTS]
    with pytest.raises(OSError):
        get(server, folder)
    new = BODY[::-1]
    server.files["/file.pt"], server.etag = new, '"two"'
    assert get(server, folder, None) == hashlib.sha256(new).hexdigest()
    assert (folder / "file.pt").read_bytes() == new


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_what_has_no_exact_version_starts_over(server, folder, etag):
    server.etag, server.plan = etag, [("cut", 400_000)]
    assert get(server, folder) == SHA
    assert [request[2] for request in server.seen] == [None, None]


def test_a_server_that_ignores_ranges_starts_over(server, folder):
    server.ranges, server.plan = False, [("cut", 400_000)]
    assert get(server, folder) == SHA
    assert server.seen[1][2] == "bytes=400000-"


def test_a_truncated_file_is_never_moved_to_its_place(server, folder):
    server.ranges, server.plan = False, [("cut", 999_999)] * 20
    with pytest.raises(OSError, match=r"lost after 999,999 of 1,024,000 bytes"):
        get(server, folder, None)
    assert not (folder / "file.pt").exists()
    assert len(server.seen) == download.ATTEMPTS


def test_a_part_that_is_already_whole_is_not_fetched_again(server, folder):
    server.plan = [("cut", 400_000), *[503] * download.ATTEMPTS]
    with pytest.raises(OSError):
        get(server, folder)
    (folder / "file.pt.part").write_bytes(BODY)
    assert get(server, folder) == SHA
    # One that is too long is of another file.
    (folder / "file.pt").rename(folder / "file.pt.part")
    with (folder / "file.pt.part").open("ab") as file:
        file.write(b"more")
    (folder / "file.pt.part.json").write_text(json.dumps({"url": server.url(), "etag": '"one"'}))
    assert get(server, folder) == SHA


@pytest.mark.parametrize("fault", ["no length", "odd length"])
def test_a_file_of_unknown_length_is_refused(server, folder, fault):
    server.plan = [fault]
    with pytest.raises(OSError, match="does not say how long"):
        get(server, folder)


def test_a_wrong_hash_deletes_the_file_and_says_so(server, folder):
    with pytest.raises(ValueError, match=f"{SHA}, expected {'0' * 64}.*deleted"):
        get(server, folder, "0" * 64)
    assert leftovers(folder) == []


def test_a_damaged_file_is_replaced(server, folder):
    folder.mkdir()
    (folder / "file.pt").write_bytes(b"damaged")
    assert get(server, folder) == SHA
    assert (folder / "file.pt").read_bytes() == BODY


def test_redirects_are_followed_also_for_ranges(server, folder):
    server.redirects = {"/a": "/b", "/b": server.url()}
    server.plan = [None, None, ("cut", 400_000)]
    assert get(server, folder, path="/a") == SHA
    assert server.seen[-1][1:3] == ("/file.pt", "bytes=400000-")


@pytest.mark.parametrize("sha256", [SHA, None])
def test_more_than_was_promised_is_refused_and_not_read_to_its_end(server, folder, sha256):
    server.plan = ["more"]
    with pytest.raises(OSError, match=r"sent more than the 1,024,000 bytes it promised"):
        get(server, folder, sha256)
    assert leftovers(folder) == []
    assert server.sent < 50 * len(BODY)
    assert get(server, folder, sha256) == SHA


def test_nor_may_it_come_in_a_later_answer(server, folder):
    server.plan = [("cut", 400_000), "more"]
    with pytest.raises(OSError, match="sent more than"):
        get(server, folder, None)
    assert leftovers(folder) == []


def test_a_file_that_grew_under_the_same_name_of_its_version_starts_over(server, folder):
    server.plan = [("cut", 400_000), *[503] * download.ATTEMPTS]
    with pytest.raises(OSError):
        get(server, folder)
    server.files["/file.pt"] = new = BODY + b"more"
    assert get(server, folder, None) == hashlib.sha256(new).hexdigest()
    assert [request[2] for request in server.seen[-2:]] == ["bytes=400000-", None]


def test_what_arrived_before_the_line_went_dead_is_kept(server, folder, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    server.plan = [("stall", 300_000)]
    assert get(server, folder) == SHA
    server.stalled.set()
    assert server.seen[1][2] == "bytes=300000-"


def test_an_interruption_after_the_last_byte_loses_nothing(server, folder, monkeypatch):
    """What says of which version the part is goes only once the file is in its place."""
    replace = os.replace

    def interrupted(source, target):
        if str(target).endswith("file.pt"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get(server, folder)
    assert leftovers(folder) == ["file.pt.part", "file.pt.part.json"]
    monkeypatch.setattr(os, "replace", replace)
    assert get(server, folder) == SHA
    assert leftovers(folder) == ["file.pt"]
    assert len(server.seen) == 1


@pytest.mark.parametrize("count", [download.REDIRECTS, download.REDIRECTS + 1])
def test_so_many_redirects_and_no_more(server, folder, count):
    server.redirects = {f"/{i}": f"/{i + 1}" for i in range(count - 1)} | {f"/{count - 1}": "/file.pt"}
    if count == download.REDIRECTS:
        assert get(server, folder, path="/0") == SHA
        return
    with pytest.raises(OSError, match="302"):
        get(server, folder, path="/0")
    assert len(server.seen) == download.REDIRECTS + 1


def test_a_redirect_loop_ends(server, folder):
    server.redirects = {"/a": "/b", "/b": "/a"}
    with pytest.raises(OSError, match="302"):
        get(server, folder, path="/a")


@pytest.mark.parametrize("target", ["http://example.com/x", "file:///etc/passwd", "ftp://example.com/x"])
def test_redirects_to_where_anybody_can_change_the_file_are_refused(server, folder, target):
    server.redirects = {"/a": target}
    with pytest.raises((ValueError, OSError), match=r"only https|not allowed"):
        get(server, folder, path="/a")


def test_https_is_never_left():
    import urllib.request

    request = urllib.request.Request("https://example.com/x")
    follow = download._SafeRedirects().redirect_request
    assert follow(request, None, 302, "", {}, "https://example.org/y").full_url == "https://example.org/y"
    for target in ("http://example.org/y", "http://127.0.0.1/y"):
        with pytest.raises(ValueError, match=r"only https|anybody"):
            follow(request, None, 302, "", {}, target)


@pytest.mark.parametrize(
    "url", ["http://example.com/x", "file:///etc/passwd", "x.pt", "http://127.example.com/"]
)
def test_only_safe_urls_are_fetched(url, folder):
    with pytest.raises(ValueError, match="only https"):
        download.download(url, folder / "x")
    assert not folder.exists()


@pytest.mark.parametrize("code", [404, 403, 410])
def test_a_refusal_is_told_at_once(server, folder, code):
    server.plan = [code]
    with pytest.raises(OSError, match=f"the server says {code}"):
        get(server, folder)
    assert len(server.seen) == 1


@pytest.mark.parametrize("code", [503, 500, 429, 408])
def test_a_passing_trouble_is_waited_for(server, folder, code):
    server.plan = [code, code]
    assert get(server, folder) == SHA
    assert len(server.seen) == 3


def test_a_machine_that_is_not_there(folder):
    with Server() as gone:
        url = gone.url()
    with pytest.raises(OSError, match=re.escape(url)):
        download.download(url, folder / "x", progress=False, pause=0.001)


def test_a_full_disk_is_told_before_anything_is_written(server, folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage(10, 10, 1000))
    with pytest.raises(OSError, match=r"1,024,000 bytes are to come, and 1,000 are free.*RESTORE_HOME"):
        get(server, folder)
    assert leftovers(folder) == ["file.pt.part.json"]


def test_an_interruption_keeps_what_has_arrived(server, folder, monkeypatch):
    blocks = download._blocks

    def interrupted(response):
        monkeypatch.setattr(download, "_blocks", blocks)
        yield response.read(250_000)
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_blocks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get(server, folder)
    assert (folder / "file.pt.part").stat().st_size == 250_000
    assert get(server, folder) == SHA
    assert server.seen[1][2] == "bytes=250000-"


def test_two_at_once_fetch_once(server, folder):
    # Threads will do: the lock is between open files, whoever has opened them.
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: get(server, folder), range(2))) == [SHA, SHA]
    assert len(server.seen) == 1
    assert leftovers(folder) == ["file.pt"]


# ------------------------------------------------------------------------------------------- named priors


def entry_for(file, **changes):
    base = Entry(
        name="toy",
        description="a toy",
        trained_on="nothing",
        domain="toys",
        size=len(BODY),
        parameters=None,
        licence="CC0",
        picture_size=8,
        source="https://example.com/page",
        format="guided-diffusion",
        files=(file,),
    )
    return dataclasses.replace(base, **changes)


@pytest.fixture
def listed(monkeypatch):
    """Puts entries into the zoo."""

    def put(*entries):
        monkeypatch.setattr("restore.zoo.catalogue._ENTRIES", entries)

    return put


def test_fetch_then_path_then_checked(server, folder, listed):
    listed(entry_for(File("file.pt", server.url(), SHA)))
    assert zoo.path("toy") is None
    assert zoo.fetch("toy", progress=False) == zoo.path("toy") == zoo.checked("toy") == folder / "file.pt"
    zoo.fetch("toy", progress=False)
    assert len(server.seen) == 1


def test_a_hash_is_computed_again_only_after_a_change(server, folder, listed, monkeypatch):
    listed(entry_for(File("file.pt", server.url(), SHA)))
    zoo.fetch("toy", progress=False)
    hashed = []
    monkeypatch.setattr(cache, "hash_of", lambda path: hashed.append(path) or download.hash_of(path))
    zoo.checked("toy")
    assert hashed == []
    (folder / "file.pt").write_bytes(b"x" + BODY[1:-1] + b"y")
    with pytest.raises(ValueError, match=f"{SHA} was published.*restore zoo get toy"):
        zoo.checked("toy")
    assert len(hashed) == 1
    assert zoo.fetch("toy", progress=False).read_bytes() == BODY


def test_without_a_published_hash_the_first_file_is_pinned(server, folder, listed):
    listed(entry_for(File("file.pt", server.url())))
    zoo.fetch("toy", progress=False)
    assert json.loads((folder / "file.pt.sha256.json").read_text())["sha256"] == SHA
    (folder / "file.pt").write_bytes(b"another")
    with pytest.raises(ValueError, match="recorded when it was first seen"):
        zoo.checked("toy")
    zoo.fetch("toy", progress=False)
    # The server's file may not change behind one's back, either.
    server.files["/file.pt"], server.etag = BODY[::-1], '"two"'
    (folder / "file.pt").unlink()
    with pytest.raises(ValueError, match=r"to accept another one delete .*file\.pt\.sha256\.json"):
        zoo.fetch("toy", progress=False)
    assert zoo.path("toy") is None


def test_a_file_put_there_by_hand_is_pinned_too(folder, listed):
    listed(entry_for(File("file.pt")))
    with pytest.raises(FileNotFoundError, match=r"https://example\.com/page in a browser"):
        zoo.fetch("toy")
    folder.mkdir()
    (folder / "file.pt").write_bytes(BODY)
    assert zoo.fetch("toy") == folder / "file.pt"
    (folder / "file.pt").write_bytes(BODY + b"more")
    with pytest.raises(ValueError, match="first seen"):
        zoo.fetch("toy")


def test_a_folder_that_only_others_may_write_is_no_obstacle(folder, listed, monkeypatch):
    listed(entry_for(File("file.pt", sha256=SHA)))
    folder.mkdir()
    (folder / "file.pt").write_bytes(BODY)

    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(cache, "write_atomically", refused)
    assert zoo.checked("toy") == folder / "file.pt"


def test_without_a_network_the_file_and_its_place_are_named(folder, listed, monkeypatch):
    with Server() as gone:
        url = gone.url()
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    listed(entry_for(File("file.pt", url)))
    with pytest.raises(OSError, match=f"By hand: fetch {url} and put it at {str(folder / 'file.pt')!r}"):
        zoo.fetch("toy", progress=False)


def small_pipeline(folder):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    network = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
    )
    DDPMPipeline(unet=network, scheduler=DDPMScheduler()).save_pretrained(folder)


@pytest.fixture
def hub(server, listed, tmp_path, monkeypatch):
    """A hub on loopback with one pipeline; returns its entry. The pipeline also lies in the folder ``saved``."""
    from huggingface_hub import constants

    saved = tmp_path / "saved"
    small_pipeline(saved)
    paths = sorted(path for path in saved.rglob("*") if path.is_file())
    paths.sort(key=lambda path: path.name != "model_index.json")
    hashes = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    files = [
        File(p.relative_to(saved).as_posix(), sha256=hashes[p] if p.suffix == ".safetensors" else None)
        for p in paths
    ]
    entry = entry_for(
        File(""), format="diffusers", repo="someone/toy", revision="0123456789" * 4, files=tuple(files)
    )
    for path, file in zip(paths, files, strict=True):
        address = f"/someone/toy/resolve/{entry.revision}/{file.name}"
        server.files[address], server.etags[address] = path.read_bytes(), f'"{hashes[path]}"'
    server.extra = {"X-Repo-Commit": entry.revision}
    monkeypatch.setattr(constants, "ENDPOINT", server.url(""))
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url("/{repo_id}/resolve/{revision}/{filename}")
    )
    listed(entry)
    return entry


def test_a_pipeline_of_the_hub_lies_in_the_hubs_cache_and_loads(hub, server, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"restore zoo get toy.*someone--toy"):
        restore.load_prior("toy")
    found = zoo.fetch("toy", progress=False)
    assert found.is_relative_to(tmp_path / "hub")
    asked = len(server.seen)
    assert restore.load_prior("toy").channels == 3
    assert len(server.seen) == asked, "loading asks nobody"
    weights = next(found.rglob("*.safetensors"))
    weights.resolve().write_bytes(b"damaged")
    with pytest.raises(ValueError, match="was published"):
        restore.load_prior("toy")
    zoo.fetch("toy", progress=False)
    assert restore.load_prior("toy").channels == 3


def test_a_pipeline_of_the_hub_with_another_hash_is_deleted(hub, listed):
    listed(dataclasses.replace(hub, files=tuple(File(f.name, sha256="0" * 64) for f in hub.files)))
    with pytest.raises(ValueError, match=r"0{64} was published"):
        zoo.fetch("toy", progress=False)
    assert zoo.path("toy") is None


def test_a_hub_that_does_not_answer(hub, server):
    server.files.clear()
    with pytest.raises(
        OSError, match=r"By hand: fetch .*/model_index\.json, .* into the folder .*someone--toy"
    ):
        zoo.fetch("toy", progress=False)


def test_a_pipeline_put_there_by_hand_loads(hub, server, tmp_path, folder):
    folder.mkdir()
    (tmp_path / "saved").rename(folder / "someone--toy")
    assert restore.load_prior("toy").channels == 3
    assert zoo.fetch("toy") == folder / "someone--toy"
    assert server.seen == []


def test_an_absent_name_of_the_real_zoo_says_all_there_is_to_know(folder):
    for entry in zoo.entries():
        if not entry.files:
            continue
        with pytest.raises(FileNotFoundError) as raised:
            restore.load_prior(entry.name)
        message = str(raised.value)
        assert str(folder) in message
        if entry.repo is not None:
            assert f"`restore zoo get {entry.name}`" in message
            for file in entry.files:
                assert f"{entry.repo}/resolve/{entry.revision}/{file.name}" in message
        elif entry.files[0].url is not None:
            assert f"`restore zoo get {entry.name}`" in message
            assert entry.files[0].url in message
        else:
            assert entry.source in message


# ------------------------------------------------------------------------------------------- loading a named prior


@pytest.fixture
def offline(monkeypatch):
    """Nothing is asked of anybody."""

    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def old_names(state):
    """The tensors of attention as diffusers called them when Google's priors were published."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old(name):
        for new, before in names.items():
            name = name.replace(f".{new}.", f".{before}.")
        return name

    renamed = {old(name): value for name, value in state.items()}
    assert renamed.keys() != state.keys()
    return renamed


@pytest.fixture
def google(listed, tmp_path):
    """The first of Google's priors, tiny, as the hub's cache holds it: one flat folder, weights in a ``.bin``."""
    entry = next(e for e in zoo.entries() if e.name == "google/ddpm-celebahq-256")
    inside = tmp_path / "hub" / f"models--{entry.repo.replace('/', '--')}"
    folder = inside / "snapshots" / entry.revision
    folder.mkdir(parents=True)
    network = unet(sample_size=256)
    network.save_config(folder)
    DDPMScheduler().save_config(folder)
    (folder / "model_index.json").write_text(
        json.dumps(
            {
                "_class_name": "DDPMPipeline",
                "scheduler": ["diffusers", "DDPMScheduler"],
                "unet": ["diffusers", "UNet2DModel"],
            }
        )
    )

    def put(weights):
        path = folder / "diffusion_pytorch_model.bin"
        torch.save(weights, path)
        pinned = (File(f.name, sha256=download.hash_of(path)) if f.sha256 else f for f in entry.files)
        listed(dataclasses.replace(entry, files=tuple(pinned)))

    put(old_names(network.state_dict()))
    return entry.name, network, put


def test_one_of_googles_priors_loads_from_the_hubs_cache(google, offline):
    name, network, _ = google
    prior = restore.load_prior(name)
    assert (prior.name, prior.config["domain"], prior.trained_size, prior.tile) == (
        name,
        "faces",
        (256, 256),
        256,
    )
    assert prior.schedule == restore.Schedule.linear()
    for key, value in network.state_dict().items():
        assert torch.equal(prior.network.state_dict()[key], value), key
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(prior.epsilon(x, 0.3), network(x, 299).sample, rtol=1e-3, atol=1e-3)


def test_code_in_one_of_googles_files_is_not_executed(google, offline, tmp_path):
    name, network, put = google
    mark = tmp_path / "executed"
    put({**network.state_dict(), "conv_in.weight": Trap(mark)})
    with pytest.raises(ValueError, match=r"model.bin' would run code while it is read .*mkdir"):
        restore.load_prior(name)
    assert not mark.exists()


def test_a_tensor_that_is_missing_is_named(google, offline):
    name, network, put = google
    put({key: value for key, value in network.state_dict().items() if key != "conv_out.bias"})
    with pytest.raises(ValueError, match=r"1 missing tensors \(first: conv_out.bias\)"):
        restore.load_prior(name)


@pytest.mark.parametrize("name", [e.name for e in zoo.entries() if e.repo])
def test_a_named_prior_of_the_hub_is_not_fetched_behind_ones_back(name, offline, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(FileNotFoundError, match=f"restore zoo get {name}"):
        restore.load_prior(name)


def test_a_folder_of_that_name_comes_first(offline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unet().save_pretrained("google/ddpm-cat-256")
    assert restore.load_prior("google/ddpm-cat-256").trained_size == (8, 8)
    with pytest.raises(FileNotFoundError, match="restore zoo get google/ddpm-church-256"):
        restore.load_prior("google/ddpm-church-256")


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.safetensors", "unet", "scheduler"])
def test_only_the_files_that_were_checked_are_read(google, offline, name):
    """Others lie beside them, which diffusers would prefer."""
    from safetensors.torch import save_file

    known, network, _ = google
    folder = zoo.checked(known)
    other = unet(seed=5)
    if name == "unet":
        other.save_pretrained(folder / "unet")
    elif name == "scheduler":
        DDPMScheduler(beta_schedule="squaredcos_cap_v2").save_config(folder / "scheduler")
    else:
        save_file(other.state_dict(), folder / name)
    prior = restore.load_prior(known)
    assert torch.equal(prior.network.state_dict()["conv_in.weight"], network.state_dict()["conv_in.weight"])
    assert prior.schedule == restore.Schedule.linear()
    assert not torch.equal(other.state_dict()["conv_in.weight"], network.state_dict()["conv_in.weight"])


def test_a_named_file_of_guided_diffusion_loads(folder, listed, offline):
    state = adm.random_state(width=64, multipliers=(1, 2), blocks=1, attention=(2,), classes=7)
    folder.mkdir()
    torch.save(state, folder / "file.pt")
    listed(entry_for(File("file.pt", sha256=download.hash_of(folder / "file.pt"))))
    with pytest.warns(QualityWarning, match="'file.pt' is none of the known models"):
        prior = restore.load_prior("toy")
    assert (prior.name, prior.config["domain"], prior.trained_size) == ("toy", "toys", (8, 8))
    x = torch.randn(1, 3, 8, 8)
    steps = torch.full((1,), 299.0)
    expected = adm.forward(state, x, steps, torch.tensor([4]))[:, :3]
    torch.testing.assert_close(prior.with_labels(4).epsilon(x, 0.3), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="'toy' is conditional on a class"):
        restore.sample(prior, (1, 3, 8, 8), steps=1)


# ------------------------------------------------------------------------------------------- the command


def test_the_command_lists_offline(capsys):
    assert main(["zoo"]) == 0
    printed = capsys.readouterr().out
    for entry in zoo.entries():
        line = next(line for line in printed.splitlines() if line.split("  ")[0] == entry.name)
        assert entry.licence in line
        assert entry.trained_on in line
        assert readable(entry.size) in line
        assert f" {'no' if entry.files else 'yes'} " in line
        assert entry.source in printed
    assert "No sha256 is published for imagenet-256-classes, ffhq-256" in printed


def test_the_command_gets_and_says_where(server, folder, listed, capsys):
    listed(entry_for(File("file.pt", server.url(), SHA)))
    assert main(["zoo", "get", "toy", "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "file.pt")
    assert main(["zoo", "where"]) == 0
    printed = capsys.readouterr().out
    assert f"toy: {folder / 'file.pt'}" in printed
    assert f"files of URLs: {folder}" in printed
    assert main(["zoo"]) == 0
    assert re.search(r"^toy +yes +1 MB +CC0 +nothing$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize("entry", [e for e in zoo.entries() if e.files], ids=lambda e: e.name)
def test_the_place_by_hand_is_one_wherever_it_is_said(entry, capsys, folder):
    assert main(["zoo", "where", entry.name]) == 0
    first, rest = capsys.readouterr().out.split("\n", 1)
    assert first == str(zoo.place_of(entry.name))
    assert repr(first) in rest
    with pytest.raises(FileNotFoundError, match=re.escape(repr(first))):
        restore.load_prior(entry.name)


def test_what_is_put_there_by_hand_is_found(hub, server, tmp_path, offline, capsys):
    """A listed prior of the hub: the place that the command prints is where loading looks."""
    main(["zoo", "where", "toy"])
    place = capsys.readouterr().out.splitlines()[0]
    (tmp_path / "home").mkdir()
    (tmp_path / "saved").rename(place)
    assert restore.load_prior("toy").channels == 3
    main(["zoo", "where", "toy"])
    assert capsys.readouterr().out == f"{place}\n"


def test_so_is_one_of_the_hub_that_is_not_listed(offline, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError) as raised:
        restore.load_prior("someone/thing")
    assert main(["zoo", "where", "someone/thing"]) == 0
    place, told = capsys.readouterr().out.splitlines()
    assert repr(place) in str(raised.value)
    assert "by hand" in told
    unet().save_pretrained(place)
    prior = restore.load_prior("someone/thing")
    assert (prior.name, prior.trained_size) == ("someone/thing", (8, 8))
    assert main(["zoo", "where", "someone/thing"]) == 0
    assert capsys.readouterr().out == f"{place}\n"


def test_a_name_of_the_hub_that_is_nearly_one_of_the_zoo(offline, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"did you mean 'google/ddpm-cat-256'\?"):
        restore.load_prior("google/ddpm-cats-256")
    assert main(["zoo", "where", "google/ddpm-cats-256"]) == 0
    assert "did you mean 'google/ddpm-cat-256'?" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["get"], "get what?"),
        (["get", "imagnet-256"], "did you mean 'imagenet-256'"),
        (["get", "ffhq-256"], "ffhq_10m.pt"),
        (["list", "photo"], "restore zoo get photo"),
        (["where", "imagnet-256"], "did you mean 'imagenet-256'"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, words, capsys):
    assert main(["zoo", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
