"""What a group of settings promises: documented fields, ranges, a digest, client options."""

import pytest
from pydantic import SecretStr, ValidationError

from bot.settings import (
    BotSettings,
    KafkaSettings,
    ModelSettings,
    OpenAISettings,
    Settings,
    WorkerSettings,
    known_fields,
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for known in known_fields():
        monkeypatch.delenv(known.variable, raising=False)


def test_every_field_says_what_it_means() -> None:
    undocumented = [known.name for known in known_fields() if len(known.description) < 15]
    assert undocumented == []


def test_names_that_other_programs_rely_on() -> None:
    names = {known.variable for known in known_fields()}
    assert names >= {
        "TWITE_KAFKA__BOOTSTRAP_SERVERS",
        "TWITE_KAFKA__GROUP_ID",
        "TWITE_BOT__ACCOUNT_ID",
        "TWITE_MODEL__ENGINE",
        "TWITE_MODEL__NAME",
        "TWITE_MODEL__ECHO__LATENCY_MS",
    }


@pytest.mark.parametrize(
    ("group", "values"),
    [
        (WorkerSettings, {"max_in_flight": 0}),
        (ModelSettings, {"temperature": -1}),
        (ModelSettings, {"engine": "guesswork"}),
        (ModelSettings, {"top_p": 0}),
        (KafkaSettings, {"partitions": 0}),
        (KafkaSettings, {"bootstrap_servers": ""}),
        (KafkaSettings, {"bootstrap_servers": "a:b"}),
        (KafkaSettings, {"bootstrap_servers": "localhost"}),
        (KafkaSettings, {"bootstrap_servers": "http://x:9092"}),
        (KafkaSettings, {"bootstrap_servers": "x:9092,"}),
        (KafkaSettings, {"bootstrap_servers": "x:0"}),
        (KafkaSettings, {"bootstrap_servers": "x:70000"}),
        (KafkaSettings, {"bootstrap_servers": "::1:9092"}),
        (BotSettings, {"handle": "@owl"}),
        (BotSettings, {"handle": " "}),
        (BotSettings, {"account_id": " "}),
        (ModelSettings, {"device": "tpu"}),
        (ModelSettings, {"device": "cuda:first"}),
        (KafkaSettings, {"security_protocol": "SASL_SSL"}),
        (OpenAISettings, {"endpoints": ""}),
        (OpenAISettings, {"endpoints": "gpu-1:8000"}),
        (OpenAISettings, {"endpoints": "ftp://gpu-1"}),
        (OpenAISettings, {"endpoints": "http://user:key@gpu-1"}),
        (OpenAISettings, {"endpoints": "http://gpu-1:99999"}),
        (OpenAISettings, {"endpoints": "http://gpu-1:0"}),
        (OpenAISettings, {"endpoints": "http://gpu-1?key=1"}),
        (OpenAISettings, {"endpoints": "http://gpu-1,http://gpu-1"}),
        (OpenAISettings, {"endpoints": "http://gpu-1,"}),
        (OpenAISettings, {"retry_share": 1.5}),
    ],
)
def test_values_out_of_range_are_refused(group: type, values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        group(**values)


def test_addresses_of_model_servers_may_be_several_and_have_a_path() -> None:
    told = "http://gpu-1:8000/v1, https://models.example.org/llama ,http://[::1]:1"
    assert OpenAISettings(endpoints=told).endpoints == told.replace(" ", "")


def test_addresses_of_brokers_may_be_several_and_ipv6() -> None:
    kafka = KafkaSettings(bootstrap_servers="kafka-1:9092, [::1]:9093,10.0.0.7:1")
    assert kafka.bootstrap_servers == "kafka-1:9092,[::1]:9093,10.0.0.7:1"


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps"])
def test_devices_that_there_are(device: str) -> None:
    assert ModelSettings(device=device).device == device


def test_settings_never_change() -> None:
    with pytest.raises(ValidationError):
        Settings().worker.__setattr__("max_in_flight", 3)


def test_the_digest_follows_what_decides_and_nothing_else() -> None:
    def digest(**kafka: object) -> str:
        return Settings(kafka=KafkaSettings.model_validate(kafka)).digest

    assert digest() == digest()
    assert len(digest()) == 64
    assert digest(group_id="other") != digest()
    assert digest(group_instance_id="worker-7") == digest()
    assert digest(sasl_password="hunter2") == digest()


def test_no_secret_shows_in_a_printed_value() -> None:
    kafka = KafkaSettings(sasl_password=SecretStr("hunter2"))
    assert "hunter2" not in repr(kafka) + str(kafka.model_dump(mode="json"))


def test_client_options_carry_the_login() -> None:
    kafka = KafkaSettings(
        security_protocol="SASL_PLAINTEXT",
        sasl_username="twite",
        sasl_password=SecretStr("hunter2"),
    )
    assert kafka.client_options() == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "twite",
        "sasl_plain_password": "hunter2",
    }
    assert KafkaSettings().client_options() == {"security_protocol": "PLAINTEXT"}


def test_ssl_makes_a_context_that_checks_the_broker() -> None:
    import ssl

    context = KafkaSettings(security_protocol="SSL").client_options()["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_an_adapter_that_answers_is_one_of_those_that_there_are() -> None:
    with pytest.raises(ValidationError, match="'polite' is not among the adapters"):
        ModelSettings(adapter="polite", adapters={"pirate": "/srv/pirate"})
    assert ModelSettings(adapter="pirate", adapters={"pirate": "/srv/pirate"}).adapter == "pirate"
    assert ModelSettings(adapter="polite", engine="openai").adapter == "polite"  # the servers know


@pytest.mark.parametrize("digest", ["", "abc", "sha256:abc", "md5:" + "0" * 64])
def test_a_digest_that_is_none_is_refused(digest: str) -> None:
    with pytest.raises(ValidationError):
        ModelSettings(weights_digest=digest)
