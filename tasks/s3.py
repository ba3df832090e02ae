"""S3 and what speaks its language (Ceph, MinIO, Swift): one setting, three kinds of handles.

The setting is ``tasks/s3_setting.py``. Credentials are never read: the libraries find them in the environment of their
process, so no handle, URI, log, table, Ray environment or error can hold one.

pyarrow writes files and reads Parquet, deltalake commits, s3fs reads files whole, uploads, lists footage and gives
video demuxers Python files.
``require_answer`` asks a bucket before the first of any of these is made, once per process and with little patience,
so that a wrong setting is told within seconds and by its name. After that a store that does not answer is waited for,
about half a minute: servers restart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from tasks.errors import StorageError
from tasks.s3_setting import S3Setting, prepare_process, s3_setting

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 60.0
_FIRST_ANSWER_SECONDS = 10.0
_ATTEMPTS = 6  # about half a minute in all: each pause of pyarrow's and botocore's is twice the one before
_CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_REFUSED = {
    "NoSuchBucket": "there is no such bucket; create it, or correct the URI",
    "InvalidBucketName": "that is no name of a bucket; correct the URI",
    "InvalidAccessKeyId": f"the server does not know the access key; look at {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key does not belong to the access key; look at {_CREDENTIALS}",
    "ExpiredToken": "the credentials have expired; get new ones",
    "AuthorizationHeaderMalformed": "the server is in another region; set AWS_REGION",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
}
"""What the codes of S3's error answers (Amazon S3 API Reference, Error Responses) mean for who set this up."""


def arrow_filesystem(bucket: str) -> pafs.S3FileSystem:
    """Return pyarrow's file system for a bucket that answers; raises StorageError."""
    require_answer(bucket)
    return _arrow_filesystem(s3_setting(), _ATTEMPTS, _ANSWER_SECONDS)


def fsspec_arguments(bucket: str) -> dict[str, Any]:
    """Return what fsspec needs to make s3fs for a bucket that answers; raises StorageError."""
    require_answer(bucket)
    setting = s3_setting()
    names = {"endpoint_url": setting.endpoint, "region_name": setting.region}
    return {
        "client_kwargs": {name: value for name, value in names.items() if value},
        "config_kwargs": _botocore_config(_ATTEMPTS, _ANSWER_SECONDS),
        "use_listings_cache": False,  # what another process wrote must be seen, however long this one lives
    }


def delta_options(bucket: str) -> dict[str, str]:
    """Return what deltalake needs for a bucket that answers, never credentials; raises StorageError."""
    require_answer(bucket)
    setting = s3_setting()
    options = {"aws_conditional_put": "etag"}  # safe concurrent commits by put-if-absent, without a lock table
    if setting.endpoint:
        options["AWS_ENDPOINT_URL"] = setting.endpoint
        options["AWS_ALLOW_HTTP"] = str(setting.endpoint.startswith("http://")).lower()
    if setting.region:
        options["AWS_REGION"] = setting.region
    return options


def require_answer(bucket: str) -> None:
    """Raise StorageError saying what is wrong unless the bucket answers; asked once per process and setting."""
    prepare_process()  # the libraries below read it when they make a client
    _answers(s3_setting(), bucket)


def error_code(error: BaseException) -> str | None:
    """Return the code of the S3 answer that an error comes from, such as ``PreconditionFailed``; None without one."""
    cause: BaseException | None = error
    while cause is not None:
        answer = getattr(cause, "response", None)  # of botocore's ClientError
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code", "unknown"))
        cause = cause.__cause__
    return None


@lru_cache(maxsize=64)  # an error is not remembered
def _answers(setting: S3Setting, bucket: str) -> None:
    if not bucket:
        raise StorageError("s3:// without a bucket: expected a URI such as s3://bucket/folder")
    try:
        if _arrow_filesystem(setting, 1, _FIRST_ANSWER_SECONDS).get_file_info(bucket).type == pafs.FileType.Directory:
            return
    except OSError:
        pass  # HEAD has no words for what is wrong; the question below has
    reason = _why_not(setting, bucket)
    if reason is not None:
        raise StorageError(f"can not use s3://{bucket} at {setting.place}: {reason}")


def _why_not(setting: S3Setting, bucket: str) -> str | None:
    """Ask for one name in the bucket, and return what is wrong; None where only listing is not allowed."""
    from boto3.session import Session  # local: a third of a second that only a wrong setting costs
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        config = Config(**_botocore_config(1, _FIRST_ANSWER_SECONDS))
        client = Session().client("s3", endpoint_url=setting.endpoint, region_name=setting.region, config=config)
        client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except NoCredentialsError:
        return f"no credentials; set {_CREDENTIALS} in the environment"
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        if code == "AccessDenied":
            return None  # a key may be allowed one folder and not the bucket: the work itself will tell
        return _REFUSED.get(code, f"the server refuses ({code}); look at AWS_ENDPOINT_URL, AWS_REGION, {_CREDENTIALS}")
    except (BotoCoreError, ValueError) as error:
        return f"no answer ({type(error).__name__}); is the server running, and AWS_ENDPOINT_URL its address?"
    return None


def _botocore_config(attempts: int, answer_seconds: float) -> dict[str, Any]:
    return {
        "connect_timeout": _CONNECT_SECONDS,
        "read_timeout": answer_seconds,
        "retries": {"total_max_attempts": attempts, "mode": "standard"},
    }


@lru_cache(maxsize=8)
def _arrow_filesystem(setting: S3Setting, attempts: int, answer_seconds: float) -> pafs.S3FileSystem:
    arguments: dict[str, Any] = {
        "allow_delayed_open": True,  # small files are one put, not a multipart upload
        "connect_timeout": _CONNECT_SECONDS,
        "request_timeout": answer_seconds,
        "retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=attempts),
    }
    if setting.endpoint:
        parts = urlsplit(setting.endpoint)
        arguments |= {"endpoint_override": parts.netloc + parts.path, "scheme": parts.scheme}
    if setting.region:
        arguments["region"] = setting.region
    return pafs.S3FileSystem(**arguments)
