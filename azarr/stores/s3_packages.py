"""What S3 needs of other packages; without them, importing this says how to get them."""

from __future__ import annotations

try:
    import aiohttp
    from aiobotocore.awsrequest import AioAWSResponse
    from aiobotocore.config import AioConfig
    from aiobotocore.credentials import AioCredentials
    from aiobotocore.session import AioSession
    from botocore import UNSIGNED as NO_SIGNATURES
    from botocore import exceptions as botocore_errors
    from botocore.parsers import ResponseParserError
    from botocore.utils import get_environ_proxies
    from yarl import URL
except ImportError as error:
    raise ImportError(f'S3 needs aiobotocore and aiohttp: pip install "azarr[s3]" ({error})') from error

__all__ = [
    "NO_SIGNATURES",
    "URL",
    "AioAWSResponse",
    "AioConfig",
    "AioCredentials",
    "AioSession",
    "ResponseParserError",
    "aiohttp",
    "botocore_errors",
    "get_environ_proxies",
]
