"""The pictures of an answer: drawn, fetched, scored, chosen, withheld, and with the right seed."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from PIL import Image

from gill.backbones import tiny_drawer
from gill.errors import ConfigError, FetchError, ShapeError
from gill.mappers import DecisionHead
from gill.types import GenerationOptions, ImageDecided, ImageOutput, ImageReady, Segment
from tests.models.gill.fakes import CAT, FORCED, FakeDrawer, FakeFetcher, FakeIndex, passes_of, plain, steer
from tests.models.gill.tiny_gill import tiny_generator


def image_of(reply: list[str | ImageOutput]) -> ImageOutput:
    return next(part for part in reply if isinstance(part, ImageOutput))


def test_a_forced_image_costs_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = tiny_generator()
    seen = passes_of(generator, monkeypatch)
    prompts = [CAT, [Segment(text="two old dogs")], [Segment(image=plain(3)), *CAT]]
    replies = generator.generate_batch(prompts, FORCED, [0, 1, 2])
    assert len(seen) == 1, "prompts and images in one pass"
    assert [len(reply) for reply in replies] == [1, 1, 1]
    states = generator.conditioning_of(prompts)
    (_, at_once), *one_by_one = seen
    assert sum(columns for _, columns in one_by_one) == at_once, (
        "every token is read once, the images after what stands before them"
    )
    for reply, conditioning in zip(replies, states.conditioning, strict=True):
        torch.testing.assert_close(image_of(reply).conditioning, conditioning, atol=1e-10, rtol=0)


def test_a_prompt_that_names_an_image_is_answered_by_it_without_a_word() -> None:
    generator = tiny_generator(drawer=FakeDrawer())
    picture = Segment(image=plain(3))
    named = [picture, Segment(text="a cat[IMG0][IMG1][IMG2][IMG3]")]
    reply = generator.generate(named, GenerationOptions(num_words=0), 3)
    forced = generator.generate([picture, *CAT], FORCED, 3)
    torch.testing.assert_close(image_of(reply).conditioning, image_of(forced).conditioning, atol=1e-10, rtol=0)
    assert len(reply) == 1
    assert [type(event) for event in generator.stream(named, GenerationOptions(num_words=0), 3)] == [
        ImageDecided,
        ImageReady,
    ]


def test_without_an_index_every_image_is_drawn() -> None:
    """The original's placeholder says it draws with probability 0."""
    output = image_of(tiny_generator(drawer=FakeDrawer()).generate(CAT, FORCED, 7))
    assert (output.prefers_generated, output.probability_generated) == (True, 1.0)
    assert [picture.source for picture in output.generated] == ["seed 7"]
    assert output.retrieved == ()


def test_as_many_pictures_are_fetched_as_were_asked_for() -> None:
    """The original compares the count with the three keys of a dictionary."""
    fetcher = FakeFetcher()
    generator = tiny_generator(index=FakeIndex(30), fetcher=fetcher)
    for count in (0, 1, 2, 5):
        fetcher.asked.clear()
        output = image_of(generator.generate(CAT, replace(FORCED, num_retrieved=count), 0))
        assert len(output.retrieved) == len(fetcher.asked) == count


def test_a_dead_link_falls_to_the_next_hit_and_the_reply_goes_on() -> None:
    """In the originals one dead host ends the reply, and three dead links an IndexError."""
    index = FakeIndex(30)
    best = [hit.source for hit in index.search(tiny_generator().conditioning_of([CAT]).queries, 30)[0]]
    dead = FakeFetcher(lambda source: source in best[:2])
    output = image_of(tiny_generator(index=index, fetcher=dead).generate(CAT, replace(FORCED, num_retrieved=2), 0))
    assert [picture.source for picture in output.retrieved] == best[2:4]
    assert output.notes == (f"links that failed: 2, the last one {best[1]}: gone",)
    gone = FakeFetcher(lambda source: True)
    drawn = tiny_generator(index=index, fetcher=gone, drawer=FakeDrawer()).generate(CAT, FORCED, 0)
    assert image_of(drawn).retrieved == () and image_of(drawn).shown == image_of(drawn).generated[0]
    assert len(gone.asked) == 17, "dead links are tried a bounded number of times"


