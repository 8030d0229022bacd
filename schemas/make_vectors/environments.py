"""What clients read from the environment: `ARIL_*` variables, and what is made of them.

Nothing of this crosses the wire. It is here so that a program means the same in every language.
"""

from typing import Any, Final

from aril.schemas.make_vectors.build import Vector

_DEFAULTS: Final = {
    "tenant": "acme",
    "bootstrap": "localhost:9092",
    "jobs_topic": "jobs",
    "replies_prefix": "replies.",
    "security_protocol": "PLAINTEXT",
}
_USER: Final = {"SASL_USERNAME": "u", "SASL_PASSWORD": "p"}
_SASL: Final = {"SECURITY_PROTOCOL": "SASL_SSL"}
_BEARER: Final = _SASL | {"SASL_MECHANISM": "OAUTHBEARER"}
_FILE: Final = _BEARER | {"SASL_TOKEN_PROVIDER": "file", "SASL_TOKEN_FILE": "/token"}
_OIDC: Final = _BEARER | {
    "SASL_TOKEN_PROVIDER": "oidc",
    "SASL_OIDC_URL": "https://idp/token",
    "SASL_OIDC_CLIENT_ID": "id",
    "SASL_OIDC_CLIENT_SECRET": "secret",
}
_MTLS: Final = {
    "SECURITY_PROTOCOL": "SSL",
    "SSL_CAFILE": "/ca.pem",
    "SSL_CERTFILE": "/cert.pem",
    "SSL_KEYFILE": "/key.pem",
}


def environment_vectors() -> list[Vector]:
    """Return environments with what a client is made with, or the variable that is refused.

    `needs` is what not every client has: one that has not refuses by naming `refused`.
    """
    return [*_good(), *_bad()]


