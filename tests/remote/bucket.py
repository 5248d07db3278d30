"""A bucket by way of boto3, which has nothing in common with what is tested."""

import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of boto3's own imports
    import boto3


class Bucket:
    """A bucket on the test server."""

    def __init__(self, server: str, name: str) -> None:
        self.name = name
        self._s3: Any = boto3.client(
            "s3", endpoint_url=server, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )

    def __str__(self) -> str:
        return f"s3://{self.name}"

    def create(self) -> None:
        self._s3.create_bucket(Bucket=self.name)

    def remove(self) -> None:
        """Delete it with all that is in it, whatever another thread puts there meanwhile."""
        for _ in range(50):
            for name in self.names():
                self.delete(name)
            try:
                self._s3.delete_bucket(Bucket=self.name)
                return
            except self._s3.exceptions.ClientError as e:
                if e.response["Error"]["Code"] != "BucketNotEmpty":
                    raise
        raise AssertionError(f"{self} could not be emptied")

    def names(self, below: str = "") -> set[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=below)
        return {o["Key"] for page in pages for o in page.get("Contents", ())}

    def results(self, below: str) -> set[str]:
        """Names below a folder, without our own marks."""
        names = {n.removeprefix(f"{below}/") for n in self.names(f"{below}/")}
        return {n for n in names if not any(p.startswith(".") for p in n.split("/"))}

    def get(self, name: str) -> bytes:
        content: bytes = self._s3.get_object(Bucket=self.name, Key=name)["Body"].read()
        return content

    def put(self, name: str, content: bytes) -> None:
        self._s3.put_object(Bucket=self.name, Key=name, Body=content)

    def delete(self, name: str) -> None:
        self._s3.delete_object(Bucket=self.name, Key=name)