def test_a_reply_shows_no_picture_twice() -> None:
    generator = tiny_generator(index=FakeIndex(5), fetcher=FakeFetcher())
    options = GenerationOptions(num_words=3, img_logit_bias=1e4, max_num_images=3, num_retrieved=2)
    shown = [p.source for part in generator.generate(CAT, options, 0) for p in part.retrieved]  # type: ignore[union-attr]
    assert len(shown) == len(set(shown)) == 5, "two, two, and the one that is left"


def test_pictures_of_one_form_and_other_colours_are_not_confused() -> None:
    """The numbers of a picture with a palette are the same whatever its colours."""
    generator = tiny_generator()
    red, blue = (plain(number).convert("P") for number in (0, 0))
    red.putpalette([200, 0, 0] * 256)
    blue.putpalette([0, 0, 200] * 256)
    assert red.tobytes() == blue.tobytes()
    alone = [generator.layout.features([picture.convert("RGB")])[0] for picture in (red, blue)]
    together = generator.layout.features([red, blue])
    torch.testing.assert_close(together[0], alone[0])
    torch.testing.assert_close(together[1], alone[1])
    assert not torch.allclose(together[0], together[1])


def test_scores_are_cosines_on_both_sides() -> None:
    """In the original fetched ones are cosines times exp(logit_scale) and do not compare."""
    index = FakeIndex(30)
    generator = tiny_generator(index=index, fetcher=FakeFetcher(), drawer=FakeDrawer())
    output = image_of(generator.generate(CAT, FORCED, 11))
    query = generator.conditioning_of([CAT]).queries[0]
    feature = generator.layout.features([plain(11)])[0]
    drawn = generator.model.retrieval_heads.image(feature).detach()
    assert output.generated[0].score == pytest.approx(float(torch.cosine_similarity(drawn, query, dim=0)))
    row = index.rows_NE[int(output.retrieved[0].source.removesuffix(".png"))]
    assert output.retrieved[0].score == pytest.approx(float(row @ query))


def test_the_best_candidates_are_kept() -> None:
    """The original, without an index, throws all but the first away unseen."""
    drawer = FakeDrawer()
    generator = tiny_generator(drawer=drawer)
    options = replace(FORCED, num_generated=2, num_candidates=4, num_inference_steps=3, guidance_scale=2.0)
    output = image_of(generator.generate(CAT, options, 100))
    _, seeds, steps, guidance = drawer.calls[0]
    assert (seeds, steps, guidance) == (list(range(100, 108)), 3, 2.0)
    query = generator.conditioning_of([CAT]).queries[0]
    features = torch.stack(generator.layout.features([plain(seed) for seed in seeds]))
    scores = generator.model.retrieval_heads.embed_image(features) @ query
    best = scores.argsort(descending=True)[:2]
    assert [picture.source for picture in output.generated] == [f"seed {100 + place}" for place in best.tolist()]


def test_a_ranker_reads_the_words_before_the_image() -> None:
    """Words of the reply, or else the prompt's last ones; what it prefers is kept, scored as ever."""
    heard: list[str] = []

    class Reddest:
        def rank(self, text: str, pictures: Sequence[Image.Image]) -> list[float]:
            heard.append(text)
            return [picture.getpixel((0, 0))[0] for picture in pictures]

    def kept(prompt: list[Segment], options: GenerationOptions, *said: int | str) -> list[str]:
        generator = tiny_generator(drawer=FakeDrawer(), ranker=Reddest())
        if said:
            steer(generator, *said)
        output = image_of(generator.generate(prompt, options, 100))
        (streamed,) = (
            [event.output for event in generator.stream(prompt, options, 100) if isinstance(event, ImageReady)]
            if not said
            else [output]
        )
        assert [picture.source for picture in streamed.generated] == [picture.source for picture in output.generated]
        assert all(-1 <= picture.score <= 1 for picture in output.generated)  # type: ignore[operator]
        return [picture.source for picture in output.generated]

    some = replace(FORCED, num_candidates=3, num_generated=2)
    assert kept([Segment(image=plain(1)), *CAT], some) == ["seed 105", "seed 104"]
    assert set(heard) == {"a cat"}
    heard.clear()
    words = tiny_generator().tokenizer.words("so ")
    kept(CAT, replace(some, num_words=9, min_word_tokens=len(words), force_image=False), *words, "image", 2)
    assert heard == ["so"]
    heard.clear()
    kept([Segment(text="a dog [IMG0][IMG1][IMG2][IMG3]")], replace(some, num_words=0, force_image=False))
    assert set(heard) == {"a dog"}
    heard.clear()
    kept([Segment(image=plain(1))], some)
    kept(CAT, FORCED)
    assert heard == [], "no words to compare with, or nothing to choose from"


