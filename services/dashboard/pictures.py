"""Pictures of a run, and what the judges said of them."""

from collections.abc import Container, Iterable

from services.dashboard.elements import tag
from services.runs_api.group_index import Group, Image
from services.runs_api.library import OpenRun


def address(run: OpenRun, digest: str, size: str = "256") -> str:
    """Where the API has an image."""
    return f"/api/v1/runs/{run.id}/images/{digest}?size={size}"


def on_disk(run: OpenRun, groups: Iterable[Group]) -> frozenset[str]:
    """Digests of those of their images whose files are there."""
    digests = {image.digest for group in groups for image in group.images}
    return frozenset(digest for digest in digests if run.store.path(digest).exists())


def thumbnail(
    run: OpenRun, image: Image, prompt: str, there: Container[str], size: str = "256"
) -> None:
    """The image, or a tombstone where its file is not `there`."""
    if image.digest not in there:
        tombstone(prompt, image.removed_by)
        return
    tag(
        "img",
        classes="picture",
        src=address(run, image.digest, size),
        alt=f"sample {image.sample} of: {prompt}",
        loading="lazy",
        decoding="async",
        width="128",
        height="128",
    )


def tombstone(prompt: str, rule: str | None) -> None:
    """What stands for an image whose file is gone: by a rule of retention, or lost."""
    text = "removed by retention" if rule else "image removed"
    with tag("span", classes="tombstone", role="img", aria_label=f"{text}: {prompt}", title=rule):
        tag("span", text)


def verdicts(image: Image) -> str:
    """Every reward of an image in a line; what is missing says why."""
    parts = [
        f"{name} {said['value']:.3g}" if said["value"] is not None else f"{name}: {said['state']}"
        for name, said in image.rewards.items()
    ]
    return ", ".join(parts) or "not judged"


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
