"""What a server of conversations keeps: files to take home, and how often each caller may ask."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
import zipfile
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path

from demo.chat import Conversation, Part, Settings
from gill.errors import GenerationError


def save(conversation: Conversation, settings: Settings, model: str, folder: Path) -> Path:
    """A .zip with conversation.json and the pictures it names, in a file of its own in `folder`.

    Raises:
        GenerationError: nothing was said yet.
    """
    if not conversation.messages:
        raise GenerationError("there is nothing to save yet; say something first")
    pictures = [part.picture for message in conversation.messages for part in message.parts if part.picture]
    names = {picture: f"pictures/{number:02d}.png" for number, picture in enumerate(dict.fromkeys(pictures))}
    told = [
        {"role": "model" if message.is_reply else "user", "parts": [_told(part, names) for part in message.parts]}
        for message in conversation.messages
    ]
    text = json.dumps({"model": model, "settings": dataclasses.asdict(settings), "messages": told}, indent=2)
    path = folder / f"conversation-{uuid.uuid4().hex[:8]}.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("conversation.json", text, compress_type=zipfile.ZIP_DEFLATED)
        for picture, name in names.items():
            packed.write(picture, name)
    return path


def _told(part: Part, names: Mapping[Path, str]) -> dict[str, str]:
    if part.text:
        return {"text": part.text}
    return {"remark": part.remark} | ({"picture": names[part.picture]} if part.picture else {})


class RateLimit:
    """At most `count` requests of one caller within any `seconds`.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, count: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.count, self.seconds, self.clock = count, seconds, clock
        self._asked: defaultdict[str, deque[float]] = defaultdict(deque)

    def check(self, caller: str) -> None:
        """Counts a request.

        Raises:
            GenerationError: one too many; it is not counted.
        """
        now, asked = self.clock(), self._asked[caller]
        while asked and asked[0] <= now - self.seconds:
            asked.popleft()
        if len(asked) >= self.count:
            wait = asked[0] + self.seconds - now
            raise GenerationError(f"at most {self.count} messages in {self.seconds:.0f} s; wait another {wait:.0f} s")
        asked.append(now)
