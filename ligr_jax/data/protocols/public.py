"""Protocols of public data sets.

Days are those of the platform, e.g. UTC+8 of Kuaishou. Where a data set does not publish its time
zone, its times are read as UTC, and so are the ends of its splits.
"""

from dataclasses import replace

from ligr_jax.data.protocols.protocol import Protocol

_KUAIRAND = Protocol(
    name="kuairand",
    adapter="kuairand",
    summary="",
    random=False,
    actions=(
        *("click", "long_dwell", "like", "comment", "share", "follow", "hate", "contribution"),
    ),
    features=(
        *("item_id", "surface", "hour", "actor_id", "tag", "video_type", "upload_type"),
        *("music_id", "music_type", "user_active_degree", "user_follows", "user_fans"),
        *("user_friends", "user_registered", "duration_ms", "video_age_days", "play_time_ms"),
    ),
    notes=("features of users are a snapshot without a date",),
)
# Pure keeps few videos, so sessions and histories have holes, and a session is some hours.
_PURE = replace(
    _KUAIRAND,
    session_gap="6h",
    train_until="2022-05-05T00:00+08:00",
    validation_until="2022-05-06T00:00+08:00",
    notes=(
        *_KUAIRAND.notes,
        "report every test day and surface, several seeds, and a bootstrap over members",
    ),
)
# Train, validation and test have 25, 3 and 3 days, as in UniRank.
_KUAIRAND_COMPLETE = replace(
    _KUAIRAND,
    train_until="2022-05-03T00:00+08:00",
    validation_until="2022-05-06T00:00+08:00",
)

KUAIRAND_PROTOCOLS = (
    replace(
        _PURE,
        name="kuairand-slice-log",
        summary="25 April to 6 May of KuaiRand-Pure; no model sees an earlier impression",
        files=("log_standard.parquet",),
        context=False,
        digests={"slice": "e1ac58ad326f"},
    ),
    replace(
        _PURE,
        name="kuairand-slice-all",
        summary="the same days; models may use earlier impressions in a form declared beforehand",
        files=("log_standard.parquet", "watch_history_before.parquet"),
        notes=(
            *_PURE.notes,
            "earlier impressions: order only, long_view and like known, click unknown, the newest "
            "50 of a user; name the form that a model uses",
        ),
        digests={
            "earlier impressions as context": "e0269e8dd3ea",
            "as targets, --train-on-context": "c10f15910cbe",
        },
    ),
    replace(
        _PURE,
        name="kuairand-pure-time",
        summary="KuaiRand-Pure: train to 4 May, validation 5 May, test from 6 May",
        files=("log_standard_4_08_to_4_21_pure*", "log_standard_4_22_to_5_08_pure*"),
    ),
    replace(
        _KUAIRAND_COMPLETE,
        name="kuairand-1k-time",
        summary="KuaiRand-1K: train to 2 May, validation 3 to 5 May, test 6 to 8 May",
        files=("log_standard_4_08_to_4_21_1k*", "log_standard_4_22_to_5_08_1k*"),
    ),
    replace(
        _KUAIRAND_COMPLETE,
        name="kuairand-27k-time",
        summary="KuaiRand-27K: train to 2 May, validation 3 to 5 May, test 6 to 8 May",
        files=(
            "log_standard_4_08_to_4_21_27k_part1*",
            "log_standard_4_08_to_4_21_27k_part2*",
            "log_standard_4_22_to_5_08_27k_part1*",
            "log_standard_4_22_to_5_08_27k_part2*",
        ),
    ),
)

_RECFLOW = ("effective_view", "long_dwell", "like", "follow", "share", "comment")

