"""``bot.evidence``: what is signed, and that no byte of it can be changed without being named."""

import asyncio
import base64
import hashlib
import io
import json
import random
import shutil
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from bot import cli
from bot.errors import Trouble
from bot.evidence.archive import is_name, pack
from bot.evidence.bundle import bundle
from bot.evidence.keys import generate, key_id, private_key, public_key
from bot.evidence.manifest import MANIFEST, SIGNATURE, manifest_of, parse
from bot.evidence.verify import MAX_FAULTS, Checked, verify
from bot.explain.case import Case
from bot.explain.find import Subject, find
from bot.explain.gather import gather
from consumers.batches import raw_header_name
from schemas import names
from schemas.record import Record
from tests.bot.explain.log import PARTITION, Log
from tests.bot.make import direct, mention, record
from tests.examples import examples

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
SMALL = [("README.txt", b"read me"), ("input/value", b"{}" * 20), ("empty", b""), ("z", b"last")]


def signed(members: list[tuple[str, bytes]], key: Ed25519PrivateKey = KEY) -> bytes:
    manifest = manifest_of(members, "d-1", key_id(key.public_key()), {})
    return pack([(MANIFEST, manifest), (SIGNATURE, key.sign(manifest)), *members])


GOOD = signed(SMALL)


async def case_of(log: Log, word: str, *, private: bool = False) -> Case:
    decided = await find(log, Subject.of(word), private=private)
    return await gather(log, decided, private=private)


async def answered() -> tuple[Log, Case]:
    log = Log()
    strange = record(mention())
    odd = (("odd", b"\x00\xff"), ("null", None))
    await log.answer(replace(strange, headers=(*strange.headers, *odd)))
    return log, await case_of(log, "at://p/asking")


async def test_a_case_is_in_the_file_byte_for_byte() -> None:
    log, case = await answered()
    data = bundle(case, KEY)
    assert verify(data, PUBLIC).good
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None
        inside = {name: opened.read(name) for name in opened.namelist()}
    originals = {
        "input": log.records[names.FEED_MENTIONS, PARTITION][0],
        "decision": log.records[names.BOT_AUDIT, PARTITION][0],
        "replies/1": log.records[names.BOT_REPLIES, PARTITION][0],
    }
    for folder, original in originals.items():
        assert inside[f"{folder}/value"] == original.value
        assert inside[f"{folder}/key"] == original.key
        about = json.loads(inside[f"{folder}/record.json"])
        assert (about["topic"], about["offset"]) == (original.topic, original.offset)
        assert about["timestamp_ms"] == original.timestamp_ms
        assert about["value_sha256"] == hashlib.sha256(original.value or b"").hexdigest()
        back = [(_bytes(h["name_base64"]), _bytes(h["value_base64"])) for h in about["headers"]]
        assert back == [(raw_header_name(name), value) for name, value in original.headers]
    prompt = case.decided.data.prompt
    assert prompt is not None
    assert [m["content"] for m in json.loads(inside["messages.json"])] == [
        m.content for m in prompt.messages
    ]
    for kind in (names.MENTION_CREATED, names.DECISION_RECORDED, names.REPLY_CREATED):
        assert json.loads(inside[f"schemas/{kind}.json"])["$id"] == f"urn:twite:schema:{kind}"


async def test_the_same_case_gives_the_same_file() -> None:
    log, one = await answered()
    other = await case_of(log, "at://p/asking")  # a decision that is made anew has another salt
    assert bundle(one, KEY) == bundle(other, KEY)


async def test_what_is_gone_is_named_in_what_is_signed() -> None:
    log, _ = await answered()
    log.first[names.FEED_MENTIONS, PARTITION] = 1
    found = verify(bundle(await case_of(log, "at://p/asking"), KEY), PUBLIC)
    assert found.manifest is not None
    assert found.manifest.gone == {"input": "past retention"}
    assert "input/value" not in {member.name for member in found.manifest.members}