def test_a_picture_has_its_seed_in_any_batch() -> None:
    options = GenerationOptions(num_words=2, img_logit_bias=1e4, max_num_images=2, num_generated=2)
    prompts = [CAT, [Segment(text="dogs")], [Segment(image=plain(3))]]
    generator = tiny_generator(drawer=FakeDrawer())
    together = generator.generate_batch(prompts, options, [10, 20, 10])
    alone = [generator.generate(prompt, options, seed) for prompt, seed in zip(prompts, (10, 20, 10), strict=True)]
    sources = [[sorted(p.source for p in part.generated) for part in reply] for reply in together]  # type: ignore[union-attr]
    assert sources[1] == [["seed 20", "seed 21"], ["seed 22", "seed 23"]]
    for one, other in zip(together, alone, strict=True):
        for left, right in zip(one, other, strict=True):
            torch.testing.assert_close(left.conditioning, right.conditioning, atol=1e-10, rtol=0)  # type: ignore[union-attr]
            assert [p.source for p in left.generated] == [p.source for p in right.generated]  # type: ignore[union-attr]


def test_progress_is_told_while_pictures_are_drawn() -> None:
    told: list[tuple[int, int]] = []
    generator = tiny_generator(drawer=tiny_drawer(dtype=torch.float64))
    options = replace(FORCED, num_inference_steps=2)
    generator.generate(CAT, options, 0, lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    events = generator.stream(CAT, options, 0, lambda done, total: told.append((done, total)))
    assert [type(event) for event in events] == [ImageDecided, ImageReady] and told == [(1, 2), (2, 2)] * 2


def test_withheld_pictures_are_reported() -> None:
    generator = tiny_generator(index=FakeIndex(9), fetcher=FakeFetcher(), drawer=FakeDrawer(withheld=(5,)))
    output = image_of(generator.generate(CAT, replace(FORCED, num_generated=2), 5))
    assert [picture.source for picture in output.generated] == ["seed 6"]
    assert output.notes == ("pictures withheld by the safety checker: 1 of 2",)
    nothing = image_of(generator.generate(CAT, FORCED, 5))
    assert nothing.generated == () and nothing.shown == nothing.retrieved[0]


def test_the_decision_head_reads_the_first_image_token() -> None:
    head = DecisionHead(32)
    generator = tiny_generator(index=FakeIndex(9), fetcher=FakeFetcher(), drawer=FakeDrawer(), decision=head)
    output = image_of(generator.generate(CAT, FORCED, 0))
    state = generator.conditioning_of([CAT]).hidden[0, 0].float()
    logits = head.linear.weight @ state + head.linear.bias  # no dropout; column 0 is drawing
    wanted = logits.softmax(-1)[0].item()
    assert output.probability_generated == pytest.approx(wanted)
    assert output.prefers_generated is (wanted >= 0.5)
    assert output.shown in (output.generated if wanted >= 0.5 else output.retrieved)
    undecided = tiny_generator(index=FakeIndex(9), fetcher=FakeFetcher(), drawer=FakeDrawer())
    assert image_of(undecided.generate(CAT, FORCED, 0)).prefers_generated is None


def test_parts_of_another_model_are_refused() -> None:
    with pytest.raises(ConfigError, match="give a fetcher too"):
        tiny_generator(index=FakeIndex(3))
    with pytest.raises(ShapeError, match="rows of 8 numbers, the model makes 16"):
        tiny_generator(index=FakeIndex(3, width=8), fetcher=FakeFetcher())


def test_fetch_errors_are_the_only_ones_passed_over() -> None:
    assert issubclass(FetchError, OSError)

    class Broken(FakeFetcher):
        def fetch(self, source: str) -> Image.Image:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tiny_generator(index=FakeIndex(3), fetcher=Broken()).generate(CAT, FORCED, 0)