RECFLOW_PROTOCOLS = (
    Protocol(
        name="recflow-official",
        adapter="recflow",
        summary="train 13 January to 17 February, test 18 February, no validation",
        train_until="2024-02-18T00:00+08:00",
        validation_until="2024-02-18T00:00+08:00",
        actions=_RECFLOW,
        notes=(
            "published results are AUC and log loss of effective_view, without the last incomplete "
            "batch of the test day",
        ),
    ),
    Protocol(
        name="recflow-time",
        adapter="recflow",
        summary="train 13 January to 16 February, validation 17 February, test 18 February",
        train_until="2024-02-17T00:00+08:00",
        validation_until="2024-02-18T00:00+08:00",
        actions=_RECFLOW,
    ),
)

EBNERD_PROTOCOLS = tuple(
    Protocol(
        name=f"ebnerd-{size}-time",
        adapter="ebnerd",
        summary=f"EB-NeRD {size}: train, then the halves of the validation week",
        files=("train/behaviors.parquet", "validation/behaviors.parquet"),
        train_until="2023-05-25T07:00",
        validation_until="2023-05-28T19:00",
        test_until="2023-06-01T07:00",
        actions=("click",),
    )
    for size in ("demo", "small", "large")
)

# Without the content vectors of titles: they come from an SVD, whose last decimals can depend on
# the machine, and a digest must not.
_MOVIELENS = ("item_id", "genres", "year", "rating")

RATING_PROTOCOLS = (
    Protocol(
        name="movielens-time",
        adapter="movielens",
        summary="any MovieLens: shares of the ratings by time, a session is a day; compare like",
        session_gap="1d",
        fractions="0.8,0.1,0.1",
        actions=("click", "like"),
        features=_MOVIELENS,
        digests={"ml-latest-small": "019cb5f0413e"},
    ),
    Protocol(
        name="movielens-next-item",
        adapter="movielens",
        summary="any MovieLens: the next rated movie among all (SASRec, HSTU)",
        session_gap="1d",
        leave_one_out=True,
        actions=("click", "like"),
        features=_MOVIELENS,
        notes=(
            "train with model.next_item=item_id; ratings of one second keep the order of the file; "
            "earlier movies of the member are no candidates; a tie counts as its mean over all "
            "orders",
        ),
        digests={"ml-latest-small": "8f59ae46de20"},
    ),
    Protocol(
        name="amazon2023-timestamp",
        adapter="amazon2023",
        summary="the borders of the benchmark's timestamp split, a session is a day; compare like",
        session_gap="1d",
        train_until="1628643414042",
        validation_until="1658002729837",
        actions=("click", "like"),
    ),
)

OTHER_PROTOCOLS = (
    Protocol(
        name="vk-lsvd-time",
        adapter="vk_lsvd",
        summary="train weeks 0 to 23, validation week 24, test week 25",
        train_until="2000-06-19",
        validation_until="2000-06-26",
        test_until="2000-07-03",
        actions=(
            *("full_view", "skip", "like", "dislike", "share", "bookmark", "click_on_author"),
            "open_comments",
        ),
    ),
    Protocol(
        name="merrec-last-month",
        adapter="merrec",
        summary="October 2023: train 25 days, validation 3, test 3",
        since="2023-10-01",
        train_until="2023-10-26",
        validation_until="2023-10-29",
        test_until="2023-11-01",
        actions=("like", "cart", "offer", "checkout", "purchase"),
    ),
    Protocol(
        name="mind-time",
        adapter="mind",
        summary="train 9 to 14 November, then the halves of 15 November",
        train_until="2019-11-15",
        validation_until="2019-11-15T12:00",
        test_until="2019-11-16",
        actions=("click",),
    ),
    Protocol(
        name="yambda-time",
        adapter="yambda",
        summary="validation is the last day but one, test the last day",
        last="1d,1d",
        actions=("listened", "like", "dislike"),
    ),
    Protocol(
        name="tencentgr-time",
        adapter="tencentgr",
        summary="shares of the exposures by time",
        fractions="0.8,0.1,0.1",
        actions=("click", "conversion"),
    ),
    Protocol(
        name="tenrec-order",
        adapter="tenrec",
        summary="QK-Video: shares of each user's rows by their order, not by time",
        fractions="0.8,0.1,0.1",
        actions=("click", "follow", "like", "share"),
    ),
)
