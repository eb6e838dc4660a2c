"""What can be evaluated: tasks by name, and how the two protocols differ in each."""

from __future__ import annotations

from dataclasses import dataclass

from evals.harness import captions, coco, likelihood, visdial, vist, vqa
from evals.harness.items import MEAN, MEAN_WITH_BOS, SUM, UNSHIFTED_SUM, Read
from gill.config import require_known

PROTOCOLS = ("corrected", "paper")
DRAWING, RETRIEVAL, RANKING, CAPTIONING, ANSWERING = "drawing", "retrieval", "ranking", "captioning", "answering"


@dataclass(frozen=True)
class Task:
    """A task of the papers.

    Attributes:
        answer: what a system gives: DRAWING, RETRIEVAL, RANKING, CAPTIONING or ANSWERING.
        contexts: what may be shown of a question; the last one is the papers' main one.
        squashes_in_paper: the published protocol squashes pictures to 224 x 224.
        repeats_bos_in_paper: it begins every text of a prompt anew.
        turns_in_paper: it ranks the questions of each picture and calls that the pictures of each question.
        rating, rating_in_paper: how the tokens of a candidate make its score.
        ranks_both_ways: questions share their candidates in groups, and a candidate ranks the questions too.
        differences: what "paper" does that "corrected" does not, a sentence each.
    """

    name: str
    answer: str
    read: Read
    contexts: tuple[str, ...]
    about: str
    squashes_in_paper: bool = False
    repeats_bos_in_paper: bool = False
    turns_in_paper: bool = False
    rating: str = SUM
    rating_in_paper: str = UNSHIFTED_SUM
    ranks_both_ways: bool = False
    differences: tuple[str, ...] = ()


_IN_FILE_ORDER = "the texts of a story stand in the order of the file, whatever order the worker arranged"
_SQUASHED = "pictures are squashed to 224 x 224, those that are shown and those that scores compare with"
UNTOLD = "nothing: no script of it was published, so it is asked as in the corrected protocol"
_ONE_STREAM = "one stream of noise runs through all questions, which is not done here: each has a seed of its own"
_SURVIVOR = "of stories that share their last picture only the last one's prompt survives; it is drawn for each of them"

TASKS = {
    task.name: task
    for task in (
        Task(
            "vist-generation",
            DRAWING,
            vist.read_generation,
            ("1cap", "2cap1img", "5cap", "5cap4img"),
            "draw a story's last picture from its texts and earlier pictures (GILL, table 1)",
            squashes_in_paper=True,
            differences=(_IN_FILE_ORDER, _SQUASHED, _SURVIVOR, _ONE_STREAM),
        ),
        Task(
            "visdial-generation",
            DRAWING,
            visdial.read_generation,
            visdial.CONTEXTS,
            "draw the picture a dialogue is about after 1, 5 or 10 rounds (GILL)",
            differences=(_ONE_STREAM,),
        ),
        Task(
            "vist-retrieval",
            RETRIEVAL,
            vist.read_retrieval,
            ("1cap", "5cap", "5cap4img"),
            "find a story's last picture among those of all stories (FROMAGe, table 1; GILL, table 5)",
            squashes_in_paper=True,
            repeats_bos_in_paper=True,
            differences=(
                _IN_FILE_ORDER,
                _SQUASHED,
                "every text before a picture begins with its own beginning of sequence (of texts alone no script was "
                "published: they are asked as one)",
                "a last picture that the story showed before is taken out of the gallery, and so never found",
            ),
        ),
        Task(
            "visdial-retrieval",
            RETRIEVAL,
            visdial.read_retrieval,
            visdial.CONTEXTS,
            "find the picture a dialogue is about, and the dialogue of a picture (FROMAGe)",
            turns_in_paper=True,
            squashes_in_paper=True,
            differences=(
                _SQUASHED,
                "the number called text-to-image ranks the dialogues of each picture",
                "a dialogue stands in one line, with a full stop behind every answer",
            ),
        ),
        Task(
            "visdial-ranking",
            RANKING,
            visdial.read_ranking,
            ("each-round",),
            "rank the hundred answers of each round after the picture and the rounds before it (FROMAGe)",
            squashes_in_paper=True,
            differences=(
                _SQUASHED,
                "each token is scored by the state at the token itself, which should predict the next one",
                "NDCG compares the relevance of a round's answers with the scores of the round after it",
            ),
        ),
        Task(
            "captioning",
            CAPTIONING,
            captions.read_captioning,
            ("picture",),
            "say what a picture shows (captions of a CC3M file)",
            differences=(UNTOLD,),
        ),
        Task(
            "cc3m-generation",
            DRAWING,
            captions.read_generation,
            ("caption",),
            "draw what a caption of a CC3M file says (GILL, FID; `score.py --fid`)",
            differences=(UNTOLD,),
        ),
        Task(
            "coco-generation",
            DRAWING,
            coco.read_generation,
            ("caption",),
            "draw what a caption of COCO says, pictures in an order drawn by lot (`--limit 30000`, `score.py --fid`)",
            differences=(UNTOLD,),
        ),
        Task(
            "coco-captioning",
            CAPTIONING,
            coco.read_captioning,
            ("picture",),
            "say what a picture shows (COCO, five captions each)",
            differences=(UNTOLD,),
        ),
        Task(
            "coco-retrieval",
            RETRIEVAL,
            coco.read_retrieval,
            ("caption",),
            "find the picture of a caption of COCO, and a caption of a picture",
            differences=(UNTOLD,),
        ),
        *(
            Task(
                f"{name}-likelihood",
                RANKING,
                read,
                ("picture",),
                f"rank a hundred captions of {about} after a picture, and the pictures before a caption, by likelihood",
                rating=MEAN,
                rating_in_paper=MEAN_WITH_BOS,
                ranks_both_ways=True,
                differences=(
                    "the mean also counts the beginning of sequence that stands between picture and caption, as "
                    "`get_log_likelihood_scores` does",
                ),
            )
            for name, read, about in (
                ("cc3m", likelihood.read_cc3m, "a CC3M file"),
                ("coco", likelihood.read_coco, "COCO"),
            )
        ),
        Task(
            "vqa",
            ANSWERING,
            vqa.read_vqa,
            vqa.CONTEXTS,
            "answer questions about pictures, alone or after examples (VQA v2)",
            differences=(UNTOLD,),
        ),
    )
}


def find_task(name: str) -> Task:
    """A task by name.

    Raises:
        UnknownNameError: no such task; the message names the nearest.
    """
    require_known("task", name, TASKS)
    return TASKS[name]


def check_context(task: Task, context: str | None) -> str:
    """The context that was asked for, or the task's main one.

    Raises:
        UnknownNameError: the task has no such context.
    """
    if context is None:
        return task.contexts[-1]
    require_known(f"context of {task.name}", context, task.contexts)
    return context
