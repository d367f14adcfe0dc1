"""Pictures of a run, and what the judges said of them."""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from services.dashboard.elements import tag
from services.runs_api.group_index import Group, Image
from services.runs_api.library import OpenRun


def address(run: OpenRun, digest: str, size: str = "256") -> str:
    """Where the API has an image."""
    return f"/api/v1/runs/{run.id}/images/{digest}?size={size}"


def on_disk(run: OpenRun, groups: Iterable[Group]) -> frozenset[str]:
    """Digests of those of their pictures whose files are there."""
    digests = {digest for group in groups for image in group.images for digest in image.path}
    return frozenset(digest for digest in digests if run.store.path(digest).exists())


def thumbnail(
    run: OpenRun, image: Image, prompt: str, there: Container[str], step: int | None = None
) -> None:
    """The image, or what it was predicted to be after denoising step `step` (from 1)."""
    alt = f"sample {image.sample} of: {prompt}"
    if step is None:
        picture(run, image.digest, alt, there, image.removed_by)
    elif step < len(image.path):
        alt = f"after step {step}, {alt}"
        picture(run, image.path[step - 1], alt, there, image.removed_by)
    else:
        tombstone("not recorded", alt)


def picture(
    run: OpenRun,
    digest: str,
    alt: str,
    there: Container[str],
    rule: str | None = None,
    size: str = "256",
) -> None:
    """An image, or a tombstone where its file is not `there`."""
    if digest not in there:
        text = "removed by retention" if rule else "image removed"
        tombstone(text, alt, rule)
        return
    tag(
        "img",
        classes="picture",
        src=address(run, digest, size),
        alt=alt,
        loading="lazy",
        decoding="async",
        width="128",
        height="128",
    )


def tombstone(text: str, alt: str, title: str | None = None) -> None:
    """What stands for a picture that is not there, and why."""
    with tag("span", classes="tombstone", role="img", aria_label=f"{text}: {alt}", title=title):
        tag("span", text)


def step_name(sigmas: Sequence[float], step: int, num_steps: int) -> str:
    """A denoising step (from 1) with the noise before and after it."""
    name = "final image" if step == num_steps else f"after step {step}"
    if len(sigmas) <= step:
        return name
    return f"{name}, noise {sigmas[step - 1]:.2f} to {sigmas[step]:.2f}"


def verdicts(image: Image) -> str:
    """Every reward of an image in a line, people's with their votes; what is missing says why."""
    return ", ".join(_verdict(name, said) for name, said in image.rewards.items()) or "not judged"


def _verdict(name: str, said: Mapping[str, Any]) -> str:
    if said["value"] is None:
        return f"{name}: {said['state']}"
    parts = said.get("parts", {})
    is_peoples = {"likes", "n"} <= parts.keys()
    votes = f" ({parts['likes']:.3g} of {parts['n']:.3g} like it)" if is_peoples else ""
    return f"{name} {said['value']:.3g}{votes}"


def scores(group: Group) -> str:
    """The mean of every reward over a group."""
    parts = [
        f"{name} {score.mean:.3g}" if score.mean is not None else f"{name} none"
        for name, score in group.scores.items()
    ]
    return ", ".join(parts) or "not judged"


def by_reward(group: Group, reward: str | None) -> list[Image]:
    """The group's images, best first; those that were not judged last."""
    if reward is None:
        return group.images

    def key(image: Image) -> float:
        value = image.rewards.get(reward, {}).get("value")
        return float("inf") if value is None else -value

    return sorted(group.images, key=key)