async def test_a_dead_letter_of_strange_bytes_is_taken_as_well() -> None:
    log = Log()
    await log.answer(
        Record(
            topic=names.FEED_MENTIONS, partition=2, offset=0, timestamp_ms=0, key=None,
            value=b"\xff\x00", headers=(("ce_type", None), ("n\udcffme", b"\xff")),
        )
    )  # fmt: skip
    case = await case_of(log, f"feed.mentions/{PARTITION}/0", private=True)
    data = bundle(case, KEY)
    assert verify(data, PUBLIC).good
    about = json.loads(dict(_of(data))["input/record.json"])
    assert [h["name_base64"] for h in about["headers"]][-1] == base64.b64encode(b"n\xffme").decode()
    assert dict(_of(data))["input/value"] == b"\xff\x00"
    assert "input/key" not in dict(_of(data))


def test_every_changed_byte_is_named() -> None:
    """Each byte of the file, with one bit flipped and with all of them."""
    for at in range(len(GOOD)):
        for mask in (1 << (at % 8), 0xFF):
            changed = bytearray(GOOD)
            changed[at] ^= mask
            found = verify(bytes(changed), PUBLIC)
            assert not found.good, at
            told = "\n".join(map(str, found.faults))
            assert _expected(at) in told, (at, told)


def test_every_missing_and_every_added_byte_is_seen() -> None:
    for at in range(len(GOOD) + 1):
        added = verify(GOOD[:at] + b"\x00" + GOOD[at:], PUBLIC)
        assert not added.good, at
        assert not verify(GOOD[:at], PUBLIC).good or at == len(GOOD)
        if at < len(GOOD):
            missing = verify(GOOD[:at] + GOOD[at + 1 :], PUBLIC)
            assert not missing.good or GOOD[:at] + GOOD[at + 1 :] == GOOD, at
    assert _told(GOOD + b"more") == ["behind the end: 4 bytes were added"]


def test_a_truncated_file_says_where_it_ends() -> None:
    at = GOOD.index(b"{}{}") + 5
    assert _told(GOOD[:at]) == ["input/value: the file ends after 5 of its 40 bytes"]
    assert _told(b"") == ["manifest.json: the file ends before it"]
    (told,) = _told(GOOD[:-3])
    assert told.startswith("the directory at the end: the file ends after")


def test_missing_added_and_doubled_members_are_named() -> None:
    manifest = _of(GOOD)[0][1]
    rest = [(MANIFEST, manifest), (SIGNATURE, KEY.sign(manifest))]
    assert _told(pack([*rest, *SMALL[:1], *SMALL[2:]])) == ["input/value: is missing"]
    assert _told(pack([*rest, *SMALL, ("more", b"x")])) == ["'more': was added"]
    assert _told(pack([*rest, SMALL[0], ("a", b"x"), *SMALL[1:]])) == ["'a': was added"]
    assert _told(pack([*rest, *SMALL[:1], ("input/value", b"{}" * 21), *SMALL[2:]])) == [
        "input/value: has 42 bytes instead of 40"
    ]
    assert _told(pack([*rest, *SMALL[:1], ("input/value", b"[]" * 20), *SMALL[2:]])) == [
        "input/value: its bytes were changed"
    ]
    doubled = io.BytesIO()
    with zipfile.ZipFile(doubled, "w") as opened:
        for name, data in (*rest, *SMALL):
            opened.writestr(zipfile.ZipInfo(name), data)
        with pytest.warns(UserWarning, match="Duplicate"):
            opened.writestr(zipfile.ZipInfo("z"), b"last")
    assert "'z': was added a second time" in "\n".join(_told(_plain(doubled.getvalue())))


def test_a_case_signed_by_somebody_else_is_no_evidence() -> None:
    other = Ed25519PrivateKey.generate()
    (told,) = _told(signed(SMALL, other))
    assert "yours is" in told
    manifest = manifest_of(SMALL, "another", key_id(PUBLIC), {})
    forged = pack([(MANIFEST, manifest), (SIGNATURE, other.sign(manifest)), *SMALL])
    assert _told(forged) == [
        "manifest.json: is not what your key signed: it or its signature was changed"
    ]


