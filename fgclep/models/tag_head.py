"""Tag-level alignment: one ECG vector per tag, made of the patches that the tag looks at (METHOD B1-B4).

The pooled ECG vector stays what the index holds. A tag-specific vector depends on the tag, so it cannot be indexed: it
re-ranks what the index found, and says where in the ECG a tag is seen.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgclep.losses_distributed import global_soft_label_loss
from fgclep.models.transport import transport_plan

ALIGNMENTS = ("attention", "transport")


@dataclass(frozen=True)
class TagAlignment:
    """What `TagHead` makes of tags and patches.

    Attributes:
        vectors: the tag-specific ECG vectors, unit-norm float32, shape (batch, tags, dim); padding is 0.
        evidence: what each patch adds to cos(vector, tag), float32, shape (batch, tags, patches). It adds up to that
            cosine over the patches; padding is 0.
    """

    vectors: Tensor
    evidence: Tensor


class TagHead(nn.Module):
    """Tag-specific ECG vectors from patch tokens, such as the 12 leads x 10 windows of `ViT1d` or `LeadStem`.

    `attention`: softmax over patches of (z Wq)(X Wk)' / sqrt(dim), values X Wv. `transport`: the plan of
    `transport_plan` over cosines, values X. X are the projected, unit-norm patches, z the tag.

    Args:
        width: channels of the patch tokens.
        dim: joint dimension P.
        alignment: `attention` or `transport`.
        eps: of `transport_plan`.
        tau: of `transport_plan`; FOCAL's 1.0 looks at nearly all patches alike, 0.1 tells where a tag is seen.
        iterations: of `transport_plan`.
        log_scale_init: start of the head's own t'.
        bias_init: start of its b; about log(share of true pairs).

    Raises:
        ValueError: if `alignment` is neither.
    """

    def __init__(
        self,
        width: int,
        dim: int,
        alignment: str = "attention",
        eps: float = 0.1,
        tau: float = 1.0,
        iterations: int = 30,
        log_scale_init: float = 3.4,
        bias_init: float = -5.0,
    ) -> None:
        super().__init__()
        if alignment not in ALIGNMENTS:
            raise ValueError(f"alignment is {alignment!r}; expected one of {', '.join(ALIGNMENTS)}")
        self.alignment, self.eps, self.tau, self.iterations = alignment, eps, tau, iterations
        self.log_scale = nn.Parameter(torch.tensor(log_scale_init))
        self.bias = nn.Parameter(torch.tensor(bias_init))
        self.project = nn.Linear(width, dim, bias=False)
        if alignment == "attention":
            self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))

    def forward(self, tokens: Tensor, tags: Tensor, mask: Tensor | None = None) -> TagAlignment:
        """Align the tags of each ECG with its patches.

        Args:
            tokens: patch tokens as a tower gives them, shape (batch, width, patches).
            tags: unit-norm text vectors, shape (batch, tags, dim).
            mask: bool, shape (batch, tags), False where a tag is padding; None: no padding.
        """
        return self._align(tokens, tags, mask, alone=False)

    def align_queries(self, tokens: Tensor, queries: Tensor) -> TagAlignment:
        """Align every query with every ECG, each query alone: in transport the tags of one ECG compete.

        Args:
            tokens: shape (batch, width, patches).
            queries: unit-norm text vectors, shape (queries, dim).
        """
        return self._align(tokens, queries.expand(len(tokens), -1, -1), None, alone=True)

    def scores(self, tokens: Tensor, queries: Tensor) -> Tensor:
        """Return the cosine of every query with its own vector of every ECG, float32, shape (batch, queries).

        Times t plus b they are logits, e.g. for `statement_loss`. Arguments as of `align_queries`.
        """
        return self.align_queries(tokens, queries).evidence.sum(dim=2)

    def _align(self, tokens: Tensor, tags: Tensor, mask: Tensor | None, alone: bool) -> TagAlignment:
        patches = F.normalize(self.project(tokens.transpose(1, 2)).float(), dim=-1)
        with torch.autocast(tokens.device.type, enabled=False):
            tags = tags.float()
            if self.alignment == "attention":
                values = self.value(patches)
                logits = self.query(tags) @ self.key(patches).transpose(1, 2) / tags.shape[-1] ** 0.5
                weights = torch.softmax(logits, dim=2)
                if mask is not None:
                    weights = weights * mask[:, :, None]
            else:
                values = patches
                cosines = tags @ patches.transpose(1, 2)
                problems = cosines.flatten(0, 1)[:, None] if alone else cosines
                plan = transport_plan(problems, mask, eps=self.eps, tau=self.tau, iterations=self.iterations)
                weights = plan.reshape(cosines.shape)
            mixed = weights @ values
            length = mixed.norm(dim=-1, keepdim=True).clamp(min=1e-12)  # padding has length 0
            return TagAlignment(mixed / length, weights * (tags @ values.transpose(1, 2)) / length)


def tag_loss(aligned: TagAlignment, tags: Tensor, mask: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Soft-label sigmoid loss over K x K, K being all tags of all ECGs of the batch, in all processes (METHOD B4).

    A vector is made for a tag that is true of its ECG, and meets the tags of other ECGs. It is never made for a tag
    that is false, as happens when a query re-ranks; where the truth of statements is known, `TagHead.scores` with
    `statement_loss` trains that too.

    Args:
        aligned: of these tags.
        tags: unit-norm, shape (batch, tags, dim).
        mask: bool, shape (batch, tags), False where a tag is padding.
        log_scale: t', shape ().
        bias: b, shape (); FOCAL has none, that is 0.

    Raises:
        ValueError: if a process has no tag at all.
    """
    return global_soft_label_loss(aligned.vectors[mask], tags[mask], log_scale, bias)
