"""Run inference-perf against a gateway on a real broker, and keep what its report says.

    python -m benchmarks.load_generator PROGRAM    # some four minutes; writes load_generator.csv

`PROGRAM` is `inference-perf` of a virtual environment of its own (docs/load-generators.md). One
gateway, one worker with a model of two random layers and two adapters. Requests come by a Poisson
process, a minute at each rate. It fails if a request does. How fast it was is not kept: the model
is a toy.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.record import Row, keep
from tests.support.brokers import running_kafka
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_stand import TENANT, make_store, make_topics, worker_of

RESULTS: Final = "load_generator"  # no QUESTION, by which `make bench` finds what it runs
RATES: Final = (1, 2, 4)
SECONDS: Final = 60
PROMPTS: Final = {"min": 16, "max": 64, "mean": 32, "std_dev": 12, "total_count": 1_000}
ANSWERS: Final = {"min": 32, "max": 128, "mean": 64, "std_dev": 24, "total_count": 1_000}
CONFIG: Final = "inference-perf 0.7.0, tiny llama, 8 rows, backbone and 2 adapters"


def load_of(url: str, model: Path, out: Path) -> dict[str, Any]:
    """Return what the program is to do."""
    shares = {"terse": 0.5, "house": 0.25, "aril": 0.25}
    return {
        "api": {"type": "completion", "streaming": True},
        "server": {"type": "vllm", "model_name": "aril", "base_url": url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": str(model)},
        "data": {"type": "random", "input_distribution": PROMPTS, "output_distribution": ANSWERS},
        "load": {
            "type": "poisson",
            "num_workers": 1,
            "stages": [{"rate": rate, "duration": SECONDS} for rate in RATES],
            "lora_traffic_split": [
                {"name": name, "split": share} for name, share in shares.items()
            ],
        },
        "report": {
            "request_lifecycle": {
                "per_stage": True,
                "use_server_output_tokens": True,
            }
        },
        "storage": {"local_storage": {"path": str(out)}},
    }


def measured(program: str, folder: Path) -> list[dict[str, Any]]:
    """Return the program's report of each rate."""
    with running_kafka() as kafka:
        model, store = make_store(folder)
        contract = make_topics(kafka)
        gateway = GatewayProcess(
            "gateway",
            folder,
            bootstrap=kafka.bootstrap,
            jobs_topic=contract.jobs_topic,
            replies_prefix=contract.replies_prefix,
            gateway_tenant=TENANT,
            gateway_adapters=store,
        )
        out, told = folder / "out", folder / "load.yml"
        told.write_text(json.dumps(load_of(gateway.url, model, out)))  # which is YAML, too
        with worker_of(kafka, contract, folder).standing(), gateway.standing():
            environment = os.environ | {"HF_HUB_OFFLINE": "1"}
            command = [program, "-c", str(told)]
            subprocess.run(command, cwd=folder, env=environment, check=True)  # noqa: S603 - as told
    return [
        json.loads((out / f"stage_{at}_lifecycle_metrics.json").read_text())
        for at in range(len(RATES))
    ]


def rows_of(rate: int, told: dict[str, Any]) -> list[Row]:
    """Make the CSV's rows of one rate."""
    counted = {
        "requests": told["load_summary"]["count"],
        "requests that failed": told["failures"]["count"],
        "tokens of answers": told["successes"]["output_tokens"]["total"],
    }
    row = functools.partial(
        Row.of,
        question=RESULTS,
        provider="aril gateway",
        x=f"{rate} requests/s",
        unit="1",
        config=CONFIG,
    )
    return [row([number], metric=metric) for metric, number in counted.items()]


def main() -> None:
    """Run it, and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=lambda text: str(Path(text).absolute()))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reports = measured(arguments.program, Path(folder))
    failed = [told["failures"] for told in reports if told["failures"]["count"]]
    if failed:
        raise SystemExit(json.dumps(failed)[:2_000])
    keep(
        RESULTS,
        [row for rate, told in zip(RATES, reports, strict=True) for row in rows_of(rate, told)],
    )


if __name__ == "__main__":
    main()