@pytest.mark.parametrize(
    "name", ["../up", "/etc/passwd", "a/../b", "a//b", "C:\\x", "a\\b", ".hidden", "a/", "", "ä"]
)
def test_names_that_lead_elsewhere_are_neither_written_nor_read(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(ValueError, match="safe"):
        pack([(name, b"")])
    (told,) = _told(_by_hand(name))
    assert "not safe to unpack" in told


def test_a_manifest_that_names_a_member_twice_is_refused() -> None:
    value = json.loads(_of(GOOD)[0][1])
    value["members"].append(value["members"][0])
    with pytest.raises(ValueError, match="named twice"):
        parse(json.dumps(value).encode())
    value["members"] = [{"name": MANIFEST, "bytes": 1, "sha256": "0" * 64}]
    with pytest.raises(ValueError, match="named twice"):
        parse(json.dumps(value).encode())


def test_bombs_and_foreign_zips_are_refused_without_being_unpacked() -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(MANIFEST, b"\x00" * 50_000_000)
    (told,) = _told(bomb.getvalue())
    assert "compressed, which evidence never is" in told
    foreign = io.BytesIO()
    with zipfile.ZipFile(foreign, "w") as opened:
        opened.writestr("word/document.xml", b"x")
    assert _told(foreign.getvalue()) == [
        "manifest.json: is not there: 'word/document.xml' stands in its place"
    ]
    lying = bytearray(GOOD)
    lying[18:26] = struct.pack("<2I", 2**31, 2**31)
    assert "4194304 is the most" in _told(bytes(lying))[0]
    deep = b"[" * 100_000
    nested = pack([(MANIFEST, deep), (SIGNATURE, KEY.sign(deep))])
    assert _told(nested)[0].startswith("manifest.json: is none of this format")


def test_a_million_members_that_nobody_named_are_not_all_told() -> None:
    manifest = _of(GOOD)[0][1]
    rest = [(MANIFEST, manifest), (SIGNATURE, KEY.sign(manifest))]
    many = [(f"m{number}", b"") for number in range(5_000)]
    assert len(_told(pack([*rest, *many, *SMALL]))) == MAX_FAULTS + 1


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    assert not verify(data, PUBLIC).good
    assert not verify(GOOD[: len(GOOD) // 2] + data, PUBLIC).good


@examples(200)
@given(st.integers(), st.integers(1, 5))
def test_shuffled_bytes_are_seen(seed: int, cuts: int) -> None:
    dice, changed = random.Random(seed), bytearray(GOOD)
    for _ in range(cuts):
        one, other = sorted(dice.sample(range(len(changed)), 2))
        changed[one:other] = dice.randbytes(dice.randrange(other - one + 3))
        changed = changed or bytearray(b"x")
        if len(changed) < 2:
            break
    assert bytes(changed) == GOOD or not verify(bytes(changed), PUBLIC).good


def test_keys_are_made_once_and_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "case.pem"
    public = generate(path)
    assert public == tmp_path / "case.pub.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert key_id(private_key(path).public_key()) == key_id(public_key(public))
    before = path.read_bytes()
    with pytest.raises(Trouble, match="never overwritten"):
        generate(path)
    public.unlink()
    with pytest.raises(Trouble, match="never overwritten"):
        generate(path)
    assert path.read_bytes() == before


def test_what_is_no_key_is_told(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    public = generate(path)
    with pytest.raises(Trouble, match="that is a private key"):
        public_key(path)
    with pytest.raises(Trouble, match="no private key"):
        private_key(public)
    with pytest.raises(Trouble, match="cannot be read"):
        public_key(tmp_path / "nowhere.pem")
    with pytest.raises(Trouble, match="cannot be read"):
        public_key(tmp_path)
    (tmp_path / "junk").write_bytes(b"\x00\xff")
    with pytest.raises(Trouble, match="no public key"):
        public_key(tmp_path / "junk")
    for made in ("rsa", "encrypted"):
        other = tmp_path / f"{made}.pem"
        other.write_bytes(_other_key(made))
        with pytest.raises(Trouble, match="encrypted" if made == "encrypted" else "not of ed25519"):
            private_key(other)


def test_the_command_needs_nothing_but_file_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "k.pem"
    assert _twite(monkeypatch, "keygen", str(key)) == 0
    file = tmp_path / "case.zip"
    file.write_bytes(signed(SMALL, private_key(key)))
    public = ["--key", str(tmp_path / "k.pub.pem")]
    assert _twite(monkeypatch, "verify", str(file), *public) == 0
    assert "good; 4 members of decision d-1" in capsys.readouterr().out.replace("\n", " ")
    file.write_bytes(file.read_bytes().replace(b"last", b"lost"))
    assert _twite(monkeypatch, "verify", str(file), *public) == 1
    assert "z: its bytes were changed" in capsys.readouterr().out
    assert _twite(monkeypatch, "verify", str(file), *public, "--json") == 1
    assert json.loads(capsys.readouterr().out) == {
        "good": False,
        "faults": [{"where": "z", "what": "its bytes were changed"}],
        "manifest": None,
    }
    assert _twite(monkeypatch, "verify", str(tmp_path / "none"), *public) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("openssl"), reason="checked where OpenSSL is")
async def test_it_can_be_checked_by_hand_as_its_readme_says(tmp_path: Path) -> None:
    public = generate(tmp_path / "k.pem")
    _, case = await answered()
    file = tmp_path / "case.zip"
    file.write_bytes(bundle(case, private_key(tmp_path / "k.pem")))
    with zipfile.ZipFile(file) as opened:
        opened.extractall(tmp_path / "out")
    command = f"openssl pkeyutl -verify -pubin -inkey {public} -rawin -in {MANIFEST}"
    ended = await asyncio.to_thread(
        subprocess.run,
        [*command.split(), "-sigfile", SIGNATURE],
        cwd=tmp_path / "out",
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for member in json.loads((tmp_path / "out" / MANIFEST).read_bytes())["members"]:
        data = (tmp_path / "out" / member["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (member["bytes"], member["sha256"])


async def test_private_cases_are_taken_only_when_asked_for() -> None:
    log = Log()
    await log.answer(record(direct("secret")))
    with pytest.raises(Trouble, match="--private"):
        await case_of(log, "at://m/1")
    data = bundle(await case_of(log, "at://m/1", private=True), KEY)
    assert b"secret" in data


def _twite(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["twite", "evidence", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def _told(data: bytes) -> list[str]:
    found: Checked = verify(data, PUBLIC)
    return [str(fault) for fault in found.faults]


def _of(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return [(name, opened.read(name)) for name in opened.namelist()]


def _expected(at: int) -> str:
    """What must be named where this byte of ``GOOD`` is changed."""
    with zipfile.ZipFile(io.BytesIO(GOOD)) as opened:
        begins = [(info.header_offset, info.filename) for info in opened.infolist()]
        directory = opened.start_dir
    if at >= directory:
        return "the directory at the end"
    return [name for begin, name in begins if begin <= at][-1][:4]


def _by_hand(name: str) -> bytes:
    """A file that a hostile signer made, whose manifest has a member of this name."""
    value = json.loads(_of(GOOD)[0][1])
    value["members"][0]["name"] = name
    manifest = json.dumps(value).encode()
    return pack([(MANIFEST, manifest), (SIGNATURE, KEY.sign(manifest))])


def _plain(data: bytes) -> bytes:
    """As ``zipfile`` packed it, but with the local headers that ours has."""
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        infos = opened.infolist()
        members = [(i.filename, opened.open(i).read()) for i in infos]
    pieces = [pack([member]) for member in members]
    ends = [piece.index(b"PK\x01\x02") for piece in pieces]
    return b"".join(piece[:end] for piece, end in zip(pieces, ends, strict=True))


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _other_key(kind: str) -> bytes:
    from cryptography.hazmat.primitives import serialization as serial
    from cryptography.hazmat.primitives.asymmetric import rsa

    key: Any = KEY if kind == "encrypted" else rsa.generate_private_key(65537, 2048)
    lock: Any = serial.NoEncryption()
    if kind == "encrypted":
        lock = serial.BestAvailableEncryption(b"word")
    return bytes(key.private_bytes(serial.Encoding.PEM, serial.PrivateFormat.PKCS8, lock))
