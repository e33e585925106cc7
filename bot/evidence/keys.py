"""The keys that sign evidence: ed25519, in PEM files as OpenSSL writes and reads them.

In: a path. Out: a key, or ``Trouble`` that says what the file is instead. Private keys are
written for their owner's eyes alone, and no file that is there is ever overwritten. The id of a
key is the SHA-256 of its 32 public bytes.
"""

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from bot.errors import Trouble
from bot.files import read_regular

MAX_BYTES = 64 * 1024  # of a key file
MAKE = "`twite evidence keygen KEY.pem` makes a pair of keys."


def generate(path: Path) -> Path:
    """A new private key at ``path``, and its public one beside it, whose path is returned.
    Raises ``Trouble`` where one of them is there already."""
    key = Ed25519PrivateKey.generate()
    public = path.parent / f"{path.name.removesuffix('.pem')}.pub.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shown = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if public.exists():  # before there is a private key that nobody knows the public one of
        raise _is_there(public)
    _create(path, private, 0o600)
    _create(public, shown, 0o644)
    return public


def private_key(path: Path) -> Ed25519PrivateKey:
    """Raises ``Trouble``."""
    try:
        key = load_pem_private_key(_read(path), password=None)
    except TypeError:
        todo = "Decrypt it first: `openssl pkey -in KEY.pem -out PLAIN.pem`."
        raise Trouble("the key is encrypted.", where=str(path), todo=todo) from None
    except (ValueError, UnsupportedAlgorithm):
        raise Trouble("that is no private key in PEM.", where=str(path), todo=MAKE) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Trouble("the key is not of ed25519.", where=str(path), todo=MAKE)
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """Raises ``Trouble``."""
    data = _read(path)
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        what = "that is no public key in PEM."
        if b"PRIVATE KEY" in data:
            what = "that is a private key: it never needs to leave whoever signs."
        todo = "Give the file that ends in .pub.pem."
        raise Trouble(what, where=str(path), todo=todo) from None
    if not isinstance(key, Ed25519PublicKey):
        raise Trouble("the key is not of ed25519.", where=str(path))
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """SHA-256 of the public key's 32 bytes, in hex."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def is_signed(key: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    """Whether the owner of ``key`` signed ``data``."""
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_BYTES)
    except OSError as error:
        what = f"the key cannot be read: {error.strerror or error}."
        raise Trouble(what, where=str(path), todo=MAKE) from None


def _create(path: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise _is_there(path) from None
    except (OSError, ValueError) as error:
        what = f"the key cannot be written: {getattr(error, 'strerror', None) or error}."
        raise Trouble(what, where=str(path)) from None
    with os.fdopen(handle, "wb") as opened:
        opened.write(data)


def _is_there(path: Path) -> Trouble:
    todo = "Name another file: keys are never overwritten."
    return Trouble("is there already.", where=str(path), todo=todo)
