"""The next token of each row, and its log-probability, for a whole batch at once.

Greedy rows, with a repetition penalty or without, are chosen together, and the choice is what
``model.sampling.draw`` would make of each row alone; whoever draws by chance is left to it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.reply import Reply
from model.sampling import draw

Chosen = tuple[int, float] | ValueError
Logits = npt.NDArray[np.float32]


def choose(logits: Tensor, replies: Sequence[Reply]) -> list[Chosen]:
    """(token, natural log of its probability) for each row, or the error of a row without any
    finite logit. ``logits``: shape (rows, vocabulary), float32."""
    rows = logits.cpu()
    total = torch.log_softmax(rows, dim=-1)
    plain, drawn = rows.numpy(), total.numpy()
    chosen: list[Chosen] = []
    for row, reply in enumerate(replies):
        try:
            token = _token(plain[row], reply)
            chosen.append((token, float(drawn[row, token])))
        except ValueError as error:
            chosen.append(error)
    return chosen


def _token(logits: Logits, reply: Reply) -> int:
    sampling = reply.request.sampling
    if sampling.temperature == 0:
        token = _greedy(logits, reply, sampling.repetition_penalty)
        if token is not None:
            return token
    seen = reply.seen() if sampling.repetition_penalty != 1 else ()
    return draw(logits, sampling, len(reply.token_ids), seen)


def _greedy(logits: Logits, reply: Reply, penalty: float) -> int | None:
    """What ``draw`` would choose, with the penalty's float64 spent on the ids that were seen
    alone. None where some logit is no number: look closer."""
    if penalty == 1:
        best = int(np.argmax(logits))
        return best if np.isfinite(logits[best]) else None
    seen = np.array(sorted(reply.seen()), np.int64)
    old = logits[seen].astype(np.float64)
    changed = np.where(old > 0, old / penalty, old * penalty)
    others = logits.copy()
    others[seen] = -np.inf
    best, among = int(np.argmax(others)), int(np.argmax(changed))
    one, other = float(others[best]), float(changed[among])
    if not np.isfinite([one, other]).all():
        return None
    # Of equal scores the smaller id counts as the larger one.
    return max((one, -best), (other, -int(seen[among])))[1] * -1
