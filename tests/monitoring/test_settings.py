"""``sinks.toml`` is read as it stands, or refused by key and rule, and no secret is repeated.

The examples of ``docs/operations.md``, of this file and of ``change-control.toml``, are files that work.
"""

import re
from pathlib import Path

import pytest

from data.errors import UsageError
from models import change_control
from monitoring import senders

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"

FULL = """
[[webhook]]
url = "https://hooks.hospital.example/caremodels"
secret = "CAREMODELS_WEBHOOK_SECRET"
on = "always"
timeout = 5.0
[[webhook]]
url = "http://[::1]:8080/"
[[email]]
host = "localhost"
from = "caremodels@hospital.example"
to = ["models@hospital.example"]
port = 25
starttls = false
[prometheus]
"""


def test_the_file_is_read_with_its_defaults(tmp_path):
    assert senders.read(tmp_path) is None
    (tmp_path / "sinks.toml").write_text(FULL)
    found = senders.read(tmp_path)
    first, second, third = found.told.values()
    assert (first.secret, first.on, first.timeout) == ("CAREMODELS_WEBHOOK_SECRET", "always", 5.0)
    assert (second.secret, second.on, second.timeout) == (None, "alarm", 10.0)
    assert (third.sender, third.port, third.on, third.user) == (
        "caremodels@hospital.example", 25, "alarm", None,
    )  # fmt: skip
    assert found.prometheus.textfile == "prometheus/caremodels.prom"
    assert found.prometheus.rules == "prometheus/caremodels.rules.yml"
    (tmp_path / "sinks.toml").write_text("")
    assert (senders.read(tmp_path).told, senders.read(tmp_path).prometheus) == ({}, None)


MAIL = '[[email]]\nhost = "h.example"\nfrom = "m@h.example"\nto = ["a@h.example"]\n'
HOOK = '[[webhook]]\nurl = "https://h.example/canary"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[webhook]", "line 1"),
        ("[[telegram]]\n", "telegram"),
        ("[webhook]\nurl = 'https://h.example/canary'\n", "array"),
        ('[[webhook]]\nurl = "http://h.example/canary"\n', "http://h.example: expected https"),
        ('[[webhook]]\nurl = "https://canary:canary@h.example/"\n', "https://h.example: expected"),
        ('[[webhook]]\nurl = "https://:canary@h.example/"\n', "https://h.example: expected"),
        ('[[webhook]]\nurl = "https://h.example:99999/canary"\n', "webhook url: expected"),
        ('[[webhook]]\nurl = "http://[canary/"\n', "webhook url: expected"),
        ('[[webhook]]\nurl = "http://localhost.h.example/canary"\n', "expected https"),
        (HOOK + 'on = "sometimes"\n', "on"),
        (HOOK + "timeout = 0\n", "timeout"),
        (HOOK + 'secret = "canary itself!"\n', "secret"),
        (HOOK + HOOK, "a sink stands there twice"),
        (MAIL + "starttls = false\n", "without STARTTLS on this machine only"),
        (MAIL + 'user = "us"\n', "both user and password, or neither"),
        (MAIL + 'user = "us"\npassword = "canary itself!"\n', "password"),
        (MAIL.replace('["a@h.example"]', "[]"), "to"),
        (MAIL.replace("a@h.example", "a@h.example\\nBcc: x@y.example"), "to"),
        (MAIL.replace("m@h.example", "nobody"), "from"),
        (MAIL + "port = 0\n", "port"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_key_and_rule(tmp_path, text, says):
    (tmp_path / "sinks.toml").write_text(text)
    with pytest.raises(UsageError) as raised:
        senders.read(tmp_path)
    assert str(raised.value).startswith("sinks.toml: ")
    assert says in str(raised.value)
    assert "canary" not in str(raised.value)


def example(name):
    return re.search(rf"```toml\n# {name}\n(.*?)```", OPERATIONS.read_text(), flags=re.DOTALL)[1]


def test_the_documented_example_is_read_and_names_every_key(tmp_path):
    text = example("sinks.toml")
    (tmp_path / "sinks.toml").write_text(text)
    found = senders.read(tmp_path)
    assert [one.name for one in found.told.values()] == [
        "webhook https://hooks.hospital.example",
        "e-mail by smtp.hospital.example",
    ]
    known = {
        name
        for kind in (senders.Webhook, senders.Email, senders.Prometheus)
        for name in kind.__struct_encode_fields__
    }
    assert set(re.findall(r"^(\w+) =", text, flags=re.MULTILINE)) == known


def test_the_documented_plan_is_read(tmp_path):
    (tmp_path / "change-control.toml").write_text(example("change-control.toml"))
    plan = change_control.read(tmp_path)
    assert plan.approved_by == "Dr Chen, model committee, 2026-11-24"
    assert plan.rule("sepsis", "recalibrate").largest_shift == 0.5
    assert plan.rule("ed_admission", "retrain").auroc_loss == 0.01
    assert plan.rule("sepsis", "withdraw").without_signature
    assert not plan.rule("ed_admission", "withdraw").without_signature