def _good() -> list[Vector]:
    scram = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512"}
    user = {"sasl_username": "u", "sasl_password": "p"}
    bearer = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}
    return [
        _vector("a tenant alone", {}, {}),
        _vector("names of others", {"MODEL": "/model", "ROWS": "many"}, {}),
        _vector(
            "brokers and topics",
            {"BOOTSTRAP": "a:1,b:2", "JOBS_TOPIC": "queue", "REPLIES_PREFIX": "answers."},
            {"bootstrap": "a:1,b:2", "jobs_topic": "queue", "replies_prefix": "answers."},
        ),
        _vector("a jobs topic a tenant", {"JOBS_TOPIC": "jobs.*"}, {"jobs_topic": "jobs.acme"}),
        _vector("a tenant that is named", {}, {"tenant": "zeta"}, tenant="zeta"),
        _vector("TLS", {"SECURITY_PROTOCOL": "SSL"}, {"security_protocol": "SSL"}),
        _vector(
            "mTLS",
            _MTLS,
            {
                "security_protocol": "SSL",
                "ssl_cafile": "/ca.pem",
                "ssl_certfile": "/cert.pem",
                "ssl_keyfile": "/key.pem",
            },
        ),
        _vector("SCRAM, if nothing is said", _SASL | _USER, scram | user),
        _vector(
            "PLAIN without TLS",
            {"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "SASL_MECHANISM": "PLAIN"} | _USER,
            {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"} | user,
        ),
        _vector(
            "SCRAM of 256 bits",
            _SASL | {"SASL_MECHANISM": "SCRAM-SHA-256"} | _USER,
            scram | {"sasl_mechanism": "SCRAM-SHA-256"} | user,
        ),
        _vector(
            "a token in a file",
            _FILE,
            bearer | {"sasl_token_provider": "file", "sasl_token_file": "/token"},
            needs=("token_file", "sasl_token_provider"),
        ),
        _vector(
            "a token from a provider",
            _OIDC,
            bearer
            | {
                "sasl_token_provider": "oidc",
                "sasl_oidc_url": "https://idp/token",
                "sasl_oidc_client_id": "id",
                "sasl_oidc_client_secret": "secret",
            },
            needs=("oidc", "sasl_token_provider"),
        ),
        _vector(
            "a key with a password",
            _MTLS | {"SSL_KEY_PASSWORD": "p"},
            {
                "security_protocol": "SSL",
                "ssl_cafile": "/ca.pem",
                "ssl_certfile": "/cert.pem",
                "ssl_keyfile": "/key.pem",
                "ssl_key_password": "p",
            },
            needs=("key_password", "ssl_key_password"),
        ),
    ]


def _bad() -> list[Vector]:
    plain = {"SECURITY_PROTOCOL": "PLAINTEXT"}
    return [
        _vector("no tenant", {"TENANT": None}, "tenant"),
        _vector("an empty tenant", {"TENANT": ""}, "tenant"),
        _vector("a tenant in capitals", {"TENANT": "Acme"}, "tenant"),
        _vector("the tenant that is reserved", {"TENANT": "shared"}, "tenant"),
        _vector("a topic that Kafka refuses", {"JOBS_TOPIC": "a b"}, "jobs_topic"),
        _vector("an empty topic", {"JOBS_TOPIC": ""}, "jobs_topic"),
        _vector("a star in the middle", {"JOBS_TOPIC": "a*b"}, "jobs_topic"),
        _vector("a prefix without its dot", {"REPLIES_PREFIX": "replies"}, "replies_prefix"),
        _vector("a protocol there is not", {"SECURITY_PROTOCOL": "TLS"}, "security_protocol"),
        _vector("an empty protocol", {"SECURITY_PROTOCOL": ""}, "security_protocol"),
        _vector("a mechanism there is not", _SASL | {"SASL_MECHANISM": "X"}, "sasl_mechanism"),
        _vector("authorities without TLS", plain | {"SSL_CAFILE": "/ca.pem"}, "ssl_cafile"),
        _vector(
            "a key without a certificate",
            {"SECURITY_PROTOCOL": "SSL", "SSL_KEYFILE": "/key.pem"},
            "ssl_keyfile",
        ),
        _vector("a mechanism without SASL", {"SASL_MECHANISM": "PLAIN"}, "sasl_mechanism"),
        _vector("a user without SASL", plain | {"SASL_USERNAME": "u"}, "sasl_username"),
        _vector("SASL without a user", _SASL | {"SASL_PASSWORD": "p"}, "sasl_username"),
        _vector("SASL without a password", _SASL | {"SASL_USERNAME": "u"}, "sasl_password"),
        _vector("an empty password", _SASL | _USER | {"SASL_PASSWORD": ""}, "sasl_password"),
        _vector("a token beside a password", _SASL | _USER | _file(), "sasl_token_file"),
        _vector("a user beside a token", _FILE | {"SASL_USERNAME": "u"}, "sasl_username"),
        _vector("tokens from nowhere", _BEARER, "sasl_token_provider"),
        _vector("a token in no file", _BEARER | {"SASL_TOKEN_PROVIDER": "file"}, "sasl_token_file"),
        _vector(
            "two providers",
            _FILE | {"SASL_OIDC_URL": "https://idp/token"},
            "sasl_oidc_url",
        ),
    ]


def _file() -> dict[str, str]:
    return {"SASL_TOKEN_FILE": "/token"}


def _vector(
    name: str,
    variables: dict[str, Any],
    expect: dict[str, str] | str,
    *,
    tenant: str | None = None,
    needs: tuple[str, str] | None = None,
) -> Vector:
    """Return a vector; `expect` is what differs from the defaults, or what is refused."""
    given = {"TENANT": "acme"} | variables
    environ = {f"ARIL_{key}": value for key, value in given.items() if value is not None}
    vector: Vector = {"name": name, "environ": environ}
    if tenant is not None:
        vector["tenant"] = tenant
    if needs is not None:
        vector |= {"needs": needs[0], "refused": needs[1]}
    told = {"error": expect} if isinstance(expect, str) else _DEFAULTS | expect
    return vector | {"expect": told}
