"""All parameters, both losses summed in every step (GritLM-style, Muennighoff et al. 2024, arXiv 2402.09906): one model without experts.

On a decoder embedding passes attend both ways and scoring passes stay causal; with `backbone.pooling = "text"` a vector is the mean over
the text's own tokens, as there (prompts and template are attended, not pooled). On an encoder, which attends both ways anyhow, it is
plain joint fine-tuning. Differs from the paper: the second loss is reranking and not generation, since that is this project's second
task; lambda is `tasks.rerank.weight`, over a mean of lists.
"""

from __future__ import annotations

from twofold.methods import HEADS, Member, Method, Stage
from twofold.tasks import kind_of


def build(*, tasks: tuple[str, ...], both_ways: bool = True, temperature: float = 0.02) -> Method:
    """`both_ways`: whether a decoder's embedding passes attend in both directions; `temperature` of InfoNCE, the paper's."""
    embedding = tuple(task for task in tasks if kind_of(task) == "retrieve")
    stage = Stage("joint", tasks, ("backbone", *HEADS))
    options = {task: {"temperature": temperature} for task in embedding}
    return Method("full_joint", (Member("unified", tasks, (stage,), options=options, both_ways=embedding if both_ways else ()),))
