"""Facts about named signatures: each is compared as the default one is, and told apart from it."""

from __future__ import annotations

from msgspec.structs import replace

from gitmodel.bundle.signature import Signature, Signatures
from gitmodel.compat import named, rules
from gitmodel.compat.changes import Tensors
from tests.compat.test_changes import AGE, X, spec

WHOLE = Signature((X,), (spec("y", "n", 3), spec("e", "n", 8)))
EMBED = Signature((X,), (spec("e", "n", 8),))


def offer(default: str = "default", **signatures: Signature) -> named.Offer:
    return named.Offer(Signatures({"default": WHOLE, **signatures}), default)


def told(old: named.Offer, new: named.Offer, tensors: Tensors | None = None) -> list[tuple[str, str]]:
    return [(change.kind, change.at) for change in named.compare(old, new, tensors)]


def test_signatures_that_came_and_went() -> None:
    assert told(offer(embed=EMBED), offer(score=EMBED)) == [
        ("signature-removed", "signatures.embed"),
        ("signature-added", "signatures.score"),
    ]


def test_the_same_signatures_say_nothing_and_the_default_is_left_to_its_own_comparison() -> None:
    assert told(offer(embed=EMBED), offer(embed=EMBED)) == []
    other = named.Offer(Signatures({"default": EMBED}), "default")
    assert told(offer(), other) == []


def test_every_fact_is_told_with_the_signature_it_is_about() -> None:
    new = replace(EMBED, inputs=(replace(X, name="features"),), outputs=(spec("e", "n", 16),))
    found = list(named.compare(offer(embed=EMBED), offer(embed=new)))
    assert [(change.kind, change.at) for change in found] == [
        ("input-renamed", "signatures.embed.inputs.x"),
        ("output-dim-changed", "signatures.embed.outputs.e[1]"),
    ]
    assert rules.judge(found[0]).message == "signature 'embed': input 'x' is now called 'features'"
    assert named.lifted(found[1], "embed").at == "outputs.e[1]"
    assert list(named.placed([named.lifted(change, "embed") for change in found], "embed")) == found


def test_another_default_is_told_and_the_old_one_goes_on_being_compared_by_name() -> None:
    fewer = named.Offer(Signatures({"default": replace(WHOLE, outputs=WHOLE.outputs[:1]), "embed": EMBED}), "embed")
    assert told(offer(embed=EMBED), fewer) == [
        ("default-signature-changed", "card.signature"),
        ("output-removed", "signatures.default.outputs.e"),
    ]


def test_a_default_that_nobody_has_is_no_change_of_the_default() -> None:
    assert told(named.Offer(Signatures({}), "default"), offer()) == [("signature-added", "signatures.default")]


def test_an_input_of_a_further_graph_that_became_its_constant() -> None:
    old = replace(EMBED, inputs=(X, AGE))
    assert told(offer(embed=old), offer(embed=EMBED), {"embed/age": ("int64", (5, 1))}) == [
        ("input-became-constant", "signatures.embed.inputs.age")
    ]
