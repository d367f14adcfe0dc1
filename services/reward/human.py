"""People's likes as a reward: groups go to the label service, and what people say comes back.

    offer        groups that people could be asked about; nothing is sent yet
    collect      the best of them -> the service (`pending`); reward messages -> `ready` with the
                 posterior mean mu, or `expired`, as is a group that nobody will be asked about
    acknowledge  once the records are in the buffer, and not before: a message that was lost on
                 its way comes again, and the buffer tells repeats by the record's revision
Nothing here waits for a person, and no call waits for the service longer than a moment (`CALL_S`):
what is slow goes on behind it (`label_calls`), and a later call hears how it ended. A service that
cannot be reached costs labels, never the run, unless `on_failure` says so.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

from services.config import RewardConfig
from services.label_client.client import LabelClient
from services.label_client.errors import LabelServiceError, LabelServiceUnreachableError
from services.label_client.models import RewardImage, RewardMessage
from services.reward.contract import MAX_REASON
from services.reward.label_calls import MAX_SENDING, Heard, LabelCalls
from services.reward.label_sampling import Candidate, LabelSampling
from services.reward.worker import RewardError
from tdm_core.types import ImageGroup, RewardRecord, RewardState

GRACE_S = 60.0
"""How long after its deadline a group is waited for that the service says nothing of."""
REST_S = 10.0
"""Pause after a service that could not be reached."""
MAX_LOOKS = 16
"""Groups looked up one by one in a call, after a restart."""
TIMEOUT_S = 10.0
WARN_S = 30.0
CALL_S = 2.0
"""How long a call waits for the service, at most; half of it while it sends."""

logger = logging.getLogger(__name__)


@dataclass
class _Collected:
    """What one call brought: records and what telemetry wants to know of them."""

    records: list[RewardRecord] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)

    def count(self, name: str, value: float = 1.0) -> None:
        """Add to a number."""
        self.numbers[name] = self.numbers.get(name, 0.0) + value


def label_client(reward: RewardConfig, pause: Callable[[float], Any] = time.sleep) -> LabelClient:
    """The client of a human reward, which pauses between attempts; ValueError where the key is
    missing."""
    human = reward.human
    assert human is not None
    key = os.environ.get(human.key_env, "").strip()
    if not key:
        raise ValueError(
            f"reward {reward.name!r} (human): the environment variable {human.key_env} is not set; "
            "put a service key of the label service into it (tdm-r1 keys create --role service)"
        )
    return LabelClient(human.url, key, timeout_s=TIMEOUT_S, retries=2, sleep=pause)


def check_service(reward: RewardConfig, client: LabelClient | None = None) -> None:
    """Raise ValueError unless the service answers, takes the key and knows the question."""
    human = reward.human
    assert human is not None
    who = f"reward {reward.name!r} (human): {human.url}"
    try:
        with client or label_client(reward) as asked:
            asked.receive(max_groups=1, visibility_s=1, run_id="tdm-r1.check")
            question = asked.request("GET", f"/questions/{human.question}").json()
    except LabelServiceUnreachableError as error:
        raise ValueError(f"{who} cannot be reached: {error}; start it with tdm-r1 serve") from error
    except LabelServiceError as error:
        if error.status == 404:
            lack = f"knows no question {human.question!r}; an admin makes it, or name another"
            raise ValueError(f"{who} {lack}") from error
        raise ValueError(f"{who} refuses the key in {human.key_env}: {error}") from error
    if question["state"] != "active":
        raise ValueError(f"{who}: question {human.question!r} is {question['state']}; open it")


class HumanRewardWorker:
    """One run's door to the people; a plain class that remembers only who has been asked."""

    def __init__(
        self,
        reward: RewardConfig,
        run_id: str,
        group_size: int,
        sampler: Mapping[str, int] | None = None,
        client: LabelClient | None = None,
        clock: Callable[[], float] = time.monotonic,
        call_s: float = CALL_S,
    ) -> None:
        """`sampler` is told to the service with each group; `clock` gives seconds."""
        assert reward.human is not None
        self._settings, self._options = reward, reward.human
        self._run_id, self._group_size = run_id, group_size
        self._sampler = dict(sampler or {})
        self._calls = LabelCalls(lambda pause: client or label_client(reward, pause))
        self._clock, self._call_s = clock, call_s
        self._sending: dict[Future[Exception | None], Candidate] = {}
        """Groups on their way, perhaps since an earlier call."""
        self._listening: Future[Heard] | None = None
        self._sampling = LabelSampling(self._options, clock)
        self._asked: dict[int, float] = {}
        """Groups that people have, and when they got them."""
        self._unsure: dict[int, None] = {}
        """Groups that an earlier worker may have asked about, oldest first."""
        self._given_up: set[int] = set()
        """Those of them that the service did not know: the run has let them go."""
        self._rest_until = self._warned_at = -math.inf

    def offer(self, groups: Sequence[ImageGroup], *judged: Sequence[RewardRecord]) -> int:
        """Take in groups with what automatic rewards say of them; how many are candidates now."""
        wanted = [group for group in groups if group.group_id not in self._given_up]
        self._sampling.offer(wanted, [record for records in judged for record in records])
        self._settle_doubt(*(group.group_id for group in wanted))
        return self._sampling.num_candidates

    def collect(
        self, policy_version: int
    ) -> tuple[list[RewardRecord], dict[str, float], list[str]]:
        """Ask and listen: records, numbers to watch, receipts to acknowledge.

        Never raises because the service is away, nor waits for it beyond `call_s`: what has not
        been sent or heard by then is by a later call.
        """
        found, began = _Collected(), self._clock()
        self._send(policy_version, found, began + self._call_s / 2)
        receipts = self._listen(policy_version, found, began + self._call_s)
        self._expire(found)
        return found.records, self._numbers(found), receipts

    def acknowledge(self, receipts: Sequence[str]) -> int:
        """Tell the service that these answers are safe; how many it took."""
        try:
            told = self._calls.acknowledge(receipts) if receipts else None
            results = told.result(self._call_s) if told else []
        except (LabelServiceError, LabelServiceUnreachableError, TimeoutError) as error:
            reason = str(error) or f"no answer within {self._call_s:g} s"
            logger.warning("%s: %s; the answers may come again", self._who, reason)
            return 0
        return sum(result.status == 200 for result in results)

    def adopt(self, group_ids: Sequence[int]) -> int:
        """After a restart: groups that the buffer waits for; the service is asked about each."""
        on_their_way = {candidate.images.group_id for candidate in self._sending.values()}
        known = self._asked.keys() | self._sampling.candidates | on_their_way
        unknown = [group_id for group_id in group_ids if group_id not in known]
        self._unsure |= dict.fromkeys(unknown)
        return len(unknown)

    def close(self) -> None:
        """Give the connection back."""
        self._calls.close()

    @property
    def _who(self) -> str:
        return f"reward {self._settings.name!r} (human)"

    @property
    def _rests(self) -> bool:
        """The service could not be reached a moment ago."""
        return self._clock() < self._rest_until

    def _numbers(self, found: _Collected) -> dict[str, float]:
        waiting = {"open": len(self._asked), "candidates": self._sampling.num_candidates}
        return found.numbers | {name: float(count) for name, count in waiting.items()}

    # Asking

    def _send(self, policy_version: int, found: _Collected, until: float) -> None:
        """Ask about as many candidates as may be, and let the others go whose time is over."""
        self._note_sent(found, 0.0)
        num_open = len(self._asked) + len(self._sending)
        choice = self._sampling.choose(num_open, policy_version)
        for candidate in choice.let_go:
            group_id = candidate.images.group_id
            found.records += self._settled(group_id, "expired", "people were not asked")
            found.count("declined")
        left = choice.send
        while (left or self._sending) and self._clock() < until:
            # Several at once, so that the service writes their images together.
            while left and len(self._sending) < MAX_SENDING and not self._rests:
                self._put(left.pop(0))
            if not self._note_sent(found, until - self._clock()):
                break
        self._sampling.put_back(left)

    def _put(self, candidate: Candidate) -> None:
        images = candidate.images
        name, pictures = self._name(images.group_id), images.images_GS3HW[:, -1]
        sent = self._calls.put(name, pictures, partial(self._body, candidate))
        self._sending[sent] = candidate

    def _note_sent(self, found: _Collected, patience_s: float) -> bool:
        """What became of groups on their way; whether it was heard of any."""
        done = wait(self._sending, patience_s, FIRST_COMPLETED).done
        for sent in [sent for sent in self._sending if sent in done]:
            self._note(self._sending.pop(sent), sent.result(), found)
        return bool(done)

    def _note(self, candidate: Candidate, fault: Exception | None, found: _Collected) -> None:
        """What became of a group that was sent."""
        group_id = candidate.images.group_id
        refusal = fault if isinstance(fault, LabelServiceError) else None
        # The group is there already where a worker died just after it had sent it.
        if fault is None or (refusal and refusal.code == "group-exists"):
            self._asked[group_id] = self._clock()
            found.records += self._settled(group_id, "pending", "people were asked")
            found.count("sent")
        elif refusal and refusal.status < 500 and refusal.status != 429:
            self._refused(refusal)
            found.records += self._settled(group_id, "failed", str(refusal))
            found.count("failed")
        else:
            self._away(fault, found)
            self._sampling.put_back([candidate])

    def _body(self, candidate: Candidate, digests: Sequence[str]) -> dict[str, Any]:
        images, options = candidate.images, self._options
        deadline = datetime.now(UTC) + timedelta(seconds=options.deadline_s)
        body: dict[str, Any] = {
            "run_id": self._run_id,
            "prompt": {"id": images.prompt.prompt_id, "text": images.prompt.text},
            "policy_version": images.policy_version,
            "question_id": options.question,
            "sampler": self._sampler,
            "images": [{"index": i, "sha256": digest} for i, digest in enumerate(digests)],
            "auto_rewards": candidate.automatic,
            "priority": options.priority,
            "deadline_at": deadline.isoformat(),
        }
        return body if options.overlap is None else body | {"overlap": options.overlap}

    # Hearing

    def _listen(self, policy_version: int, found: _Collected, until: float) -> list[str]:
        """Take in what the service has said by then, to this call or an earlier one; receipts."""
        if self._listening is None and not self._rests:
            doubtful = {
                group_id: self._name(group_id) for group_id in islice(self._unsure, MAX_LOOKS)
            }
            self._listening = self._calls.listen(
                self._run_id, self._options.visibility_s, self._is_ours, doubtful
            )
        if (
            self._listening is None
            or not wait([self._listening], max(0.0, until - self._clock())).done
        ):
            return []
        listened, self._listening = self._listening, None
        heard = listened.result()
        for message in heard.messages:
            self._hear(message, policy_version - message.policy_version, found)
        self._note_foreign(heard.foreign, found)
        for group_id, told in heard.told.items():
            self._learn(group_id, told, found)
        if heard.fault is not None:
            self._away(heard.fault, found)
        return [message.receipt for message in heard.messages]

    def _is_ours(self, message: RewardMessage) -> bool:
        """Whether it tells of a group that this run made: anybody with a key may name the run."""
        number = message.group_id.removeprefix(self._name(""))
        named = number.isascii() and number.isdigit() and message.group_id == self._name(number)
        return named and all(0 <= image.index < self._group_size for image in message.images)

    def _note_foreign(self, foreign: Sequence[RewardMessage], found: _Collected) -> None:
        if foreign:
            names = ", ".join(message.group_id for message in foreign)
            logger.warning("%s: %s: not groups of this run, given back", self._who, names)
            found.count("foreign", len(foreign))

    def _hear(self, message: RewardMessage, staleness: int, found: _Collected) -> None:
        group_id = int(message.group_id.removeprefix(self._name("")))
        since = self._asked.pop(group_id, None)
        self._settle_doubt(group_id)
        latency_s = 0.0 if since is None else self._clock() - since
        if message.state == "expired":
            found.count("expired")
            found.records += self._settled(
                group_id, "expired", "people's time ran out", message.reward_revision
            )
            return
        found.count("ready")
        found.count("revised", float(message.reward_revision > 1))
        found.count("votes", sum(image.n for image in message.images))
        found.count("latency_s", latency_s)
        found.count("staleness", staleness)
        found.records += [
            self._verdict(group_id, image, message.reward_revision, latency_s, message.label_seq)
            for image in message.images
        ]

    def _verdict(
        self,
        group_id: int,
        image: RewardImage,
        revision: int,
        latency_s: float,
        label_seq: int | None = None,
    ) -> RewardRecord:
        """The posterior mean as a record; `failed` where there is none."""
        usable = image.mu is not None and math.isfinite(image.mu)
        return RewardRecord(
            group_id=group_id,
            sample=image.index,
            slot=0,
            reward=self._settings.name,
            state="ready" if usable else "failed",
            value=image.mu if usable else None,
            version=self._options.question,
            parts=_parts(image, label_seq),
            reason="" if usable else f"mu is {image.mu}",
            latency_s=latency_s,
            revision=revision,
        )

    def _settle_doubt(self, *group_ids: int) -> None:
        """It is known now what becomes of them: the service need not be asked."""
        for group_id in group_ids:
            self._unsure.pop(group_id, None)

    def _learn(self, group_id: int, told: Mapping[str, Any], found: _Collected) -> None:
        """What became of a group that an earlier worker had asked about."""
        if group_id not in self._unsure:
            return  # it came again while the service was asked
        self._settle_doubt(group_id)
        found.count("looked_up")
        # The answer to a ready group is in the queue and comes from there: taking it here as well
        # would bring it twice. What was consumed comes no more.
        if told["state"] in ("open", "ready"):
            self._asked[group_id] = self._clock()
        elif told["state"] == "consumed":
            found.count("ready")
            found.records += [
                self._verdict(
                    group_id, RewardImage.model_validate(image), told["reward_revision"], 0.0
                )
                for image in told["images"]
            ]
        else:
            self._given_up.add(group_id)
            found.count("expired")
            found.records += self._settled(group_id, "expired", "nobody has it any more")

    def _expire(self, found: _Collected) -> None:
        """People's time is over, whether or not the service is there to say so."""
        last = self._clock() - self._options.deadline_s - GRACE_S
        for group_id in [group_id for group_id, since in self._asked.items() if since <= last]:
            del self._asked[group_id]
            found.count("expired")
            found.records += self._settled(group_id, "expired", "no answer in time")

    # Records without a value, and faults

    def _settled(
        self, group_id: int, state: RewardState, reason: str, revision: int = 0
    ) -> list[RewardRecord]:
        """A record without a value for every image of a group."""
        name, reason = self._settings.name, reason[:MAX_REASON]
        return [
            RewardRecord(group_id, i, 0, name, state, None, reason=reason, revision=revision)
            for i in range(self._group_size)
        ]

    def _name(self, group_id: object) -> str:
        return f"{self._run_id}-{group_id}"

    def _refused(self, error: LabelServiceError) -> None:
        if self._settings.on_failure == "stop_run":
            raise RewardError(
                f"{self._who}: the label service refused a group and on_failure is stop_run: "
                f"{error}; mend it, or set on_failure to drop_group"
            ) from error
        logger.warning("%s: the label service refused a group: %s", self._who, error)

    def _away(self, error: Exception, found: _Collected) -> None:
        found.count("unreachable")
        now = self._clock()
        if now >= self._rest_until:
            self._rest_until = now + REST_S
        if now >= self._warned_at + WARN_S:
            self._warned_at = now
            logger.warning("%s: no labels meanwhile: %s", self._who, error)


def _parts(image: RewardImage, label_seq: int | None) -> dict[str, float]:
    """What is known of the votes; `label_seq` is the newest label's of the group."""
    parts = {"n": image.n, "rho": image.rho, "likes": image.likes, "label_seq": label_seq}
    return {name: value for name, value in parts.items() if value is not None}
