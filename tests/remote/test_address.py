"""What is an address, what is none, what is refused without being repeated, and where copies are."""

from pathlib import Path

import pytest

from tlseg_jax.remote.address import Address, address_of, address_to_read, copy_of, endpoint, parse_address
from tlseg_jax.remote.entry import Buckets
from tlseg_jax.runtime.errors import InputError


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("text", ["runs", "/data/runs", "C:/runs", "s3/bucket", "./s3:/x"])
def test_paths_are_no_addresses(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://my-bucket/a/b", Address("s3", "my-bucket", "a/b")),
        ("gs://my.bucket_1//a/b/", Address("gs", "my.bucket_1", "a/b")),
        ("s3://my-bucket", Address("s3", "my-bucket", "")),
    ],
)
def test_addresses_are_read(text: str, expected: Address) -> None:
    found = parse_address(text)
    assert found == expected
    assert parse_address(str(found)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("s3:///path", "names no bucket"),
        ("s3://X/path", "names no bucket"),
        ("http://host/path", "give s3://BUCKET/PATH"),
        ("S3://bucket/path", "give s3://BUCKET/PATH"),
        ("s3://bucket/a/../b", "may start with '.'"),
        ("gs://bucket/.hidden", "may start with '.'"),
    ],
)
def test_unusable_addresses_are_one_sentence(text: str, words: str) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as e:
        parse_address(text)
    assert words in str(e.value)


@pytest.mark.parametrize(
    "text", ["s3://user:hush@bucket/a", "s3://hush@bucket/a", "https://u:hush@host/x", "s3://b-b-b/a?Signature=hush"]
)
def test_secrets_in_an_address_are_not_repeated(text: str) -> None:
    with pytest.raises(InputError, match="refused") as e:
        parse_address(text)
    assert "hush" not in str(e.value)


def test_secrets_in_the_servers_address_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://u:hush@host")
    with pytest.raises(InputError, match="leave them out") as e:
        endpoint()
    assert "hush" not in str(e.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "host:9000")
    with pytest.raises(InputError, match="not usable"):
        endpoint()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://b:1/")
    assert endpoint() == "http://b:1"


def test_a_copys_path_tells_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = Address("s3", "my-bucket", "runs")
    copy = copy_of(address)
    assert copy.is_relative_to(tmp_path)
    assert address_of(copy) == address
    assert address_of(copy / "finetune" / "x") == Address("s3", "my-bucket", "runs/finetune/x")
    assert Buckets().name(copy / "x") == "s3://my-bucket/runs/x"
    assert address_to_read(copy) is None
    read = copy_of(address, read=True)
    assert read != copy and address_of(read) == address_to_read(read) == address
    assert address_of(tmp_path) is None and address_of(tmp_path / "runs") is None
    assert Buckets().name(Path("runs/x")) == "runs/x"
    # A bucket of the same name on another server is another bucket.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    assert copy_of(address) != copy
    assert address_of(copy_of(address)) == address and address_of(copy) is None
