"""People who label for an hour: what they wait, and whether the server's memory stays what it is.

    python -m benchmarks.label_soak [--seconds 3600] [--people 100] [--database-url ...]

A trainer puts groups as fast as they are labelled and acknowledges their rewards. Prints a line a
minute, then all of it as JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.label_people import Over, Shift, work
from benchmarks.label_server import LabelServer
from benchmarks.load import Client, expect, quantile, request

GROUP = 4
MEDIAN_S = 3.0
"""Time that an image takes: a person labels some 20 images a minute."""
AHEAD = 2
"""Groups a person that wait to be labelled."""
SAMPLE_S = 5.0


@dataclass
class Soak:
    """What came of it."""

    shift: Shift
    seconds: float
    rss_mib: list[float] = field(default_factory=list)
    """The server's memory, every `SAMPLE_S`."""
    num_rewards: int = 0
    """Reward messages that the trainer acknowledged."""

    def facts(self) -> dict[str, object]:
        """For the record."""
        shift = self.shift
        times = {
            "first_claim": shift.first_claims_s,
            "claim": shift.claims_s,
            "image": shift.images_s,
            "submit": shift.submits_s,
        }
        waits = {
            name: {f"p{p}_ms": round(1000 * quantile(of, p / 100), 1) for p in (50, 95, 99)}
            for name, of in times.items()
        }
        rates = {"labels_per_s": round(shift.num_labels / self.seconds, 1)}
        counts = {"labels": shift.num_labels, "rewards": self.num_rewards, "idle": shift.num_idle}
        return {
            **counts,
            **rates,
            **waits,
            "rss_mib": [round(rss, 1) for rss in self.rss_mib[::12]],
        }


def soak(server: LabelServer, num_people: int, seconds: float, median_s: float = MEDIAN_S) -> Soak:
    """Let people work for so long, beside the trainer whom they work for."""
    digests = server.ask(GROUP)
    keys = server.keys("annotator", tuple(f"person {n}" for n in range(num_people)))
    done = Soak(Shift(), seconds)

    def beside(shift: Shift, over: Over) -> Iterable[Client]:
        done.shift = shift
        yield _feed(server.app, digests, AHEAD * num_people, shift, over)
        yield _consume(server.app, done, over)
        yield _watch(server, done, over)

    work(server.port, keys, seconds, median_s, beside)
    return done


def _feed(key: str, digests: list[str], ahead: int, shift: Shift, over: Over) -> Client:
    num_put = 0
    images = [{"index": n, "sha256": sha256} for n, sha256 in enumerate(digests)]
    while not over():
        if num_put - len(shift.submits_s) >= ahead:
            yield 0.05
            continue
        body = {
            "run_id": "soak",
            "prompt": {"id": "p", "text": "two red balls"},
            "policy_version": num_put // 1000,
            "question_id": "like",
            "images": images,
        }
        path = f"/api/v1/groups/soak-{num_put}"
        expect((yield request("PUT", path, key, json.dumps(body).encode())), 200, 201)
        num_put += 1


def _consume(key: str, done: Soak, over: Over) -> Client:
    queue = "/api/v1/reward-queue"
    wanted = json.dumps({"max_groups": 64, "visibility_seconds": 60, "wait_seconds": 0}).encode()
    while not over():
        got = expect((yield request("POST", f"{queue}:receive", key, wanted)), 200)
        receipts = [message["receipt"] for message in json.loads(got.body)["messages"]]
        if receipts:
            body = json.dumps({"receipts": receipts}).encode()
            expect((yield request("POST", f"{queue}:ack", key, body)), 200)
            done.num_rewards += len(receipts)
        yield 1.0


def _watch(server: LabelServer, done: Soak, over: Over) -> Client:
    since = time.perf_counter()
    while not over():
        done.rss_mib.append(server.rss_mib())
        if len(done.rss_mib) % 12 == 1:
            minutes = (time.perf_counter() - since) / 60
            labels, rss = done.shift.num_labels, done.rss_mib[-1]
            print(f"{minutes:.0f} min\t{labels} labels\t{rss:.1f} MiB", flush=True)
        yield SAMPLE_S


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--database-url", help="a fresh SQLite file if not given")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--people", type=int, default=100)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        LabelServer(Path(folder), arguments.database_url) as server,
    ):
        print(json.dumps(soak(server, arguments.people, arguments.seconds).facts()))


if __name__ == "__main__":
    main()
